//! Probes, with Kubernetes' words and defaults.

use serde::{Deserialize, Serialize};

/// The four probes of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probes {
    /// Until it has passed the others wait; failing it restarts the instance.
    pub startup: Option<Probe>,
    /// Whether the instance gets requests. None: an instance is ready when its port accepts a
    /// connection (where the command has `{port}` or `{address}`), else when it runs.
    pub readiness: Option<Probe>,
    /// Failing it restarts the instance.
    pub liveness: Option<Probe>,
    /// Asked once when the instance has started: must answer the version that was asked for.
    pub version: Option<Probe>,
}

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// What to ask.
    pub action: ProbeAction,
    /// Before the first try (default 0).
    pub initial_delay_ms: u64,
    /// Between tries (default 10 s; startup and readiness of ours too, as in Kubernetes).
    pub period_ms: u64,
    /// Of one try (default 1 s).
    pub timeout_ms: u64,
    /// Passes in a row to become good (default 1).
    pub success_threshold: u32,
    /// Failures in a row to become bad (default 3).
    pub failure_threshold: u32,
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum ProbeAction {
    /// GET; 200–399 is good.
    Http {
        /// Path and query.
        path: String,
        /// Port other than the instance's own.
        port: Option<u16>,
        /// For the version probe: the field of the JSON answer that holds the version; none: the
        /// whole body, trimmed.
        field: Option<String>,
    },
    /// A connection is accepted.
    Tcp {
        /// Port other than the instance's own.
        port: Option<u16>,
    },
    /// Exit status 0, run in the artifact's folder with the instance's environment. For the
    /// version probe: prints the version.
    Command {
        /// Program and arguments.
        command: Vec<String>,
    },
}
