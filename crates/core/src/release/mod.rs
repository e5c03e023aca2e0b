//! The release: a version of a service, by digest, driven through environments in order.
//! Its stream is `SERVICE@VERSION`.

mod machine;

use serde::{Deserialize, Serialize};

use crate::rollout::Outcome;
use crate::spec::{ProjectSpec, ReleaseRef};

/// The machine; see [`crate::machine::Machine`].
#[derive(Debug, Clone, Copy)]
pub struct ReleaseMachine;

/// What is asked of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Input {
    /// Make it, or drive it on to more environments. Another digest under the same version is
    /// refused; the same again is a no-op.
    Create(Box<Creation>),
    /// From a lane's rollout.
    RolloutEnded {
        /// The environment.
        environment: String,
        /// The rollout.
        rollout: String,
        /// How it ended (`promoted` as soon as all traffic is on it).
        outcome: Outcome,
    },
}

/// A release and where it shall go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Creation {
    /// The version and its digest.
    pub release: ReleaseRef,
    /// The service.
    pub service: String,
    /// Environments in order; the last one is the goal.
    pub environments: Vec<String>,
    /// The project as resolved by the client.
    pub project: ProjectSpec,
    /// Who asks.
    pub principal: String,
}

/// What happened to a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Event {
    /// It was made.
    #[serde(rename_all = "camelCase")]
    Created {
        /// What it is and where it shall go.
        creation: Box<Creation>,
    },
    /// It shall go further than before.
    #[serde(rename_all = "camelCase")]
    Extended {
        /// What it is and where it shall go now.
        creation: Box<Creation>,
    },
    /// An environment's lane was asked.
    #[serde(rename_all = "camelCase")]
    Proposed {
        /// The environment.
        environment: String,
    },
    /// A rollout of it has ended.
    #[serde(rename_all = "camelCase")]
    EnvironmentEnded {
        /// The environment.
        environment: String,
        /// The rollout.
        rollout: String,
        /// How.
        outcome: Outcome,
    },
    /// It is where it shall be, or it goes no further.
    #[serde(rename_all = "camelCase")]
    Ended {
        /// How.
        outcome: Outcome,
    },
}

/// A release's state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// What it is; none before it was made.
    pub creation: Option<Box<Creation>>,
    /// Environments in which it was promoted.
    pub promoted: Vec<String>,
    /// The environment that is asked now.
    pub current: Option<String>,
    /// The last rollout.
    pub rollout: Option<String>,
    /// How it ended, if it has.
    pub outcome: Option<Outcome>,
}

/// The stream's id of a release.
#[must_use]
pub fn stream_id(service: &str, version: &str) -> String {
    format!("{service}@{version}")
}
