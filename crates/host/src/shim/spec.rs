//! What host and shim say to each other: two files in the instance's folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::process::ProcessId;

/// What to run, written by the host before it starts the shim. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ShimSpec {
    /// The instance's name, for people.
    pub(crate) name: String,
    /// Which start of it.
    pub(crate) generation: u64,
    /// Program (absolute) and arguments.
    pub(crate) command: Vec<String>,
    /// The folder to run in.
    pub(crate) cwd: PathBuf,
    /// The whole environment, secrets excepted.
    pub(crate) env: BTreeMap<String, String>,
    /// Names of the secrets that lie in `secrets_folder` as files.
    pub(crate) secrets: Vec<String>,
    /// Where.
    pub(crate) secrets_folder: PathBuf,
    /// Files into which a process writes its id to join a cgroup.
    pub(crate) cgroups: Vec<PathBuf>,
    /// How it is asked to stop.
    pub(crate) stop_signal: String,
    /// From the signal to SIGKILL.
    pub(crate) grace_ms: u64,
    /// Killed after so long.
    pub(crate) timeout_ms: Option<u64>,
    /// Where its standard output goes.
    pub(crate) stdout: PathBuf,
    /// Where its standard error goes; may be the same.
    pub(crate) stderr: PathBuf,
    /// Rotated at this size.
    pub(crate) log_bytes: u64,
    /// Files of one log.
    pub(crate) log_files: u32,
    /// The end has to survive a power cut.
    pub(crate) durable: bool,
}

/// What the shim knows, replaced as a whole whenever it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ShimStatus {
    /// From the spec.
    pub(crate) generation: u64,
    /// The machine's run that the process ids belong to.
    pub(crate) boot: String,
    /// The shim.
    pub(crate) shim: ProcessId,
    /// The instance, once there is a process.
    pub(crate) instance: Option<ProcessId>,
    /// Limits that could not be put in force.
    pub(crate) notes: Vec<String>,
    /// How far it is.
    pub(crate) phase: Phase,
}

/// The life of an instance as its shim sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub(crate) enum Phase {
    /// The start command has not been executed yet.
    Starting,
    /// The start command runs.
    Running,
    /// It could not be executed.
    Failed {
        /// Why.
        why: String,
    },
    /// It has ended.
    Ended(Ended),
}

/// How an instance ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ended {
    /// Its exit status, if it exited.
    pub(crate) code: Option<i32>,
    /// The signal that killed it, if one did.
    pub(crate) signal: Option<i32>,
    /// It had been asked to stop.
    pub(crate) stopped: bool,
    /// It was killed because it ran for too long.
    pub(crate) timed_out: bool,
}

/// The file of a spec in an instance's folder.
pub(crate) fn spec_path(folder: &Path, generation: u64) -> PathBuf {
    folder.join(format!("spec.{generation}.json"))
}

/// The file of the status in an instance's folder.
pub(crate) fn status_path(folder: &Path) -> PathBuf {
    folder.join("status.json")
}

/// The file that a living shim of the folder keeps locked.
pub(crate) fn lock_path(folder: &Path) -> PathBuf {
    folder.join("lock")
}

/// Tells a child which process its parent has to be.
pub(crate) const PARENT_VARIABLE: &str = "TIDEGATE_SHIM_PID";
