//! Questions, timers, events, the idle end.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_core::Epoch;
use tidegate_engine::Fatal;
use tidegate_engine::shell::{self, Ended, ShellError};
use tidegate_journal::memory::{FailAt, Fault, MemoryJournal};

use crate::doubles::{Input, Place, config};

#[test]
fn questions_are_answered_when_they_are_durable_and_events_follow() {
    let place = Place::new();
    let engine = place.engine(Duration::from_millis(300));
    let answer = place.ask("a", &Input::Add(2));
    assert_eq!(answer, json!({ "revision": 1, "seq": 1, "noOp": null }));
    let answer = place.ask("a", &Input::Add(0));
    assert_eq!(answer, json!({ "revision": 1, "seq": 1, "noOp": "0 is added already" }));

    let post = |body: Value| place.request("POST", "/v1/counter/a", &body).unwrap();
    let (status, body) = post(json!({ "input": { "add": 5000 } }));
    assert_eq!(status, 409);
    assert!(body.contains("\"code\":\"tooMuch\""), "{body}");
    let (status, body) = post(json!({ "input": { "sing": 1 } }));
    assert_eq!(status, 400, "{body}");
    let (status, body) = post(json!({ "input": { "add": 1 }, "revision": 7 }));
    assert_eq!(status, 409);
    assert!(body.contains("revisionChanged"), "{body}");
    let (status, body) = post(json!({ "input": { "add": 1 }, "revision": 1 }));
    assert_eq!(status, 200, "{body}");

    let events = place.events("since=0");
    assert_eq!(events.len(), 2);
    let first = &events[0];
    assert_eq!(first["apiVersion"], "tidegate/v1");
    assert_eq!(first["kind"], "Event");
    assert_eq!(first["seq"], 1);
    assert_eq!(first["stream"], "shop/counter/a");
    assert_eq!(first["event"], "counter.added");
    assert_eq!(first["data"]["amount"], 2);
    assert_eq!(first["reason"]["code"], "asked");
    let at = first["at"].as_str().unwrap();
    assert!(at.starts_with("20") && at.ends_with('Z') && at.len() == 24, "{at}");
    assert_eq!(place.events("since=1&limit=1")[0]["seq"], 2);

    let status = place.get("/v1/engine");
    assert_eq!(status["state"], "running");
    assert_eq!(status["pid"], std::process::id());
    assert_eq!(status["version"], "0.0.0-test");
    assert_eq!(place.pid(), Some(std::process::id()));
    let beat = std::fs::read_to_string(place.home().engine_heartbeat()).unwrap();
    assert_eq!(beat.split_whitespace().count(), 2, "{beat:?}");

    assert_eq!(engine.join().unwrap().unwrap(), Ended::Idle);
    assert!(!place.home().pid("engine").exists(), "a stopped engine leaves no process id");
    assert!(!place.home().socket("engine").exists(), "a stopped engine leaves no socket");
    assert_eq!(place.noted(), ["1 open=false"], "before it ends it says that nothing is open");
}

#[test]
fn a_long_poll_waits_for_the_next_event_and_a_timer_makes_it() {
    let place = Place::new();
    let engine = place.engine(Duration::from_millis(300));
    let asked = place.ask("a", &Input::Later(400));
    let since = asked["seq"].as_u64().unwrap();
    // Open work keeps the engine for longer than its idle time.
    let events = place.events(&format!("since={since}&waitMs=10000"));
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["event"], "counter.added");
    assert_eq!(place.get("/v1/counter/a")["state"]["total"], 1);
    assert_eq!(place.events(&format!("since={}&waitMs=50", since + 1)), Vec::<Value>::new());
    assert_eq!(engine.join().unwrap().unwrap(), Ended::Idle);
    assert_eq!(place.noted(), ["1 open=true", "1 open=false", "1 open=false"]);
}

#[test]
fn the_next_engine_has_a_higher_epoch_and_the_same_counters() {
    let place = Place::new();
    let engine = place.engine(Duration::from_millis(100));
    place.ask("a", &Input::Add(40));
    assert_eq!(engine.join().unwrap().unwrap(), Ended::Idle);
    let engine = place.engine(Duration::from_millis(100));
    place.ask("a", &Input::Add(2));
    assert_eq!(place.get("/v1/counter/a")["state"]["total"], 42);
    let events = place.events("since=0");
    assert_eq!(events.len(), 2, "older events come from the journal");
    assert_eq!(engine.join().unwrap().unwrap(), Ended::Idle);
    assert_eq!(place.noted(), ["1 open=false", "2 open=false"]);
}

#[test]
fn a_reader_of_the_event_stream_gets_what_was_and_what_comes() {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    let place = Place::new();
    let engine = place.engine(Duration::from_millis(200));
    place.ask("a", &Input::Add(1));
    let mut stream = UnixStream::connect(place.home().socket("engine")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let head = "GET /v1/events?since=0 HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut text = String::new();
    let mut read_until = |wanted: &str| {
        let mut buffer = [0; 4096];
        while !text.contains(wanted) {
            let n = stream.read(&mut buffer).unwrap();
            assert!(n > 0, "{text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    };
    read_until("\"seq\":1");
    place.ask("a", &Input::Add(1));
    read_until("\"seq\":2");
    assert!(text.contains("id: 2"), "{text}");
    drop(stream);
    assert_eq!(engine.join().unwrap().unwrap(), Ended::Idle);
}

#[test]
fn a_failed_commit_ends_the_engine_and_answers_nobody() {
    for fault in [Fault::BeforeDurable, Fault::AfterDurable] {
        let place = Place::new();
        let config = config(place.folder.path(), Duration::from_secs(60), Epoch(0));
        let engine = std::thread::spawn(move || {
            shell::run_on(config, |_| {
                let mut journal = MemoryJournal::new("h-memory");
                journal.fail_at(Some(FailAt { commit: 2, fault }));
                Ok(journal)
            })
        });
        place.ask("a", &Input::Add(1));
        let body = json!({ "input": { "add": 1 } });
        assert_eq!(place.request("POST", "/v1/counter/a", &body), None, "no answer of any kind");
        let ended = engine.join().unwrap();
        assert!(matches!(ended, Err(ShellError::Fatal(Fatal::Journal(_)))), "{ended:?}");
        assert!(place.home().pid("engine").exists(), "it has not ended in good order");
    }
}
