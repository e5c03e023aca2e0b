//! Connections to instances: when they are used again, and when they must not be.

use std::time::Duration;

use tidegate_wire::switch::EndpointState::{Draining, NotReady, Ready};

use super::support::backend::{Backend, Behaviour};
use super::support::client::Browser;
use super::support::eventually;
use super::support::rig::Rig;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_post_is_lost_or_doubled_to_an_instance_that_closes_idle_connections() {
    let rig = Rig::start().await;
    let backend = Backend::start("v1", Behaviour::Races(Duration::from_millis(400))).await;
    rig.endpoints(&[("a", "v1", backend.address, Ready)]).await;
    rig.weights(&[("v1", 10_000)]).await;
    let listen = rig.listen;
    let clients: Vec<_> = (0..8_u64)
        .map(|client| {
            tokio::spawn(async move {
                let mut browser = Browser::new(listen);
                let mut failures = Vec::new();
                for turn in 0..16 {
                    let think = (client * 29 + turn * 53) % 500;
                    tokio::time::sleep(Duration::from_millis(think)).await;
                    match browser.post("/", "body").await {
                        Ok(answer) if answer.status == 200 => {}
                        other => failures.push(format!("{other:?}")),
                    }
                }
                failures
            })
        })
        .collect();
    let mut failures = Vec::new();
    for client in clients {
        failures.extend(client.await.unwrap());
    }
    assert!(failures.is_empty(), "{}: {:?}", failures.len(), failures.first());
    let seen = backend.seen();
    assert_eq!((seen.len(), seen.values().filter(|count| **count > 1).count()), (128, 0));
    assert!(backend.connections() > 5, "the race was not there: {}", backend.connections());
    assert!(backend.connections() < 128, "nothing was used again: {}", backend.connections());
}

#[tokio::test]
async fn idle_connections_to_an_instance_that_drains_or_is_gone_are_closed_at_once() {
    let rig = Rig::start().await;
    let (a, b, c) =
        (Backend::good("v1").await, Backend::good("v1").await, Backend::good("v1").await);
    let ready = [
        ("a", "v1", a.address, Ready),
        ("b", "v1", b.address, Ready),
        ("c", "v1", c.address, Ready),
    ];
    rig.endpoints(&ready).await;
    rig.weights(&[("v1", 10_000)]).await;
    let mut browser = Browser::new(rig.listen);
    for _ in 0..9 {
        browser.get("/").await.unwrap();
    }
    assert_eq!((a.open(), b.open(), c.open()), (1, 1, 1));
    rig.endpoints(&[("b", "v1", b.address, Draining), ("c", "v1", c.address, NotReady)]).await;
    for backend in [&a, &b, &c] {
        eventually("its connections are closed", || async { backend.open() == 0 }).await;
    }
}

#[tokio::test]
async fn a_restart_on_the_same_address_never_gets_a_connection_of_the_one_before() {
    let rig = Rig::start().await;
    let backend = Backend::good("v1").await;
    rig.endpoints(&[("a", "v1", backend.address, Ready)]).await;
    rig.weights(&[("v1", 10_000)]).await;
    let mut browser = Browser::new(rig.listen);
    browser.get("/").await.unwrap();
    browser.get("/").await.unwrap();
    assert_eq!(backend.connections(), 1);
    let mut again = super::support::rig::endpoint("a", "v1", backend.address, Ready);
    again.generation += 1;
    rig.endpoints_of(super::support::rig::LANE, vec![again]).await;
    browser.get("/").await.unwrap();
    assert_eq!(backend.connections(), 2);
}

#[tokio::test]
async fn a_connection_that_the_instance_gives_up_is_not_used_again() {
    for raw in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nv1",
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nv1",
    ] {
        let rig = Rig::start().await;
        let backend = Backend::start("v1", Behaviour::Raw(raw)).await;
        rig.endpoints(&[("a", "v1", backend.address, Ready)]).await;
        rig.weights(&[("v1", 10_000)]).await;
        let mut browser = Browser::new(rig.listen);
        for turn in 1..=3 {
            let answer = browser.post("/", "x").await.unwrap();
            assert_eq!((answer.status, answer.body.as_str()), (200, "v1"));
            assert!(answer.headers.get("connection").is_none(), "hop by hop");
            assert_eq!(backend.connections(), turn);
        }
        assert_eq!(rig.sum("v1").await.retries, 0);
    }
}

#[tokio::test]
async fn a_post_with_a_large_unread_body_goes_to_another_instance_if_nothing_was_sent() {
    let rig = Rig::start().await;
    let (dead, good) = (Backend::good("v1").await, Backend::good("v1").await);
    let address = dead.address;
    dead.kill();
    eventually("nobody listens", || async {
        tokio::net::TcpStream::connect(address).await.is_err()
    })
    .await;
    rig.endpoints(&[("a", "v1", address, Ready), ("b", "v1", good.address, Ready)]).await;
    rig.weights(&[("v1", 10_000)]).await;
    let body = "x".repeat(10 << 20);
    let mut browser = Browser::new(rig.listen);
    for _ in 0..4 {
        let answer = browser.post("/echo", &body).await.unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, body.len()));
    }
    let sum = rig.sum("v1").await;
    assert_eq!((sum.ok, sum.k), (4, 0));
    assert!(sum.retries > 0);
}
