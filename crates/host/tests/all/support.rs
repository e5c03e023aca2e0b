//! A home, a host process in it, and a switch that only remembers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use tempfile::TempDir;
use tidegate_core::capacity::{
    CapacityDoc, Fallback, FallbackAction, LaneCapacity, VersionCapacity, VersionObserved,
};
use tidegate_core::spec::{
    ErrorSpec, Probe, ProbeAction, Probes, Resources, ServiceSpec, StopSpec,
};
use tidegate_core::traffic::LaneTraffic;
use tidegate_core::{Digest, Epoch, Fence};
use tidegate_ipc::{Client, IpcError};
use tidegate_wire::error::ErrorDoc;
use tidegate_wire::home::Home;
use tidegate_wire::host::{Accepted, Capacity, Claim, Claimed, Contact, HostReport, Stage};
use tidegate_wire::switch::{Endpoint, EndpointState, Endpoints, SwitchReport, Table};

/// The longest that a test waits for something to become true.
pub(crate) const BOUND: Duration = Duration::from_secs(15);
/// The lane of all tests.
pub(crate) const LANE: &str = "production/web";
/// The identity of the home in all tests.
pub(crate) const HOME: &str = "home-1";
/// The binary with the roles.
pub(crate) const ROLE: &str = env!("CARGO_BIN_EXE_tidegate-host-test-role");

/// A home with a host in it; everything ends with it.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) home: Home,
    pub(crate) switch: FakeSwitch,
    host: Option<Child>,
    options: Vec<&'static str>,
}

impl World {
    /// A home with a running host and a stand-in for the switch.
    pub(crate) async fn start() -> Self {
        let mut world = Self::quiet(&[]);
        world.switch.listen(&world.home);
        world.start_host().await;
        world
    }

    /// A home in which nothing runs.
    pub(crate) fn quiet(options: &[&'static str]) -> Self {
        let folder = tempfile::Builder::new().prefix("tg").tempdir().unwrap();
        let home = Home::new(folder.path().join("home"));
        std::fs::create_dir(home.root()).unwrap();
        Self { folder, home, switch: FakeSwitch::default(), host: None, options: options.to_vec() }
    }

    pub(crate) async fn start_host(&mut self) {
        self.begin_host();
        self.answers().await;
    }

    /// Starts a host and does not wait for it.
    pub(crate) fn begin_host(&mut self) {
        self.host = Some(self.spawn_host(Stdio::inherit()));
    }

    /// Waits until the host answers.
    pub(crate) async fn answers(&self) {
        let client = self.client();
        until("the host answers", async || {
            let answer: Result<HostReport, IpcError> =
                client.get("/v1/observe", Duration::from_secs(5)).await;
            answer.ok()
        })
        .await;
    }

    pub(crate) fn spawn_host(&self, errors: Stdio) -> Child {
        Command::new(ROLE)
            .args(["host", "--home"])
            .arg(self.home.root())
            .args(&self.options)
            .stderr(errors)
            .spawn()
            .unwrap()
    }

    /// As `kill -9` does it.
    pub(crate) fn kill_host(&mut self) {
        let mut host = self.host.take().unwrap();
        host.kill().unwrap();
        host.wait().unwrap();
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.home.socket("host"))
    }

    pub(crate) async fn claim(&self, epoch: u64) -> Result<Claimed, IpcError> {
        let claim = Claim { home: HOME.to_owned(), epoch: Epoch(epoch), protocol: 1 };
        self.client().post("/v1/claim", &claim, BOUND).await
    }

    pub(crate) async fn contact(&self, epoch: u64, work_open: bool) -> Result<(), IpcError> {
        let contact = Contact { home: HOME.to_owned(), epoch: Epoch(epoch), work_open };
        let answer: Result<serde_json::Value, _> =
            self.client().post("/v1/contact", &contact, BOUND).await;
        answer.map(|_| ())
    }

    pub(crate) async fn stage(
        &self,
        artifact: &Path,
        command: &[String],
    ) -> Result<Digest, IpcError> {
        let digest = tidegate_host::artifact_digest(artifact).unwrap();
        let stage = Stage {
            home: HOME.to_owned(),
            fence: Fence::new(1, 1),
            path: artifact.display().to_string(),
            digest: digest.clone(),
            command: command.to_vec(),
        };
        let answer: Result<serde_json::Value, _> =
            self.client().post("/v1/stage", &stage, BOUND).await;
        answer.map(|_| digest)
    }

    pub(crate) async fn capacity(
        &self,
        fence: Fence,
        doc: &CapacityDoc,
    ) -> Result<Accepted, IpcError> {
        let capacity = Capacity { home: HOME.to_owned(), fence, doc: doc.clone() };
        self.client().post("/v1/capacity", &capacity, BOUND).await
    }

    pub(crate) async fn report(&self) -> HostReport {
        self.client().get("/v1/observe", BOUND).await.unwrap()
    }

    /// Waits until the lane looks as wanted.
    pub(crate) async fn lane(
        &self,
        what: &str,
        wanted: impl Fn(&LaneCapacity) -> bool,
    ) -> LaneCapacity {
        until(what, async || {
            let report = self.report().await;
            let lane = report.lanes.into_iter().find(|lane| lane.lane == LANE)?;
            if wanted(&lane) { Ok(lane) } else { Err(lane) }.ok()
        })
        .await
    }

    /// Waits until a version looks as wanted; panics with what it looks like.
    pub(crate) async fn version(
        &self,
        version: &str,
        what: &str,
        wanted: impl Fn(&VersionObserved) -> bool,
    ) -> VersionObserved {
        let seen = Mutex::new(None);
        let found = try_until(async || {
            let report = self.report().await;
            let lane = report.lanes.into_iter().find(|lane| lane.lane == LANE)?;
            let found = lane.versions.into_iter().find(|v| v.version == version)?;
            *seen.lock().unwrap() = Some(found.clone());
            wanted(&found).then_some(found)
        })
        .await;
        found.unwrap_or_else(|| panic!("{what}: {:?}", seen.lock().unwrap()))
    }

    /// An artifact whose start command is a shell script.
    pub(crate) fn script(&self, name: &str, script: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("start");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    /// An artifact that serves HTTP and says that it is `says`.
    pub(crate) fn web(&self, name: &str, says: &str) -> PathBuf {
        self.script(name, &format!("exec {ROLE} service \"$1\" {says}"))
    }

    /// Claims, stages a web service `v1` and asks for so many instances of it.
    pub(crate) async fn up(&self, instances: u32) -> CapacityDoc {
        self.claim(1).await.unwrap();
        let artifact = self.web("v1", "v1");
        let digest = self.stage(&artifact, &service().command).await.unwrap();
        let doc = doc(vec![capacity_of("v1", &digest, instances, service())]);
        self.capacity(Fence::new(1, 1), &doc).await.unwrap();
        self.version("v1", "ready", |v| v.ready == instances).await;
        doc
    }

    /// The folder of the only instance.
    pub(crate) fn instance(&self) -> PathBuf {
        let mut all = std::fs::read_dir(self.home.host().join("instances")).unwrap();
        all.next().unwrap().unwrap().path()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut host) = self.host.take() {
            let _ = host.kill();
            let _ = host.wait();
        }
        // Whatever was started for this home, also by a test that failed half-way.
        let home = self.home.root().to_str().unwrap_or("no home").to_owned();
        let deadline = Instant::now() + BOUND;
        loop {
            let left = processes_of(&home);
            if left.is_empty() || Instant::now() > deadline {
                break;
            }
            left.into_iter().for_each(kill);
            std::thread::yield_now();
        }
    }
}

/// The processes of our binary with a home in their arguments, those that have ended excepted.
pub(crate) fn processes_of(home: &str) -> Vec<i32> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ours = all.filter(|process| {
        std::fs::read_to_string(process.path().join("cmdline"))
            .is_ok_and(|line| line.starts_with(ROLE) && line.contains(home))
    });
    ours.filter_map(|process| process.file_name().to_str()?.parse().ok()).collect()
}

/// Ends a process of ours.
pub(crate) fn kill(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

fn status(folder: &Path) -> Option<serde_json::Value> {
    serde_json::from_slice(&std::fs::read(folder.join("status.json")).ok()?).ok()
}

/// The shim of an instance's folder.
pub(crate) fn shim_pid(folder: &Path) -> Option<i32> {
    i32::try_from(status(folder)?["shim"]["pid"].as_i64()?).ok()
}

/// The instance of an instance's folder.
pub(crate) fn instance_pid(folder: &Path) -> Option<i32> {
    i32::try_from(status(folder)?["instance"]["pid"].as_i64()?).ok()
}

/// Asks until there is an answer, at most [`BOUND`].
pub(crate) async fn try_until<T>(ask: impl AsyncFn() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + BOUND;
    while Instant::now() < deadline {
        if let Some(answer) = ask().await {
            return Some(answer);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    None
}

/// [`try_until`], or a panic that says what did not come true.
pub(crate) async fn until<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    try_until(ask).await.unwrap_or_else(|| panic!("in vain until: {what}"))
}

/// The error document of a refusal, with its status.
pub(crate) fn refusal<T: std::fmt::Debug>(answer: Result<T, IpcError>) -> (u16, ErrorDoc) {
    match answer.unwrap_err() {
        IpcError::Status { status, body, .. } => (status, serde_json::from_str(&body).unwrap()),
        other @ (IpcError::Connect { .. } | IpcError::Lost { .. } | IpcError::Body { .. }) => {
            panic!("{other}")
        }
    }
}

/// A service with quick probes.
pub(crate) fn service() -> ServiceSpec {
    ServiceSpec {
        name: "web".to_owned(),
        artifact: "web-{version}".to_owned(),
        command: vec!["./start".to_owned(), "{port}".to_owned()],
        instances: 1,
        env: BTreeMap::new(),
        secrets: Vec::new(),
        resources: Resources::default(),
        stop: StopSpec { signal: "SIGTERM".to_owned(), grace_ms: 2_000 },
        probes: Probes { readiness: Some(http("/health")), ..Probes::default() },
        routes: Vec::new(),
        errors: ErrorSpec { status: vec![(500, 599)], timeout_ms: 60_000 },
    }
}

/// A quick HTTP probe.
pub(crate) fn http(path: &str) -> Probe {
    Probe {
        action: ProbeAction::Http {
            path: path.to_owned(),
            port: None,
            field: (path == "/version").then(|| "version".to_owned()),
        },
        initial_delay_ms: 0,
        period_ms: 200,
        timeout_ms: 1_000,
        success_threshold: 1,
        failure_threshold: 3,
    }
}

pub(crate) fn capacity_of(
    version: &str,
    digest: &Digest,
    instances: u32,
    service: ServiceSpec,
) -> VersionCapacity {
    VersionCapacity { version: version.to_owned(), digest: digest.clone(), instances, service }
}

pub(crate) fn doc(versions: Vec<VersionCapacity>) -> CapacityDoc {
    let fallback = Fallback { after_ms: 600_000, action: FallbackAction::Stay };
    CapacityDoc { lane: LANE.to_owned(), versions, fallback }
}

/// A GET at an instance; the answer's text.
pub(crate) fn ask(address: &str, path: &str) -> std::io::Result<String> {
    use std::io::{Read, Write};
    let address = address.strip_prefix("http://").unwrap_or(address);
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(BOUND))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// A switch that remembers what it was told.
#[derive(Clone, Default)]
pub(crate) struct FakeSwitch {
    pub(crate) said: Arc<Mutex<Said>>,
}

/// What a [`FakeSwitch`] knows and answers.
#[derive(Default)]
pub(crate) struct Said {
    pub(crate) switch_epoch: u64,
    /// How often it was asked what it observes.
    pub(crate) observed: u32,
    pub(crate) endpoints: Vec<Endpoints>,
    pub(crate) tables: Vec<Table>,
    /// Requests under way, at every instance.
    pub(crate) in_flight: u32,
    /// Tables are answered by 503.
    pub(crate) refuses_tables: bool,
    /// Tables are answered by 409.
    pub(crate) outdated: bool,
    pub(crate) lanes: Vec<LaneTraffic>,
}

impl FakeSwitch {
    /// Listens on the home's socket until the test ends.
    pub(crate) fn listen(&self, home: &Home) -> tokio::task::JoinHandle<()> {
        let listener = tidegate_ipc::bind(&home.socket("switch")).unwrap();
        let router = Router::new()
            .route("/v1/endpoints", post(endpoints))
            .route("/v1/table", post(table))
            .route("/v1/observe", get(observe))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
    }

    /// The endpoints that it knows now.
    pub(crate) fn known(&self) -> Vec<Endpoint> {
        let said = self.said.lock().unwrap();
        said.endpoints.last().map(|last| last.endpoints.clone()).unwrap_or_default()
    }

    /// How many of them are in this state.
    pub(crate) fn count(&self, state: EndpointState) -> usize {
        self.known().iter().filter(|endpoint| endpoint.state == state).count()
    }
}

async fn endpoints(State(switch): State<FakeSwitch>, Json(body): Json<Endpoints>) -> Json<()> {
    switch.said.lock().unwrap().endpoints.push(body);
    Json(())
}

async fn table(State(switch): State<FakeSwitch>, Json(body): Json<Table>) -> impl IntoResponse {
    let mut said = switch.said.lock().unwrap();
    let fence = body.fence;
    let status = if said.refuses_tables {
        StatusCode::SERVICE_UNAVAILABLE
    } else if said.outdated {
        StatusCode::CONFLICT
    } else {
        StatusCode::OK
    };
    said.tables.push(body);
    (status, Json(Accepted { fence }))
}

async fn observe(State(switch): State<FakeSwitch>) -> Json<SwitchReport> {
    let mut said = switch.said.lock().unwrap();
    said.observed += 1;
    let in_flight = said.in_flight;
    let endpoints = said.endpoints.last().into_iter().flat_map(|last| &last.endpoints);
    let instances = endpoints.map(|endpoint| tidegate_wire::switch::InstanceTraffic {
        lane: LANE.to_owned(),
        instance: endpoint.instance.clone(),
        generation: endpoint.generation,
        in_flight,
    });
    Json(SwitchReport {
        revision: 1,
        switch_epoch: said.switch_epoch,
        epoch: Epoch(1),
        lanes: said.lanes.clone(),
        instances: instances.collect(),
        trouble: Vec::new(),
        refused: 0,
    })
}
