//! The simulated platform.

use serde_json::{Value, json};
use tidegate_core::machine::{Effect, EffectClass, Outcome};
use tidegate_core::{Epoch, StreamId};
use tidegate_drivers::Simulated;
use tidegate_engine::effects::{Attempt, Driver, Seen, Sending};
use tokio::sync::mpsc::channel;

use crate::doubles::{capacity_doc, traffic_doc};

const LANE: &str = "test/web";

fn sending(epoch: u64, seq: u64, action: &str, payload: Value) -> Sending {
    Sending {
        id: seq,
        stream: StreamId::new("shop", "rollout", "r-1"),
        epoch: Epoch(epoch),
        effect: Effect {
            key: format!("{action}-{seq}"),
            target: "process:local".into(),
            action: action.into(),
            class: EffectClass::StateSetting,
            seq,
            payload,
            deadline_ms: 1_000,
        },
    }
}

fn capacity(epoch: u64, seq: u64, number: u64) -> Sending {
    let doc = serde_json::to_value(capacity_doc(LANE, number)).unwrap();
    sending(epoch, seq, "capacity", doc)
}

fn traffic(epoch: u64, seq: u64, number: u64) -> Sending {
    let doc = serde_json::to_value(traffic_doc(LANE, number)).unwrap();
    sending(epoch, seq, "traffic", doc)
}

async fn taken(platform: &Simulated, sending: &Sending) -> bool {
    match platform.attempt(sending).await {
        Attempt::Done(Outcome::Applied(_)) => true,
        Attempt::Done(Outcome::Refused(reason)) => {
            assert_eq!(reason.code, "staleFence");
            false
        }
        other => panic!("{other:?}"),
    }
}

/// The fences that a watcher is told of at once.
async fn seen(platform: &Simulated) -> Vec<(&'static str, String)> {
    let (reports, mut reported) = channel(8);
    let watching = platform.watch("process:local", Epoch(9), reports);
    let mut fences = Vec::new();
    tokio::select! {
        _ = watching => {}
        () = async {
            while fences.len() < 2 {
                let Some(report) = reported.recv().await else { break };
                let (what, fence) = match report.seen {
                    Seen::Capacity(lane) => ("capacity", lane.fence),
                    Seen::Traffic(lane) => ("traffic", lane.fence),
                    Seen::Samples(_) | Seen::Silence(..) => panic!("it counts nothing"),
                };
                fences.push((what, fence.unwrap().to_string()));
            }
        } => {}
    }
    fences
}

#[tokio::test]
async fn what_is_older_or_other_under_the_same_fence_is_refused() {
    let platform = Simulated::new(None).unwrap();
    assert!(taken(&platform, &capacity(3, 5, 1)).await);
    assert!(taken(&platform, &capacity(3, 5, 1)).await, "twice is once");
    assert!(!taken(&platform, &capacity(3, 5, 2)).await);
    assert!(!taken(&platform, &capacity(2, 9, 2)).await);
    assert!(taken(&platform, &traffic(3, 4, 1)).await, "the two have fences of their own");
    assert!(taken(&platform, &capacity(4, 1, 2)).await);
    let odd = sending(4, 2, "dance", json!({}));
    let refused = platform.attempt(&odd).await;
    assert!(matches!(refused, Attempt::Done(Outcome::Refused(r)) if r.code == "impossible"));
}

#[tokio::test]
async fn the_next_life_of_the_engine_finds_what_the_last_one_has_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let before = {
        let platform = Simulated::new(Some(&log)).unwrap();
        assert!(taken(&platform, &capacity(3, 5, 1)).await);
        assert!(taken(&platform, &traffic(3, 6, 2)).await);
        assert!(!taken(&platform, &traffic(3, 4, 1)).await, "noted, and refused as before");
        seen(&platform).await
    };
    let platform = Simulated::new(Some(&log)).unwrap();
    assert_eq!(seen(&platform).await, before);
    assert!(!taken(&platform, &traffic(3, 5, 1)).await);
    std::fs::write(&log, "not a line\n").unwrap();
    assert!(Simulated::new(Some(&log)).is_err());
}
