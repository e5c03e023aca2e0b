//! What a rollout sees: reports, samples and the passing of time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::event::{CheckVerdict, Event};
use super::flow::Flow;
use super::state::{Stage, State};
use super::{Outcome, RolloutKind};
use crate::analysis::{Finding, LimitWatch};
use crate::capacity::{LaneCapacity, VersionObserved};
use crate::counts::SecondRecord;
use crate::digest::Digest;
use crate::machine::{Reaction, Sensed};
use crate::reason::Reason;
use crate::spec::{CheckKind, NoDataPolicy, Step};
use crate::time::Timestamp;
use crate::traffic::LaneTraffic;

/// On the way back, a wait that is longer than this is shown as held.
const HELD_AFTER_MS: u64 = 30_000;
/// The progress row is kept at least so often.
const PROGRESS_EVERY_MS: u64 = 5_000;

/// Requests and errors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// n
    pub requests: u64,
    /// k
    pub errors: u64,
}

/// What lives in memory only.
#[derive(Debug, Default)]
pub struct Volatile {
    /// The host's last report.
    pub capacity: Option<LaneCapacity>,
    /// The switch's last report.
    pub traffic: Option<LaneTraffic>,
    /// Observed milliseconds in the stage.
    pub elapsed_ms: u64,
    /// Which stage that is about.
    pub stage_number: u64,
    saved_ms: u64,
    /// Counts of the old version since the new one has traffic.
    pub stable: Count,
    /// Counts of the new version.
    pub canary: Count,
    limits: BTreeMap<String, LimitWatch>,
    segment: Option<Digest>,
    /// The targets that do not answer, and why.
    pub silent: Option<String>,
    /// What keeps a step from ending although its time is over.
    pub holding: Option<Reason>,
}

/// What is kept of it for the next process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Progress {
    stage_number: u64,
    elapsed_ms: u64,
}

impl Volatile {
    fn enter(&mut self, state: &State) {
        if self.stage_number != state.stage_number {
            self.stage_number = state.stage_number;
            self.elapsed_ms = 0;
            self.saved_ms = 0;
            self.holding = None;
        }
    }

    fn canary<'a>(&'a self, state: &State) -> Option<&'a VersionObserved> {
        let release = &state.start.as_ref()?.proposal.release;
        self.find(&release.version, &release.digest)
    }

    fn previous<'a>(&'a self, state: &State) -> Option<&'a VersionObserved> {
        let release = &state.start.as_ref()?.previous.as_ref()?.release;
        self.find(&release.version, &release.digest)
    }

    fn find(&self, version: &str, digest: &Digest) -> Option<&VersionObserved> {
        let report = self.capacity.as_ref()?;
        report.versions.iter().find(|v| v.version == version && v.digest == *digest)
    }

    /// The host's report is about the last capacity document or a newer one.
    fn capacity_is_current(&self, state: &State) -> bool {
        self.capacity
            .as_ref()
            .and_then(|c| c.fence)
            .is_some_and(|fence| fence.seq >= state.capacity_seq)
    }

    /// Basis points and requests under way of the new version, if the switch's report is about the
    /// last traffic document or a newer one.
    fn canary_traffic(&self, state: &State) -> Option<(u32, u32)> {
        let report = self.traffic.as_ref()?;
        if report.fence?.seq < state.traffic_seq {
            return None;
        }
        let release = &state.start.as_ref()?.proposal.release;
        let seen = report
            .versions
            .iter()
            .find(|v| v.version == release.version && v.digest == release.digest);
        Some(seen.map_or((0, 0), |v| (v.weight_bp, v.in_flight)))
    }

    /// Time counts as observed and healthy: the host answers and the new version serves.
    fn is_healthy(&self, state: &State) -> bool {
        self.silent.is_none()
            && self.canary(state).is_some_and(|v| v.ready > 0 || state.canary == 0)
    }
}

/// See [`crate::machine::Machine::sense`].
pub(super) fn sense(
    state: &State,
    volatile: &mut Volatile,
    sensed: &Sensed<'_>,
    now: Timestamp,
) -> Reaction<Event> {
    volatile.enter(state);
    let mut reaction = Reaction::default();
    if state.stage == Stage::Ended || state.start.is_none() {
        return reaction;
    }
    match sensed {
        Sensed::Progress(row) => {
            if let Ok(row) = serde_json::from_value::<Progress>((*row).clone())
                && row.stage_number == state.stage_number
            {
                volatile.elapsed_ms = row.elapsed_ms;
                volatile.saved_ms = row.elapsed_ms;
            }
            return reaction;
        }
        Sensed::Capacity(report) => {
            volatile.silent = None;
            volatile.capacity = Some((*report).clone());
        }
        Sensed::Traffic(report) => {
            volatile.silent = None;
            volatile.traffic = Some((*report).clone());
        }
        Sensed::Silence { target, for_ms, why } => {
            volatile.silent = Some(format!("{target} silent for {} s: {why}", for_ms / 1000));
        }
        Sensed::Samples { records, segment } => {
            volatile.segment = Some((*segment).clone());
            feed(state, volatile, records);
        }
        Sensed::Tick { awake_ms } => {
            let counts = match state.stage {
                Stage::Pausing | Stage::Baking => {
                    state.paused_by.is_none() && volatile.is_healthy(state)
                }
                Stage::New
                | Stage::Staging
                | Stage::Scaling
                | Stage::Shifting
                | Stage::Analysing
                | Stage::Running
                | Stage::Resting
                | Stage::Cooling
                | Stage::Retiring
                | Stage::ReturningCapacity
                | Stage::ReturningTraffic
                | Stage::Draining
                | Stage::ReturningDown
                | Stage::Ended => true,
            };
            if counts {
                volatile.elapsed_ms += awake_ms;
            }
            if volatile.elapsed_ms >= volatile.saved_ms + PROGRESS_EVERY_MS {
                volatile.saved_ms = volatile.elapsed_ms;
                let row = Progress {
                    stage_number: volatile.stage_number,
                    elapsed_ms: volatile.elapsed_ms,
                };
                reaction.progress = serde_json::to_value(row).ok();
            }
        }
    }
    let mut flow = Flow::new(state, now);
    react(&mut flow, volatile);
    reaction.events = flow.events;
    reaction
}

fn feed(state: &State, volatile: &mut Volatile, records: &[SecondRecord]) {
    let (Some(start), Some(shifted_at)) = (&state.start, state.shifted_at) else { return };
    let release = &start.proposal.release;
    for record in records {
        // Seconds of an earlier try of the same version are not this rollout's evidence.
        if record.second < shifted_at.0 / 1000 {
            continue;
        }
        let count = Count { requests: u64::from(record.n), errors: u64::from(record.errors()) };
        if record.version == release.version && record.digest == release.digest {
            volatile.canary.requests += count.requests;
            volatile.canary.errors += count.errors;
            if record.weight_bp > 0 {
                for name in counting(state) {
                    let Some(CheckKind::Counts(limit)) = state.check(&name).map(|c| &c.kind) else {
                        continue;
                    };
                    let limit = limit.clone();
                    volatile
                        .limits
                        .entry(name)
                        .or_insert_with(|| LimitWatch::new(limit))
                        .feed(record);
                }
            }
        } else {
            volatile.stable.requests += count.requests;
            volatile.stable.errors += count.errors;
        }
    }
}

/// Names of the checks on counts that watch or are gates of the current step.
fn counting(state: &State) -> Vec<String> {
    let mut names: Vec<String> = state.watching().to_vec();
    for step in &state.moves {
        if let Step::Analysis { checks } = step {
            names.extend(checks.iter().cloned());
        }
    }
    names.sort();
    names.dedup();
    names.retain(|n| state.check(n).is_some_and(|c| matches!(c.kind, CheckKind::Counts(_))));
    names
}

fn react(flow: &mut Flow, volatile: &mut Volatile) {
    if let Some(fallback) = volatile.capacity.as_ref().and_then(|c| c.fallback_applied.as_ref())
        && !flow.state.stage.is_returning()
        && !matches!(flow.state.stage, Stage::Cooling | Stage::Retiring)
        && fallback.fence.seq == flow.state.fallback_seq()
    {
        let silence_ms = fallback.silence_ms;
        flow.emit(Event::FallbackApplied { silence_ms });
        let text = format!(
            "the host heard nothing from the engine for {} s and has put the old version back",
            silence_ms / 1000
        );
        flow.abort(Reason::new("engineLost", text), Outcome::RolledBack);
        return;
    }
    watch_counts(flow, volatile);
    if flow.state.stage.is_returning() {
        back(flow, volatile);
    } else {
        forward(flow, volatile);
    }
}

fn watch_counts(flow: &mut Flow, volatile: &Volatile) {
    if !flow.state.is_watched() {
        return;
    }
    for name in flow.state.watching().to_vec() {
        let Some(limit) = volatile.limits.get(&name) else { continue };
        if let Finding::Breached(numbers) = limit.finding() {
            let evidence = json!({ "numbers": numbers, "segment": volatile.segment });
            flow.check_failed(&name, CheckVerdict::Fail, limit.words(), evidence);
            return;
        }
    }
}

fn forward(flow: &mut Flow, volatile: &mut Volatile) {
    let elapsed = volatile.elapsed_ms;
    preview_moved(flow, volatile);
    match flow.state.stage {
        Stage::Scaling => {
            let ready = volatile.canary(&flow.state).map_or(0, |v| v.ready);
            let canary = flow.state.canary;
            if volatile.capacity_is_current(&flow.state) && ready >= canary.max(1) {
                let preview = first_address(&flow.state, volatile);
                flow.emit(Event::CapacityReady { ready, preview });
                let weight = flow.step_weight();
                flow.want_traffic(weight);
            } else {
                deadline(flow, volatile);
            }
        }
        Stage::Shifting => {
            let observed = volatile.canary_traffic(&flow.state).map(|(weight, _)| weight);
            if observed == Some(flow.state.wanted_bp) {
                flow.traffic_observed();
            } else {
                deadline(flow, volatile);
            }
        }
        Stage::Analysing => analysing(flow, volatile),
        Stage::Pausing => {
            if let Some(Step::Pause { duration_ms: Some(duration) }) = flow.state.current()
                && elapsed >= *duration
                && flow.state.paused_by.is_none()
            {
                volatile.holding = holding(flow, volatile);
                if volatile.holding.is_none() {
                    flow.end_step(None);
                }
            }
        }
        Stage::Baking => {
            if elapsed >= flow.bake_ms() && flow.state.paused_by.is_none() {
                flow.baked(None);
            }
        }
        Stage::Cooling => {
            let start = flow.state.start.as_ref();
            let delay = start.map_or(0, |s| match s.proposal.kind {
                RolloutKind::Undo => 0,
                RolloutKind::Release | RolloutKind::Retry => {
                    s.proposal.environment.strategy.scale_down_delay_ms
                }
            });
            if elapsed >= delay || flow.state.superseded_by.is_some() {
                flow.retire();
            }
        }
        Stage::Retiring => {
            let release = flow.state.start.as_ref().map(|s| s.proposal.release.clone());
            let gone = volatile.capacity.as_ref().is_some_and(|c| {
                c.versions.iter().all(|v| {
                    v.running == 0
                        || release
                            .as_ref()
                            .is_some_and(|r| r.version == v.version && r.digest == v.digest)
                })
            });
            if volatile.capacity_is_current(&flow.state) && gone {
                flow.moves_again();
                flow.emit(Event::Ended { outcome: Outcome::Promoted });
            } else {
                held(flow, volatile, "retiring", "the old version has not stopped yet");
            }
        }
        Stage::Staging => deadline(flow, volatile),
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

fn analysing(flow: &mut Flow, volatile: &Volatile) {
    if !flow.state.gates_started {
        let ready = volatile.canary(&flow.state).map_or(0, |v| v.ready);
        if volatile.capacity_is_current(&flow.state) && ready >= flow.state.canary.max(1) {
            let preview = first_address(&flow.state, volatile);
            flow.emit(Event::CapacityReady { ready, preview });
            flow.measure_gates();
        } else {
            deadline(flow, volatile);
            return;
        }
    }
    let Some(Step::Analysis { checks }) = flow.state.current().cloned() else { return };
    for name in checks {
        let Some(limit) = volatile.limits.get(&name) else { continue };
        let evidence = |numbers| json!({ "numbers": numbers, "segment": volatile.segment });
        match limit.finding() {
            Finding::Breached(numbers) => {
                let evidence = evidence(numbers);
                flow.check_failed(&name, CheckVerdict::Fail, limit.words(), evidence);
                return;
            }
            Finding::Within(numbers) => flow.gate_passed(&name, limit.words(), evidence(numbers)),
            Finding::Over(_) | Finding::NoData(_) => {}
        }
    }
}

/// Why a step whose time is over does not end yet.
fn holding(flow: &Flow, volatile: &Volatile) -> Option<Reason> {
    if let Some(text) = flow.source_down() {
        return Some(Reason::new("sourceDown", text));
    }
    for name in flow.state.watching() {
        let Some(spec) = flow.state.check(name) else { continue };
        let CheckKind::Counts(limit) = &spec.kind else { continue };
        let seen = volatile.limits.get(name);
        match seen.map(LimitWatch::finding) {
            Some(Finding::Over(_)) => {
                let words = seen.map(LimitWatch::words).unwrap_or_default();
                return Some(Reason::new("overLimit", format!("{name}: {words}")));
            }
            Some(Finding::NoData(_)) | None if spec.no_data == NoDataPolicy::Hold => {
                let have = seen.map_or(0, LimitWatch::seen);
                let needed = u64::from(limit.minimum_sample.max(1));
                let text = format!("{name}: needs {needed} requests in its window, {have} so far");
                return Some(Reason::new("noData", text));
            }
            Some(Finding::NoData(_) | Finding::Within(_) | Finding::Breached(_)) | None => {}
        }
    }
    None
}

fn back(flow: &mut Flow, volatile: &Volatile) {
    match flow.state.stage {
        Stage::ReturningCapacity => {
            let ready = volatile.previous(&flow.state).map_or(0, |v| v.ready);
            if volatile.capacity_is_current(&flow.state) && ready > 0 {
                flow.return_traffic();
            } else {
                let text = volatile
                    .previous(&flow.state)
                    .and_then(|v| v.trouble.clone())
                    .unwrap_or_else(|| "no instance of it is ready".to_owned());
                held(flow, volatile, "previousNotReady", &format!("the old version: {text}"));
                flow.give_way_if_blocked();
            }
        }
        Stage::ReturningTraffic => match volatile.canary_traffic(&flow.state) {
            Some((0, _)) => flow.traffic_returned(),
            Some(_) | None => held(flow, volatile, "switch", "the switch has not taken the table"),
        },
        Stage::Draining => {
            let left = volatile.canary_traffic(&flow.state).map_or(0, |(_, in_flight)| in_flight);
            let grace = flow.state.start.as_ref().map_or(0, |s| s.proposal.service.stop.grace_ms);
            let seen = volatile.canary_traffic(&flow.state).is_some();
            if (seen && left == 0) || volatile.elapsed_ms >= grace {
                flow.go_down(left);
            }
        }
        Stage::ReturningDown => {
            let same = flow.state.start.as_ref().is_some_and(|s| {
                s.previous.as_ref().is_some_and(|p| {
                    p.release.version == s.proposal.release.version
                        && p.release.digest == s.proposal.release.digest
                })
            });
            let gone = same || volatile.canary(&flow.state).is_none_or(|v| v.running == 0);
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

/// A wait on the way back (or of the clean-up) that is too long is shown; it goes on by itself.
fn held(flow: &mut Flow, volatile: &Volatile, code: &str, text: &str) {
    if volatile.elapsed_ms < HELD_AFTER_MS || flow.state.held.is_some() {
        return;
    }
    let text = volatile.silent.clone().unwrap_or_else(|| text.to_owned());
    flow.emit(Event::Held { reason: Reason::new(code, text) });
}

/// Aborts when what should move has not moved for too long.
fn deadline(flow: &mut Flow, volatile: &Volatile) {
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
fn preview_moved(flow: &mut Flow, volatile: &Volatile) {
    let Some(known) = &flow.state.preview else { return };
    let Some(canary) = volatile.canary(&flow.state) else { return };
    if !canary.addresses.is_empty()
        && !canary.addresses.contains(known)
        && let Some(preview) = canary.addresses.first().cloned()
    {
        flow.emit(Event::PreviewMoved { preview });
    }
}
