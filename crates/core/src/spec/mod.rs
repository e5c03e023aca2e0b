//! What people ask for, resolved: all defaults filled in, all names looked up. Made by `syntax`
//! from `tidegate.yaml`, pinned in plans and kept in the journal. Durations are milliseconds,
//! weights basis points, sizes bytes.

mod check;
mod probe;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use check::{CheckKind, CheckSpec, CountMetric, CountsLimit, Limit, NoDataPolicy};
pub use probe::{Probe, ProbeAction, Probes};

/// A whole project file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProjectSpec {
    /// Its name.
    pub project: String,
    /// Where engine and journal live: `local`, a folder, `ssh://…`, `https://…`.
    pub home: Option<String>,
    /// In the order of the file.
    pub services: Vec<ServiceSpec>,
    /// In the order of the file.
    pub environments: Vec<EnvironmentSpec>,
    /// All named checks.
    pub checks: Vec<CheckSpec>,
    /// What the file asks for and this build cannot do: (what, where it stands). `plan` and
    /// `release` refuse what touches it; nothing is ignored.
    pub unsupported: Vec<Unsupported>,
}

/// Something in the file that is understood and that this build cannot do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unsupported {
    /// The environments whose releases are refused for it; empty: all.
    pub environments: Vec<String>,
    /// The services whose releases are refused for it; empty: all.
    pub services: Vec<String>,
    /// What it is, as a sentence: `strategy rolling is not in this version`.
    pub text: String,
    /// `file:line:column`.
    pub at: String,
    /// What to use instead.
    pub hint: Option<String>,
}

/// A service: what one instance is and how it is judged healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    /// Its name.
    pub name: String,
    /// Path of the artifact with `{version}` in it, relative to the file's folder.
    pub artifact: String,
    /// Program and arguments; `{address} {port} {instance} {version} {digest}` are filled in by
    /// the host. A program with a slash is relative to the artifact's root.
    pub command: Vec<String>,
    /// How many run at full weight.
    pub instances: u32,
    /// Environment variables, after `{env: NAME}` has been resolved.
    pub env: BTreeMap<String, String>,
    /// Names of secrets that the instance gets as files in `$TIDEGATE_SECRETS_DIR` and as
    /// environment; the values never enter a document.
    pub secrets: Vec<String>,
    /// Limits.
    pub resources: Resources,
    /// How to stop one.
    pub stop: StopSpec,
    /// Probes.
    pub probes: Probes,
    /// Which requests are this service's; empty: all on the environment's listener.
    pub routes: Vec<Route>,
    /// What counts as its fault.
    pub errors: ErrorSpec,
}

/// Limits of one instance, by cgroup where the system allows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Bytes.
    pub memory_bytes: Option<u64>,
    /// Thousandths of a core.
    pub cpu_millis: Option<u32>,
}

/// Graceful stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StopSpec {
    /// `SIGTERM`, `SIGINT`, `SIGQUIT`, `SIGHUP`, `SIGUSR1`, `SIGUSR2` or `SIGWINCH`.
    pub signal: String,
    /// From the signal to SIGKILL.
    pub grace_ms: u64,
}

/// Which requests belong to a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Host name without port, compared without case; none: any.
    pub host: Option<String>,
    /// Path prefix at segment borders, `/` for all.
    pub path: String,
    /// TLS on this listener.
    pub tls: Option<TlsSpec>,
}

/// Certificate files (PEM), read by the switch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsSpec {
    /// Certificate chain, absolute path.
    pub certificate: String,
    /// Private key, absolute path.
    pub key: String,
}

/// What counts as the service's fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorSpec {
    /// Inclusive ranges of status codes; default 500–599.
    pub status: Vec<(u16, u16)>,
    /// No response head within this time is an error of its own; default 60 s.
    pub timeout_ms: u64,
}

/// An environment: where, how, and what happens when nobody answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentSpec {
    /// Its name.
    pub name: String,
    /// The environment that a release has to be promoted in before.
    pub needs: Option<String>,
    /// Where it runs.
    pub platform: Platform,
    /// How a release goes out.
    pub strategy: Canary,
    /// How long the rollout is watched after promotion with the previous version warm.
    pub bake_ms: u64,
    /// The fallback.
    pub if_engine_lost: IfEngineLost,
}

/// Where an environment runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Platform {
    /// Bare processes on the machine of the home, behind our own switch.
    Process {
        /// `address:port` for clients.
        listen: String,
    },
}

/// The canary strategy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Canary {
    /// The strategy's name in the file.
    pub name: String,
    /// In order; the promotion to all traffic follows the last one.
    pub steps: Vec<Step>,
    /// Names of the checks that watch from the first shifted request to the end of the bake window.
    pub analysis: Vec<String>,
    /// Aborts a rollout in which nothing has moved for so long while something should.
    pub progress_deadline_ms: u64,
    /// How long the old version keeps running after the bake window.
    pub scale_down_delay_ms: u64,
    /// Cookie that keeps users on one version.
    pub sticky_cookie: Option<String>,
}

/// One step, in Argo Rollouts' words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Step {
    /// Give the new version this share.
    SetWeight {
        /// Basis points.
        weight_bp: u32,
    },
    /// Wait, watched; without a duration until somebody promotes.
    Pause {
        /// Milliseconds of observed time.
        duration_ms: Option<u64>,
    },
    /// Gates: all must pass before the next step.
    Analysis {
        /// Names of checks.
        checks: Vec<String>,
    },
    /// A one-shot with the new version's files and environment, at most once.
    Run {
        /// Its name.
        name: String,
        /// Program and arguments.
        command: Vec<String>,
        /// Killed after so long; that counts as failed.
        timeout_ms: u64,
    },
}

/// What the host does when it hears nothing from the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IfEngineLost {
    /// After so long.
    pub after_ms: u64,
    /// In a canary.
    pub canary: LostAction,
    /// In the bake window.
    pub bake: LostAction,
}

/// Stay or go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LostAction {
    /// Put the last good version back.
    Rollback,
    /// Leave the traffic as it is.
    Stay,
}

/// A release: a version's name and what it is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseRef {
    /// The version's name.
    pub version: String,
    /// Digest of the artifact.
    pub digest: Digest,
    /// Absolute path of the artifact on the machine of the client that made the release; where the
    /// host copies it from. Once it is staged only the digest counts.
    pub path: String,
}

use crate::digest::Digest;
