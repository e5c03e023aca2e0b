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
