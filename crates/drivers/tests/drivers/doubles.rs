//! A host and a switch made of the wire's types: fences, claims, reports, nothing behind them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_core::capacity::{CapacityDoc, Fallback, FallbackAction, LaneCapacity};
use tidegate_core::counts::{Outcomes, SecondRecord};
use tidegate_core::machine::{Effect, EffectClass};
use tidegate_core::spec::ErrorSpec;
use tidegate_core::traffic::{LaneTraffic, TrafficDoc};
use tidegate_core::{Digest, Epoch, Fence, StreamId};
use tidegate_drivers::process::LOCAL;
use tidegate_drivers::{ProcessConfig, ProcessDriver};
use tidegate_engine::effects::Sending;
use tidegate_wire::PROTOCOL;
use tidegate_wire::error::ErrorBody;
use tidegate_wire::home::Home;
use tidegate_wire::host::{self, Accepted, Claim, Claimed, Contact, HostReport, RunEnded};
use tidegate_wire::switch::{CountsBatch, SwitchReport, Table};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// What a target keeps when its process dies.
#[derive(Default)]
pub(crate) struct Durable {
    pub(crate) owner: Option<String>,
    pub(crate) epoch: Epoch,
    pub(crate) shut: Option<Epoch>,
    pub(crate) lanes: BTreeMap<String, (Fence, Digest)>,
    pub(crate) runs: BTreeMap<String, usize>,
    /// Everything that was asked, in order.
    pub(crate) heard: Vec<String>,
    /// Closed seconds of this life of the switch.
    pub(crate) records: Vec<SecondRecord>,
    pub(crate) life: u64,
    /// The next run gets no answer.
    pub(crate) swallow: bool,
}

/// A host or a switch.
pub(crate) struct Double {
    pub(crate) durable: Mutex<Durable>,
    pub(crate) revision: watch::Sender<u64>,
    role: &'static str,
}

type Shared = State<Arc<Double>>;

impl Double {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Durable> {
        self.durable.lock().unwrap()
    }

    pub(crate) fn changed(&self) {
        self.revision.send_modify(|revision| *revision += 1);
    }

    pub(crate) fn heard(&self, what: &str) -> usize {
        self.lock().heard.iter().filter(|h| h.starts_with(what)).count()
    }

    fn owner(&self, home: &str, epoch: Epoch) -> Result<(), Response> {
        let durable = self.lock();
        if durable.owner.as_ref().is_some_and(|owner| owner != home) {
            return Err(refuse(409, ErrorBody::new("otherHome", "not yours", "home")));
        }
        // As the real ones do: the host names the epoch, the switch does not.
        let on = match self.role {
            "host" => format!("epoch {}", durable.epoch.0),
            _ => "switch".to_owned(),
        };
        let shut = self.role == "host" && durable.shut.is_some_and(|shut| epoch <= shut);
        if epoch < durable.epoch || shut {
            return Err(refuse(409, ErrorBody::new("staleFence", "it is over", on)));
        }
        Ok(())
    }

    fn document(
        &self,
        home: &str,
        fence: Fence,
        lane: &str,
        digest: Digest,
    ) -> Result<(), Response> {
        self.owner(home, fence.epoch)?;
        let mut durable = self.lock();
        durable.heard.push(format!("document {fence}"));
        if let Some((known, document)) = durable.lanes.get(lane)
            && (fence < *known || (fence == *known && digest != *document))
        {
            let body = ErrorBody::new("staleFence", format!("{known} is in force"), lane);
            return Err(refuse(409, body));
        }
        durable.lanes.insert(lane.to_owned(), (fence, digest));
        drop(durable);
        self.changed();
        Ok(())
    }
}

fn refuse(status: u16, body: ErrorBody) -> Response {
    (StatusCode::from_u16(status).unwrap(), Json(body.doc())).into_response()
}

async fn claim(State(double): Shared, Json(claim): Json<Claim>) -> Response {
    if let Err(refusal) = double.owner(&claim.home, claim.epoch) {
        return refusal;
    }
    let mut durable = double.lock();
    durable.owner = Some(claim.home);
    durable.epoch = claim.epoch;
    durable.heard.push(format!("claim {}", claim.epoch.0));
    Json(Claimed { epoch: claim.epoch, protocol: PROTOCOL, version: "double".into() })
        .into_response()
}

async fn contact(State(double): Shared, Json(contact): Json<Contact>) -> Response {
    if let Err(refusal) = double.owner(&contact.home, contact.epoch) {
        return refusal;
    }
    double.lock().heard.push(format!("contact {}", contact.work_open));
    Json(json!({})).into_response()
}

async fn stage(State(double): Shared, Json(stage): Json<host::Stage>) -> Response {
    if let Err(refusal) = double.owner(&stage.home, stage.fence.epoch) {
        return refusal;
    }
    double.lock().heard.push(format!("stage {}", stage.path));
    if stage.path.contains("changed") {
        return refuse(422, ErrorBody::new("digestChanged", "it has another digest", "artifact"));
    }
    Json(json!({})).into_response()
}

async fn capacity(State(double): Shared, Json(message): Json<host::Capacity>) -> Response {
    let host::Capacity { home, fence, doc } = message;
    let digest = Digest::of_json(&doc).unwrap();
    match double.document(&home, fence, &doc.lane, digest) {
        Ok(()) => Json(Accepted { fence }).into_response(),
        Err(refusal) => refusal,
    }
}

async fn table(State(double): Shared, Json(message): Json<Table>) -> Response {
    let Table { home, fence, doc, .. } = message;
    let digest = Digest::of_json(&doc).unwrap();
    match double.document(&home, fence, &doc.lane, digest) {
        Ok(()) => Json(Accepted { fence }).into_response(),
        Err(refusal) => refusal,
    }
}

async fn run(State(double): Shared, Json(run): Json<host::Run>) -> Response {
    if let Err(refusal) = double.owner(&run.home, run.fence.epoch) {
        return refusal;
    }
    let swallow = {
        let mut durable = double.lock();
        *durable.runs.entry(run.effect).or_default() += 1;
        std::mem::take(&mut durable.swallow)
    };
    if swallow {
        return std::future::pending().await;
    }
    let ended = match run.command[0].as_str() {
        "fails" => RunEnded::Exited { status: 3, tail: "no such table\n\n".into() },
        "hangs" => RunEnded::TimedOut { tail: String::new() },
        "lost" => RunEnded::Unknown { why: "the machine went down".into() },
        _ => RunEnded::Exited { status: 0, tail: "done\n".into() },
    };
    Json(ended).into_response()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ask {
    #[serde(default)]
    epoch: u64,
    after: u64,
    wait_ms: u64,
}

async fn observe(State(double): Shared, Query(ask): Query<Ask>) -> Json<Value> {
    let mut revision = double.revision.subscribe();
    let grown = revision.wait_for(|revision| *revision > ask.after);
    tokio::time::timeout(Duration::from_millis(ask.wait_ms), grown).await.ok();
    let revision = *double.revision.borrow();
    let mut durable = double.lock();
    durable.heard.push(format!("observe {}", ask.after));
    let lanes = durable.lanes.iter();
    Json(if double.role == "host" {
        let lanes = lanes.map(|(lane, (fence, _))| LaneCapacity {
            lane: lane.clone(),
            fence: Some(*fence),
            ..LaneCapacity::default()
        });
        let report = HostReport {
            revision,
            life: format!("life-{}", durable.life),
            epoch: durable.epoch,
            lanes: lanes.collect(),
            ..HostReport::default()
        };
        serde_json::to_value(report).unwrap()
    } else {
        let lanes = lanes.map(|(lane, (fence, _))| LaneTraffic {
            lane: lane.clone(),
            fence: Some(*fence),
            ..LaneTraffic::default()
        });
        let report = SwitchReport {
            revision,
            switch_epoch: durable.life,
            epoch: durable.epoch,
            lanes: lanes.collect(),
            ..SwitchReport::default()
        };
        serde_json::to_value(report).unwrap()
    })
}

async fn counts(State(double): Shared, Query(ask): Query<Ask>) -> Json<CountsBatch> {
    let mut revision = double.revision.subscribe();
    let after = if ask.epoch == double.lock().life { ask.after } else { 0 };
    let is_new = |double: &Double| double.lock().records.last().is_some_and(|r| r.seq > after);
    let grown = revision.wait_for(|_| is_new(&double));
    tokio::time::timeout(Duration::from_millis(ask.wait_ms), grown).await.ok();
    let durable = double.lock();
    let records = durable.records.iter().filter(|r| r.seq > after).cloned().collect();
    Json(CountsBatch { switch_epoch: durable.life, records, first: 1, closed_second: 0 })
}

/// A running double.
pub(crate) struct Running {
    pub(crate) double: Arc<Double>,
    home: Home,
    process: Option<Runtime>,
    accepted: Arc<AtomicUsize>,
}

impl Running {
    pub(crate) fn new(home: &Home, role: &'static str) -> Self {
        let durable = Durable { life: 1, ..Durable::default() };
        let double = Double { durable: Mutex::new(durable), revision: watch::Sender::new(1), role };
        Self {
            double: Arc::new(double),
            home: home.clone(),
            process: None,
            accepted: Arc::default(),
        }
    }

    pub(crate) fn start(&mut self) {
        let router = Router::new()
            .route("/v1/claim", post(claim))
            .route("/v1/contact", post(contact))
            .route("/v1/stage", post(stage))
            .route("/v1/capacity", post(capacity))
            .route("/v1/table", post(table))
            .route("/v1/run", post(run))
            .route("/v1/observe", get(observe))
            .route("/v1/counts", get(counts))
            .with_state(Arc::clone(&self.double));
        // A runtime of its own dies with all its connections, as a process does.
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let process = builder.worker_threads(1).enable_all().build().unwrap();
        let listener = {
            let _within = process.enter();
            tidegate_ipc::bind(&self.home.socket(self.double.role)).unwrap()
        };
        let accepted = Arc::clone(&self.accepted);
        accepted.store(0, Ordering::SeqCst);
        let listener = listener.tap_io(move |_| {
            accepted.fetch_add(1, Ordering::SeqCst);
        });
        process.spawn(async move { axum::serve(listener, router).await.unwrap() });
        self.process = Some(process);
    }

    /// Its process dies and another one starts: what is not durable begins anew.
    pub(crate) fn renew(&mut self) {
        self.stop();
        {
            let mut durable = self.double.lock();
            durable.life += 1;
            durable.records.clear();
        }
        self.double.revision.send_replace(1);
        self.start();
    }

    /// Connections that this life has taken.
    pub(crate) fn connections(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    pub(crate) fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.shutdown_background();
        }
        std::fs::remove_file(self.home.socket(self.double.role)).ok();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A home with both doubles and a driver.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) host: Running,
    pub(crate) switch: Running,
    pub(crate) starts: Arc<AtomicUsize>,
}

pub(crate) const HOME: &str = "h-test";

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path());
        let (host, switch) = (Running::new(&home, "host"), Running::new(&home, "switch"));
        let mut world = Self { folder, host, switch, starts: Arc::default() };
        world.host.start();
        world.switch.start();
        world
    }

    pub(crate) fn driver(&self, epoch: u64) -> ProcessDriver {
        self.driver_of(HOME, epoch)
    }

    pub(crate) fn driver_of(&self, identity: &str, epoch: u64) -> ProcessDriver {
        let starts = Arc::clone(&self.starts);
        ProcessDriver::new(ProcessConfig {
            home: Home::new(self.folder.path()),
            identity: identity.to_owned(),
            epoch: Epoch(epoch),
            start_host: Box::new(move || {
                starts.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }),
        })
    }
}

pub(crate) fn sending(id: u64, epoch: u64, seq: u64, action: &str, payload: Value) -> Sending {
    let class = if action == "run" { EffectClass::OneShot } else { EffectClass::StateSetting };
    Sending {
        id,
        stream: StreamId::new("shop", "rollout", "r-1"),
        epoch: Epoch(epoch),
        effect: Effect {
            key: format!("{action}-{id}"),
            target: LOCAL.into(),
            action: action.into(),
            class,
            seq,
            payload,
            deadline_ms: 10_000,
        },
    }
}

/// Documents that differ by a number.
pub(crate) fn capacity_doc(lane: &str, number: u64) -> CapacityDoc {
    let fallback = Fallback { after_ms: number, action: FallbackAction::Stay };
    CapacityDoc { lane: lane.into(), versions: Vec::new(), fallback }
}

/// Documents that differ by a number.
pub(crate) fn traffic_doc(lane: &str, number: u64) -> TrafficDoc {
    TrafficDoc {
        lane: lane.into(),
        listen: "127.0.0.1:0".into(),
        routes: Vec::new(),
        weights: Vec::new(),
        sticky_cookie: None,
        errors: ErrorSpec { status: vec![(500, 599)], timeout_ms: 1_000 },
        seed: number,
    }
}

pub(crate) fn second(life: u64, seq: u64) -> SecondRecord {
    SecondRecord {
        switch_epoch: life,
        seq,
        second: 100 + seq,
        lane: "test/web".into(),
        version: "v1".into(),
        digest: Digest::of(b"v1"),
        weight_bp: 10_000,
        n: 1,
        outcomes: Outcomes { ok: 1, ..Outcomes::default() },
        latency: Vec::new(),
        retries: 0,
        client_gone: 0,
        cutover: 0,
        shadow: 0,
        forced: 0,
        in_flight: 0,
    }
}

/// Waits for a condition, at most 15 s.
pub(crate) async fn until(what: &str, mut check: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(15), async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "not within 15 s: {what}");
}
