//! Telling the switch which instances are where, and asking it what is under way.

use std::sync::Arc;
use std::time::Duration;

use tidegate_ipc::Client;
use tidegate_wire::switch::{Endpoints, SwitchReport};
use tokio::time::Instant;

use crate::host::Host;

/// Of one request.
const WITHIN: Duration = Duration::from_secs(5);
/// First pause after a failure; doubled up to [`PAUSE_MOST`].
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Longest pause after a failure.
const PAUSE_MOST: Duration = Duration::from_secs(1);
/// How long an observation is left open when nothing is wanted from it but its end.
const OBSERVE: Duration = Duration::from_secs(30);
/// Between two answers of an observation, so that a busy switch does not make a busy host.
const OBSERVE_GAP: Duration = Duration::from_secs(1);
/// Between two questions whether an instance is idle.
const IDLE_GAP: Duration = Duration::from_millis(10);

/// A client for the switch of this home.
pub(crate) fn client(host: &Host) -> Client {
    Client::new(&host.config.home.socket("switch"))
}

/// Sends the endpoints of each lane that has changed until the switch has them. Never returns.
pub(crate) async fn tell(host: Arc<Host>) {
    let client = client(&host);
    let mut seq = 0_u64;
    let mut pause = PAUSE_FIRST;
    loop {
        let lane = host.inner().untold.first().cloned();
        let Some(lane) = lane else {
            host.link.notified().await;
            continue;
        };
        seq += 1;
        let message = {
            let mut inner = host.inner();
            inner.untold.remove(&lane);
            let endpoints = inner.endpoints(&lane);
            Endpoints { life: host.life.clone(), seq, lane: lane.clone(), endpoints }
        };
        let answer: Result<serde_json::Value, _> =
            client.post("/v1/endpoints", &message, WITHIN).await;
        match answer {
            Ok(_) => {
                pause = PAUSE_FIRST;
                let mut inner = host.inner();
                inner.told.insert(lane, message.endpoints);
                inner.switch_trouble = None;
                drop(inner);
                host.bump();
            }
            Err(e) => {
                host.inner().untold.insert(lane);
                trouble(&host, format!("the switch was not told the endpoints: {e}"));
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = host.switch_started.notified() => {}
                }
                pause = (pause * 2).min(PAUSE_MOST);
            }
        }
    }
}

/// Keeps an observation of the switch open, to see when it is replaced: a new one is told
/// everything. Never returns.
pub(crate) async fn observe(host: Arc<Host>) {
    let client = client(&host);
    let mut life = None;
    let mut after = 0;
    let mut pause = PAUSE_FIRST;
    loop {
        let asked = Instant::now();
        let path = format!("/v1/observe?after={after}&waitMs={}", OBSERVE.as_millis());
        let answer: Result<SwitchReport, _> = client.get(&path, OBSERVE + WITHIN).await;
        match answer {
            Ok(report) => {
                pause = PAUSE_FIRST;
                after = report.revision;
                if life != Some(report.switch_epoch) {
                    tell_all(&host, life.is_some());
                    life = Some(report.switch_epoch);
                }
                let had_trouble = host.inner().switch_trouble.take().is_some();
                if had_trouble {
                    host.bump();
                }
                tokio::time::sleep_until(asked + OBSERVE_GAP).await;
            }
            Err(e) => {
                after = 0;
                trouble(&host, format!("the switch does not answer: {e}"));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MOST);
            }
        }
    }
}

/// Everything has to be told again. What a `replaced` switch knew counts no more.
pub(crate) fn tell_all(host: &Host, replaced: bool) {
    let mut inner = host.inner();
    let lanes: Vec<String> = inner
        .state
        .lanes
        .keys()
        .cloned()
        .chain(inner.slots.values().map(|slot| slot.lane.clone()))
        .collect();
    inner.untold.extend(lanes);
    if replaced {
        inner.told.clear();
    }
    drop(inner);
    host.link.notify_one();
}

/// Sets why the switch is of no use now.
pub(crate) fn trouble(host: &Host, text: String) {
    let changed = {
        let mut inner = host.inner();
        let changed = inner.switch_trouble.as_ref() != Some(&text);
        inner.switch_trouble = Some(text);
        changed
    };
    if changed {
        host.bump();
    }
}

/// Returns when the switch says that no request is under way at the instance. The switch has to
/// know it as draining before.
pub(crate) async fn until_idle(host: &Host, lane: &str, name: &str, generation: u64) {
    let client = client(host);
    let mut after = 0;
    loop {
        let path = format!("/v1/observe?after={after}&waitMs=200");
        let answer: Result<SwitchReport, _> = client.get(&path, WITHIN).await;
        match answer {
            Ok(report) => {
                after = report.revision;
                let busy = report.instances.iter().any(|i| {
                    i.lane == lane
                        && i.instance == name
                        && i.generation == generation
                        && i.in_flight > 0
                });
                if !busy {
                    return;
                }
                tokio::time::sleep(IDLE_GAP).await;
            }
            Err(_) => {
                after = 0;
                tokio::time::sleep(PAUSE_FIRST * 5).await;
            }
        }
    }
}
