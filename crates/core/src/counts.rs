//! One second of one version at one switch: the unit that checks and the judge work on.
//! The contract is the reference page on counts; its outcomes are the fields of [`Outcomes`].

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Number of latency buckets; the last one is open.
pub const LATENCY_BUCKETS: usize = 144;

/// A closed second. Only closed seconds leave a switch; a missing record is a gap, never a zero.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecondRecord {
    /// The life of the switch process that counted; a new one is a gap.
    pub switch_epoch: u64,
    /// Position in that switch's stream of records, from 1, without holes.
    pub seq: u64,
    /// Unix seconds by the switch's clock.
    pub second: u64,
    /// `environment/service`.
    pub lane: String,
    /// The version that was chosen for the requests.
    pub version: String,
    /// Its digest.
    pub digest: Digest,
    /// Basis points in force; a change inside a second makes two records.
    pub weight_bp: u32,
    /// Client requests with a known outcome of this version's.
    pub n: u32,
    /// Those that are the version's fault, and why.
    pub outcomes: Outcomes,
    /// `(bucket, count)` of head latencies, sparse, ascending; see [`bucket`].
    pub latency: Vec<(u8, u32)>,
    /// Attempts beyond the first.
    pub retries: u32,
    /// The client went away before the head; not in `n`.
    pub client_gone: u32,
    /// Failed on an instance that was told to drain or stop; not in `n`.
    pub cutover: u32,
    /// Mirrored requests; not in `n`.
    pub shadow: u32,
    /// Requests for which the version was forced; not in `n`.
    pub forced: u32,
    /// Requests under way at the end of the second.
    pub in_flight: u32,
}

impl SecondRecord {
    /// All errors of the second (`k`).
    #[must_use]
    pub fn errors(&self) -> u32 {
        let o = &self.outcomes;
        o.status + o.connect + o.timeout + o.protocol + o.broken
    }
}

/// Requests by outcome. `ok + status + connect + timeout + protocol = n`; `broken` requests had a
/// good head before (they are counted in `ok` in the second of the head if that was another one).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Outcomes {
    /// Not an error.
    pub ok: u32,
    /// A status that counts as the service's fault.
    pub status: u32,
    /// Refused, reset or broken before the head, all instances tried.
    pub connect: u32,
    /// No head within the timeout.
    pub timeout: u32,
    /// A head that is not HTTP, or too large.
    pub protocol: u32,
    /// The body was cut by the instance after the head.
    pub broken: u32,
    /// Answers by class: 1xx, 2xx, 3xx, 4xx, 5xx.
    pub by_class: [u32; 5],
}

/// The upper bounds of the latency buckets in microseconds, as integers, so that every platform
/// sorts a latency into the same bucket: bucket j ends at 10 ms × 1.05^j, rounded down. The last
/// bucket has no bound.
#[must_use]
pub fn bucket_bounds_us() -> [u64; LATENCY_BUCKETS - 1] {
    // 1.05^j as a rational with 40 fractional bits; exact integer arithmetic on every platform.
    let mut bounds = [0_u64; LATENCY_BUCKETS - 1];
    let mut scaled: u128 = 10_000_u128 << 40;
    for bound in &mut bounds {
        *bound = u64::try_from(scaled >> 40).unwrap_or(u64::MAX);
        scaled = scaled * 105 / 100;
    }
    bounds
}

/// The bucket of a latency in microseconds, given [`bucket_bounds_us`].
#[must_use]
pub fn bucket(bounds: &[u64; LATENCY_BUCKETS - 1], latency_us: u64) -> u8 {
    let index = bounds.partition_point(|bound| *bound < latency_us);
    u8::try_from(index).unwrap_or(u8::MAX)
}
