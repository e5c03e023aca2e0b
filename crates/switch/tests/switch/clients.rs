//! Clients of every kind: old ones, hasty ones, rude ones.

use std::time::Duration;

use tidegate_switch::Limits;
use tidegate_wire::switch::EndpointState::Ready;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::backend::{Backend, Behaviour};
use super::support::client::{Browser, raw};
use super::support::rig::Rig;
use super::support::{PATIENCE, eventually};

async fn one(behaviour: Behaviour) -> (Rig, Backend) {
    let rig = Rig::start().await;
    let backend = Backend::start("v1", behaviour).await;
    rig.endpoints(&[("a", "v1", backend.address, Ready)]).await;
    rig.weights(&[("v1", 10_000)]).await;
    (rig, backend)
}

fn good() -> Behaviour {
    Behaviour::Good { work: Duration::ZERO, idle: Duration::from_secs(60) }
}

#[tokio::test]
async fn http_1_0_without_a_host_is_served_and_closed() {
    let (rig, backend) = one(good()).await;
    let answer = raw(rig.listen, b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with("\r\n\r\nv1"), "{answer}");
    assert_eq!(backend.heads()[0].version, http::Version::HTTP_11);
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    let (rig, _backend) = one(Behaviour::Raw(chunked)).await;
    let answer = raw(rig.listen, b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(
        !answer.to_lowercase().contains("chunked") && answer.ends_with("\r\n\r\nhi"),
        "{answer}"
    );
}

#[tokio::test]
async fn head_has_the_length_and_no_body_and_the_connection_goes_on() {
    let (rig, backend) = one(Behaviour::Raw("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")).await;
    let mut browser = Browser::new(rig.listen);
    for _ in 0..3 {
        let answer = browser.send("HEAD", "/", &[], "").await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, ""));
        assert_eq!(answer.headers["content-length"], "5");
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn interim_answers_of_an_instance_do_not_end_the_request() {
    let text = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let (rig, _backend) = one(Behaviour::Raw(text)).await;
    let answer = Browser::new(rig.listen).get("/").await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
    assert_eq!(rig.sum("v1").await.n, 1);
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_is_told_to_go_on() {
    let (rig, backend) = one(good()).await;
    let mut stream = TcpStream::connect(rig.listen).await.unwrap();
    let head = "POST /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\
                connection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hi").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hi"), "{answer}");
    assert!(!backend.heads()[0].headers.contains_key("expect"));
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let (rig, _backend) = one(Behaviour::Raw(
        "HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    ))
    .await;
    let (mut read, mut write) = TcpStream::connect(rig.listen).await.unwrap().into_split();
    let head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000\r\n\r\n";
    write.write_all(head.as_bytes()).await.unwrap();
    let sending = tokio::spawn(async move {
        let chunk = vec![0; 16 << 10];
        // Until the other side has had enough.
        while write.write_all(&chunk).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    let mut answer = [0; 12];
    read.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    drop(read);
    sending.await.unwrap();
    let sum = rig.sum("v1").await;
    assert_eq!((sum.n, sum.ok, sum.k), (1, 1, 0));
}

#[tokio::test]
async fn heads_that_are_too_large_or_no_requests_are_refused_and_no_versions_fault() {
    let (rig, backend) = one(good()).await;
    let huge = format!("GET / HTTP/1.1\r\nhost: x\r\nx-huge: {}\r\n\r\n", "x".repeat(200_000));
    let many: String = (0..200).map(|at| format!("x-{at}: 1\r\n")).collect();
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n");
    for (sent, wanted) in [
        (huge.as_str(), "HTTP/1.1 431"),
        (many.as_str(), "HTTP/1.1 431"),
        ("rubbish\r\n\r\n", "HTTP/1.1 400"),
        ("GET / HTTP/1.1\r\nconnection: close\r\n\r\n", "HTTP/1.1 400"),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n", "HTTP/1.1 400"),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
            "HTTP/1.1 400",
        ),
    ] {
        let answer = raw(rig.listen, sent.as_bytes()).await;
        assert!(answer.starts_with(wanted), "{answer} for {sent:.60}");
    }
    eventually("all are counted", || async { rig.report().await.refused == 6 }).await;
    assert!(backend.heads().is_empty());
    assert!(rig.sums().await.is_empty());
}

#[tokio::test]
async fn a_length_beside_a_transfer_coding_cannot_smuggle_a_second_request() {
    let (rig, backend) = one(good()).await;
    let sent = "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 30\r\ntransfer-encoding: chunked\r\n\
                connection: close\r\n\r\n2\r\nhi\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    raw(rig.listen, sent.as_bytes()).await;
    assert!(backend.heads().iter().all(|head| head.uri.path() != "/smuggled"));
    for head in backend.heads() {
        let both = ["content-length", "transfer-encoding"];
        assert!(!both.iter().all(|name| head.headers.contains_key(*name)));
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (rig, _backend) = one(good()).await;
    let two = "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n1\
               POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\nconnection: close\r\n\r\n2";
    let answer = raw(rig.listen, two.as_bytes()).await;
    let bodies: Vec<_> =
        answer.split("HTTP/1.1 200 OK").filter_map(|part| part.chars().last()).collect();
    assert_eq!(bodies, ['1', '2'], "{answer}");
}

#[tokio::test]
async fn a_large_answer_flows_to_a_slow_reader_without_being_held_in_memory() {
    let (rig, _backend) = one(good()).await;
    let body = "x".repeat(32 << 20);
    let sent = format!(
        "POST /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(rig.listen).await.unwrap();
    stream.write_all(sent.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    // It is under way as long as the client has not taken its end.
    assert_eq!(rig.in_flight("v1").await, 1);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.len() > body.len());
    rig.drained("v1").await;
    assert_eq!(rig.sum("v1").await.ok, 1);
}

#[tokio::test]
async fn a_client_that_is_too_slow_or_idle_for_too_long_is_let_go_and_a_busy_one_is_not() {
    let brief = Duration::from_millis(300);
    let limits = Limits { head: brief, idle: brief, stuck: brief };
    let rig = Rig::with(limits).await;
    let work = Duration::from_millis(900);
    let backend = Backend::start("v1", Behaviour::Good { work, idle: PATIENCE }).await;
    rig.endpoints(&[("a", "v1", backend.address, Ready)]).await;
    rig.weights(&[("v1", 10_000)]).await;
    assert_eq!(raw(rig.listen, b"").await, "", "idle from the beginning");
    assert_eq!(rig.report().await.refused, 0);
    assert_eq!(raw(rig.listen, b"GET / HTTP/1.1\r\nho").await, "", "half a head");
    eventually("it is counted", || async { rig.report().await.refused == 1 }).await;
    let answer = raw(rig.listen, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 200"),
        "longer than any limit, but not the client: {answer}"
    );

    // Takes nothing of a large answer.
    let body = "x".repeat(32 << 20);
    let sent = format!("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut stream = TcpStream::connect(rig.listen).await.unwrap();
    stream.write_all(sent.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    eventually("it is under way", || async { rig.in_flight("v1").await == 1 }).await;
    rig.drained("v1").await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.len() < body.len());
    let sum = rig.sum("v1").await;
    assert_eq!((sum.ok, sum.broken, sum.k), (2, 0, 0), "the client's fault is no version's");
}
