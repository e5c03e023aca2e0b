//! The lane: one for each environment × service. Owns what rollouts share: the stable version, the
//! kept versions, which rollout is active, the blocks of fence sequences.

mod machine;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::reason::Reason;
use crate::rollout::{Outcome, RolloutKind};
use crate::spec::{CheckSpec, EnvironmentSpec, ReleaseRef, ServiceSpec};
use crate::time::Timestamp;

/// Versions that can be gone back to besides the stable one.
pub const KEPT: usize = 10;
/// Fence sequences that one rollout may use.
pub const FENCE_BLOCK: u64 = 1 << 20;

/// The machine; see [`crate::machine::Machine`].
#[derive(Debug, Clone, Copy)]
pub struct LaneMachine;

/// What is asked of a lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Input {
    /// A release wants to go out here. Supersedes an active rollout.
    Propose(Box<Proposal>),
    /// Go back: abort what is under way, or put a kept version back.
    Undo {
        /// Which version; none: the one before.
        to: Option<String>,
        /// Who asks.
        principal: String,
        /// Why.
        reason: Option<String>,
    },
    /// The last rollout, if it did not end promoted, once more.
    Retry {
        /// Who asks.
        principal: String,
    },
    /// From the rollout: all traffic is on its version now; it bakes.
    Promoted {
        /// Which rollout.
        rollout: String,
    },
    /// From the rollout: nothing is left to do.
    Ended {
        /// Which rollout.
        rollout: String,
        /// How.
        outcome: Outcome,
        /// Instances of its version that still run and may have traffic; 0 normally.
        left: u32,
        /// Whether what an earlier rollout had left to it may still have traffic.
        #[serde(default)]
        leftovers: bool,
    },
}

/// What shall go out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proposal {
    /// The version.
    pub release: ReleaseRef,
    /// How to run it.
    pub service: ServiceSpec,
    /// Where and how it goes out.
    pub environment: EnvironmentSpec,
    /// The checks that the strategy names.
    pub checks: Vec<CheckSpec>,
    /// Who asks.
    pub principal: String,
    /// The release stream that waits for the end, if one does.
    pub release_stream: Option<String>,
    /// Release, retry or undo.
    pub kind: RolloutKind,
}

/// A version that a lane can go back to, with how it was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// The version.
    pub release: ReleaseRef,
    /// How to run it.
    pub service: ServiceSpec,
}

/// What happened to a lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Event {
    /// A proposal waits for the active rollout to make room.
    #[serde(rename_all = "camelCase")]
    Queued {
        /// It.
        proposal: Box<Proposal>,
        /// Which rollout was asked to make room.
        superseding: String,
        /// The release stream of a proposal that waited before and is dropped for it.
        #[serde(default)]
        replaced: Option<String>,
    },
    /// A rollout was started.
    #[serde(rename_all = "camelCase")]
    Started {
        /// Its id.
        rollout: String,
        /// Its number in the lane, from 1.
        number: u64,
        /// What goes out.
        proposal: Box<Proposal>,
        /// What a superseded rollout has left running.
        also: Vec<(Kept, u32)>,
    },
    /// Somebody wants the active rollout undone.
    #[serde(rename_all = "camelCase")]
    UndoRequested {
        /// Which rollout.
        rollout: String,
        /// Who asks.
        principal: String,
        /// Why.
        reason: Option<String>,
    },
    /// The active rollout's version is the stable one.
    #[serde(rename_all = "camelCase")]
    StableChanged {
        /// Which rollout.
        rollout: String,
        /// The version.
        version: String,
        /// Its digest.
        digest: Digest,
    },
    /// The active rollout has ended.
    #[serde(rename_all = "camelCase")]
    RolloutEnded {
        /// Which.
        rollout: String,
        /// How.
        outcome: Outcome,
        /// Instances of its version that are left running.
        left: u32,
    },
    /// The active rollout ended just when it was to be undone: the version before goes out again.
    #[serde(rename_all = "camelCase")]
    UndoMissed {
        /// Which rollout.
        rollout: String,
    },
}

/// A lane's state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// What runs as the good version.
    pub stable: Option<Kept>,
    /// Earlier stable versions, newest first, at most [`KEPT`].
    pub kept: Vec<Kept>,
    /// The rollout under way, baking included.
    pub active: Option<Active>,
    /// What starts when the active one has made room.
    pub next: Option<Box<Proposal>>,
    /// Rollouts so far.
    pub rollouts: u64,
    /// The last rollout and what it was, for `retry`.
    pub last: Option<Last>,
}

/// The rollout under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Active {
    /// Its id.
    pub rollout: String,
    /// What goes out.
    pub proposal: Box<Proposal>,
    /// The stable version before it.
    pub previous: Option<Kept>,
    /// Whether it has all traffic.
    pub promoted: bool,
    /// What a superseded rollout had left running when it was started.
    #[serde(default)]
    pub also: Vec<(Kept, u32)>,
    /// Who wants it undone, if somebody does.
    #[serde(default)]
    pub undo_by: Option<String>,
    /// When it was started.
    pub since: Timestamp,
}

/// The last rollout that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Last {
    /// Its id.
    pub rollout: String,
    /// What it was.
    pub proposal: Box<Proposal>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, where somebody said so.
    pub reason: Option<Reason>,
}

/// The name of a lane: `environment/service`.
#[must_use]
pub fn name(environment: &str, service: &str) -> String {
    format!("{environment}/{service}")
}
