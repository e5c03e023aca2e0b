//! One switch: told what engine and host would tell it, asked what they would ask.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tidegate_ipc::Client;
use tidegate_switch::{Limits, SwitchConfig, SwitchError, run_until};
use tidegate_wire::counts::SecondRecord;
use tidegate_wire::home::Home;
use tidegate_wire::host::{Accepted, Claim, Claimed};
use tidegate_wire::spec::ErrorSpec;
use tidegate_wire::switch::{CountsBatch, Endpoint, EndpointState, Endpoints, SwitchReport, Table};
use tidegate_wire::traffic::{TrafficDoc, VersionWeight};
use tidegate_wire::{Digest, Epoch, Fence};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{PATIENCE, eventually, free_address};

pub(crate) const LANE: &str = "prod/web";

/// A running switch.
pub(crate) struct Rig {
    pub(crate) folder: TempDir,
    pub(crate) listen: SocketAddr,
    pub(crate) client: Client,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<Result<(), SwitchError>>>,
    seq: AtomicU64,
    pub(crate) limits: Limits,
}

/// All records of all versions so far.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) n: u64,
    pub(crate) k: u64,
    pub(crate) ok: u64,
    pub(crate) status: u64,
    pub(crate) connect: u64,
    pub(crate) timeout: u64,
    pub(crate) protocol: u64,
    pub(crate) broken: u64,
    pub(crate) retries: u64,
    pub(crate) client_gone: u64,
    pub(crate) cutover: u64,
    pub(crate) forced: u64,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path());
        let client = Client::new(&home.socket("switch"));
        let mut rig = Self {
            folder,
            listen: free_address(),
            client,
            stop: None,
            task: None,
            seq: AtomicU64::new(0),
            limits,
        };
        rig.launch().await;
        rig
    }

    pub(crate) fn home(&self) -> Home {
        Home::new(self.folder.path())
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home().switch().join(name)
    }

    /// Starts a switch in the home; the one before must have ended or be ending.
    pub(crate) async fn launch(&mut self) {
        let (stop, stopped) = oneshot::channel::<()>();
        let mut config = SwitchConfig::new(self.home());
        config.drain = PATIENCE;
        config.limits = self.limits;
        if !self.home().socket("sockets").exists() {
            config.deposit = Duration::from_millis(10); // nobody holds them
            config.linger = Duration::from_millis(100);
        }
        let run = run_until(config, async { drop(stopped.await) });
        (self.stop, self.task) = (Some(stop), Some(tokio::spawn(run)));
        eventually("the switch answers", || async {
            self.client.get::<SwitchReport>("/v1/observe", PATIENCE).await.is_ok()
        })
        .await;
    }

    /// Tells it to leave; the handle ends with it.
    pub(crate) fn leave(&mut self) -> JoinHandle<Result<(), SwitchError>> {
        drop(self.stop.take());
        self.task.take().unwrap()
    }

    pub(crate) fn next(&self) -> u64 {
        self.seq.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn doc(&self, weights: &[(&str, u32)]) -> TrafficDoc {
        TrafficDoc {
            lane: LANE.into(),
            listen: self.listen.to_string(),
            routes: Vec::new(),
            weights: weights.iter().map(|(name, bp)| weight(name, *bp)).collect(),
            sticky_cookie: None,
            errors: ErrorSpec { status: vec![(500, 599)], timeout_ms: 2_000 },
            seed: 1,
        }
    }

    pub(crate) async fn send_table(&self, table: &Table) -> Result<Accepted, (u16, String)> {
        let body = serde_json::to_vec(table).unwrap().into();
        let reply = self.client.request("POST", "/v1/table", body, PATIENCE).await.unwrap();
        if reply.status == 200 {
            return Ok(serde_json::from_slice(&reply.body).unwrap());
        }
        let doc: tidegate_wire::error::ErrorDoc = serde_json::from_slice(&reply.body).unwrap();
        Err((reply.status, format!("{}: {} {}", doc.error.code, doc.error.message, doc.error.on)))
    }

    /// Under the next fence of epoch 1.
    pub(crate) async fn apply(&self, doc: TrafficDoc) -> Fence {
        let fence = Fence::new(1, self.next());
        let table = Table { home: "home-1".into(), fence, doc, shut: false };
        assert_eq!(self.send_table(&table).await.unwrap().fence, fence);
        fence
    }

    pub(crate) async fn weights(&self, weights: &[(&str, u32)]) -> Fence {
        self.apply(self.doc(weights)).await
    }

    pub(crate) async fn claim(&self, home: &str, epoch: u64) -> Result<Claimed, u16> {
        let claim = Claim { home: home.into(), epoch: Epoch(epoch), protocol: 1 };
        let body = serde_json::to_vec(&claim).unwrap().into();
        let reply = self.client.request("POST", "/v1/claim", body, PATIENCE).await.unwrap();
        if reply.status == 200 {
            Ok(serde_json::from_slice(&reply.body).unwrap())
        } else {
            Err(reply.status)
        }
    }

    /// All endpoints of the lane, as `(instance, version, address, state)`.
    pub(crate) async fn endpoints(&self, all: &[(&str, &str, SocketAddr, EndpointState)]) {
        let endpoints = all.iter().map(|one| endpoint(one.0, one.1, one.2, one.3)).collect();
        self.endpoints_of(LANE, endpoints).await;
    }

    pub(crate) async fn endpoints_of(&self, lane: &str, endpoints: Vec<Endpoint>) {
        let message =
            Endpoints { life: "life-1".into(), seq: self.next(), lane: lane.into(), endpoints };
        let path = "/v1/endpoints";
        self.client.post::<_, serde_json::Value>(path, &message, PATIENCE).await.unwrap();
    }

    pub(crate) async fn report(&self) -> SwitchReport {
        self.client.get("/v1/observe", PATIENCE).await.unwrap()
    }

    pub(crate) async fn observe(&self, after: u64, wait: Duration) -> SwitchReport {
        let path = format!("/v1/observe?after={after}&waitMs={}", wait.as_millis());
        self.client.get(&path, PATIENCE).await.unwrap()
    }

    /// Requests under way on a version, as the engine would see it.
    pub(crate) async fn in_flight(&self, version: &str) -> u32 {
        let report = self.report().await;
        let lane = report.lanes.iter().find(|lane| lane.lane == LANE);
        let found = lane.and_then(|l| l.versions.iter().find(|v| v.version == version));
        found.map_or(0, |version| version.in_flight)
    }

    /// Waits by long polls until nothing is under way on a version.
    pub(crate) async fn drained(&self, version: &str) {
        let mut after = 0;
        for _ in 0..100 {
            let report = self.observe(after, Duration::from_millis(500)).await;
            let versions = report.lanes.iter().flat_map(|lane| &lane.versions);
            let mut mine = versions.filter(|seen| seen.version == version);
            if mine.all(|seen| seen.in_flight == 0) {
                return;
            }
            after = report.revision;
        }
        panic!("{version} does not drain");
    }

    pub(crate) async fn batch(&self, epoch: u64, after: u64, wait: Duration) -> CountsBatch {
        let wait = wait.as_millis();
        let path = format!("/v1/counts?epoch={epoch}&after={after}&waitMs={wait}");
        self.client.get(&path, PATIENCE).await.unwrap()
    }

    /// All closed seconds, once the one that is open now is closed.
    pub(crate) async fn records(&self) -> Vec<SecondRecord> {
        let now = self.batch(0, 0, Duration::ZERO).await;
        let open = now.closed_second + 1;
        let mut batch = now;
        while batch.closed_second < open {
            tokio::time::sleep(Duration::from_millis(20)).await;
            batch = self.batch(0, 0, Duration::ZERO).await;
        }
        for (at, record) in batch.records.iter().enumerate() {
            assert_eq!(record.seq, batch.first + at as u64, "a hole");
        }
        batch.records
    }

    /// By version.
    pub(crate) async fn sums(&self) -> BTreeMap<String, Sum> {
        let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
        for record in self.records().await {
            let outcomes = &record.outcomes;
            let sum = sums.entry(record.version.clone()).or_default();
            let good = outcomes.ok + outcomes.status + outcomes.connect;
            assert_eq!(good + outcomes.timeout + outcomes.protocol, record.n);
            let latencies: u32 = record.latency.iter().map(|(_, count)| count).sum();
            assert_eq!(latencies, outcomes.ok + outcomes.status);
            sum.n += u64::from(record.n);
            sum.k += u64::from(record.errors());
            sum.ok += u64::from(outcomes.ok);
            sum.status += u64::from(outcomes.status);
            sum.connect += u64::from(outcomes.connect);
            sum.timeout += u64::from(outcomes.timeout);
            sum.protocol += u64::from(outcomes.protocol);
            sum.broken += u64::from(outcomes.broken);
            sum.retries += u64::from(record.retries);
            sum.client_gone += u64::from(record.client_gone);
            sum.cutover += u64::from(record.cutover);
            sum.forced += u64::from(record.forced);
        }
        sums
    }

    pub(crate) async fn sum(&self, version: &str) -> Sum {
        self.sums().await.remove(version).unwrap_or_default()
    }
}

pub(crate) fn digest(version: &str) -> Digest {
    Digest::of(version.as_bytes())
}

pub(crate) fn weight(version: &str, weight_bp: u32) -> VersionWeight {
    VersionWeight { version: version.into(), digest: digest(version), weight_bp }
}

/// The generation is the port, so that an instance elsewhere is another start of it.
pub(crate) fn endpoint(
    instance: &str,
    version: &str,
    address: SocketAddr,
    state: EndpointState,
) -> Endpoint {
    Endpoint {
        instance: instance.into(),
        generation: u64::from(address.port()),
        version: version.into(),
        digest: digest(version),
        address: address.to_string(),
        state,
    }
}
