//! What is said to a host, over `host.sock`.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `POST /v1/claim` | [`Claim`] | [`Claimed`], or 409 |
//! | `POST /v1/contact` | [`Contact`] | `{}`, or 409; resets the fallback timer |
//! | `POST /v1/stage` | [`Stage`] | `{}` when the artifact is there, durable and verified |
//! | `POST /v1/capacity` | [`Capacity`] | [`Accepted`] when durable; convergence goes on after it |
//! | `POST /v1/run` | [`Run`] | [`RunEnded`]; held open until the command ends. The same `effect` again: the same run |
//! | `GET /v1/observe?after=REV&waitMs=N` | – | [`HostReport`] as soon as its revision is above `after`, at the latest after N ms |
//!
//! 409 carries an `ErrorDoc` with `staleFence` or `otherHome`, 422 one with `digestChanged` or
//! `impossible`. Everything that changes something carries home and fence.

use serde::{Deserialize, Serialize};
use tidegate_core::capacity::{CapacityDoc, LaneCapacity};
use tidegate_core::spec::ServiceSpec;
use tidegate_core::{Digest, Epoch, Fence};

/// A new owner makes itself known before it trusts anything that it reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// The home's identity (made once, kept in its journal).
    pub home: String,
    /// The owner's epoch; refused if lower than the highest seen. Equal is fine (same owner again).
    pub epoch: Epoch,
    /// [`crate::PROTOCOL`].
    pub protocol: u32,
}

/// The claim is durable: nothing of a lower epoch passes any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claimed {
    /// The highest epoch, now the claimant's.
    pub epoch: Epoch,
    /// [`crate::PROTOCOL`] of the target.
    pub protocol: u32,
    /// Version of the target's binary.
    pub version: String,
}

/// A sign of life of the engine, about every second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contact {
    /// The home's identity.
    pub home: String,
    /// The owner's epoch.
    pub epoch: Epoch,
    /// Whether the engine has unfinished work: if it dies now the host restarts it.
    pub work_open: bool,
}

/// Bring an artifact onto the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    /// The home's identity.
    pub home: String,
    /// The fence; checked against the host's epoch only (staging is content-addressed).
    pub fence: Fence,
    /// Where it lies: a folder, `.tar.gz` or `.tar.zst`.
    pub path: String,
    /// What it must be.
    pub digest: Digest,
    /// Refused as `impossible` if the first of it (with a slash) is not an executable file in there.
    pub command: Vec<String>,
}

/// A desired capacity under a fence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// The home's identity.
    pub home: String,
    /// Strictly above the lane's last one, or equal with the same document.
    pub fence: Fence,
    /// The document.
    pub doc: CapacityDoc,
}

/// A document is durable and in force (or was so already under this fence).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// Under which fence.
    pub fence: Fence,
}

/// A one-shot with a version's files and environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// The home's identity.
    pub home: String,
    /// The fence; checked against the host's epoch.
    pub fence: Fence,
    /// Identity; the host never runs the same one twice.
    pub effect: String,
    /// The version's name.
    pub version: String,
    /// Whose files.
    pub digest: Digest,
    /// Environment, secrets and limits come from here.
    pub service: ServiceSpec,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Killed after so long.
    pub timeout_ms: u64,
}

/// How a one-shot ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum RunEnded {
    /// With an exit status, or by a signal (128 + its number).
    Exited {
        /// The status.
        status: i32,
        /// The last lines of its output, masked and bounded.
        tail: String,
    },
    /// Killed by the timeout.
    TimedOut {
        /// The last lines of its output.
        tail: String,
    },
    /// It was started and its end was not seen (host machine went down in between).
    Unknown {
        /// What is known.
        why: String,
    },
}

/// Everything that a host observes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostReport {
    /// Grows with every change in this life of the host; begins at its start in microseconds of Unix
    /// time, so that it differs from what an earlier life has said.
    pub revision: u64,
    /// Identity of this life of the host process.
    pub life: String,
    /// The highest epoch that it has accepted.
    pub epoch: Epoch,
    /// Lanes with a document.
    pub lanes: Vec<LaneCapacity>,
    /// Whether the switch answers, and if not why.
    pub switch: Option<String>,
    /// Limits that this system cannot enforce, in words.
    pub unenforced: Vec<String>,
}
