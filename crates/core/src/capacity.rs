//! Capacity: which versions run on a host, and how many instances of each.
//!
//! The engine hands over the desired state whole ([`CapacityDoc`]); the host says what it observes
//! ([`LaneCapacity`]). Never a delta.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::fence::Fence;
use crate::spec::ServiceSpec;
use crate::traffic::TrafficDoc;

/// What one lane (environment × service) shall run on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CapacityDoc {
    /// `environment/service`.
    pub lane: String,
    /// Every version that shall run. A version that is not named here is to be stopped.
    pub versions: Vec<VersionCapacity>,
    /// What the host does by itself when it hears nothing.
    pub fallback: Fallback,
}

/// One version of a service on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionCapacity {
    /// The version's name.
    pub version: String,
    /// The digest of its artifact; it has been staged on the host before.
    pub digest: Digest,
    /// How many instances shall run.
    pub instances: u32,
    /// How to run one. Every version keeps the spec that it was released with.
    pub service: ServiceSpec,
}

/// The dead man's switch: the state to put in force after a silence, journalled before it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fallback {
    /// After so many milliseconds without contact to an engine of the accepted epoch.
    pub after_ms: u64,
    /// What then.
    pub action: FallbackAction,
}

/// What a host does when the engine is gone for too long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum FallbackAction {
    /// Leave everything as it is, and say so in the report.
    Stay,
    /// Put this traffic in force under this sequence (and the epoch of the document that carried
    /// it), then shut the floor. The versions that it names are running: they are in the document.
    Restore {
        /// The rollout that is undone by it.
        rollout: String,
        /// The sequence reserved for it.
        seq: u64,
        /// The table to put in force.
        traffic: TrafficDoc,
    },
}

/// What a host says about one lane.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LaneCapacity {
    /// `environment/service`.
    pub lane: String,
    /// The fence of the document in force, none before the first.
    pub fence: Option<Fence>,
    /// Versions that run or shall run.
    pub versions: Vec<VersionObserved>,
    /// Set when the host has applied a fallback since that document.
    pub fallback_applied: Option<FallbackReport>,
}

/// What became of one version on a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionObserved {
    /// The version's name.
    pub version: String,
    /// Its digest.
    pub digest: Digest,
    /// How many shall run.
    pub wanted: u32,
    /// How many processes run, ready or not (those on their way out included).
    pub running: u32,
    /// How many are ready and are known as such to the switch.
    pub ready: u32,
    /// Restarts since the version was first wanted here.
    pub restarts: u32,
    /// The last thing that went wrong, for a person: exit status, probe answer, …
    pub trouble: Option<String>,
    /// Base URLs of ready instances, for `{previewUrl}`.
    pub addresses: Vec<String>,
}

/// That a host has acted by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FallbackReport {
    /// The rollout that it undid.
    pub rollout: String,
    /// Under which fence.
    pub fence: Fence,
    /// How long it had heard nothing, in milliseconds.
    pub silence_ms: u64,
}
