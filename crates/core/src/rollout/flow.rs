//! The way forward and the way back: which events follow from a state.
//!
//! A [`Flow`] folds every event that it emits into a state of its own at once, so that the next
//! rule sees it; as long as there is none, which is most of the time, it only looks. Abort is not a step: it leaves the step loop for a path of its own, capacity first,
//! then traffic, then drain, then down.

use std::borrow::Cow;

use serde_json::Value;

use super::event::{CheckVerdict, Event, RunResult};
use super::state::{RULES, Stage, State};
use super::{Outcome, RolloutKind, Start};
use crate::digest::Digest;
use crate::plan;
use crate::reason::Reason;
use crate::spec::{CheckKind, Step};
use crate::time::Timestamp;
use crate::traffic::FULL_WEIGHT;

/// Events in the making.
pub(super) struct Flow<'a> {
    pub(super) state: Cow<'a, State>,
    pub(super) now: Timestamp,
    pub(super) events: Vec<Event>,
}

impl<'a> Flow<'a> {
    pub(super) fn new(state: &'a State, now: Timestamp) -> Self {
        Self { state: Cow::Borrowed(state), now, events: Vec::new() }
    }

    pub(super) fn emit(&mut self, event: Event) {
        self.state.to_mut().apply(&event, self.now);
        self.events.push(event);
    }

    /// It is not blocked any more.
    pub(super) fn moves_again(&mut self) {
        if self.state.held.is_some() {
            self.emit(Event::Unheld);
        }
    }

    pub(super) fn start(&mut self, start: Box<Start>) {
        let release = &start.proposal.release;
        // The same version once more shares traffic with nobody.
        let has_previous = start.previous.as_ref().is_some_and(|p| {
            p.release.version != release.version || p.release.digest != release.digest
        });
        let strategy = &start.proposal.environment.strategy;
        let moves = plan::moves(start.proposal.kind, has_previous, strategy);
        let plan = Digest::of_json(&(&start, &moves, RULES)).unwrap_or_default();
        self.emit(Event::Started { start, moves, plan, rules: RULES });
    }

    /// A step is done; the next one begins unless somebody has paused the rollout.
    pub(super) fn end_step(&mut self, skipped_by: Option<String>) {
        self.emit(Event::StepEnded { index: self.state.step, skipped_by });
        self.go_on();
    }

    /// Begins the step at which the rollout rests.
    pub(super) fn go_on(&mut self) {
        if self.state.paused_by.is_some() {
            return;
        }
        let index = self.state.step;
        self.emit(Event::StepStarted { index });
        let canary = match self.state.current() {
            Some(Step::SetWeight { weight_bp }) => self.state.instances_for(*weight_bp),
            Some(Step::Analysis { .. }) => 1,
            None => self.state.instances_for(FULL_WEIGHT),
            Some(Step::Pause { .. } | Step::Run { .. }) => return,
        };
        let canary = canary.max(self.state.canary);
        let previous = self.state.previous_full();
        let also = self.state.also || self.is_first_document_with_leftovers();
        if canary != self.state.canary || previous != self.state.previous {
            self.want_capacity(canary, previous, also);
        }
    }

    fn is_first_document_with_leftovers(&self) -> bool {
        self.state.capacity_seq == 0
            && self.state.start.as_ref().is_some_and(|s| !s.also.is_empty())
    }

    pub(super) fn want_capacity(&mut self, canary: u32, previous: u32, also: bool) {
        let seq = self.state.next_seq();
        self.emit(Event::CapacityWanted { seq, canary, previous, also });
    }

    pub(super) fn want_traffic(&mut self, weight_bp: u32) {
        let seq = self.state.next_seq();
        self.emit(Event::TrafficWanted { seq, weight_bp });
    }

    /// The weight that the current step wants; the promotion wants all.
    pub(super) fn step_weight(&self) -> u32 {
        match self.state.current() {
            Some(Step::SetWeight { weight_bp }) => *weight_bp,
            None => FULL_WEIGHT,
            Some(Step::Pause { .. } | Step::Analysis { .. } | Step::Run { .. }) => {
                self.state.wanted_bp
            }
        }
    }

    /// The switch was seen to do what the step wanted.
    pub(super) fn traffic_observed(&mut self) {
        let (seq, weight_bp) = (self.state.traffic_seq, self.state.wanted_bp);
        self.moves_again();
        self.emit(Event::TrafficObserved { seq, weight_bp });
        if self.state.step < self.state.moves.len() {
            self.end_step(None);
            return;
        }
        self.emit(Event::Promoted);
        if self.bake_ms() == 0 {
            self.baked(None);
        } else if self.state.previous > 0 {
            // The fallback of the bake window is another one than that of the canary.
            self.want_capacity(self.state.canary, self.state.previous, self.state.also);
        }
    }

    pub(super) fn bake_ms(&self) -> u64 {
        self.state.start.as_ref().map_or(0, |start| match start.proposal.kind {
            RolloutKind::Undo => 0,
            RolloutKind::Release | RolloutKind::Retry => start.proposal.environment.bake_ms,
        })
    }

    pub(super) fn baked(&mut self, early: Option<Reason>) {
        self.emit(Event::Baked { early });
        if self.state.previous == 0 && !self.state.also {
            self.emit(Event::Ended { outcome: Outcome::Promoted });
        } else if self.state.previous > 0 {
            // The host must not put the old version back once it may be stopped.
            self.want_capacity(self.state.canary, self.state.previous, self.state.also);
        }
    }

    /// The old version may go.
    pub(super) fn retire(&mut self) {
        self.want_capacity(self.state.canary, 0, false);
    }

    /// Leaves the step loop for the way back.
    pub(super) fn abort(&mut self, reason: Reason, outcome: Outcome) {
        if self.state.stage == Stage::Running
            && self.state.held.is_none()
            && let Some(Step::Run { name, .. }) = self.state.current()
        {
            let name = name.clone();
            let text = "taken back before its end was known; it may have happened".to_owned();
            self.emit(Event::RunEnded { name, result: RunResult::Unknown, text });
        }
        self.emit(Event::Aborting { reason, outcome });
        let leftovers = self.state.has_leftovers();
        if self.state.capacity_seq == 0 && !leftovers {
            // Nothing has been asked of any target: nothing to take back.
            self.emit(Event::TrafficReturned);
            self.emit(Event::Ended { outcome });
            return;
        }
        if self.state.shifted_at.is_none() && !leftovers {
            self.emit(Event::TrafficReturned);
            self.go_down(0);
            return;
        }
        let full = self.state.previous_full();
        if full == 0 {
            self.want_traffic(0);
        } else if self.state.back.as_ref().is_some_and(|b| b.restarts) {
            self.want_capacity(self.state.canary, full, self.state.also || leftovers);
        }
    }

    /// Enough of the old version is ready: the traffic may return.
    pub(super) fn return_traffic(&mut self) {
        self.moves_again();
        self.want_traffic(0);
    }

    pub(super) fn traffic_returned(&mut self) {
        let seq = self.state.traffic_seq;
        self.moves_again();
        self.emit(Event::TrafficObserved { seq, weight_bp: 0 });
        self.emit(Event::TrafficReturned);
    }

    /// Nothing is under way any more, or the drain time is over.
    pub(super) fn go_down(&mut self, left: u32) {
        self.moves_again();
        self.emit(Event::Drained { left });
        self.want_capacity(0, self.state.previous_full(), false);
    }

    pub(super) fn end_back(&mut self) {
        self.moves_again();
        let outcome = self.state.back.as_ref().map_or(Outcome::RolledBack, |b| b.outcome);
        self.emit(Event::Ended { outcome });
    }

    /// A refusal or failure before any request went to the new version leaves nothing changed.
    pub(super) fn failed_outcome(&self) -> Outcome {
        if self.state.shifted_at.is_none() { Outcome::Refused } else { Outcome::RolledBack }
    }

    pub(super) fn supersede(&mut self, by: &str) {
        if self.state.superseded_by.is_some() || self.state.stage == Stage::Ended {
            return;
        }
        self.emit(Event::Superseded { by: by.to_owned() });
        let reason = Reason::new("superseded", format!("{by} is to go out instead"));
        match self.state.stage {
            Stage::Baking => self.baked(Some(reason)),
            Stage::ReturningCapacity
            | Stage::ReturningTraffic
            | Stage::Draining
            | Stage::ReturningDown
            | Stage::Retiring => self.give_way_if_blocked(),
            Stage::Cooling | Stage::Ended => {}
            Stage::New
            | Stage::Staging
            | Stage::Scaling
            | Stage::Shifting
            | Stage::Pausing
            | Stage::Analysing
            | Stage::Running
            | Stage::Resting => self.abort(reason, Outcome::Superseded),
        }
    }

    /// The world blocks the end and another version waits: it takes over with what runs now.
    pub(super) fn give_way_if_blocked(&mut self) {
        if self.state.held.is_none() || self.state.superseded_by.is_none() {
            return;
        }
        if self.state.stage.is_returning() {
            self.emit(Event::Ended { outcome: Outcome::Superseded });
        } else if self.state.stage == Stage::Retiring {
            self.emit(Event::Ended { outcome: Outcome::Promoted });
        }
    }

    /// Asks for the first measurement of every gate that is measured by effects.
    pub(super) fn measure_gates(&mut self) {
        let Some(Step::Analysis { checks }) = self.state.current().cloned() else { return };
        for check in checks {
            if self.state.check(&check).is_some_and(|c| !matches!(c.kind, CheckKind::Counts(_))) {
                self.measure(&check, true);
            }
        }
    }

    pub(super) fn measure(&mut self, check: &str, gate: bool) {
        let key = super::check_key(check, gate);
        let state = self.state.checks.get(&key);
        if state.is_some_and(|c| c.under_way) {
            return;
        }
        let number = state.map_or(0, |c| c.asked) + 1;
        self.emit(Event::MeasureRequested { check: check.to_owned(), number, gate });
    }

    /// Whether the current step waits for this gate.
    pub(super) fn waits_for_gate(&self, check: &str) -> bool {
        self.state.stage == Stage::Analysing
            && self.state.gates_started
            && matches!(self.state.current(), Some(Step::Analysis { checks })
                if checks.iter().any(|c| c == check))
            && !self.state.passed.iter().any(|c| c == check)
    }

    /// A gate has passed; the step ends with the last one.
    pub(super) fn gate_passed(&mut self, check: &str, text: String, evidence: Value) {
        self.gate_done(check, CheckVerdict::Pass, text, evidence);
    }

    /// A gate holds the step no longer.
    pub(super) fn gate_done(
        &mut self,
        check: &str,
        verdict: CheckVerdict,
        text: String,
        evidence: Value,
    ) {
        if self.state.passed.iter().any(|c| c == check) {
            return;
        }
        self.emit(Event::CheckDecided { check: check.to_owned(), verdict, text, evidence });
        if let Some(Step::Analysis { checks }) = self.state.current()
            && checks.iter().all(|c| self.state.passed.contains(c))
        {
            self.end_step(None);
        }
    }

    /// A check has failed: the way back begins.
    pub(super) fn check_failed(
        &mut self,
        check: &str,
        verdict: CheckVerdict,
        text: String,
        evidence: Value,
    ) {
        let reason = Reason::new("checkFailed", format!("check {check} failed: {text}"));
        self.emit(Event::CheckDecided { check: check.to_owned(), verdict, text, evidence });
        let outcome = match self.failed_outcome() {
            // A gate that fails is the release's failure, also when it had no traffic yet.
            Outcome::Refused => Outcome::RolledBack,
            outcome @ (Outcome::Promoted
            | Outcome::RolledBack
            | Outcome::Held
            | Outcome::Superseded) => outcome,
        };
        self.abort(reason, outcome);
    }
}
