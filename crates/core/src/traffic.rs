//! Traffic: which version of a service gets what share of the requests.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::fence::Fence;
use crate::spec::{ErrorSpec, Route};

/// All of a weight: 10,000 basis points.
pub const FULL_WEIGHT: u32 = 10_000;

/// What one lane's traffic shall be. The whole state, never a delta.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficDoc {
    /// `environment/service`.
    pub lane: String,
    /// `address:port` that the switch listens on.
    pub listen: String,
    /// Which requests on that listener are this lane's. Empty: all of them.
    pub routes: Vec<Route>,
    /// Shares, which add up to [`FULL_WEIGHT`] (or to 0 where nothing shall be served). The order
    /// matters for sticky users: the first version owns the lowest hash points, so the new version
    /// stands first and growing it moves users only from old to new.
    pub weights: Vec<VersionWeight>,
    /// The name of the cookie that keeps a user on one version; none: each request on its own.
    pub sticky_cookie: Option<String>,
    /// What counts as this service's fault.
    pub errors: ErrorSpec,
    /// Seed of the shuffled blocks, so that a split can be reproduced.
    pub seed: u64,
}

/// One version's share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionWeight {
    /// The version's name.
    pub version: String,
    /// Its digest.
    pub digest: Digest,
    /// Basis points of the requests, 0 to 10,000.
    pub weight_bp: u32,
}

/// What a switch says about one lane.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LaneTraffic {
    /// `environment/service`.
    pub lane: String,
    /// The fence of the table in force.
    pub fence: Option<Fence>,
    /// What each version gets and holds.
    pub versions: Vec<VersionTraffic>,
}

/// One version at a switch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionTraffic {
    /// The version's name.
    pub version: String,
    /// Its digest.
    pub digest: Digest,
    /// Basis points in force for new requests.
    pub weight_bp: u32,
    /// Requests that this version is answering now.
    pub in_flight: u32,
    /// Instances that can be sent to.
    pub usable: u32,
}
