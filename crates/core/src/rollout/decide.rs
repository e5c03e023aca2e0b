//! What is asked of the world because of an event.

use serde_json::json;

use super::Outcome;
use super::docs;
use super::event::Event;
use super::gate::ERROR_RETRY_MS;
use super::state::{Stage, State, check_key};
use crate::lane;
use crate::machine::{Command, Effect, StreamId};
use crate::release;
use crate::spec::Step;
use crate::time::Timestamp;

/// A refused document that has to come into force is sent again after this.
const REFUSED_RETRY_MS: u64 = 15_000;

pub(super) fn decide(id: &StreamId, state: &State, event: &Event, at: Timestamp) -> Vec<Command> {
    let mut commands = Vec::new();
    match event {
        Event::Started { .. } => {
            commands.extend(docs::stage_effect(state).map(Command::Effect));
        }
        Event::StepStarted { index } => {
            if let Some(Step::Run { command, timeout_ms, .. }) = state.moves.get(*index) {
                let effect = docs::run_effect(state, *index, command, *timeout_ms);
                commands.extend(effect.map(Command::Effect));
            }
        }
        Event::CapacityWanted { .. } => {
            commands.extend(docs::capacity_effect(id, state).map(Command::Effect));
        }
        Event::TrafficWanted { weight_bp, .. } => {
            commands.extend(docs::traffic_effect(state).map(Command::Effect));
            if *weight_bp > 0 && state.shifted_at == Some(at) && !state.settled {
                start_watching(state, at, &mut commands);
            }
        }
        Event::SentAgain { what, .. } => {
            commands.extend(document(id, state, what).map(Command::Effect));
        }
        Event::MeasureRequested { check, number, gate } => {
            commands.extend(docs::check_effect(state, check, *number, *gate).map(Command::Effect));
        }
        Event::Measured { check, gate, .. } => {
            measure_again(state, check, *gate, at, &mut commands);
        }
        Event::Promoted => {
            commands.push(to_lane(id, state, &lane::Input::Promoted { rollout: id.id.clone() }));
        }
        Event::Aborting { .. } => forget_all(state, &mut commands),
        Event::DocumentRefused { what, seq, .. } => {
            let key = format!("again:{what}:{seq}");
            commands.push(Command::SetTimer { key, due: at.plus(REFUSED_RETRY_MS) });
        }
        Event::Ended { outcome } => {
            forget_all(state, &mut commands);
            commands.push(tell_lane_of_end(id, state, *outcome));
        }
        Event::Staged
        | Event::CapacityReady { .. }
        | Event::PreviewMoved { .. }
        | Event::TrafficApplied { .. }
        | Event::TrafficObserved { .. }
        | Event::CheckDecided { .. }
        | Event::RunEnded { .. }
        | Event::StepEnded { .. }
        | Event::FullPromotion { .. }
        | Event::Baked { .. }
        | Event::Paused { .. }
        | Event::Resumed { .. }
        | Event::Superseded { .. }
        | Event::TrafficReturned
        | Event::Drained { .. }
        | Event::Held { .. }
        | Event::Unheld
        | Event::TrafficRefused { .. }
        | Event::FallbackApplied { .. } => {}
    }
    overtaken(state, event, &mut commands);
    tell_release(id, state, event, &mut commands);
    commands
}

/// From an abort on nothing is sent any more that would bring the new version forward; and after
/// the end nothing at all: under a new epoch an old document would pass before the newer ones of
/// the next rollout.
fn forget_all(state: &State, commands: &mut Vec<Command>) {
    let keys = [
        docs::stage_key(state),
        docs::document_key("capacity", state.capacity_seq, state.capacity_again),
        docs::document_key("traffic", state.traffic_seq, state.traffic_again),
        docs::run_key(state.step),
    ];
    commands.extend(keys.map(|key| Command::Forget { key }));
    for (name, check) in &state.checks {
        let (gate, check_name) = match name.split_once(':') {
            Some((place, check_name)) => (place == "gate", check_name),
            None => continue,
        };
        let key = docs::check_effect_key(check_name, check.asked, gate);
        commands.push(Command::Forget { key });
    }
}

/// A document that is followed by a newer one need not arrive any more.
fn overtaken(state: &State, event: &Event, commands: &mut Vec<Command>) {
    let (what, (seq, again)) = if matches!(event, Event::CapacityWanted { .. }) {
        ("capacity", state.overtaken_capacity)
    } else if matches!(event, Event::TrafficWanted { .. }) {
        ("traffic", state.overtaken_traffic)
    } else {
        return;
    };
    if seq > 0 {
        commands.insert(0, Command::Forget { key: docs::document_key(what, seq, again) });
    }
}

fn start_watching(state: &State, at: Timestamp, commands: &mut Vec<Command>) {
    for name in state.watching() {
        let Some(check) = state.check(name) else { continue };
        if docs::check_effect(state, name, 1, false).is_some() {
            let key = check_key(name, false);
            commands.push(Command::SetTimer { key, due: at.plus(check.interval_ms) });
        }
    }
}

fn measure_again(
    state: &State,
    check: &str,
    gate: bool,
    at: Timestamp,
    commands: &mut Vec<Command>,
) {
    let Some(spec) = state.check(check) else { return };
    let key = check_key(check, gate);
    let failing = state.checks.get(&key).is_some_and(|c| c.errors > 0);
    let wait = if failing { spec.interval_ms.min(ERROR_RETRY_MS) } else { spec.interval_ms };
    let wanted = if gate {
        state.stage == Stage::Analysing && !state.passed.iter().any(|c| c == check)
    } else {
        state.is_watched()
    };
    if wanted {
        commands.push(Command::SetTimer { key, due: at.plus(wait) });
    }
}

/// The last document or artifact of a kind, as an effect.
fn document(id: &StreamId, state: &State, what: &str) -> Option<Effect> {
    match what {
        "capacity" => docs::capacity_effect(id, state),
        "traffic" => docs::traffic_effect(state),
        _ => docs::stage_effect(state),
    }
}

fn tell_lane_of_end(id: &StreamId, state: &State, outcome: Outcome) -> Command {
    let input = lane::Input::Ended {
        rollout: id.id.clone(),
        outcome,
        left: state.left_running(),
        leftovers: state.has_leftovers(),
    };
    to_lane(id, state, &input)
}

fn to_lane(id: &StreamId, state: &State, input: &lane::Input) -> Command {
    let to = StreamId::new(&id.project, "lane", &docs::lane(state));
    Command::Send { to, input: json!(input) }
}

/// The release goes on as soon as all traffic is on it, or stops as soon as it has been taken back.
fn tell_release(id: &StreamId, state: &State, event: &Event, commands: &mut Vec<Command>) {
    let outcome = if let Event::Ended { outcome } = event {
        *outcome
    } else if matches!(event, Event::Promoted) {
        Outcome::Promoted
    } else {
        return;
    };
    let Some(start) = &state.start else { return };
    let Some(stream) = &start.proposal.release_stream else { return };
    let input = release::Input::RolloutEnded {
        environment: start.proposal.environment.name.clone(),
        rollout: id.id.clone(),
        outcome,
    };
    let to = StreamId::new(&id.project, "release", stream);
    commands.push(Command::Send { to, input: json!(input) });
}
