//! The way forward: what each of its stages waits for.

use serde_json::{Value, json};

use super::back::held;
use super::event::{CheckVerdict, Event};
use super::flow::Flow;
use super::sense::Volatile;
use super::state::{Stage, State};
use super::{Outcome, RolloutKind};
use crate::analysis::{Finding, LimitWatch, Numbers};
use crate::reason::Reason;
use crate::spec::{CheckKind, CheckSpec, NoDataPolicy, Step};

/// A gate on counts that sees nothing has an opinion about that after its `for`, at least this.
const GATE_WINDOW_MS: u64 = 10_000;

pub(super) fn ahead(flow: &mut Flow<'_>, volatile: &mut Volatile) {
    watch_counts(flow, volatile);
    if flow.state.stage.is_returning() {
        return;
    }
    preview_moved(flow, volatile);
    leftovers(flow, volatile);
    match flow.state.stage {
        Stage::Staging => deadline(flow, volatile),
        Stage::Scaling => scaling(flow, volatile),
        Stage::Shifting => {
            if volatile.canary_weight(&flow.state) == Some(flow.state.wanted_bp) {
                flow.traffic_observed();
            } else {
                deadline(flow, volatile);
            }
        }
        Stage::Analysing => analysing(flow, volatile),
        Stage::Pausing => pausing(flow, volatile),
        Stage::Baking => {
            if gone(flow, volatile) {
                return;
            }
            if volatile.elapsed_ms >= flow.bake_ms() && flow.state.paused_by.is_none() {
                flow.baked(None);
            }
        }
        Stage::Cooling => cooling(flow, volatile),
        Stage::Retiring => retiring(flow, volatile),
        Stage::New
        | Stage::Running
        | Stage::Resting
        | Stage::ReturningCapacity
        | Stage::ReturningTraffic
        | Stage::Draining
        | Stage::ReturningDown
        | Stage::Ended => {}
    }
}

fn watch_counts(flow: &mut Flow<'_>, volatile: &Volatile) {
    if !flow.state.is_watched() {
        return;
    }
    let breached = flow.state.watching().iter().find_map(|name| {
        let limit = volatile.limits.get(name)?;
        let Finding::Breached(numbers) = limit.finding() else { return None };
        Some((name.clone(), limit.words(), evidence(&numbers, volatile)))
    });
    if let Some((name, words, evidence)) = breached {
        flow.check_failed(&name, CheckVerdict::Fail, words, evidence);
    }
}

fn evidence(numbers: &Numbers, volatile: &Volatile) -> Value {
    json!({ "numbers": numbers, "segment": volatile.segment })
}

/// What a superseded rollout has left is stopped once its requests are answered.
fn leftovers(flow: &mut Flow<'_>, volatile: &Volatile) {
    if !flow.state.also || !flow.state.settled || flow.state.stage == Stage::Scaling {
        return;
    }
    let Some(start) = &flow.state.start else { return };
    let left: u32 = volatile.traffic.as_ref().map_or(0, |report| {
        let is_left = |version: &str, digest| {
            start
                .also
                .iter()
                .any(|(k, _)| k.release.version == version && k.release.digest == digest)
        };
        let left = report.versions.iter().filter(|v| is_left(&v.version, v.digest.clone()));
        left.map(|v| v.in_flight).sum()
    });
    let known = volatile.draining(&flow.state, None).is_some();
    let waited = volatile.elapsed_ms >= flow.state.drain_ms();
    if (known && left == 0) || waited {
        flow.want_capacity(flow.state.canary, flow.state.previous, false);
    }
}

/// A switch closes a second when it is over; so long a step that is judged waits for the seconds
/// of its end, and no longer: without any request nothing comes.
const LAST_SECONDS_MS: u64 = 2_500;

fn scaling(flow: &mut Flow<'_>, volatile: &Volatile) {
    let ready = volatile.canary(&flow.state).map_or(0, |v| v.ready);
    if volatile.capacity_is_current(&flow.state) && ready >= flow.state.canary.max(1) {
        let preview = first_address(&flow.state, volatile);
        flow.emit(Event::CapacityReady { ready, preview });
        let weight = flow.step_weight();
        flow.want_traffic(weight);
    } else {
        deadline(flow, volatile);
    }
}

/// While it is watched it was ready once; if nothing of it comes back, it goes back.
fn gone(flow: &mut Flow<'_>, volatile: &Volatile) -> bool {
    let Some(start) = &flow.state.start else { return false };
    let limit = start.proposal.environment.strategy.progress_deadline_ms;
    if volatile.down_ms < limit {
        return false;
    }
    let trouble = volatile.canary(&flow.state).and_then(|v| v.trouble.clone());
    let trouble = trouble.unwrap_or_else(|| "nothing of it is ready".to_owned());
    let version = &start.proposal.release.version;
    let text = format!("{version} is down for {} s: {trouble}", limit / 1000);
    flow.abort(Reason::new("progressDeadline", text), Outcome::RolledBack);
    true
}

fn pausing(flow: &mut Flow<'_>, volatile: &mut Volatile) {
    if gone(flow, volatile) {
        return;
    }
    let Some(Step::Pause { duration_ms: Some(duration) }) = flow.state.current() else { return };
    if volatile.elapsed_ms < *duration || flow.state.paused_by.is_some() {
        return;
    }
    let over_at = *volatile.over_at.get_or_insert(flow.now);
    let late = volatile.elapsed_ms >= *duration + LAST_SECONDS_MS;
    if counts_watch(flow) && volatile.newest_second < over_at.0 / 1000 && !late {
        let text = "the last seconds are being counted";
        volatile.holding = Some(Reason::new("lastSeconds", text));
        return;
    }
    if let Some((name, text)) = blind(flow, volatile, NoDataPolicy::Fail) {
        flow.check_failed(&name, CheckVerdict::NoData, text, Value::Null);
        return;
    }
    volatile.holding = holding(flow, volatile);
    if volatile.holding.is_none() {
        if let Some((check, text)) = blind(flow, volatile, NoDataPolicy::Continue) {
            let (verdict, evidence) = (CheckVerdict::NoData, Value::Null);
            flow.emit(Event::CheckDecided { check, verdict, text, evidence });
        }
        flow.end_step(None);
    }
}

fn counts_watch(flow: &Flow<'_>) -> bool {
    let counts = |c: &CheckSpec| matches!(c.kind, CheckKind::Counts(_));
    flow.state.watching().iter().any(|name| flow.state.check(name).is_some_and(counts))
}

/// The old version stays for a while, and until its last request is answered.
fn cooling(flow: &mut Flow<'_>, volatile: &Volatile) {
    let Some(start) = &flow.state.start else { return };
    let delay = match start.proposal.kind {
        RolloutKind::Undo => 0,
        RolloutKind::Release | RolloutKind::Retry => {
            start.proposal.environment.strategy.scale_down_delay_ms
        }
    };
    let delay = if flow.state.superseded_by.is_some() { 0 } else { delay };
    let drained = volatile.draining(&flow.state, Some(&start.proposal.release)) == Some(0)
        || volatile.elapsed_ms >= delay + flow.state.drain_ms();
    // Seen, not remembered: the host may have acted by itself in between.
    let has_all = volatile.canary_weight(&flow.state) == Some(flow.state.wanted_bp);
    let ready = drained && has_all && volatile.capacity_is_current(&flow.state);
    if volatile.elapsed_ms >= delay && ready {
        flow.moves_again();
        flow.retire();
    } else if volatile.elapsed_ms >= delay {
        held(flow, volatile, "retiring", "the old version is not ready to be stopped yet");
    }
}

fn retiring(flow: &mut Flow<'_>, volatile: &Volatile) {
    let release = flow.state.start.as_ref().map(|s| &s.proposal.release);
    let gone = volatile.capacity.as_ref().is_some_and(|c| {
        c.versions.iter().all(|v| {
            v.running == 0
                || release.is_some_and(|r| r.version == v.version && r.digest == v.digest)
        })
    });
    if volatile.capacity_is_current(&flow.state) && gone {
        flow.moves_again();
        flow.emit(Event::Ended { outcome: Outcome::Promoted });
    } else {
        held(flow, volatile, "retiring", "the old version has not stopped yet");
    }
}

fn analysing(flow: &mut Flow<'_>, volatile: &mut Volatile) {
    if !flow.state.gates_started {
        let ready = volatile.canary(&flow.state).map_or(0, |v| v.ready);
        if volatile.capacity_is_current(&flow.state) && ready >= flow.state.canary.max(1) {
            let preview = first_address(&flow.state, volatile);
            flow.emit(Event::CapacityReady { ready, preview });
            flow.measure_gates();
        } else {
            deadline(flow, volatile);
        }
        // What the gates see begins with the next report.
        return;
    }
    let Some(Step::Analysis { checks }) = flow.state.current().cloned() else { return };
    volatile.holding = None;
    for name in checks {
        let Some(spec) = flow.state.check(&name).cloned() else { continue };
        if flow.waits_for_gate(&name) {
            gate(flow, volatile, &spec);
        }
    }
}

/// A gate on counts.
fn gate(flow: &mut Flow<'_>, volatile: &mut Volatile, spec: &CheckSpec) {
    let CheckKind::Counts(counts) = &spec.kind else { return };
    let limit = volatile.gates.get(&spec.name);
    let words = limit.map(LimitWatch::words).unwrap_or_default();
    let over = volatile.elapsed_ms >= counts.for_ms;
    match limit.map(LimitWatch::finding) {
        Some(Finding::Breached(numbers)) => {
            let evidence = evidence(&numbers, volatile);
            flow.check_failed(&spec.name, CheckVerdict::Fail, words, evidence);
        }
        Some(Finding::Within(numbers)) if over => {
            let evidence = evidence(&numbers, volatile);
            flow.gate_passed(&spec.name, words, evidence);
        }
        Some(Finding::Over(_)) => {
            volatile.holding = Some(Reason::new("overLimit", format!("{}: {words}", spec.name)));
        }
        Some(Finding::NoData(_)) | None
            if volatile.elapsed_ms >= counts.for_ms.max(GATE_WINDOW_MS) =>
        {
            let text = too_few(spec, limit, counts.minimum_sample);
            match spec.no_data {
                NoDataPolicy::Hold => volatile.holding = Some(Reason::new("noData", text)),
                NoDataPolicy::Fail => {
                    flow.check_failed(&spec.name, CheckVerdict::NoData, text, Value::Null);
                }
                NoDataPolicy::Continue => {
                    flow.gate_done(&spec.name, CheckVerdict::NoData, text, Value::Null);
                }
            }
        }
        Some(Finding::NoData(_) | Finding::Within(_)) | None => {}
    }
}

fn too_few(spec: &CheckSpec, seen: Option<&LimitWatch>, minimum_sample: u32) -> String {
    let have = seen.map_or(0, LimitWatch::seen);
    let needed = minimum_sample.max(1);
    format!("{}: needs {needed} requests in its window, {have} so far", spec.name)
}

/// A watching limit on counts that has seen too little, if this is what it does then.
fn blind(flow: &Flow<'_>, volatile: &Volatile, policy: NoDataPolicy) -> Option<(String, String)> {
    flow.state.watching().iter().find_map(|name| {
        let spec = flow.state.check(name).filter(|spec| spec.no_data == policy)?;
        let CheckKind::Counts(limit) = &spec.kind else { return None };
        let seen = volatile.limits.get(name);
        match seen.map(LimitWatch::finding) {
            Some(Finding::NoData(_)) | None => {
                Some((name.clone(), too_few(spec, seen, limit.minimum_sample)))
            }
            Some(Finding::Over(_) | Finding::Within(_) | Finding::Breached(_)) => None,
        }
    })
}

/// Why a step whose time is over does not end yet.
fn holding(flow: &Flow<'_>, volatile: &Volatile) -> Option<Reason> {
    if let Some(text) = flow.source_down() {
        return Some(Reason::new("sourceDown", text));
    }
    let over = flow.state.watching().iter().find_map(|name| {
        let limit = volatile.limits.get(name)?;
        matches!(limit.finding(), Finding::Over(_)).then(|| format!("{name}: {}", limit.words()))
    });
    if let Some(text) = over {
        return Some(Reason::new("overLimit", text));
    }
    blind(flow, volatile, NoDataPolicy::Hold).map(|(_, text)| Reason::new("noData", text))
}

/// Aborts when what should move has not moved for too long.
fn deadline(flow: &mut Flow<'_>, volatile: &Volatile) {
    let Some(start) = &flow.state.start else { return };
    let limit = start.proposal.environment.strategy.progress_deadline_ms;
    if volatile.elapsed_ms < limit {
        return;
    }
    let trouble = volatile
        .silent
        .clone()
        .or_else(|| volatile.canary(&flow.state).and_then(|v| v.trouble.clone()))
        .unwrap_or_else(|| "it is not ready".to_owned());
    let version = &start.proposal.release.version;
    let text = format!("no progress for {} s: {version}: {trouble}", limit / 1000);
    flow.abort(Reason::new("progressDeadline", text), Outcome::RolledBack);
}

fn first_address(state: &State, volatile: &Volatile) -> Option<String> {
    volatile.canary(state).and_then(|v| v.addresses.first().cloned())
}

/// Checks that use `{previewUrl}` must not ask an instance that is gone.
fn preview_moved(flow: &mut Flow<'_>, volatile: &Volatile) {
    let Some(known) = &flow.state.preview else { return };
    let Some(canary) = volatile.canary(&flow.state) else { return };
    if !canary.addresses.is_empty()
        && !canary.addresses.contains(known)
        && let Some(preview) = canary.addresses.first().cloned()
    {
        flow.emit(Event::PreviewMoved { preview });
    }
}
