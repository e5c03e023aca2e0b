//! Capacity and traffic: two documents, two traits. A driver is given the whole desired state under
//! a fence and says what it observes; sending twice is sending once.

use tidegate_core::capacity::{CapacityDoc, LaneCapacity};
use tidegate_core::machine::Outcome;
use tidegate_core::traffic::{LaneTraffic, TrafficDoc};
use tidegate_core::{Epoch, Fence, Reason};
use tidegate_engine::effects::{Attempt, Job};

/// Which versions run at a target, and how many instances of each.
pub trait Capacity: Send + Sync {
    /// Puts the document in force; answers with the fence when it is durable there. Convergence
    /// goes on after it.
    fn converge<'a>(
        &'a self,
        fence: Fence,
        doc: &'a CapacityDoc,
    ) -> Job<'a, Result<Fence, TargetError>>;

    /// What is there now, read after the target accepted this owner; none: it knows no such lane.
    fn observe<'a>(&'a self, lane: &'a str) -> Job<'a, Result<Option<LaneCapacity>, TargetError>>;
}

/// Which versions get what share of the requests at a target.
pub trait Traffic: Send + Sync {
    /// Puts the table in force; answers with the fence when it is durable and in force for the next
    /// request.
    fn converge<'a>(
        &'a self,
        fence: Fence,
        doc: &'a TrafficDoc,
    ) -> Job<'a, Result<Fence, TargetError>>;

    /// What is there now, read after the target accepted this owner; none: it knows no such lane.
    fn observe<'a>(&'a self, lane: &'a str) -> Job<'a, Result<Option<LaneTraffic>, TargetError>>;
}

/// Why a target has not done as it was told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Nobody listens there: nothing was sent.
    #[error("{0}")]
    Unreachable(String),
    /// Sent, perhaps received, not answered; or refused for now.
    #[error("{0}")]
    Unanswered(String),
    /// Something newer of the same owner is in force there.
    #[error("{0}")]
    Overtaken(Reason),
    /// A newer owner is known there with this epoch, or this epoch has been shut.
    #[error("the target has a newer owner, or has shut epoch {}", .0.0)]
    Superseded(Epoch),
    /// Refused for good.
    #[error("{0}")]
    Refused(Reason),
}

impl From<TargetError> for Attempt {
    fn from(error: TargetError) -> Self {
        match error {
            TargetError::Unreachable(why) => Self::NotSent(why),
            TargetError::Unanswered(why) => Self::Again(why),
            TargetError::Overtaken(reason) | TargetError::Refused(reason) => {
                Self::Done(Outcome::Refused(reason))
            }
            TargetError::Superseded(epoch) => Self::Superseded(epoch),
        }
    }
}
