//! One switch after the other on the same sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tidegate_ipc::sockets::Holder;
use tidegate_wire::switch::EndpointState::Ready;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::support::backend::{Backend, Behaviour};
use super::support::client::Browser;
use super::support::eventually;
use super::support::rig::Rig;

fn hold(rig: &Rig) -> Holder {
    let holder = Holder::new();
    let listener = tidegate_ipc::bind(&rig.home().socket("sockets")).unwrap();
    holder.spawn(listener.into_std().unwrap()).unwrap();
    holder
}

async fn held(holder: &Holder, rig: &Rig) {
    let address = rig.listen.to_string();
    eventually("the holder has the socket", || async {
        holder.addresses() == std::slice::from_ref(&address)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_replacements_under_load_lose_no_request_of_clients_old_and_new() {
    let mut rig = Rig::start().await;
    let holder = hold(&rig);
    let backend = Backend::good("v1").await;
    rig.endpoints(&[("a", "v1", backend.address, Ready)]).await;
    rig.weights(&[("v1", 10_000)]).await;
    held(&holder, &rig).await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let listen = rig.listen;
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                let mut failures = Vec::new();
                let mut browser = Browser::new(listen);
                while !stop.load(Ordering::Relaxed) {
                    if client % 2 == 0 {
                        browser = Browser::new(listen); // a new connection each time
                    }
                    match browser.post("/", "body").await {
                        Ok(answer) if answer.status == 200 => {}
                        other => failures.push(format!("{other:?}")),
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
                failures
            })
        })
        .collect();
    let mut ends = Vec::new();
    for _ in 0..10 {
        let reached = done.load(Ordering::Relaxed) + 50;
        eventually("traffic flows", || async { done.load(Ordering::Relaxed) > reached }).await;
        ends.push(rig.leave());
        // The old one is still finishing what it has while the new one starts.
        eventually("the old one does not answer any more", || async {
            tokio::net::UnixStream::connect(rig.home().socket("switch")).await.is_err()
        })
        .await;
        rig.launch().await;
        held(&holder, &rig).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut failures = Vec::new();
    for client in clients {
        failures.extend(client.await.unwrap());
    }
    assert!(failures.is_empty(), "{}: {:?}", failures.len(), failures.first());
    assert!(done.load(Ordering::Relaxed) > 500);
    for end in ends {
        end.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn connections_wait_in_the_kernel_while_there_is_no_switch() {
    let mut rig = Rig::start().await;
    let holder = hold(&rig);
    let backend = Backend::good("v1").await;
    rig.endpoints(&[("a", "v1", backend.address, Ready)]).await;
    rig.weights(&[("v1", 10_000)]).await;
    held(&holder, &rig).await;
    rig.leave().await.unwrap().unwrap();
    let listen = rig.listen;
    let waiting = tokio::spawn(async move { Browser::new(listen).post("/", "x").await });
    eventually("it is connected", || async { TcpStream::connect(listen).await.is_ok() }).await;
    rig.launch().await;
    assert_eq!(waiting.await.unwrap().unwrap().body, "v1");
}

#[tokio::test]
async fn sockets_are_deposited_again_when_the_holder_comes_back() {
    let rig = Rig::start().await;
    rig.weights(&[("v1", 10_000)]).await;
    let first = hold(&rig);
    held(&first, &rig).await;
    // A new holder takes the place of the first; connections to that one are cut.
    std::fs::remove_file(rig.home().socket("sockets")).unwrap();
    let second = hold(&rig);
    let other = super::support::free_address();
    let mut doc = rig.doc(&[("v1", 10_000)]);
    doc.lane = "prod/other".into();
    doc.listen = other.to_string();
    rig.apply(doc.clone()).await;
    let mut both = [rig.listen.to_string(), other.to_string()];
    both.sort();
    eventually("one of them has both", || async {
        first.addresses() == both || second.addresses() == both
    })
    .await;
    // Given up by the table: given up by the holder.
    doc.listen = rig.listen.to_string();
    doc.routes = vec![tidegate_wire::spec::Route { host: None, path: "/other".into(), tls: None }];
    rig.apply(doc).await;
    held(&first, &rig).await;
    assert!(TcpStream::connect(other).await.is_err(), "nobody holds the old address");
}

#[tokio::test]
async fn a_request_under_way_is_finished_with_connection_close_before_the_switch_ends() {
    let mut rig = Rig::start().await;
    let _holder = hold(&rig);
    let released = Arc::new(Notify::new());
    let backend = Backend::start("v1", Behaviour::Held(Arc::clone(&released))).await;
    rig.endpoints(&[("a", "v1", backend.address, Ready)]).await;
    rig.weights(&[("v1", 10_000)]).await;
    held(&_holder, &rig).await;
    let mut stream = TcpStream::connect(rig.listen).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    eventually("it is under way", || async { rig.in_flight("v1").await == 1 }).await;
    let mut end = rig.leave();
    let early = tokio::time::timeout(Duration::from_millis(200), &mut end).await;
    assert!(early.is_err(), "it leaves while a request is under way");
    released.notify_one();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("v1"), "{answer}");
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    end.await.unwrap().unwrap();
    assert!(!rig.home().pid("switch").exists());
}

#[tokio::test]
async fn the_successor_reports_what_the_leaving_switch_still_has_under_way() {
    let mut rig = Rig::start().await;
    let holder = hold(&rig);
    rig.leave().await.unwrap().unwrap();
    rig.launch().await;
    let released = Arc::new(Notify::new());
    let backend = Backend::start("v1", Behaviour::Held(Arc::clone(&released))).await;
    rig.endpoints(&[("a", "v1", backend.address, Ready)]).await;
    rig.weights(&[("v2", 0), ("v1", 10_000)]).await;
    held(&holder, &rig).await;
    let listen = rig.listen;
    let asked = tokio::spawn(async move { Browser::new(listen).post("/", "x").await });
    eventually("it is under way", || async { rig.in_flight("v1").await == 1 }).await;
    let end = rig.leave();
    eventually("the old one does not answer any more", || async {
        tokio::net::UnixStream::connect(rig.home().socket("switch")).await.is_err()
    })
    .await;
    rig.launch().await;
    rig.weights(&[("v2", 10_000), ("v1", 0)]).await;
    let report = rig.report().await;
    assert_eq!(rig.in_flight("v1").await, 1);
    assert_eq!(report.instances.iter().map(|one| one.in_flight).sum::<u32>(), 1);
    released.notify_one();
    rig.drained("v1").await;
    assert_eq!(asked.await.unwrap().unwrap().status, 200);
    end.await.unwrap().unwrap();
    assert_eq!(rig.report().await.instances.iter().map(|one| one.in_flight).sum::<u32>(), 0);
}
