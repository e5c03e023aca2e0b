//! Effects through the process driver.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use tidegate_core::machine::Outcome;
use tidegate_core::{Digest, Epoch};
use tidegate_drivers::ProcessDriver;
use tidegate_engine::effects::{Attempt, Driver};

use crate::doubles::{World, capacity_doc, sending, traffic_doc, until};

async fn act(driver: &ProcessDriver, id: u64, seq: u64, action: &str, payload: Value) -> Attempt {
    driver.attempt(&sending(id, 0, seq, action, payload)).await
}

fn doc<T: serde::Serialize>(doc: &T) -> Value {
    serde_json::to_value(doc).unwrap()
}

fn run(command: &str) -> Value {
    let service = json!({
        "name": "web", "artifact": "a", "command": ["./web"], "instances": 1, "env": {},
        "secrets": [], "resources": { "memoryBytes": null, "cpuMillis": null },
        "stop": { "signal": "SIGTERM", "graceMs": 1000 },
        "probes": { "startup": null, "readiness": null, "liveness": null, "version": null },
        "routes": [], "errors": { "status": [], "timeoutMs": 1000 },
    });
    json!({
        "version": "v1", "digest": Digest::of(b"v1"), "service": service,
        "command": [command], "timeoutMs": 5000,
    })
}

fn refused(attempt: Attempt) -> String {
    let Attempt::Done(Outcome::Refused(reason)) = attempt else { panic!("{attempt:?}") };
    reason.code
}

#[tokio::test]
async fn each_action_reaches_its_target_with_home_and_fence() {
    let world = World::new();
    let driver = world.driver(5);
    let attempt = act(&driver, 1, 20, "capacity", doc(&capacity_doc("test/web", 1))).await;
    let fence = json!({ "fence": { "epoch": 5, "seq": 20 } });
    assert_eq!(attempt, Attempt::Done(Outcome::Applied(fence)));
    let attempt = act(&driver, 2, 21, "traffic", doc(&traffic_doc("test/web", 1))).await;
    let fence = json!({ "fence": { "epoch": 5, "seq": 21 } });
    assert_eq!(attempt, Attempt::Done(Outcome::Applied(fence)));
    let artifact = json!({ "path": "/a", "digest": Digest::of(b""), "command": ["./web"] });
    let attempt = act(&driver, 3, 22, "stage", artifact).await;
    assert_eq!(attempt, Attempt::Done(Outcome::Applied(json!({}))));
    let host = world.host.double.lock().heard.clone();
    assert_eq!(host, ["claim 5", "document 5.20", "stage /a"], "claimed once, and first");
    let switch = world.switch.double.lock().heard.clone();
    assert_eq!(switch, ["claim 5", "document 5.21"]);
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let mut world = World::new();
    let driver = world.driver(5);
    let web = |number| doc(&capacity_doc("test/web", number));
    act(&driver, 1, 20, "capacity", web(1)).await;
    assert_eq!(refused(act(&driver, 2, 19, "capacity", web(2)).await), "staleFence");
    let changed = json!({ "path": "/changed", "digest": Digest::of(b""), "command": ["./web"] });
    assert_eq!(refused(act(&driver, 3, 21, "stage", changed).await), "digestChanged");
    assert_eq!(refused(act(&driver, 4, 21, "capacity", json!({})).await), "notUnderstood");
    assert_eq!(refused(act(&driver, 5, 21, "dance", json!({})).await), "unsupported");
    let stranger = world.driver_of("h-other", 9);
    assert_eq!(refused(act(&stranger, 6, 1, "capacity", web(3)).await), "otherHome");

    // A host that has lost its memory is claimed again, without anybody noticing.
    world.host.double.lock().owner = None;
    world.host.renew();
    until("taken again", || !world.host.double.lock().heard.is_empty()).await;
    assert!(matches!(
        act(&driver, 7, 22, "capacity", web(4)).await,
        Attempt::Done(Outcome::Applied(_))
    ));
}

#[tokio::test]
async fn a_newer_owner_or_a_shut_epoch_ends_this_one() {
    let world = World::new();
    let driver = world.driver(5);
    let (web, traffic) = (doc(&capacity_doc("test/web", 1)), doc(&traffic_doc("test/web", 1)));
    act(&driver, 1, 20, "capacity", web.clone()).await;
    act(&driver, 2, 20, "traffic", traffic).await;
    world.switch.double.lock().epoch = Epoch(8);
    let newer = doc(&traffic_doc("test/web", 2));
    let attempt = act(&driver, 3, 21, "traffic", newer.clone()).await;
    assert_eq!(attempt, Attempt::Superseded(Epoch(8)));
    // The switch says no more than that the fence is low; the host knows that it has shut the epoch.
    {
        let mut switch = world.switch.double.lock();
        switch.epoch = Epoch(5);
        switch.lanes.get_mut("test/web").unwrap().0.seq = u64::MAX;
    }
    assert_eq!(refused(act(&driver, 4, 22, "traffic", newer.clone()).await), "staleFence");
    world.host.double.lock().shut = Some(Epoch(5));
    let attempt = act(&driver, 5, 22, "traffic", newer).await;
    assert_eq!(attempt, Attempt::Superseded(Epoch(5)));
    let attempt = act(&driver, 6, 21, "capacity", web).await;
    assert_eq!(attempt, Attempt::Superseded(Epoch(5)));
}

#[tokio::test]
async fn a_dead_host_is_started_and_the_effect_tried_again() {
    let mut world = World::new();
    let driver = world.driver(5);
    act(&driver, 1, 20, "capacity", doc(&capacity_doc("test/web", 1))).await;
    world.host.stop();
    let next = doc(&capacity_doc("test/web", 2));
    let starts = world.starts.clone();
    let attempt = tokio::spawn(async move {
        let attempt = act(&driver, 2, 21, "capacity", next.clone()).await;
        (attempt, act(&driver, 2, 21, "capacity", next).await)
    });
    until("a host is started", || starts.load(Ordering::SeqCst) == 1).await;
    world.host.start();
    let (first, second) = attempt.await.unwrap();
    assert!(matches!(first, Attempt::NotSent(_)), "{first:?}");
    assert!(matches!(second, Attempt::Done(Outcome::Applied(_))), "{second:?}");
    assert_eq!(world.host.double.heard("claim 5"), 2, "the new process is claimed as well");
    assert_eq!(world.starts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_run_whose_answer_is_lost_is_asked_for_again_under_the_same_identity() {
    let mut world = World::new();
    let driver = world.driver(5);
    world.host.double.lock().swallow = true;
    let double = world.host.double.clone();
    let lost = tokio::spawn(async move {
        let attempt = act(&driver, 7, 20, "run", run("migrate")).await;
        (attempt, driver)
    });
    until("it runs", || double.lock().runs.contains_key("h-test:7")).await;
    world.host.renew();
    let (attempt, driver) = lost.await.unwrap();
    assert!(matches!(attempt, Attempt::Again(_)), "{attempt:?}");
    let attempt = act(&driver, 7, 20, "run", run("migrate")).await;
    let applied = json!({ "status": 0, "tail": "done\n" });
    assert_eq!(attempt, Attempt::Done(Outcome::Applied(applied)));
    assert_eq!(double.lock().runs["h-test:7"], 2);

    let attempt = act(&driver, 8, 20, "run", run("fails")).await;
    let Attempt::Done(Outcome::Failed(reason)) = attempt else { panic!("{attempt:?}") };
    assert_eq!(reason.text, "exit status 3: no such table");
    let attempt = act(&driver, 9, 20, "run", run("hangs")).await;
    assert!(matches!(attempt, Attempt::Done(Outcome::Failed(_))), "{attempt:?}");
    let attempt = act(&driver, 10, 20, "run", run("lost")).await;
    assert!(matches!(attempt, Attempt::Done(Outcome::Unknown(_))), "{attempt:?}");
}
