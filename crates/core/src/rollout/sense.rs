//! What a rollout sees: reports, samples and the passing of time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::event::Event;
use super::flow::Flow;
use super::state::{Stage, State};
use super::{Outcome, ahead, back};
use crate::analysis::LimitWatch;
use crate::capacity::{LaneCapacity, VersionObserved};
use crate::counts::SecondRecord;
use crate::digest::Digest;
use crate::machine::{Reaction, Sensed};
use crate::reason::Reason;
use crate::spec::{CheckKind, CountsLimit, ReleaseRef, Step};
use crate::time::Timestamp;
use crate::traffic::{LaneTraffic, VersionTraffic};

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
    /// Limits on counts that watch, since the new version has traffic.
    pub(super) limits: BTreeMap<String, LimitWatch>,
    /// Limits on counts that are gates of the current step, since it began.
    pub(super) gates: BTreeMap<String, LimitWatch>,
    pub(super) segment: Option<Digest>,
    /// Whether it was healthy at the last tick and in every report since.
    healthy: bool,
    /// Milliseconds for which nothing of the new version has been ready although it should.
    pub(super) down_ms: u64,
    /// The targets that do not answer, and why.
    pub silent: Option<String>,
    /// What keeps a step from ending although its time is over.
    pub holding: Option<Reason>,
    /// When the time of the current step was over.
    pub(super) over_at: Option<Timestamp>,
    /// The newest closed second of the lane.
    pub(super) newest_second: u64,
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
            self.over_at = None;
            self.gates.clear();
            self.healthy = false;
            self.down_ms = 0;
        }
    }

    pub(super) fn canary<'a>(&'a self, state: &State) -> Option<&'a VersionObserved> {
        let release = &state.start.as_ref()?.proposal.release;
        self.find(&release.version, &release.digest)
    }

    pub(super) fn previous<'a>(&'a self, state: &State) -> Option<&'a VersionObserved> {
        let release = &state.start.as_ref()?.previous.as_ref()?.release;
        self.find(&release.version, &release.digest)
    }

    fn find(&self, version: &str, digest: &Digest) -> Option<&VersionObserved> {
        let report = self.capacity.as_ref()?;
        report.versions.iter().find(|v| v.version == version && v.digest == *digest)
    }

    /// The host's report is about the last capacity document or a newer one.
    pub(super) fn capacity_is_current(&self, state: &State) -> bool {
        self.capacity
            .as_ref()
            .and_then(|c| c.fence)
            .is_some_and(|fence| fence.seq >= state.capacity_seq)
    }

    /// The switch's report, if it is about the last traffic document or a newer one. The fallback's
    /// sequence is above all others of its epoch, but a document of a later epoch follows it: what
    /// the host has put in force is not what was asked for last.
    fn current_traffic(&self, state: &State) -> Option<&LaneTraffic> {
        let seq = self.traffic.as_ref()?.fence?.seq;
        let current = seq >= state.traffic_seq && seq != state.fallback_seq();
        self.traffic.as_ref().filter(|_| current)
    }

    /// Basis points of the new version in force, if they are known since the last document. The
    /// same version once more has what is wanted at any time.
    pub(super) fn canary_weight(&self, state: &State) -> Option<u32> {
        let report = self.current_traffic(state)?;
        if state.is_same_version() {
            return Some(state.wanted_bp);
        }
        let release = &state.start.as_ref()?.proposal.release;
        let seen = report
            .versions
            .iter()
            .find(|v| v.version == release.version && v.digest == release.digest);
        Some(seen.map_or(0, |v| v.weight_bp))
    }

    /// Requests under way of all versions but the one that stays, if they are known since the last
    /// traffic document.
    pub(super) fn draining(&self, state: &State, stays: Option<&ReleaseRef>) -> Option<u32> {
        let report = self.current_traffic(state)?;
        let is_other = |v: &&VersionTraffic| {
            stays.is_none_or(|r| r.version != v.version || r.digest != v.digest)
        };
        Some(report.versions.iter().filter(is_other).map(|v| v.in_flight).sum())
    }

    /// Time counts as observed and healthy: nobody has paused, host and switch answer and are as
    /// they were asked to be, and the new version serves.
    fn is_healthy(&self, state: &State) -> bool {
        state.paused_by.is_none()
            && self.silent.is_none()
            && self.capacity_is_current(state)
            && self.current_traffic(state).is_some()
            && (state.canary == 0 || self.canary(state).is_some_and(|v| v.ready > 0))
    }

    /// The host answers, and nothing of the new version is ready.
    fn is_down(&self, state: &State) -> bool {
        state.paused_by.is_none()
            && self.silent.is_none()
            && state.canary > 0
            && self.capacity_is_current(state)
            && self.canary(state).is_none_or(|v| v.ready == 0)
    }

    /// Milliseconds of a tick that count in this stage.
    fn counted(&mut self, state: &State, awake_ms: u64, now: Timestamp) -> u64 {
        let healthy = self.is_healthy(state);
        let was_healthy = std::mem::replace(&mut self.healthy, healthy);
        self.down_ms = if self.is_down(state) { self.down_ms + awake_ms } else { 0 };
        let counts = match state.stage {
            Stage::Pausing | Stage::Baking => was_healthy && self.healthy,
            Stage::New
            | Stage::Staging
            | Stage::Scaling
            | Stage::Shifting
            | Stage::Analysing
            | Stage::Running
            | Stage::Resting => state.paused_by.is_none(),
            Stage::Cooling
            | Stage::Retiring
            | Stage::ReturningCapacity
            | Stage::ReturningTraffic
            | Stage::Draining
            | Stage::ReturningDown
            | Stage::Ended => true,
        };
        // What passed before the stage began is not its time.
        if counts { awake_ms.min(now.since(state.stage_since)) } else { 0 }
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
            let restarts = volatile.canary(state).map(|v| v.restarts);
            volatile.silent = None;
            volatile.capacity = Some((*report).clone());
            if volatile.canary(state).map(|v| v.restarts) != restarts {
                // It was away for a moment that nobody has seen.
                volatile.healthy = false;
            }
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
            volatile.elapsed_ms += volatile.counted(state, *awake_ms, now);
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
    if !volatile.is_healthy(state) {
        volatile.healthy = false;
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
        volatile.newest_second = volatile.newest_second.max(record.second);
        // Seconds of an earlier try of the same version are not this rollout's evidence.
        if record.second < shifted_at.0 / 1000 {
            continue;
        }
        let count = Count { requests: u64::from(record.n), errors: u64::from(record.errors()) };
        if record.version != release.version || record.digest != release.digest {
            // The last seconds of a version that went before are neither's.
            let old = start.previous.as_ref().map(|p| &p.release);
            if old.is_some_and(|o| o.version == record.version && o.digest == record.digest) {
                volatile.stable.requests += count.requests;
                volatile.stable.errors += count.errors;
            }
            continue;
        }
        volatile.canary.requests += count.requests;
        volatile.canary.errors += count.errors;
        if record.weight_bp == 0 {
            continue;
        }
        for (name, limit) in limits(state, state.watching()) {
            let watch = volatile.limits.entry(name.clone());
            watch.or_insert_with(|| LimitWatch::new(limit.clone())).feed(record);
        }
        // A gate asks about its own step: only whole seconds of it are evidence.
        if let (Stage::Analysing, Some(Step::Analysis { checks })) = (state.stage, state.current())
            && record.second > state.stage_since.0 / 1000
        {
            for (name, limit) in limits(state, checks) {
                let watch = volatile.gates.entry(name.clone());
                watch.or_insert_with(|| LimitWatch::new(limit.clone())).feed(record);
            }
        }
    }
}

/// Those of the named checks that are limits on counts.
fn limits<'a>(
    state: &'a State,
    names: &'a [String],
) -> impl Iterator<Item = (&'a String, &'a CountsLimit)> {
    names.iter().filter_map(|name| match state.check(name).map(|c| &c.kind) {
        Some(CheckKind::Counts(limit)) => Some((name, limit)),
        Some(CheckKind::Http { .. } | CheckKind::Tcp { .. } | CheckKind::Command { .. }) | None => {
            None
        }
    })
}

fn react(flow: &mut Flow<'_>, volatile: &mut Volatile) {
    if fallback_applied(flow, volatile) {
        return;
    }
    if flow.state.stage.is_returning() {
        back::back(flow, volatile);
    } else {
        ahead::ahead(flow, volatile);
    }
}

/// The host has put the old version back by itself: that is how it is now.
fn fallback_applied(flow: &mut Flow<'_>, volatile: &Volatile) -> bool {
    let ours = flow.state.fallback_seq();
    let told = volatile
        .capacity
        .as_ref()
        .and_then(|c| c.fallback_applied.as_ref())
        .filter(|fallback| fallback.fence.seq == ours);
    // The host forgets it with the next capacity document; the switch shows what is in force.
    let seen = volatile.traffic.as_ref().and_then(|t| t.fence).is_some_and(|f| f.seq == ours);
    // Once the old version is being stopped no such document is in force any more.
    if flow.state.stage.is_returning()
        || flow.state.stage == Stage::Retiring
        || (told.is_none() && !seen)
    {
        return false;
    }
    let silence_ms = told.map_or(0, |fallback| fallback.silence_ms);
    flow.emit(Event::FallbackApplied { silence_ms });
    let how_long = match silence_ms {
        0 => "for too long".to_owned(),
        ms => format!("for {} s", ms / 1000),
    };
    let text = format!(
        "the host heard nothing from the engine {how_long} and has put the old version back"
    );
    flow.abort(Reason::new("engineLost", text), Outcome::RolledBack);
    true
}
