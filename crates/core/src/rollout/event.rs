//! What happens to a rollout.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Outcome, Start};
use crate::digest::Digest;
use crate::reason::Reason;
use crate::spec::Step;

/// What happened to a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "type")]
pub enum Event {
    /// It was given to us; the plan is fixed from here on.
    Started {
        /// What, where, from which version.
        start: Box<Start>,
        /// The steps that it will take; promotion follows them.
        moves: Vec<Step>,
        /// Digest over start and moves.
        plan: Digest,
        /// Version of the rules (machine and checks) that it is finished by.
        rules: u32,
    },
    /// The artifact is on the host.
    Staged,
    /// A step begins. The promotion is the step after the last one.
    StepStarted {
        /// From 0.
        index: usize,
    },
    /// A capacity document was sent.
    CapacityWanted {
        /// Its sequence.
        seq: u64,
        /// Instances of the new version; 0: it is not in the document.
        canary: u32,
        /// Instances of the old version; 0: it is not in the document.
        previous: u32,
        /// Whether versions of a superseded rollout are still in it.
        also: bool,
    },
    /// The instances that the step needs are ready.
    CapacityReady {
        /// Ready instances of the new version.
        ready: u32,
        /// Base URL of one of them.
        preview: Option<String>,
    },
    /// The instance behind `{previewUrl}` is another one by now.
    PreviewMoved {
        /// Base URL.
        preview: String,
    },
    /// A traffic document was sent.
    TrafficWanted {
        /// Its sequence.
        seq: u64,
        /// Basis points for the new version.
        weight_bp: u32,
    },
    /// The switch has it, durably.
    TrafficApplied {
        /// Its sequence.
        seq: u64,
        /// Basis points for the new version.
        weight_bp: u32,
    },
    /// The switch was seen to have it in force.
    TrafficObserved {
        /// Its sequence.
        seq: u64,
        /// Basis points for the new version.
        weight_bp: u32,
    },
    /// A check is measured.
    MeasureRequested {
        /// The check's name.
        check: String,
        /// Which measurement of it, from 1.
        number: u32,
        /// Whether the current step waits for it (else it watches).
        gate: bool,
    },
    /// A measurement came back.
    Measured {
        /// The check's name.
        check: String,
        /// Which measurement.
        number: u32,
        /// Whether the current step waits for it.
        gate: bool,
        /// What it said.
        result: Measurement,
        /// In words.
        text: String,
    },
    /// A check has decided.
    CheckDecided {
        /// The check's name.
        check: String,
        /// pass, fail, noData, sourceDown.
        verdict: CheckVerdict,
        /// In words.
        text: String,
        /// Numbers, and the digest of the sample segment that they come from.
        evidence: Value,
    },
    /// A one-shot ended.
    RunEnded {
        /// Its name.
        name: String,
        /// How.
        result: RunResult,
        /// In words.
        text: String,
    },
    /// A step is done.
    StepEnded {
        /// From 0.
        index: usize,
        /// Whether somebody skipped it.
        skipped_by: Option<String>,
    },
    /// All further steps are skipped.
    FullPromotion {
        /// Who asked.
        principal: String,
    },
    /// All traffic is on the new version; the old one stays warm.
    Promoted,
    /// The bake window is over.
    Baked {
        /// Why it ended early, if it did.
        early: Option<Reason>,
    },
    /// Nothing is counted until somebody resumes.
    Paused {
        /// Who asked.
        principal: String,
    },
    /// It goes on.
    Resumed {
        /// Who asked.
        principal: String,
    },
    /// The way back begins.
    Aborting {
        /// Why.
        reason: Reason,
        /// What it will be called at the end.
        outcome: Outcome,
    },
    /// On the way back already: it makes room for a newer release as well.
    Superseded {
        /// The newer version.
        by: String,
    },
    /// No request goes to the new version any more.
    TrafficReturned,
    /// The new version answers nothing any more.
    Drained {
        /// Requests that were still under way when the drain time was over.
        left: u32,
    },
    /// The world blocks it; it goes on by itself when that ends.
    Held {
        /// What and where.
        reason: Reason,
    },
    /// The world does not block it any more.
    Unheld,
    /// A target has refused a document that has to come into force; it is asked again after a while.
    DocumentRefused {
        /// `capacity` or `traffic`.
        what: String,
        /// Its sequence.
        seq: u64,
        /// Why.
        reason: Reason,
    },
    /// The last effect of a kind is asked for again: the target did not take it.
    SentAgain {
        /// `capacity`, `traffic` or `stage`.
        what: String,
        /// Why.
        reason: Reason,
    },
    /// On the way forward: the switch says no to the table, so it is not in force.
    TrafficRefused {
        /// Its sequence.
        seq: u64,
        /// Why.
        reason: Reason,
    },
    /// The host had heard nothing for too long and has put the old version back by itself.
    FallbackApplied {
        /// Milliseconds of silence.
        silence_ms: u64,
    },
    /// Nothing is left to do.
    Ended {
        /// How.
        outcome: Outcome,
    },
}

/// What one measurement said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Measurement {
    /// Good.
    Pass,
    /// Not good.
    Fail,
    /// It could not be made.
    Error,
}

/// What a check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CheckVerdict {
    /// Enough good measurements.
    Pass,
    /// Too many bad ones.
    Fail,
    /// Too few samples.
    NoData,
    /// The source does not answer.
    SourceDown,
}

/// How a one-shot ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RunResult {
    /// Exit status 0.
    Succeeded,
    /// Another one, or the timeout.
    Failed,
    /// It may have happened.
    Unknown,
}
