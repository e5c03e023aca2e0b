//! What is said to a switch, over `switch.sock`.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `POST /v1/claim` | [`crate::host::Claim`] | [`crate::host::Claimed`], or 409 |
//! | `POST /v1/table` | [`Table`] | [`crate::host::Accepted`] when durable and in force for the next request |
//! | `POST /v1/endpoints` | [`Endpoints`] | `{}`; from the host only |
//! | `GET /v1/observe?after=REV&waitMs=N` | – | [`SwitchReport`] |
//! | `GET /v1/counts?epoch=E&after=SEQ&waitMs=N` | – | [`CountsBatch`]; asking `after` SEQ of epoch E acknowledges all up to it |
//! | `GET /v1/history?lane=L&since=SECOND` | – | [`History`] |
//!
//! Listening sockets survive the switch: it deposits each of them at the host over `sockets.sock`
//! (a sequence of `ADDRESS\n` messages with one descriptor in SCM_RIGHTS) and a new one asks for
//! them with `TAKE\n` before it binds any itself. `tidegate_ipc::sockets` is the protocol.

use serde::{Deserialize, Serialize};
use tidegate_core::counts::SecondRecord;
use tidegate_core::traffic::{LaneTraffic, TrafficDoc};
use tidegate_core::{Digest, Epoch, Fence};

/// A desired table under a fence. The generation of the table in force *is* the fence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    /// The home's identity.
    pub home: String,
    /// Strictly above the lane's last one, or equal with the same document.
    pub fence: Fence,
    /// The document.
    pub doc: TrafficDoc,
    /// Set by a host that applies a fallback: shut the lane for the rest of this epoch.
    #[serde(default)]
    pub shut: bool,
}

/// The instances of one lane, as the host knows them. Not fenced by the engine: the host is the
/// only one who knows, and the newest word of the host that lives wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// Identity of this life of the host.
    pub life: String,
    /// Grows with every message of one life.
    pub seq: u64,
    /// `environment/service`.
    pub lane: String,
    /// All of them. An instance that is not named is gone.
    pub endpoints: Vec<Endpoint>,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// The instance's name; a restart of it has a new generation.
    pub instance: String,
    /// Which start of the instance: the pool never mixes two of them.
    pub generation: u64,
    /// The version's name.
    pub version: String,
    /// Its digest.
    pub digest: Digest,
    /// `address:port`.
    pub address: String,
    /// Whether new requests may go there.
    pub state: EndpointState,
}

/// What may be sent to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EndpointState {
    /// New requests.
    Ready,
    /// Known, not ready: nothing is sent.
    NotReady,
    /// Told to stop: only what is under way; failures there are `cutover`.
    Draining,
}

/// Everything that a switch observes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SwitchReport {
    /// Grows with every change in this life of the switch; begins at its `switchEpoch` times 1,000,
    /// so that it differs from what an earlier life has said.
    pub revision: u64,
    /// The life of the switch process, as in its records.
    pub switch_epoch: u64,
    /// The highest epoch that it has accepted.
    pub epoch: Epoch,
    /// Lanes with a table.
    pub lanes: Vec<LaneTraffic>,
    /// Requests under way per instance, for the host's drain.
    pub instances: Vec<InstanceTraffic>,
    /// Listeners that could not be opened, and why.
    pub trouble: Vec<String>,
    /// Client requests that were no version's, in this life: rubbish, too slow, no such route,
    /// upgrades, nothing to be served. Does not raise the revision.
    #[serde(default)]
    pub refused: u64,
}

/// One instance at the switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceTraffic {
    /// `environment/service`.
    pub lane: String,
    /// The instance's name.
    pub instance: String,
    /// Its generation.
    pub generation: u64,
    /// Requests under way.
    pub in_flight: u32,
}

/// Closed seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CountsBatch {
    /// The life of the switch; a reader that has another one starts at 0 and notes a gap.
    pub switch_epoch: u64,
    /// In order, without holes from `after + 1`, unless `first` says otherwise.
    pub records: Vec<SecondRecord>,
    /// The oldest sequence that is still kept (15 minutes); above `after + 1` means a gap.
    pub first: u64,
    /// The last second that is closed, also where nothing was counted in it.
    pub closed_second: u64,
}

/// 30-second blocks of up to seven days.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// Ascending by time.
    pub blocks: Vec<Block>,
}

/// 30 seconds of one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Block {
    /// First second.
    pub start: u64,
    /// `environment/service`.
    pub lane: String,
    /// The version.
    pub version: String,
    /// Seconds of the block that were observed; the rest are gaps.
    pub seconds: u8,
    /// Requests.
    pub n: u64,
    /// Errors.
    pub k: u64,
    /// Sum over seconds of k².
    pub k_squared: u64,
    /// Sparse latency buckets.
    pub latency: Vec<(u8, u32)>,
}
