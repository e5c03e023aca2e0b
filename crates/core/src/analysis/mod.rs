//! Judging closed seconds. Today: plain limits on counts. The statistical judge takes its place
//! beside [`limit::LimitWatch`]: both are fed closed seconds and answer a [`Finding`].

mod limit;

pub use limit::LimitWatch;

use serde::{Deserialize, Serialize};

/// What a watch on counts says now. "No data" is an outcome of its own and never a pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "finding")]
pub enum Finding {
    /// Enough samples, and within the limit.
    Within(Numbers),
    /// Over the limit, but not for long enough yet.
    Over(Numbers),
    /// Over the limit for as long as it takes.
    Breached(Numbers),
    /// Fewer requests than the minimum sample.
    NoData(Numbers),
}

/// The numbers behind a finding.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Numbers {
    /// Requests in the window.
    pub requests: u64,
    /// Errors in the window.
    pub errors: u64,
    /// The metric's value in the limit's unit: basis points, a count, or microseconds.
    pub value: u64,
    /// First second of the window.
    pub from: u64,
    /// Last second of the window.
    pub to: u64,
}
