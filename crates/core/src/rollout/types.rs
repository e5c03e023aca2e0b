//! What a rollout is asked, what happens to it and what it remembers.

use serde::{Deserialize, Serialize};

use crate::lane::{Kept, Proposal};

/// The machine; see [`crate::machine::Machine`].
#[derive(Debug, Clone, Copy)]
pub struct RolloutMachine;

/// Why a rollout exists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RolloutKind {
    /// A release goes out.
    #[default]
    Release,
    /// The same once more.
    Retry,
    /// A kept version is put back: all traffic at once, no steps.
    Undo,
}

/// How a rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// All traffic is on the new version.
    Promoted,
    /// All traffic is on the version before.
    RolledBack,
    /// A person is needed.
    Held,
    /// A newer release took its place.
    Superseded,
    /// It could not start; nothing changed.
    Refused,
}

/// What is asked of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Input {
    /// From the lane: go.
    Start(Box<Start>),
    /// Skip the current step (a pause, a running analysis), or all of them.
    Promote {
        /// All steps.
        full: bool,
        /// Who asks.
        principal: String,
    },
    /// Stay at the current step; nothing is counted meanwhile.
    Pause {
        /// Who asks.
        principal: String,
    },
    /// Go on after `pause`.
    Resume {
        /// Who asks.
        principal: String,
    },
    /// Back to the version before. Legal in every state.
    Abort {
        /// Who asks.
        principal: String,
        /// Why.
        reason: Option<String>,
    },
    /// From the lane: make room for a newer release.
    Supersede {
        /// By which version.
        by: String,
    },
}

/// What a rollout is given once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Start {
    /// What goes out.
    pub proposal: Proposal,
    /// What runs there now; none at the very first release.
    pub previous: Option<Kept>,
    /// Versions of a superseded rollout that may still have traffic, with their instances: they
    /// stay until the first traffic document of this rollout has been observed.
    #[serde(default)]
    pub also: Vec<(Kept, u32)>,
    /// First fence sequence that is this rollout's.
    pub fence_base: u64,
}
