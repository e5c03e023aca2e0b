//! Instances from start to stop.

use std::time::Instant;

use tidegate_core::Fence;
use tidegate_core::spec::Probes;
use tidegate_wire::switch::EndpointState::{Draining, NotReady, Ready};

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn capacity_goes_up_to_ready_at_the_switch_and_down_to_nothing() {
    let world = World::start().await;
    let doc = world.up(2).await;
    assert_eq!(world.switch.count(Ready), 2);
    let seen = world.version("v1", "addresses", |v| v.addresses.len() == 2).await;
    assert_eq!((seen.wanted, seen.running, seen.restarts, seen.trouble), (2, 2, 0, None));
    for address in &seen.addresses {
        assert!(ask(address, "/version").unwrap().contains("v1"));
    }
    let pid = instance_pid(&world.instance()).unwrap();
    let mut none = doc.clone();
    none.versions.clear();
    world.capacity(Fence::new(1, 2), &none).await.unwrap();
    world.lane("all gone", |lane| lane.versions.is_empty()).await;
    until("no endpoint is known", async || world.switch.known().is_empty().then_some(())).await;
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    let instances = world.home.host().join("instances");
    assert_eq!(std::fs::read_dir(instances).unwrap().count(), 0);
    let said = world.switch.said.lock().unwrap();
    let states: Vec<_> =
        said.endpoints.iter().flat_map(|m| m.endpoints.iter().map(|e| e.state)).collect();
    assert!(states.contains(&NotReady) && states.contains(&Draining), "{states:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_crashes_leaves_the_switch_at_once_and_comes_back() {
    let world = World::start().await;
    world.up(1).await;
    let before = world.switch.known().remove(0);
    let start = Instant::now();
    ask(&before.address, "/crash").unwrap();
    until("it is gone from the switch", async || {
        world.switch.known().iter().all(|e| e.generation != before.generation).then_some(())
    })
    .await;
    let took = start.elapsed();
    let seen = world.version("v1", "back", |v| v.restarts == 1 && v.ready == 1).await;
    assert!(seen.trouble.unwrap().contains("ended with exit status 3"));
    let after = world.switch.known().remove(0);
    assert!(after.generation > before.generation && after.instance == before.instance);
    assert!(took.as_millis() < 1_000, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_survive_the_host_and_are_taken_over_without_a_gap_at_the_switch() {
    let mut world = World::start().await;
    world.up(2).await;
    let before = world.switch.known();
    world.kill_host();
    for endpoint in &before {
        assert!(ask(&endpoint.address, "/version").unwrap().contains("v1"));
    }
    let told = world.switch.said.lock().unwrap().endpoints.len();
    world.start_host().await;
    world.version("v1", "ready again", |v| v.ready == 2 && v.restarts == 0).await;
    assert_eq!(world.switch.known(), before);
    let said = world.switch.said.lock().unwrap();
    for message in &said.endpoints[told..] {
        assert_eq!(message.endpoints, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_version_is_never_ready_and_the_trouble_says_so() {
    let world = World::start().await;
    world.claim(1).await.unwrap();
    let digest = world.stage(&world.web("v2", "v1"), &service().command).await.unwrap();
    let probes = Probes { version: Some(http("/version")), ..service().probes };
    let spec = tidegate_core::spec::ServiceSpec { probes, ..service() };
    let doc = doc(vec![capacity_of("v2", &digest, 1, spec)]);
    world.capacity(Fence::new(1, 1), &doc).await.unwrap();
    let seen = world.version("v2", "trouble", |v| v.trouble.is_some() && v.running == 1).await;
    let seen = match &seen.trouble {
        Some(text) if text.contains("answers version") => seen,
        _ => {
            world
                .version("v2", "version trouble", |v| {
                    v.trouble.as_ref().is_some_and(|t| t.contains("answers version"))
                })
                .await
        }
    };
    assert_eq!(seen.ready, 0);
    assert!(seen.trouble.unwrap().contains("it answers version \"v1\", not \"v2\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_ready_only_when_the_switch_knows_it() {
    let mut world = World::quiet(&[]);
    world.start_host().await;
    world.claim(1).await.unwrap();
    let digest = world.stage(&world.web("v1", "v1"), &service().command).await.unwrap();
    let doc = doc(vec![capacity_of("v1", &digest, 1, service())]);
    world.capacity(Fence::new(1, 1), &doc).await.unwrap();
    until("its probes have passed", async || {
        let instances = world.home.host().join("instances");
        let folder = std::fs::read_dir(instances).ok()?.next()?.ok()?.path();
        let text = std::fs::read_to_string(folder.join("slot.json")).ok()?;
        text.contains("\"ready\": true").then_some(())
    })
    .await;
    let report = world.report().await;
    assert_eq!((report.lanes[0].versions[0].running, report.lanes[0].versions[0].ready), (1, 0));
    assert!(report.switch.unwrap().contains("switch.sock"));
    world.switch.listen(&world.home);
    world.version("v1", "ready", |v| v.ready == 1).await;
    until("no trouble", async || world.report().await.switch.is_none().then_some(())).await;
    // What the first observation has led to is over when the second one is made.
    until("observed twice", async || {
        (world.switch.said.lock().unwrap().observed >= 2).then_some(())
    })
    .await;
    // Another switch that has no memory is told everything.
    let told = world.switch.said.lock().unwrap().endpoints.len();
    world.switch.said.lock().unwrap().switch_epoch = 2;
    until("told again", async || {
        (world.switch.said.lock().unwrap().endpoints.len() > told).then_some(())
    })
    .await;
    assert_eq!(world.switch.count(Ready), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_host_never_shows_an_instance_as_ready_that_is_to_stop() {
    let mut world = World::start().await;
    world.up(1).await;
    world.kill_host();
    // As if it had been killed right after it accepted a document without the instance.
    let path = world.home.host().join("state.json");
    let mut state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    state["lanes"][LANE]["doc"]["versions"] = serde_json::json!([]);
    std::fs::write(&path, state.to_string()).unwrap();
    let told = world.switch.said.lock().unwrap().endpoints.len();
    world.start_host().await;
    world.lane("gone", |lane| lane.versions.is_empty()).await;
    let said = world.switch.said.lock().unwrap();
    let states: Vec<_> =
        said.endpoints[told..].iter().flat_map(|m| m.endpoints.iter().map(|e| e.state)).collect();
    assert!(!states.is_empty() && states.iter().all(|state| *state == Draining), "{states:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_was_just_being_started_finds_nothing_to_do_under_a_new_host() {
    let mut world = World::start().await;
    world.up(1).await;
    world.kill_host();
    let folder = world.instance();
    kill(shim_pid(&folder).unwrap());
    std::fs::remove_file(folder.join("status.json")).unwrap();
    // A shim that has begun and has not said anything: it holds the lock.
    let lock = std::fs::File::options().write(true).open(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let spec = || {
        let names = std::fs::read_dir(&folder).unwrap().flatten().map(|e| e.file_name());
        names.into_iter().any(|name| name.to_string_lossy().starts_with("spec."))
    };
    assert!(spec());
    let slot = std::fs::read(folder.join("slot.json")).unwrap();
    let begun = Instant::now();
    world.begin_host();
    until("its orders are gone", async || (!spec()).then_some(())).await;
    // Before the host's patience with the lock (5 s) is over, and before anything new is begun.
    assert!(begun.elapsed().as_secs() < 4, "{:?}", begun.elapsed());
    assert_eq!(std::fs::read(folder.join("slot.json")).unwrap(), slot, "while the lock is held");
    drop(lock);
    world.answers().await;
    world.version("v1", "ready", |v| v.ready == 1).await;
}
