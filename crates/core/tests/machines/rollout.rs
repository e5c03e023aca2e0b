//! The rollout: verbs by stage, events there and back, and totality.

use serde_json::{Value, json};
use tidegate_core::capacity::{LaneCapacity, VersionObserved};
use tidegate_core::machine::{Outcome as Answered, Sensed, Stimulus};
use tidegate_core::rollout::{Event, Input, RolloutMachine, Volatile};
use tidegate_core::traffic::{LaneTraffic, VersionTraffic};
use tidegate_core::{Digest, Fence, Machine, Reason, StreamId};

use crate::stages::{NOW, all_events, folded, histories};

fn id() -> StreamId {
    StreamId::new("shop", "rollout", "production-web-2")
}

fn verbs() -> Vec<(&'static str, Input)> {
    let principal = || "ada".to_owned();
    vec![
        ("promote", Input::Promote { full: false, principal: principal() }),
        ("full", Input::Promote { full: true, principal: principal() }),
        ("pause", Input::Pause { principal: principal() }),
        ("resume", Input::Resume { principal: principal() }),
        ("abort", Input::Abort { principal: principal(), reason: None }),
        ("supersede", Input::Supersede { by: "v3".into() }),
    ]
}

/// What each verb is answered in each stage, in the order of [`verbs`]; `ok` or the refusal's code.
const TABLE: &[(&str, [&str; 6])] = &[
    ("new", ["unknownRollout"; 6]),
    ("staging", ["nothingToSkip", "ok", "ok", "notPaused", "ok", "ok"]),
    ("resting", ["ok", "ok", "paused", "ok", "ok", "ok"]),
    ("analysing", ["ok", "ok", "ok", "notPaused", "ok", "ok"]),
    ("running", ["nothingToSkip", "ok", "ok", "notPaused", "ok", "ok"]),
    ("runUnknown", ["ok", "ok", "ok", "notPaused", "ok", "ok"]),
    ("scaling", ["nothingToSkip", "ok", "ok", "notPaused", "ok", "ok"]),
    ("shifting", ["nothingToSkip", "ok", "ok", "notPaused", "ok", "ok"]),
    ("pausing", ["ok", "ok", "ok", "notPaused", "ok", "ok"]),
    ("waiting", ["ok", "ok", "ok", "ok", "ok", "ok"]),
    ("baking", ["ok", "ok", "ok", "notPaused", "ok", "ok"]),
    ("cooling", ["promoted", "promoted", "nothingToPause", "notPaused", "ok", "ok"]),
    ("retiring", ["promoted", "promoted", "nothingToPause", "notPaused", "ok", "ok"]),
    ("promoted", ["promoted", "promoted", "nothingToPause", "notPaused", "ended", "ok"]),
    ("returningCapacity", RETURNING),
    ("returningTraffic", RETURNING),
    ("draining", RETURNING),
    ("returningDown", RETURNING),
    (
        "rolledBack",
        ["nothingToPromote", "nothingToPromote", "nothingToPause", "notPaused", "aborted", "ok"],
    ),
];

const RETURNING: [&str; 6] =
    ["nothingToPromote", "nothingToPromote", "nothingToPause", "notPaused", "aborting", "ok"];

#[test]
fn every_verb_has_its_answer_in_every_stage() {
    let histories = histories();
    assert_eq!(histories.len(), TABLE.len(), "a stage is missing in the table");
    let mut wrong = Vec::new();
    for (stage, history) in &histories {
        let (_, expected) = TABLE.iter().find(|(name, _)| name == stage).expect("a row");
        for ((verb, input), expected) in verbs().into_iter().zip(expected) {
            let state = folded(history);
            let result = RolloutMachine::accept(&id(), &state, Stimulus::Ask(input), NOW);
            let answer = result.map_or_else(|refused| refused.code, |_| "ok".to_owned());
            if answer != *expected {
                wrong.push(format!("{stage}: {verb} is answered {answer}, not {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_refused_verb_says_what_it_waits_for_and_an_abort_always_leads_back() {
    for (stage, history) in histories() {
        let mut state = folded(&history);
        for (_, input) in verbs() {
            if let Err(refused) = RolloutMachine::accept(&id(), &state, Stimulus::Ask(input), NOW) {
                assert!(refused.text.len() > 10, "{stage}: {refused:?}");
            }
        }
        let abort = Input::Abort { principal: "ada".into(), reason: None };
        let Ok(events) = RolloutMachine::accept(&id(), &state, Stimulus::Ask(abort), NOW) else {
            continue;
        };
        for event in &events {
            RolloutMachine::apply(&mut state, event, NOW);
        }
        let view = RolloutMachine::view(&id(), &state, &Volatile::default());
        let back = view.doc["phase"] == "RollingBack" || !view.open;
        assert!(back, "{stage}: {}", view.doc["phase"]);
        let forward = events
            .iter()
            .any(|event| matches!(event, Event::TrafficWanted { weight_bp, .. } if *weight_bp > 0));
        assert!(!forward, "{stage}: an abort raises the weight");
    }
}

#[test]
fn every_event_comes_back_from_its_json_as_it_was() {
    for event in all_events() {
        let text = serde_json::to_string(&event).expect("written");
        let again: Event = serde_json::from_str(&text).expect("read");
        assert_eq!(again, event);
        let (name, _) = RolloutMachine::describe(&event);
        let value: Value = serde_json::from_str(&text).expect("json");
        assert_eq!(value["type"], name, "the name for people is the name in the journal");
    }
}

#[test]
fn a_state_comes_back_from_its_snapshot_as_it_was() {
    for (stage, history) in histories() {
        let state = folded(&history);
        let text = serde_json::to_string(&state).expect("written");
        let again: tidegate_core::rollout::State = serde_json::from_str(&text).expect("read");
        assert_eq!(again, state, "{stage}");
    }
}

#[test]
fn any_event_in_any_stage_is_folded_shown_and_acted_upon_without_panic() {
    for (_, history) in histories() {
        for event in all_events() {
            let mut state = folded(&history);
            RolloutMachine::apply(&mut state, &event, NOW);
            let _ = RolloutMachine::decide(&id(), &state, &event, NOW);
            let _ = RolloutMachine::view(&id(), &state, &Volatile::default());
            let _ = RolloutMachine::watches(&state);
        }
    }
}

fn answers() -> Vec<Answered> {
    let reason = || Reason::new("why", "because");
    vec![
        Answered::Applied(json!({})),
        Answered::Applied(Value::Null),
        Answered::Refused(reason()),
        Answered::Failed(reason()),
        Answered::Unknown(reason()),
        Answered::Unreachable(reason()),
    ]
}

#[test]
fn no_answer_and_no_timer_is_refused_in_any_stage() {
    let keys = [
        "stage",
        "stage-1",
        "capacity-2097153",
        "traffic-2097157",
        "run-1",
        "run-",
        "run-99",
        "check-gate-1-smoke",
        "check-watch-9-smoke",
        "check-",
        "nonsense",
        "",
    ];
    let timers =
        ["gate:smoke", "watch:smoke", "again:capacity:2097153", "again:", "gate:", "nonsense"];
    for (stage, history) in histories() {
        let state = folded(&history);
        for key in keys {
            for outcome in answers() {
                let stimulus = Stimulus::Answer { key: key.to_owned(), outcome };
                let result = RolloutMachine::accept(&id(), &state, stimulus, NOW);
                assert!(result.is_ok(), "{stage}: {key}");
            }
        }
        for key in timers {
            let result =
                RolloutMachine::accept(&id(), &state, Stimulus::Timer(key.to_owned()), NOW);
            assert!(result.is_ok(), "{stage}: timer {key}");
        }
    }
}

fn capacity(seq: u64, ready: u32) -> LaneCapacity {
    let version = |name: &str| VersionObserved {
        version: name.to_owned(),
        digest: Digest::of(name.as_bytes()),
        wanted: 3,
        running: ready,
        ready,
        ..VersionObserved::default()
    };
    LaneCapacity {
        lane: "production/web".into(),
        fence: Some(Fence::new(1, seq)),
        versions: vec![version("v1"), version("v2")],
        fallback_applied: None,
    }
}

fn traffic(seq: u64, weight_bp: u32) -> LaneTraffic {
    let version = |name: &str, weight_bp| VersionTraffic {
        version: name.to_owned(),
        digest: Digest::of(name.as_bytes()),
        weight_bp,
        in_flight: 0,
        usable: 3,
    };
    LaneTraffic {
        lane: "production/web".into(),
        fence: Some(Fence::new(1, seq)),
        versions: vec![version("v2", weight_bp), version("v1", 10_000 - weight_bp)],
    }
}

#[test]
fn whatever_is_seen_in_any_stage_the_rollout_stays_sound() {
    for (stage, history) in histories() {
        for seq in [0, 2_097_153, 2_097_157, 2_097_161, 3_145_727, u64::MAX] {
            for (ready, weight_bp) in [(0, 0), (3, 1_000), (3, 10_000), (1, 0)] {
                let mut state = folded(&history);
                let mut volatile = Volatile::default();
                let (host, switch) = (capacity(seq, ready), traffic(seq, weight_bp));
                let progress = json!({ "stageNumber": 7, "elapsedMs": "no number" });
                let seen = [
                    Sensed::Progress(&progress),
                    Sensed::Capacity(&host),
                    Sensed::Traffic(&switch),
                    Sensed::Tick { awake_ms: 2_000 },
                    Sensed::Silence { target: "process:local", for_ms: 9_000, why: "gone" },
                    Sensed::Tick { awake_ms: u64::from(u32::MAX) },
                    Sensed::Capacity(&host),
                ];
                for sensed in &seen {
                    let now = NOW.plus(3_600_000);
                    let reaction = RolloutMachine::sense(&id(), &state, &mut volatile, sensed, now);
                    for event in reaction.events {
                        RolloutMachine::apply(&mut state, &event, now);
                    }
                    let view = RolloutMachine::view(&id(), &state, &volatile);
                    assert_eq!(view.open, RolloutMachine::is_open(&state));
                }
                // Nobody needs a second look to see that it has stopped.
                let was = stage == "promoted" || stage == "rolledBack";
                assert!(!was || !RolloutMachine::is_open(&state), "{stage} has begun again");
            }
        }
    }
}
