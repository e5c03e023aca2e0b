//! A rollout in each of its stages.

use std::collections::BTreeMap;

use serde_json::json;
use tidegate_core::lane::{FENCE_BLOCK, Kept, Proposal};
use tidegate_core::rollout::{
    CheckVerdict, Event, Measurement, Outcome, RolloutKind, RunResult, Start, State,
};
use tidegate_core::spec::{
    Canary, CheckKind, CheckSpec, EnvironmentSpec, ErrorSpec, IfEngineLost, LostAction,
    NoDataPolicy, Platform, Probes, ReleaseRef, Resources, ServiceSpec, Step, StopSpec,
};
use tidegate_core::{Digest, Reason, Timestamp};

/// When everything happens.
pub(crate) const NOW: Timestamp = Timestamp(1_700_000_000_000);

pub(crate) fn release(version: &str) -> ReleaseRef {
    ReleaseRef {
        version: version.into(),
        digest: Digest::of(version.as_bytes()),
        path: format!("/srv/{version}"),
    }
}

pub(crate) fn service() -> ServiceSpec {
    ServiceSpec {
        name: "web".into(),
        artifact: "web-{version}".into(),
        command: vec!["./web".into()],
        instances: 3,
        env: BTreeMap::new(),
        secrets: Vec::new(),
        resources: Resources::default(),
        stop: StopSpec { signal: "SIGTERM".into(), grace_ms: 10_000 },
        probes: Probes::default(),
        routes: Vec::new(),
        errors: ErrorSpec { status: vec![(500, 599)], timeout_ms: 60_000 },
    }
}

pub(crate) fn steps() -> Vec<Step> {
    vec![
        Step::Analysis { checks: vec!["smoke".into()] },
        Step::Run { name: "migrate".into(), command: vec!["./m".into()], timeout_ms: 1_000 },
        Step::SetWeight { weight_bp: 1_000 },
        Step::Pause { duration_ms: Some(10_000) },
        Step::Pause { duration_ms: None },
    ]
}

pub(crate) fn proposal(version: &str, kind: RolloutKind) -> Proposal {
    Proposal {
        release: release(version),
        service: service(),
        environment: EnvironmentSpec {
            name: "production".into(),
            needs: None,
            platform: Platform::Process { listen: "127.0.0.1:8080".into() },
            strategy: Canary {
                name: "canary".into(),
                steps: steps(),
                analysis: vec!["smoke".into()],
                progress_deadline_ms: 60_000,
                scale_down_delay_ms: 5_000,
                sticky_cookie: None,
            },
            bake_ms: 20_000,
            if_engine_lost: IfEngineLost {
                after_ms: 60_000,
                canary: LostAction::Rollback,
                bake: LostAction::Rollback,
            },
        },
        checks: vec![CheckSpec {
            name: "smoke".into(),
            kind: CheckKind::Http {
                url: "{previewUrl}/".into(),
                status: vec![(200, 399)],
                timeout_ms: 1_000,
            },
            interval_ms: 5_000,
            count: 1,
            failure_limit: 0,
            consecutive_error_limit: 4,
            no_data: NoDataPolicy::Hold,
            source_down: NoDataPolicy::Hold,
        }],
        principal: "ada".into(),
        release_stream: Some(format!("web@{version}")),
        kind,
    }
}

fn started() -> Event {
    let previous = Kept { release: release("v1"), service: service() };
    let start = Start {
        proposal: proposal("v2", RolloutKind::Release),
        previous: Some(previous),
        also: Vec::new(),
        fence_base: 2 * FENCE_BLOCK,
    };
    let plan = Digest::of(b"plan");
    Event::Started { start: Box::new(start), moves: steps(), plan, rules: 1 }
}

fn capacity(n: u64, canary: u32, previous: u32) -> Event {
    Event::CapacityWanted { seq: 2 * FENCE_BLOCK + n, canary, previous, also: false }
}

fn weight(n: u64, weight_bp: u32) -> Event {
    Event::TrafficWanted { seq: 2 * FENCE_BLOCK + n, weight_bp }
}

fn seen(n: u64, weight_bp: u32) -> Event {
    Event::TrafficObserved { seq: 2 * FENCE_BLOCK + n, weight_bp }
}

fn ready() -> Event {
    Event::CapacityReady { ready: 1, preview: Some("http://127.0.0.1:1".into()) }
}

fn step(index: usize) -> Event {
    Event::StepStarted { index }
}

fn done(index: usize) -> Event {
    Event::StepEnded { index, skipped_by: None }
}

fn aborting() -> Event {
    let reason = Reason::new("aborted", "ada aborted it");
    Event::Aborting { reason, outcome: Outcome::RolledBack }
}

/// The way forward, cut where each stage begins: (its name, the events that lead on to it).
fn forward() -> Vec<(&'static str, Vec<Event>)> {
    vec![
        ("new", vec![]),
        ("staging", vec![started()]),
        ("analysing", vec![Event::Staged, step(0), capacity(1, 1, 3)]),
        ("running", vec![ready(), done(0), step(1)]),
        ("scaling", vec![done(1), step(2), capacity(3, 1, 3)]),
        ("shifting", vec![ready(), weight(5, 1_000)]),
        ("pausing", vec![seen(5, 1_000), done(2), step(3)]),
        ("waiting", vec![done(3), step(4)]),
        (
            "baking",
            vec![
                done(4),
                step(5),
                capacity(7, 3, 3),
                ready(),
                weight(9, 10_000),
                seen(9, 10_000),
                Event::Promoted,
            ],
        ),
        ("cooling", vec![Event::Baked { early: None }]),
        ("retiring", vec![capacity(11, 3, 0)]),
        ("promoted", vec![Event::Ended { outcome: Outcome::Promoted }]),
    ]
}

/// The way back, from the pause.
fn back() -> Vec<(&'static str, Vec<Event>)> {
    vec![
        ("returningCapacity", vec![aborting()]),
        ("returningTraffic", vec![weight(7, 0)]),
        ("draining", vec![seen(7, 0), Event::TrafficReturned]),
        ("returningDown", vec![Event::Drained { left: 0 }, capacity(9, 0, 3)]),
        ("rolledBack", vec![Event::Ended { outcome: Outcome::RolledBack }]),
    ]
}

/// Every stage by name, with the events that lead to it.
pub(crate) fn histories() -> Vec<(&'static str, Vec<Event>)> {
    let mut all = Vec::new();
    let mut history = Vec::new();
    let mut pause = Vec::new();
    for (name, events) in forward() {
        history.extend(events);
        if name == "pausing" {
            pause.clone_from(&history);
        }
        all.push((name, history.clone()));
    }
    for (name, events) in back() {
        pause.extend(events);
        all.push((name, pause.clone()));
    }
    let paused = Event::Paused { principal: "ada".into() };
    all.push(("resting", vec![started(), paused, Event::Staged]));
    let reason = Reason::new("runUnknown", "it may have happened");
    let mut held = all.iter().find(|(name, _)| *name == "running").expect("there").1.clone();
    held.push(Event::Held { reason });
    all.push(("runUnknown", held));
    all
}

pub(crate) fn folded(history: &[Event]) -> State {
    let mut state = State::default();
    for event in history {
        state.apply(event, NOW);
    }
    state
}

/// One of every kind of event.
pub(crate) fn all_events() -> Vec<Event> {
    let reason = || Reason::new("code", "text");
    let mut events: Vec<Event> = histories().into_iter().flat_map(|(_, history)| history).collect();
    events.extend([
        Event::PreviewMoved { preview: "http://127.0.0.1:2".into() },
        Event::TrafficApplied { seq: 5, weight_bp: 1_000 },
        Event::TrafficRefused { seq: 5, reason: reason() },
        Event::DocumentRefused { what: "capacity".into(), seq: 5, reason: reason() },
        Event::MeasureRequested { check: "smoke".into(), number: 1, gate: true },
        Event::Measured {
            check: "smoke".into(),
            number: 1,
            gate: false,
            result: Measurement::Error,
            text: "refused".into(),
        },
        Event::CheckDecided {
            check: "smoke".into(),
            verdict: CheckVerdict::SourceDown,
            text: "down".into(),
            evidence: json!({ "errorsInARow": 4 }),
        },
        Event::RunEnded { name: "m".into(), result: RunResult::Unknown, text: "?".into() },
        Event::StepEnded { index: 1, skipped_by: Some("ada".into()) },
        Event::FullPromotion { principal: "ada".into() },
        Event::Baked { early: Some(reason()) },
        Event::Resumed { principal: "ada".into() },
        Event::Superseded { by: "v3".into() },
        Event::Drained { left: 3 },
        Event::Unheld,
        Event::SentAgain { what: "traffic".into(), reason: reason() },
        Event::FallbackApplied { silence_ms: 60_000 },
        Event::Ended { outcome: Outcome::Held },
        Event::Ended { outcome: Outcome::Superseded },
        Event::Ended { outcome: Outcome::Refused },
    ]);
    events
}
