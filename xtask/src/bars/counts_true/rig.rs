//! A switch process, told what an engine and a host would tell it, and asked what they would ask.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tempfile::TempDir;
use tidegate_core::counts::SecondRecord;
use tidegate_core::spec::{ErrorSpec, Route};
use tidegate_core::traffic::{FULL_WEIGHT, TrafficDoc, VersionWeight};
use tidegate_core::{Digest, Epoch, Fence};
use tidegate_ipc::Client;
use tidegate_wire::PROTOCOL;
use tidegate_wire::home::Home;
use tidegate_wire::host::{Accepted, Claim, Claimed};
use tidegate_wire::switch::{CountsBatch, Endpoint, EndpointState, Endpoints, SwitchReport, Table};

use crate::stage::{Binaries, free_address, wait_until};

const LANE: &str = "production/web";
const BOUND: Duration = Duration::from_secs(5);

/// What clients have to ask for; any other name is no route.
pub(super) const HOST: &str = "shop.test";

/// A running switch.
pub(super) struct Rig {
    folder: TempDir,
    child: Child,
    runtime: tokio::runtime::Runtime,
    client: Client,
    pub(super) listen: SocketAddr,
    log: PathBuf,
    seq: u64,
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::copy(Home::new(self.folder.path()).log("switch"), &self.log);
    }
}

/// One instance, as a host would name it.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    pub(super) name: String,
    pub(super) generation: u64,
    pub(super) version: &'static str,
    pub(super) address: SocketAddr,
    pub(super) state: EndpointState,
}

impl Rig {
    /// Starts one. Its log is kept as `log`.
    pub(super) fn start(binaries: &Binaries, log: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("tg-").tempdir()?;
        let home = Home::new(folder.path());
        let file = std::fs::File::create(home.log("switch"))?;
        let child = Command::new(&binaries.tidegate)
            .args(["switch", "--home"])
            .arg(folder.path())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .context("cannot start the switch")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = Client::new(&home.socket("switch"));
        let listen = free_address()?;
        let log = log.to_owned();
        let rig = Self { folder, child, runtime, client, listen, log, seq: 0 };
        wait_until(Duration::from_secs(10), "the switch answers", || rig.observe().ok())?;
        let claim = Claim { home: "bar".into(), epoch: Epoch(1), protocol: PROTOCOL };
        let _: Claimed = rig.post("/v1/claim", &claim)?;
        Ok(rig)
    }

    /// A folder that goes with the rig.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn post<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl serde::Serialize + Sync),
    ) -> Result<T> {
        Ok(self.runtime.block_on(self.client.post(path, body, BOUND))?)
    }

    pub(super) fn observe(&self) -> Result<SwitchReport> {
        Ok(self.runtime.block_on(self.client.get("/v1/observe?after=0&waitMs=0", BOUND))?)
    }

    fn next(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// Gives `v2` so many basis points and `v1` the rest; in force when it returns.
    pub(super) fn weights(&mut self, v2: u32, timeout_ms: u64) -> Result<()> {
        let weight = |version: &str, weight_bp| VersionWeight {
            version: version.to_owned(),
            digest: digest(version),
            weight_bp,
        };
        let fence = Fence { epoch: Epoch(1), seq: self.next() };
        let doc = TrafficDoc {
            lane: LANE.into(),
            listen: self.listen.to_string(),
            routes: vec![Route { host: Some(HOST.into()), path: "/".into(), tls: None }],
            weights: vec![weight("v2", v2), weight("v1", FULL_WEIGHT - v2)],
            sticky_cookie: None,
            errors: ErrorSpec { status: vec![(500, 599)], timeout_ms },
            seed: 1,
        };
        let accepted: Accepted =
            self.post("/v1/table", &Table { home: "bar".into(), fence, doc, shut: false })?;
        if accepted.fence != fence {
            bail!("the switch took {} for {fence}", accepted.fence);
        }
        Ok(())
    }

    /// These are all instances.
    pub(super) fn instances(&mut self, all: &[Instance]) -> Result<()> {
        let endpoint = |one: &Instance| Endpoint {
            instance: one.name.clone(),
            generation: one.generation,
            version: one.version.to_owned(),
            digest: digest(one.version),
            address: one.address.to_string(),
            state: one.state,
        };
        let message = Endpoints {
            life: "bar".into(),
            seq: self.next(),
            lane: LANE.into(),
            endpoints: all.iter().map(endpoint).collect(),
        };
        let _: Value = self.post("/v1/endpoints", &message)?;
        Ok(())
    }

    fn batch(&self, after: u64, wait: Duration) -> Result<CountsBatch> {
        let path = format!("/v1/counts?epoch=0&after={after}&waitMs={}", wait.as_millis());
        Ok(self.runtime.block_on(self.client.get(&path, BOUND))?)
    }

    /// Waits for the first record of a version, as an engine would; when it was there.
    pub(super) fn first_record_of(&self, version: &str) -> Result<(SecondRecord, Instant)> {
        let start = Instant::now();
        while start.elapsed() < BOUND {
            // Another epoch than the switch's always reads from the oldest.
            let batch = self.batch(0, Duration::from_millis(20))?;
            if let Some(record) = batch.records.iter().find(|r| r.version == version && r.n > 0) {
                return Ok((record.clone(), Instant::now()));
            }
        }
        bail!("no record of {version} within {} s", BOUND.as_secs())
    }

    /// All closed seconds, once the one that is open now is closed.
    pub(super) fn records(&self) -> Result<Vec<SecondRecord>> {
        let open = self.batch(0, Duration::ZERO)?.closed_second + 1;
        let batch = wait_until(BOUND, "the open second is closed", || {
            self.batch(0, Duration::ZERO).ok().filter(|batch| batch.closed_second >= open)
        })?;
        for (record, seq) in batch.records.iter().zip(batch.first..) {
            if record.seq != seq {
                bail!("record {} stands where {seq} should", record.seq);
            }
        }
        if batch.first != 1 {
            bail!("the records before {} are gone", batch.first);
        }
        Ok(batch.records)
    }
}

fn digest(version: &str) -> Digest {
    Digest::of(version.as_bytes())
}
