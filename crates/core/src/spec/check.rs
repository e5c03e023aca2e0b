//! Checks: gates in a step, or a watch over the whole rollout.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One named check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckSpec {
    /// Its name in the file.
    pub name: String,
    /// What it asks.
    pub kind: CheckKind,
    /// Between two measurements, when used as a watch or with `count` > 1 (default 10 s).
    pub interval_ms: u64,
    /// Measurements that make a gate pass (default 1).
    pub count: u32,
    /// Failed measurements that are allowed (default 0: the first one fails the check).
    pub failure_limit: u32,
    /// Measurements in a row that could not be made before the source is called down (default 4).
    pub consecutive_error_limit: u32,
    /// What "no data" does (default hold).
    pub no_data: NoDataPolicy,
    /// What "source down" does (default hold).
    pub source_down: NoDataPolicy,
}

/// Never pass: a missing answer is not a good one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NoDataPolicy {
    /// Wait and say so; the progress deadline does not run meanwhile for a watch.
    #[default]
    Hold,
    /// Count it as a failure.
    Fail,
    /// Go on at the planned time and say what could not be seen; the default of limits on counts,
    /// so that a service without traffic is not held for ever. Never a pass either.
    Continue,
}

/// What a check asks. `{previewUrl}` and `{version}` are filled in in texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum CheckKind {
    /// GET; 200–399 (or the named statuses) is a pass, another answer a failure, none an error.
    Http {
        /// URL.
        url: String,
        /// Accepted statuses as inclusive ranges.
        status: Vec<(u16, u16)>,
        /// Of one request.
        timeout_ms: u64,
    },
    /// A connection is accepted.
    Tcp {
        /// `host:port`.
        address: String,
        /// Of one try.
        timeout_ms: u64,
    },
    /// Exit status 0 is a pass, another one a failure, not startable an error. Runs in the folder
    /// of `tidegate.yaml`.
    Command {
        /// Program and arguments.
        command: Vec<String>,
        /// Additional environment.
        env: BTreeMap<String, String>,
        /// The folder to run in (absolute).
        folder: String,
        /// Killed after so long; that counts as an error.
        timeout_ms: u64,
    },
    /// A plain limit on the switch's one-second counts of the new version.
    Counts(CountsLimit),
}

/// A limit on counts: breached when the metric over the window lies above the limit, with at least
/// the minimum sample, without a break for the given time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CountsLimit {
    /// What is measured.
    pub metric: CountMetric,
    /// The limit; at the limit is still good.
    pub limit: Limit,
    /// Requests in the window below which there is no verdict ("no data").
    pub minimum_sample: u32,
    /// How long it must be breached without a break; 0: at once. Also the window over which the
    /// metric is computed, at least 10 s where it is 0.
    pub for_ms: u64,
}

/// What a limit on counts measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CountMetric {
    /// Errors by requests.
    ErrorRate,
    /// Number of errors in the window.
    Errors,
    /// Median head latency.
    P50,
    /// 95th percentile of head latency.
    P95,
    /// 99th percentile of head latency.
    P99,
}

/// The limit's value by metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind", content = "value")]
pub enum Limit {
    /// Basis points (for rates): 1 % is 100.
    RateBp(u32),
    /// A number of requests.
    Count(u64),
    /// Microseconds.
    LatencyUs(u64),
}
