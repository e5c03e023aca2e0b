//! What a rollout remembers, and how events change it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::event::{CheckVerdict, Event, Measurement};
use super::{Outcome, RolloutKind, Start};
use crate::digest::Digest;
use crate::reason::Reason;
use crate::spec::{CheckSpec, Step};
use crate::time::Timestamp;
use crate::traffic::FULL_WEIGHT;

/// Version of the rules that new rollouts are pinned to.
pub const RULES: u32 = 1;

/// Where a rollout is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// Before its start.
    #[default]
    New,
    /// The artifact is brought to the host.
    Staging,
    /// Waits for instances.
    Scaling,
    /// Waits for the switch.
    Shifting,
    /// In a pause step.
    Pausing,
    /// In an analysis step.
    Analysing,
    /// In a run step.
    Running,
    /// A step is done and somebody has paused the rollout.
    Resting,
    /// All traffic on the new version, watched.
    Baking,
    /// Baked; the old version stays for the scale-down delay.
    Cooling,
    /// The old version goes.
    Retiring,
    /// On the way back: waits for instances of the old version.
    ReturningCapacity,
    /// On the way back: waits for the switch.
    ReturningTraffic,
    /// On the way back: waits for requests under way.
    Draining,
    /// On the way back: the new version goes.
    ReturningDown,
    /// Nothing left to do.
    Ended,
}

impl Stage {
    /// Whether the way back has begun.
    #[must_use]
    pub fn is_returning(self) -> bool {
        matches!(
            self,
            Self::ReturningCapacity | Self::ReturningTraffic | Self::Draining | Self::ReturningDown
        )
    }
}

/// One check's measurements by effects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CheckState {
    /// Measurements asked for so far, over all steps.
    pub asked: u32,
    /// Whether one is under way.
    pub under_way: bool,
    /// Since the gate or watch began.
    pub passes: u32,
    /// Since the gate or watch began.
    pub failures: u32,
    /// In a row.
    pub errors: u32,
    /// The last thing it said.
    pub text: String,
}

/// A rollout's state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// What, where, from which version; none before the start.
    pub start: Option<Box<Start>>,
    /// The steps.
    pub moves: Vec<Step>,
    /// Digest of the plan.
    pub plan: Digest,
    /// The rules that it is finished by.
    pub rules: u32,
    /// Where it is.
    pub stage: Stage,
    /// Grows with every change of the stage or of what it waits for.
    pub stage_number: u64,
    /// When the stage began.
    pub stage_since: Timestamp,
    /// The current step; `moves.len()` is the promotion.
    pub step: usize,
    /// Sequences used so far in its block.
    pub seq: u64,
    /// Sequence of the last capacity document.
    pub capacity_seq: u64,
    /// Sequence of the last traffic document.
    pub traffic_seq: u64,
    /// How often the last capacity document was sent again.
    pub capacity_again: u32,
    /// How often the last traffic document was sent again.
    pub traffic_again: u32,
    /// The capacity document before the last one: its sequence, how often it was sent again.
    pub overtaken_capacity: (u64, u32),
    /// The traffic document before the last one: its sequence, how often it was sent again.
    pub overtaken_traffic: (u64, u32),
    /// Instances of the new version in the last capacity document.
    pub canary: u32,
    /// Instances of the old version in the last capacity document.
    pub previous: u32,
    /// Whether versions of a superseded rollout are in the last capacity document.
    pub also: bool,
    /// Basis points, as wanted.
    pub wanted_bp: u32,
    /// Basis points, as acknowledged.
    pub applied_bp: u32,
    /// Basis points, as observed.
    pub observed_bp: u32,
    /// Whether the switch was seen with a traffic document of this rollout: from then on nothing
    /// goes to what a superseded rollout has left.
    pub settled: bool,
    /// When the new version was first given traffic by the switch.
    pub shifted_at: Option<Timestamp>,
    /// Base URL of an instance of the new version.
    pub preview: Option<String>,
    /// Checks measured by effects.
    pub checks: BTreeMap<String, CheckState>,
    /// Whether the gates of the current step are being measured.
    pub gates_started: bool,
    /// Gates of the current step that have passed.
    pub passed: Vec<String>,
    /// The last decision of a check.
    pub verdict: Option<Verdict>,
    /// Paused by somebody.
    pub paused_by: Option<String>,
    /// All traffic was on it.
    pub promoted: bool,
    /// Why the way back began.
    pub back: Option<Back>,
    /// What blocks it.
    pub held: Option<Reason>,
    /// How often the artifact was asked for again.
    pub stage_again: u32,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How it ended or, once traffic is where it will stay, how it will.
    pub outcome: Option<Outcome>,
    /// Makes room for this version.
    pub superseded_by: Option<String>,
}

/// The way back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Back {
    /// Why.
    pub reason: Reason,
    /// What it will be called at the end.
    pub outcome: Outcome,
    /// The old version has to be started first: the way back waits for a capacity document of its
    /// own, and for all instances rather than for any.
    #[serde(default)]
    pub restarts: bool,
}

/// What a check has decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The check.
    pub check: String,
    /// What it says.
    pub verdict: CheckVerdict,
    /// In words.
    pub text: String,
    /// Numbers.
    pub evidence: serde_json::Value,
}

impl State {
    /// Instances that the new version needs for a weight: its share, rounded up, at least one.
    #[must_use]
    pub fn instances_for(&self, weight_bp: u32) -> u32 {
        let full = self.start.as_ref().map_or(1, |s| s.proposal.service.instances.max(1));
        let share = (u64::from(full) * u64::from(weight_bp)).div_ceil(u64::from(FULL_WEIGHT));
        u32::try_from(share).unwrap_or(full).max(1)
    }

    /// Instances that the old version has when it serves alone; 0 if there is none.
    #[must_use]
    pub fn previous_full(&self) -> u32 {
        self.start
            .as_ref()
            .and_then(|s| s.previous.as_ref())
            .map_or(0, |kept| kept.service.instances.max(1))
    }

    /// A check of the proposal by name.
    #[must_use]
    pub fn check(&self, name: &str) -> Option<&CheckSpec> {
        self.start.as_ref()?.proposal.checks.iter().find(|c| c.name == name)
    }

    /// Names of the checks that watch; an undo is not judged.
    #[must_use]
    pub fn watching(&self) -> &[String] {
        match &self.start {
            Some(start) if start.proposal.kind != RolloutKind::Undo => {
                &start.proposal.environment.strategy.analysis
            }
            Some(_) | None => &[],
        }
    }

    /// Whether the checks of the strategy watch now: from the first shifted request to the end of
    /// the bake window, not on the way back.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.shifted_at.is_some()
            && !self.stage.is_returning()
            && !matches!(self.stage, Stage::Cooling | Stage::Retiring | Stage::Ended)
    }

    /// Instances of the new version that may have traffic although the rollout has ended: it was
    /// blocked on the way back when a newer release took over. 0 otherwise.
    #[must_use]
    pub fn left_running(&self) -> u32 {
        let blocked = self.outcome == Some(Outcome::Superseded) && self.shifted_at.is_some();
        if blocked { self.canary } else { 0 }
    }

    /// Whether what a superseded rollout has left may still have traffic.
    #[must_use]
    pub fn has_leftovers(&self) -> bool {
        !self.settled && self.start.as_ref().is_some_and(|s| !s.also.is_empty())
    }

    /// Whether the version that goes out is the one that runs already.
    #[must_use]
    pub fn is_same_version(&self) -> bool {
        self.start.as_ref().is_some_and(|s| {
            let new = &s.proposal.release;
            s.previous
                .as_ref()
                .is_some_and(|p| p.release.version == new.version && p.release.digest == new.digest)
        })
    }

    /// How long requests under way may take before their instances are stopped.
    #[must_use]
    pub fn drain_ms(&self) -> u64 {
        self.start.as_ref().map_or(0, |s| s.proposal.service.stop.grace_ms)
    }

    /// The current step.
    #[must_use]
    pub fn current(&self) -> Option<&Step> {
        self.moves.get(self.step)
    }

    /// The absolute sequence of the fallback: above all others of this rollout.
    #[must_use]
    pub fn fallback_seq(&self) -> u64 {
        self.start.as_ref().map_or(0, |s| s.fence_base) + crate::lane::FENCE_BLOCK - 1
    }

    /// The absolute sequence that the next document gets.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.start.as_ref().map_or(0, |s| s.fence_base) + self.seq + 1
    }

    fn enter(&mut self, stage: Stage, at: Timestamp) {
        self.stage = stage;
        self.stage_number += 1;
        self.stage_since = at;
    }

    /// Folds one event.
    pub fn apply(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::Started { start, moves, plan, rules } => {
                self.start = Some(start.clone());
                self.moves.clone_from(moves);
                self.plan = plan.clone();
                self.rules = *rules;
                self.started_at = at;
                self.enter(Stage::Staging, at);
            }
            Event::Staged => self.enter(Stage::Resting, at),
            Event::PreviewMoved { preview } => self.preview = Some(preview.clone()),
            Event::StepStarted { index } => self.apply_step(*index, at),
            Event::CapacityWanted { .. } | Event::CapacityReady { .. } => {
                self.apply_capacity(event, at);
            }
            Event::TrafficWanted { .. }
            | Event::TrafficRefused { .. }
            | Event::TrafficApplied { .. }
            | Event::TrafficObserved { .. } => self.apply_traffic(event, at),
            Event::MeasureRequested { .. } | Event::Measured { .. } => self.apply_measure(event),
            Event::CheckDecided { check, verdict, text, evidence } => {
                // A gate that may go on without data is done as well.
                let done = matches!(verdict, CheckVerdict::Pass | CheckVerdict::NoData);
                if done && self.stage == Stage::Analysing {
                    self.passed.push(check.clone());
                }
                self.verdict = Some(Verdict {
                    check: check.clone(),
                    verdict: *verdict,
                    text: text.clone(),
                    evidence: evidence.clone(),
                });
            }
            Event::RunEnded { .. } => self.stage_number += 1,
            Event::StepEnded { index, .. } => {
                self.step = index + 1;
                self.enter(Stage::Resting, at);
            }
            Event::FullPromotion { .. } => {
                // A step that has not begun is skipped as well.
                let begun = !matches!(self.stage, Stage::Staging | Stage::Resting);
                self.moves.truncate(self.step + usize::from(begun));
            }
            Event::Promoted => {
                self.promoted = true;
                self.outcome = Some(Outcome::Promoted);
                self.enter(Stage::Baking, at);
            }
            Event::Baked { .. } => {
                self.paused_by = None;
                self.enter(Stage::Cooling, at);
            }
            Event::Paused { principal } => self.paused_by = Some(principal.clone()),
            Event::Resumed { .. } => self.paused_by = None,
            Event::Superseded { by } => self.superseded_by = Some(by.clone()),
            Event::Aborting { .. }
            | Event::TrafficReturned
            | Event::Drained { .. }
            | Event::Held { .. }
            | Event::DocumentRefused { .. }
            | Event::Unheld
            | Event::SentAgain { .. }
            | Event::FallbackApplied { .. }
            | Event::Ended { .. } => self.apply_back(event, at),
        }
    }

    fn apply_step(&mut self, index: usize, at: Timestamp) {
        self.step = index;
        self.passed.clear();
        self.gates_started = false;
        let stage = match self.moves.get(index) {
            Some(Step::Pause { .. }) => Stage::Pausing,
            Some(Step::Analysis { .. }) => Stage::Analysing,
            Some(Step::Run { .. }) => Stage::Running,
            Some(Step::SetWeight { .. }) | None => Stage::Scaling,
        };
        if let Some(Step::Analysis { checks }) = self.moves.get(index) {
            for check in checks {
                let entry = self.checks.entry(check_key(check, true)).or_default();
                *entry = CheckState { asked: entry.asked, ..CheckState::default() };
            }
        }
        self.enter(stage, at);
    }

    fn apply_capacity(&mut self, event: &Event, at: Timestamp) {
        if let Event::CapacityWanted { seq, canary, previous, also } = event {
            self.seq += 2;
            self.overtaken_capacity = (self.capacity_seq, self.capacity_again);
            self.capacity_seq = *seq;
            self.capacity_again = 0;
            self.canary = *canary;
            self.previous = *previous;
            self.also = *also;
            match self.stage {
                Stage::Cooling if self.previous == 0 => self.enter(Stage::Retiring, at),
                Stage::Draining => self.enter(Stage::ReturningDown, at),
                Stage::Scaling | Stage::ReturningCapacity => self.enter(self.stage, at),
                // What these wait for is something else: it goes on being counted.
                Stage::New
                | Stage::Staging
                | Stage::Shifting
                | Stage::Pausing
                | Stage::Analysing
                | Stage::Running
                | Stage::Resting
                | Stage::Baking
                | Stage::Cooling
                | Stage::Retiring
                | Stage::ReturningTraffic
                | Stage::ReturningDown
                | Stage::Ended => {}
            }
        }
        if let Event::CapacityReady { preview, .. } = event {
            if preview.is_some() {
                self.preview.clone_from(preview);
            }
            self.gates_started = self.stage == Stage::Analysing;
            self.stage_number += 1;
        }
    }

    fn apply_traffic(&mut self, event: &Event, at: Timestamp) {
        if let Event::TrafficWanted { seq, weight_bp } = event {
            self.seq += 2;
            self.overtaken_traffic = (self.traffic_seq, self.traffic_again);
            self.traffic_seq = *seq;
            self.traffic_again = 0;
            self.wanted_bp = *weight_bp;
            if *weight_bp > 0 && self.shifted_at.is_none() {
                self.shifted_at = Some(at);
            }
            let stage =
                if self.stage.is_returning() { Stage::ReturningTraffic } else { Stage::Shifting };
            self.enter(stage, at);
        }
        if let Event::TrafficRefused { .. } = event
            && self.applied_bp == 0
            && self.observed_bp == 0
        {
            // It is certain that no request went to the new version.
            self.shifted_at = None;
        }
        if let Event::TrafficApplied { weight_bp, .. } = event {
            self.applied_bp = *weight_bp;
        }
        if let Event::TrafficObserved { weight_bp, .. } = event {
            self.applied_bp = *weight_bp;
            self.observed_bp = *weight_bp;
            self.settled = true;
        }
    }

    fn apply_measure(&mut self, event: &Event) {
        if let Event::MeasureRequested { check, number, gate } = event {
            let entry = self.checks.entry(check_key(check, *gate)).or_default();
            entry.asked = *number;
            entry.under_way = true;
        }
        if let Event::Measured { check, gate, result, text, .. } = event {
            let entry = self.checks.entry(check_key(check, *gate)).or_default();
            entry.under_way = false;
            entry.text.clone_from(text);
            match result {
                Measurement::Pass => {
                    entry.passes += 1;
                    entry.errors = 0;
                }
                Measurement::Fail => {
                    entry.failures += 1;
                    entry.errors = 0;
                }
                Measurement::Error => entry.errors += 1,
            }
        }
    }

    fn apply_back(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::Aborting { reason, outcome } => {
                let restarts =
                    self.previous < self.previous_full() || (self.has_leftovers() && !self.also);
                self.back = Some(Back { reason: reason.clone(), outcome: *outcome, restarts });
                self.held = None;
                self.paused_by = None;
                self.outcome = None;
                for check in self.checks.values_mut() {
                    check.under_way = false;
                }
                self.enter(Stage::ReturningCapacity, at);
            }
            Event::TrafficReturned => {
                self.outcome = self.back.as_ref().map(|b| b.outcome);
                self.enter(Stage::Draining, at);
            }
            Event::Held { reason } | Event::DocumentRefused { reason, .. } => {
                self.held = Some(reason.clone());
            }
            Event::Unheld => self.held = None,
            Event::SentAgain { what, .. } => match what.as_str() {
                "capacity" => self.capacity_again += 1,
                "traffic" => self.traffic_again += 1,
                _ => self.stage_again += 1,
            },
            Event::Ended { outcome } => {
                self.outcome = Some(*outcome);
                self.held = None;
                self.paused_by = None;
                self.ended_at = Some(at);
                self.enter(Stage::Ended, at);
            }
            // What follows from the others is in the events behind them.
            Event::Drained { .. }
            | Event::FallbackApplied { .. }
            | Event::Started { .. }
            | Event::Staged
            | Event::StepStarted { .. }
            | Event::CapacityWanted { .. }
            | Event::CapacityReady { .. }
            | Event::PreviewMoved { .. }
            | Event::TrafficWanted { .. }
            | Event::TrafficApplied { .. }
            | Event::TrafficRefused { .. }
            | Event::TrafficObserved { .. }
            | Event::MeasureRequested { .. }
            | Event::Measured { .. }
            | Event::CheckDecided { .. }
            | Event::RunEnded { .. }
            | Event::StepEnded { .. }
            | Event::FullPromotion { .. }
            | Event::Promoted
            | Event::Baked { .. }
            | Event::Paused { .. }
            | Event::Resumed { .. }
            | Event::Superseded { .. } => {}
        }
    }
}

/// The key of a check's state: the same check may watch and be a gate.
#[must_use]
pub fn check_key(check: &str, gate: bool) -> String {
    if gate { format!("gate:{check}") } else { format!("watch:{check}") }
}
