//! A rollout in words and as the document that `status` shows. Times are milliseconds here; the
//! readers turn them into RFC 3339.

use serde_json::{Value, json};

use super::Outcome;
use super::event::{Event, RunResult};
use super::sense::{Count, Volatile};
use super::state::{Stage, State};
use crate::machine::{StreamId, View};
use crate::reason::Reason;
use crate::spec::Step;

/// Percent of a weight, for people and JSON.
fn percent(bp: u32) -> f64 {
    f64::from(bp) / 100.0
}

/// The name of an event and why it happened.
pub(super) fn describe(event: &Event) -> (&'static str, Option<Reason>) {
    match event {
        Event::Started { .. } => ("started", None),
        Event::Staged => ("staged", None),
        Event::StepStarted { .. } => ("stepStarted", None),
        Event::CapacityWanted { .. } => ("capacityWanted", None),
        Event::CapacityReady { .. } => ("capacityReady", None),
        Event::PreviewMoved { .. } => ("previewMoved", None),
        Event::TrafficWanted { .. } => ("trafficWanted", None),
        Event::TrafficApplied { .. } => ("trafficApplied", None),
        Event::TrafficObserved { .. } => ("trafficObserved", None),
        Event::MeasureRequested { .. } => ("measureRequested", None),
        Event::Measured { text, .. } => ("measured", Some(Reason::new("measured", text.clone()))),
        Event::CheckDecided { check, text, .. } => {
            ("checkDecided", Some(Reason::new("check", format!("{check}: {text}"))))
        }
        Event::RunEnded { name, result, text } => {
            let code = match result {
                RunResult::Succeeded => "runSucceeded",
                RunResult::Failed => "runFailed",
                RunResult::Unknown => "runUnknown",
            };
            ("runEnded", Some(Reason::new(code, format!("run {name}: {text}"))))
        }
        Event::StepEnded { skipped_by, .. } => (
            "stepEnded",
            skipped_by.as_ref().map(|who| Reason::new("skipped", format!("{who} skipped it"))),
        ),
        Event::FullPromotion { principal } => (
            "fullPromotion",
            Some(Reason::new("skipped", format!("{principal} skipped all further steps"))),
        ),
        Event::Promoted => ("promoted", None),
        Event::Baked { early } => ("baked", early.clone()),
        Event::Paused { principal } => {
            ("paused", Some(Reason::new("paused", format!("{principal} paused it"))))
        }
        Event::Resumed { principal } => {
            ("resumed", Some(Reason::new("resumed", format!("{principal} resumed it"))))
        }
        Event::Aborting { reason, .. } => ("aborting", Some(reason.clone())),
        Event::Superseded { by } => {
            ("superseded", Some(Reason::new("superseded", format!("{by} is to go out instead"))))
        }
        Event::TrafficReturned => ("trafficReturned", None),
        Event::Drained { left: 0 } => ("drained", None),
        Event::Drained { left } => {
            let text = format!("{left} requests were still under way when the drain time was over");
            ("drained", Some(Reason::new("drainTime", text)))
        }
        Event::Held { reason } => ("held", Some(reason.clone())),
        Event::TrafficRefused { reason, .. } => ("trafficRefused", Some(reason.clone())),
        Event::Unheld => ("unheld", None),
        Event::SentAgain { reason, .. } => ("sentAgain", Some(reason.clone())),
        Event::DocumentRefused { reason, .. } => ("documentRefused", Some(reason.clone())),
        Event::FallbackApplied { silence_ms } => {
            let text = format!("the host heard nothing for {} s", silence_ms / 1000);
            ("fallbackApplied", Some(Reason::new("engineLost", text)))
        }
        Event::Ended { outcome } => {
            let text = match outcome {
                Outcome::Promoted => "all traffic is on the new version",
                Outcome::RolledBack => "all traffic is on the version before",
                Outcome::Held => "a person is needed",
                Outcome::Superseded => "a newer release took its place",
                Outcome::Refused => "it could not start; nothing changed",
            };
            ("ended", Some(Reason::new("ended", text)))
        }
    }
}

/// What a rollout is doing, for refusals and `explain`.
pub(super) fn stage_words(state: &State) -> String {
    let version =
        state.start.as_ref().map_or("it", |s| s.proposal.release.version.as_str()).to_owned();
    let old = state
        .start
        .as_ref()
        .and_then(|s| s.previous.as_ref())
        .map_or_else(|| "nothing".to_owned(), |p| p.release.version.clone());
    match state.stage {
        Stage::New => "it has not started".to_owned(),
        Stage::Staging => format!("the files of {version} are brought to the host"),
        Stage::Scaling => {
            format!("waiting for {} ready instances of {version}", state.canary.max(1))
        }
        Stage::Shifting => {
            format!("waiting for the switch to give {version} {} %", percent(state.wanted_bp))
        }
        Stage::Pausing => match state.current() {
            Some(Step::Pause { duration_ms: Some(ms) }) => {
                format!(
                    "watching {version} at {} % for {} s",
                    percent(state.observed_bp),
                    ms / 1000
                )
            }
            _ => format!("paused at {} % until somebody promotes", percent(state.observed_bp)),
        },
        Stage::Analysing => format!("checking {version}"),
        Stage::Running => match state.current() {
            Some(Step::Run { name, .. }) => format!("running {name}"),
            _ => "running a command".to_owned(),
        },
        Stage::Resting => "paused between two steps".to_owned(),
        Stage::Baking => format!("{version} has all traffic; {old} stays warm"),
        Stage::Cooling => format!("baked; {old} stays for the scale-down delay"),
        Stage::Retiring => format!("{old} is being stopped"),
        Stage::ReturningCapacity => format!("going back: waiting for ready instances of {old}"),
        Stage::ReturningTraffic => format!("going back: waiting for the switch to serve {old}"),
        Stage::Draining => format!("going back: {version} finishes its requests"),
        Stage::ReturningDown => format!("going back: {version} is being stopped"),
        Stage::Ended => "it has ended".to_owned(),
    }
}

fn phase(state: &State) -> &'static str {
    if state.held.is_some() {
        return "Held";
    }
    match state.stage {
        Stage::New => "Pending",
        Stage::Pausing | Stage::Resting => "Paused",
        Stage::Staging | Stage::Scaling | Stage::Shifting | Stage::Analysing | Stage::Running => {
            if state.paused_by.is_some() {
                "Paused"
            } else {
                "Progressing"
            }
        }
        Stage::Baking => "Baking",
        Stage::Cooling | Stage::Retiring => "Healthy",
        Stage::ReturningCapacity
        | Stage::ReturningTraffic
        | Stage::Draining
        | Stage::ReturningDown => "RollingBack",
        Stage::Ended => match state.outcome {
            Some(Outcome::Promoted) => "Healthy",
            Some(Outcome::RolledBack | Outcome::Held | Outcome::Superseded | Outcome::Refused)
            | None => "Degraded",
        },
    }
}

fn step_kind(state: &State) -> &'static str {
    match state.stage {
        Stage::Baking => return "bake",
        Stage::Cooling | Stage::Retiring => return "retire",
        Stage::Ended => return "ended",
        Stage::Staging => return "stage",
        Stage::ReturningCapacity
        | Stage::ReturningTraffic
        | Stage::Draining
        | Stage::ReturningDown => return "return",
        Stage::New
        | Stage::Scaling
        | Stage::Shifting
        | Stage::Pausing
        | Stage::Analysing
        | Stage::Running
        | Stage::Resting => {}
    }
    match state.current() {
        Some(Step::SetWeight { .. }) => "setWeight",
        Some(Step::Pause { .. }) => "pause",
        Some(Step::Analysis { .. }) => "analysis",
        Some(Step::Run { .. }) => "run",
        None => "promote",
    }
}

fn waiting(state: &State, volatile: &Volatile) -> Value {
    if state.stage == Stage::Ended || state.stage == Stage::New {
        return Value::Null;
    }
    let since = state.stage_since.0;
    if let Some(reason) = &state.held {
        let needs = if reason.code == "runUnknown" { Some("a person") } else { None };
        return json!({ "code": reason.code, "text": reason.text, "since": since, "until": null,
            "needs": needs });
    }
    if let Some(who) = &state.paused_by {
        let text = format!("paused by {who}: {}", stage_words(state));
        return json!({ "code": "paused", "text": text, "since": since, "until": null,
            "needs": "tidegate resume" });
    }
    if let Some(silent) = &volatile.silent {
        return json!({ "code": "silent", "text": silent, "since": since, "until": null,
            "needs": null });
    }
    if let Some(reason) = &volatile.holding {
        return json!({ "code": reason.code, "text": reason.text, "since": since, "until": null,
            "needs": null });
    }
    let planned_ms = match (state.stage, state.current()) {
        (Stage::Pausing, Some(Step::Pause { duration_ms })) => *duration_ms,
        (Stage::Baking, _) => state.start.as_ref().map(|s| s.proposal.environment.bake_ms),
        _ => None,
    };
    let until = planned_ms.map(|ms| since + ms);
    let (code, needs) = match (state.stage, planned_ms) {
        (Stage::Pausing, None) => ("pause", Some("tidegate promote")),
        (Stage::Pausing, Some(_)) => ("pause", None),
        (Stage::Baking, _) => ("bake", None),
        (Stage::Scaling | Stage::Analysing | Stage::ReturningCapacity, _) => ("instances", None),
        (Stage::Shifting | Stage::ReturningTraffic, _) => ("switch", None),
        (Stage::Draining, _) => ("drain", None),
        _ => ("progress", None),
    };
    json!({ "code": code, "text": stage_words(state), "since": since, "until": until,
        "needs": needs })
}

fn reason(state: &State) -> Option<Reason> {
    state.back.as_ref().map(|b| b.reason.clone())
}

fn count(count: Count) -> Value {
    json!({ "requests": count.requests, "errors": count.errors })
}

/// The document of the interface's `rollout`, with times in milliseconds.
pub(super) fn view(id: &StreamId, state: &State, volatile: &Volatile) -> View {
    let open = !matches!(state.stage, Stage::New | Stage::Ended);
    let Some(start) = &state.start else { return View { open, doc: Value::Null } };
    let proposal = &start.proposal;
    let total = state.moves.len() + 1;
    let outcome = match (state.outcome, &state.held) {
        (None, Some(_)) => Some(Outcome::Held),
        (outcome, _) => outcome,
    };
    let doc = json!({
        "id": id.id,
        "environment": proposal.environment.name,
        "services": [proposal.service.name],
        "kind": proposal.kind,
        "version": proposal.release.version,
        "digest": proposal.release.digest,
        "previous": start.previous.as_ref().map(|p| json!({
            "version": p.release.version, "digest": p.release.digest,
        })),
        "phase": phase(state),
        "step": { "index": (state.step + 1).min(total), "count": total, "kind": step_kind(state) },
        "weight": {
            "wanted": percent(state.wanted_bp),
            "applied": percent(state.applied_bp),
            "observed": percent(state.observed_bp),
        },
        "waiting": waiting(state, volatile),
        "counts": { "stable": count(volatile.stable), "canary": count(volatile.canary) },
        "verdict": state.verdict,
        "startedAt": state.started_at.0,
        "endedAt": state.ended_at.map(|t| t.0),
        "outcome": outcome,
        "reason": reason(state),
        "plan": state.plan,
        "superseded": state.superseded_by,
    });
    View { open, doc }
}
