//! The fence: the order of commands at a target.

use serde::{Deserialize, Serialize};

/// The number of an ownership of a home. Each new owner has a higher one.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// `(epoch, sequence)`, ordered lexicographically and strictly increasing at each target resource
/// (one lane's capacity on a host, one lane's table on a switch). Equal to the last accepted one
/// with the same payload is an idempotent acknowledgement; lower is refused.
///
/// An epoch alone is not enough: a delayed request of the same owner would overtake a newer one.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "camelCase")]
pub struct Fence {
    /// Whose command this is.
    pub epoch: Epoch,
    /// Which of that owner's commands; unique per lane across rollouts.
    pub seq: u64,
}

impl Fence {
    /// A fence with this epoch and sequence.
    #[must_use]
    pub const fn new(epoch: u64, seq: u64) -> Self {
        Self { epoch: Epoch(epoch), seq }
    }

    /// The floor that a host raises when it has applied a fallback: nothing of this epoch passes
    /// any more; the engine has to come back with a new epoch and read what happened.
    #[must_use]
    pub const fn shut(self) -> Self {
        Self { epoch: self.epoch, seq: u64::MAX }
    }
}

impl std::fmt::Display for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.epoch.0, self.seq)
    }
}
