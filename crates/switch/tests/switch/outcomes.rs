//! Whose fault a failure is: one row of the table of outcomes after the other.

use std::sync::Arc;
use std::time::Duration;

use tidegate_wire::switch::EndpointState::{Draining, NotReady, Ready};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::support::backend::{Backend, Behaviour};
use super::support::client::{Browser, raw};
use super::support::eventually;
use super::support::rig::{Rig, Sum};

/// One version with one instance of this behaviour; the statuses of a GET and a POST, and the sum.
async fn alone(behaviour: Behaviour, timeout_ms: u64) -> (Vec<Result<u16, String>>, Sum) {
    let rig = Rig::start().await;
    let backend = Backend::start("v1", behaviour).await;
    rig.endpoints(&[("a", "v1", backend.address, Ready)]).await;
    let mut doc = rig.doc(&[("v1", 10_000)]);
    doc.errors.timeout_ms = timeout_ms;
    rig.apply(doc).await;
    let mut browser = Browser::new(rig.listen);
    let mut statuses = Vec::new();
    statuses.push(browser.get("/").await.map(|answer| answer.status));
    statuses.push(browser.post("/", "x").await.map(|answer| answer.status));
    (statuses, rig.sum("v1").await)
}

#[tokio::test]
async fn a_5xx_is_the_versions_fault_and_a_4xx_is_not() {
    let (statuses, sum) = alone(Behaviour::Status(503), 2_000).await;
    assert_eq!(statuses, [Ok(503), Ok(503)]);
    assert_eq!((sum.n, sum.k, sum.status, sum.ok), (2, 2, 2, 0));
    let (statuses, sum) = alone(Behaviour::Status(404), 2_000).await;
    assert_eq!(statuses, [Ok(404), Ok(404)]);
    assert_eq!((sum.n, sum.k, sum.ok), (2, 0, 2));
}

#[tokio::test]
async fn a_404_wave_is_a_fault_where_the_table_says_so() {
    let rig = Rig::start().await;
    let backend = Backend::start("v1", Behaviour::Status(404)).await;
    rig.endpoints(&[("a", "v1", backend.address, Ready)]).await;
    let mut doc = rig.doc(&[("v1", 10_000)]);
    doc.errors.status = vec![(404, 404), (500, 599)];
    rig.apply(doc).await;
    Browser::new(rig.listen).get("/").await.unwrap();
    assert_eq!(rig.sum("v1").await.status, 1);
}

#[tokio::test]
async fn an_instance_that_closes_before_the_head_is_a_connect_error() {
    for behaviour in [Behaviour::Closes, Behaviour::Swallows] {
        let (statuses, sum) = alone(behaviour, 2_000).await;
        assert_eq!(statuses.len(), 2);
        assert!(statuses.iter().all(|status| matches!(status, Ok(502 | 503))), "{statuses:?}");
        assert_eq!((sum.n, sum.k, sum.connect), (2, 2, 2));
    }
}

#[tokio::test]
async fn no_head_in_time_is_a_timeout() {
    let (statuses, sum) = alone(Behaviour::Silent, 100).await;
    assert_eq!(statuses, [Ok(504), Ok(504)]);
    assert_eq!((sum.n, sum.k, sum.timeout), (2, 2, 2));
}

#[tokio::test]
async fn what_is_not_http_or_too_large_is_a_protocol_error() {
    for behaviour in [
        Behaviour::Garbage,
        Behaviour::HugeHead,
        Behaviour::Raw(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        ),
    ] {
        let named = format!("{behaviour:?}");
        let (statuses, sum) = alone(behaviour, 2_000).await;
        assert_eq!(statuses, [Ok(502), Ok(502)], "{named}");
        assert_eq!((sum.n, sum.k, sum.protocol), (2, 2, 2), "{named}");
    }
}

#[tokio::test]
async fn a_body_that_the_instance_cuts_is_broken_and_the_client_sees_that_it_is_not_whole() {
    let (statuses, sum) = alone(Behaviour::CutsBody, 2_000).await;
    assert!(statuses.iter().all(Result::is_err), "{statuses:?}");
    assert_eq!((sum.n, sum.ok, sum.broken, sum.k), (2, 2, 2, 2));
    let chunked =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\nzz\r\n";
    let (statuses, sum) = alone(Behaviour::Raw(chunked), 2_000).await;
    assert!(statuses.iter().all(Result::is_err), "{statuses:?}");
    assert_eq!((sum.n, sum.broken), (2, 2));
}

#[tokio::test]
async fn a_version_that_refuses_is_all_errors_within_a_second_and_its_users_are_served() {
    let rig = Rig::start().await;
    let old = Backend::good("v1").await;
    let new = Backend::good("v2").await;
    let address = new.address;
    new.kill();
    eventually("nobody listens", || async { TcpStream::connect(address).await.is_err() }).await;
    rig.endpoints(&[("a", "v1", old.address, Ready), ("b", "v2", address, Ready)]).await;
    rig.weights(&[("v2", 2_000), ("v1", 8_000)]).await;
    let mut browser = Browser::new(rig.listen);
    for turn in 0..200 {
        let answer = if turn % 2 == 0 {
            browser.get("/").await.unwrap()
        } else {
            browser.post("/", "body").await.unwrap()
        };
        assert_eq!((answer.status, answer.body.as_str()), (200, "v1"));
    }
    let records = rig.records().await;
    let first = records.iter().filter(|record| record.version == "v2").map(|r| r.second).min();
    assert!(first.is_some());
    let sums = rig.sums().await;
    let (v1, v2) = (&sums["v1"], &sums["v2"]);
    assert!(v2.n > 0 && v2.k == v2.n && v2.connect == v2.n, "{v2:?}");
    assert!(v1.k == 0 && v1.ok == v1.n, "the healthy neighbour shows no error: {v1:?}");
    assert_eq!(v1.n + v2.n, 200, "each request is counted once");
    assert_eq!(old.seen().values().filter(|count| **count == 1).count(), 200);
}

#[tokio::test]
async fn a_version_without_a_ready_instance_counts_connect_and_503_if_nobody_can_serve() {
    let rig = Rig::start().await;
    let old = Backend::good("v1").await;
    rig.endpoints(&[("b", "v2", old.address, NotReady)]).await;
    rig.weights(&[("v2", 10_000), ("v1", 0)]).await;
    let mut browser = Browser::new(rig.listen);
    let answer = browser.post("/", "x").await.unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("no instance of the version is ready"), "{}", answer.body);
    rig.endpoints(&[("b", "v2", old.address, NotReady), ("a", "v1", old.address, Ready)]).await;
    assert_eq!(browser.post("/", "x").await.unwrap().body, "v1");
    let sums = rig.sums().await;
    assert_eq!((sums["v2"].n, sums["v2"].connect), (2, 2));
    assert!(!sums.contains_key("v1"));
}

#[tokio::test]
async fn another_instance_of_the_same_version_is_tried_before_another_version() {
    let rig = Rig::start().await;
    let (old, good, dead) =
        (Backend::good("v1").await, Backend::good("v2").await, Backend::good("v2").await);
    let address = dead.address;
    dead.kill();
    eventually("nobody listens", || async { TcpStream::connect(address).await.is_err() }).await;
    rig.endpoints(&[
        ("a", "v1", old.address, Ready),
        ("b", "v2", address, Ready),
        ("c", "v2", good.address, Ready),
    ])
    .await;
    rig.weights(&[("v2", 10_000), ("v1", 0)]).await;
    let mut browser = Browser::new(rig.listen);
    for _ in 0..20 {
        assert_eq!(browser.post("/", "x").await.unwrap().body, "v2");
    }
    let sum = rig.sum("v2").await;
    assert_eq!((sum.n, sum.ok, sum.k), (20, 20, 0));
    assert!(sum.retries >= 1, "{sum:?}");
}

#[tokio::test]
async fn a_client_that_leaves_before_the_head_is_nobodys_error() {
    let rig = Rig::start().await;
    let backend = Backend::start("v1", Behaviour::Silent).await;
    rig.endpoints(&[("a", "v1", backend.address, Ready)]).await;
    rig.weights(&[("v1", 10_000)]).await;
    for head in [
        "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf",
    ] {
        let mut stream = TcpStream::connect(rig.listen).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        eventually("it is under way", || async { rig.in_flight("v1").await == 1 }).await;
        drop(stream);
        rig.drained("v1").await;
    }
    let sum = rig.sum("v1").await;
    assert_eq!((sum.n, sum.k, sum.client_gone), (0, 0, 2));
}

#[tokio::test]
async fn a_failure_on_an_instance_that_was_told_to_stop_is_cutover() {
    let rig = Rig::start().await;
    let released = Arc::new(Notify::new());
    let backend = Backend::start("v1", Behaviour::Held(Arc::clone(&released))).await;
    rig.endpoints(&[("a", "v1", backend.address, Ready)]).await;
    rig.weights(&[("v1", 10_000)]).await;
    let listen = rig.listen;
    let ask = || tokio::spawn(async move { Browser::new(listen).post("/", "x").await.unwrap() });
    let first = ask();
    eventually("it is under way", || async { rig.in_flight("v1").await == 1 }).await;
    rig.endpoints(&[("a", "v1", backend.address, Draining)]).await;
    let second = ask();
    assert_eq!(second.await.unwrap().status, 503, "nothing new is sent to it");
    rig.endpoints(&[]).await;
    backend.kill();
    assert_eq!(first.await.unwrap().status, 502);
    let sum = rig.sum("v1").await;
    assert_eq!((sum.n, sum.k, sum.cutover), (0, 0, 2), "{sum:?}");
}

#[tokio::test]
async fn a_tester_chooses_a_version_and_is_counted_apart() {
    let rig = Rig::start().await;
    let (old, new) =
        (Backend::good("v1").await, Backend::start("v2", Behaviour::Status(500)).await);
    rig.endpoints(&[("a", "v1", old.address, Ready), ("b", "v2", new.address, Ready)]).await;
    rig.weights(&[("v1", 10_000)]).await;
    let mut browser = Browser::new(rig.listen);
    let force = |version| [("x-tidegate-version", version)];
    assert_eq!(browser.send("GET", "/", &force("v2"), "").await.unwrap().status, 500);
    assert_eq!(browser.send("GET", "/", &force("v9"), "").await.unwrap().status, 404);
    let sums = rig.sums().await;
    assert_eq!((sums["v2"].forced, sums["v2"].n, sums["v2"].k), (1, 0, 0));
    assert!(!sums.contains_key("v1"));
    assert_eq!(rig.report().await.refused, 1);
    assert!(!new.heads()[0].headers.contains_key("x-tidegate-version"));
}

#[tokio::test]
async fn a_slow_upload_is_not_a_timeout_and_a_client_that_stops_is_not_the_versions_fault() {
    let rig = Rig::start().await;
    let backend = Backend::good("v1").await;
    rig.endpoints(&[("a", "v1", backend.address, Ready)]).await;
    let mut doc = rig.doc(&[("v1", 10_000)]);
    doc.errors.timeout_ms = 300;
    rig.apply(doc).await;
    let mut stream = TcpStream::connect(rig.listen).await.unwrap();
    let head = "POST /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 10\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..10 {
        ticks.tick().await;
        stream.write_all(b"x").await.unwrap();
    }
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer = raw(rig.listen, format!("{head}half").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let sum = rig.sum("v1").await;
    assert_eq!((sum.n, sum.ok, sum.k), (1, 1, 0), "{sum:?}");
    assert_eq!(rig.report().await.refused, 1);
    let latency = rig.records().await[0].latency.clone();
    assert!(latency.iter().all(|(bucket, _)| *bucket < 40), "a slow client counts: {latency:?}");
}
