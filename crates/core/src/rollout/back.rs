//! The way back: what each of its stages waits for.

use super::event::Event;
use super::flow::Flow;
use super::sense::Volatile;
use super::state::Stage;
use crate::reason::Reason;

/// On the way back, a wait that is longer than this is shown as held.
const HELD_AFTER_MS: u64 = 30_000;
/// An old version that has to be started first gets the traffic when all of it is ready, or after
/// this with what is.
const RESTART_PATIENCE_MS: u64 = 10_000;

pub(super) fn back(flow: &mut Flow<'_>, volatile: &Volatile) {
    match flow.state.stage {
        Stage::ReturningCapacity => returning_capacity(flow, volatile),
        Stage::ReturningTraffic => match volatile.canary_weight(&flow.state) {
            Some(_) if flow.state.is_same_version() => flow.traffic_returned(),
            Some(0) => flow.traffic_returned(),
            Some(_) | None => held(flow, volatile, "switch", "the switch has not taken the table"),
        },
        Stage::Draining => {
            let stays = flow.state.start.as_ref().and_then(|s| s.previous.as_ref());
            let left = volatile.draining(&flow.state, stays.map(|p| &p.release));
            if left == Some(0) || volatile.elapsed_ms >= flow.state.drain_ms() {
                flow.go_down(left.unwrap_or(0));
            }
        }
        Stage::ReturningDown => {
            let gone = flow.state.is_same_version()
                || volatile.canary(&flow.state).is_none_or(|v| v.running == 0);
            if volatile.capacity_is_current(&flow.state) && gone {
                flow.end_back();
            } else {
                held(flow, volatile, "stopping", "the new version has not stopped yet");
            }
        }
        Stage::New
        | Stage::Staging
        | Stage::Scaling
        | Stage::Shifting
        | Stage::Pausing
        | Stage::Analysing
        | Stage::Running
        | Stage::Resting
        | Stage::Baking
        | Stage::Cooling
        | Stage::Retiring
        | Stage::Ended => {}
    }
}

/// The old version was never stopped, or has to be started again first. In the first case any
/// ready instance will do: it has been serving all along, and the new version is no better.
fn returning_capacity(flow: &mut Flow<'_>, volatile: &Volatile) {
    let restarts = flow.state.back.as_ref().is_some_and(|b| b.restarts);
    let ready = volatile.previous(&flow.state).map_or(0, |v| v.ready);
    let patient = restarts && volatile.elapsed_ms < RESTART_PATIENCE_MS;
    let needed = if patient { flow.state.previous_full() } else { 1 };
    if ready >= needed && (!restarts || volatile.capacity_is_current(&flow.state)) {
        flow.return_traffic();
        return;
    }
    let text = volatile
        .previous(&flow.state)
        .and_then(|v| v.trouble.clone())
        .unwrap_or_else(|| "no instance of it is ready".to_owned());
    held(flow, volatile, "previousNotReady", &format!("the old version: {text}"));
}

/// A wait on the way back (or of the clean-up) that is too long is shown; it goes on by itself, or
/// makes room for a newer release.
pub(super) fn held(flow: &mut Flow<'_>, volatile: &Volatile, code: &str, text: &str) {
    if volatile.elapsed_ms >= HELD_AFTER_MS && flow.state.held.is_none() {
        let text = volatile.silent.clone().unwrap_or_else(|| text.to_owned());
        flow.emit(Event::Held { reason: Reason::new(code, text) });
    }
    flow.give_way_if_blocked();
}
