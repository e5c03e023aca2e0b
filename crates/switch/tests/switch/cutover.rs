//! Moving traffic under load without losing a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tidegate_wire::switch::EndpointState::{Draining, Ready};
use tokio::task::JoinHandle;

use super::support::backend::{Backend, Behaviour};
use super::support::client::Browser;
use super::support::eventually;
use super::support::rig::Rig;

/// Clients that go on until they are told to stop; the half of their requests are POSTs.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<(u64, Vec<String>)>>,
    pub(super) done: Arc<AtomicU64>,
}

impl Load {
    fn start(rig: &Rig, clients: usize) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let listen = rig.listen;
        let client = |_| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                let mut browser = Browser::new(listen);
                let (mut sent, mut failures) = (0, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    sent += 1;
                    let answer = if sent % 2 == 0 {
                        browser.get("/").await
                    } else {
                        browser.post("/", "body").await
                    };
                    match answer {
                        Ok(answer) if answer.status == 200 => {}
                        Ok(answer) => failures.push(format!("{} {}", answer.status, answer.body)),
                        Err(error) => failures.push(error),
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
                (sent, failures)
            })
        };
        let clients = (0..clients).map(client).collect();
        Self { stop, clients, done }
    }

    async fn finish(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut sent, mut failures) = (0, Vec::new());
        for client in self.clients {
            let (count, failed) = client.await.unwrap();
            sent += count;
            failures.extend(failed);
        }
        (sent, failures)
    }
}

fn working() -> Behaviour {
    Behaviour::Good { work: Duration::from_millis(3), idle: Duration::from_secs(60) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_switches_with_the_old_version_killed_at_0_under_way_lose_nothing() {
    let rig = Rig::start().await;
    let mut old = Backend::start("v0", working()).await;
    rig.endpoints(&[("i0", "v0", old.address, Ready)]).await;
    rig.weights(&[("v0", 10_000)]).await;
    let load = Load::start(&rig, 16);
    for turn in 1..=100 {
        let (before, now) = (format!("v{}", turn - 1), format!("v{turn}"));
        let (gone, fresh) = (format!("i{}", turn - 1), format!("i{turn}"));
        let new = Backend::start(&now, working()).await;
        rig.endpoints(&[(&gone, &before, old.address, Ready), (&fresh, &now, new.address, Ready)])
            .await;
        rig.weights(&[(&now, 5_000), (&before, 5_000)]).await;
        let reached = load.done.load(Ordering::Relaxed) + 8;
        eventually("traffic flows", || async { load.done.load(Ordering::Relaxed) >= reached })
            .await;
        rig.weights(&[(&now, 10_000), (&before, 0)]).await;
        rig.drained(&before).await;
        old.kill();
        rig.endpoints(&[(&fresh, &now, new.address, Ready)]).await;
        old = new;
    }
    let (sent, failures) = load.finish().await;
    assert!(failures.is_empty(), "{} of {sent}: {:?}", failures.len(), failures.first());
    assert!(sent > 1_000, "{sent}");
    let sums = rig.sums().await;
    let (n, k) = sums.values().fold((0, 0), |(n, k), sum| (n + sum.n, k + sum.k));
    assert_eq!((n, k), (sent, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_drains_is_killed_at_0_under_way_without_a_failure() {
    let rig = Rig::start().await;
    let mut pair = [Backend::start("v1", working()).await, Backend::start("v1", working()).await];
    let mut names = ["a0".to_owned(), "b0".to_owned()];
    let all = |pair: &[Backend; 2]| [pair[0].address, pair[1].address];
    let [a, b] = all(&pair);
    rig.endpoints(&[(&names[0], "v1", a, Ready), (&names[1], "v1", b, Ready)]).await;
    rig.weights(&[("v1", 10_000)]).await;
    let load = Load::start(&rig, 8);
    for turn in 1..=30 {
        let (leaves, stays) = (turn % 2, (turn + 1) % 2);
        let [a, b] = all(&pair);
        let addresses = [a, b];
        rig.endpoints(&[
            (&names[leaves], "v1", addresses[leaves], Draining),
            (&names[stays], "v1", addresses[stays], Ready),
        ])
        .await;
        let mut after = 0;
        loop {
            let report = rig.observe(after, Duration::from_millis(500)).await;
            let mine = report.instances.iter().find(|one| one.instance == names[leaves]);
            if mine.is_none_or(|one| one.in_flight == 0) {
                break;
            }
            after = report.revision;
        }
        let leaving = &pair[leaves];
        eventually("no connection to it is left", || async { leaving.open() == 0 }).await;
        leaving.kill();
        pair[leaves] = Backend::start("v1", working()).await;
        names[leaves] = format!("{}{turn}", ["a", "b"][leaves]);
        let [a, b] = all(&pair);
        rig.endpoints(&[(&names[0], "v1", a, Ready), (&names[1], "v1", b, Ready)]).await;
    }
    let (sent, failures) = load.finish().await;
    assert!(failures.is_empty(), "{} of {sent}: {:?}", failures.len(), failures.first());
    let sum = rig.sum("v1").await;
    assert_eq!((sum.n, sum.k, sum.cutover), (sent, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_without_a_drain_is_seen_as_failures_by_the_same_load() {
    let rig = Rig::start().await;
    let slow = Behaviour::Good { work: Duration::from_millis(30), idle: Duration::from_secs(60) };
    let (old, new) = (Backend::start("v1", slow).await, Backend::good("v2").await);
    rig.endpoints(&[("a", "v1", old.address, Ready), ("b", "v2", new.address, Ready)]).await;
    rig.weights(&[("v1", 10_000)]).await;
    let load = Load::start(&rig, 16);
    eventually("traffic flows", || async { load.done.load(Ordering::Relaxed) > 32 }).await;
    eventually("much is under way", || async { rig.in_flight("v1").await > 8 }).await;
    old.kill();
    rig.weights(&[("v2", 10_000), ("v1", 0)]).await;
    let (_, failures) = load.finish().await;
    assert!(!failures.is_empty(), "the load cannot see a failure");
    let sum = rig.sum("v1").await;
    assert!(sum.connect > 0, "{sum:?}");
}
