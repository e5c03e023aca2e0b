//! The machine, the driver, and an engine in a thread or in a process of its own.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidegate_core::counts::{Outcomes, SecondRecord};
use tidegate_core::machine::{
    Command, Effect, EffectClass, Outcome, Reaction, Sensed, Stimulus, View, Watch,
};
use tidegate_core::{Digest, Epoch, Machine, Reason, Rejected, StreamId, Timestamp};
use tidegate_engine::Registry;
use tidegate_engine::effects::{Attempt, Driver, Job, Report, Seen, Sending};
use tidegate_engine::shell::{self, AskError, Ended, EngineHandle, ShellConfig, ShellError};
use tidegate_ipc::Client;
use tidegate_wire::home::Home;

/// Counts, sets timers, asks for effects, watches.
pub(crate) struct Counter;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Input {
    Add(u64),
    /// Adds 1 after so many milliseconds.
    Later(u64),
    /// Asks for an effect.
    Ask {
        key: String,
        class: EffectClass,
        script: Vec<String>,
        deadline_ms: u64,
    },
    /// Forgets an effect.
    Forget(String),
    /// Watches `fake:one`.
    Watch(bool),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub(crate) enum Event {
    Added { amount: u64 },
    Waiting { until: Timestamp },
    Asked { key: String, class: EffectClass, script: Vec<String>, deadline_ms: u64 },
    Answered { key: String, outcome: Outcome },
    Forgot { key: String },
    Watching { on: bool },
    Sampled { requests: u64, segment: Digest },
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Count {
    pub(crate) total: u64,
    pub(crate) asked: Vec<String>,
    pub(crate) waiting: bool,
    pub(crate) watching: bool,
    pub(crate) answers: BTreeMap<String, Outcome>,
}

impl Machine for Counter {
    const KIND: &'static str = "counter";
    const FORM: u16 = 1;
    type State = Count;
    type Input = Input;
    type Event = Event;
    type Volatile = (u64, u64);

    fn accept(
        _: &StreamId,
        state: &Count,
        stimulus: Stimulus<Input>,
        now: Timestamp,
    ) -> Result<Vec<Event>, Rejected> {
        Ok(vec![match stimulus {
            Stimulus::Ask(Input::Add(0)) => {
                return Err(Rejected::already("nothing", "0 is added already"));
            }
            Stimulus::Ask(Input::Add(amount)) if amount > 1_000 => {
                return Err(Rejected::refused("tooMuch", "at most 1000"));
            }
            Stimulus::Ask(Input::Add(amount)) => Event::Added { amount },
            Stimulus::Ask(Input::Later(ms)) => Event::Waiting { until: now.plus(ms) },
            Stimulus::Ask(Input::Ask { key, class, script, deadline_ms }) => {
                Event::Asked { key, class, script, deadline_ms }
            }
            Stimulus::Ask(Input::Forget(key)) => Event::Forgot { key },
            Stimulus::Ask(Input::Watch(on)) if on == state.watching => return Ok(Vec::new()),
            Stimulus::Ask(Input::Watch(on)) => Event::Watching { on },
            Stimulus::Timer(_) => Event::Added { amount: 1 },
            Stimulus::Answer { key, outcome } => Event::Answered { key, outcome },
        }])
    }

    fn apply(state: &mut Count, event: &Event, _: Timestamp) {
        match event {
            Event::Added { amount } => {
                state.total += amount;
                state.waiting = false;
            }
            Event::Waiting { .. } => state.waiting = true,
            Event::Asked { key, .. } => state.asked.push(key.clone()),
            Event::Answered { key, outcome } => {
                state.asked.retain(|k| k != key);
                state.answers.insert(key.clone(), outcome.clone());
            }
            Event::Forgot { key } => state.asked.retain(|k| k != key),
            Event::Watching { on } => state.watching = *on,
            Event::Sampled { .. } => {}
        }
    }

    fn decide(_: &StreamId, _: &Count, event: &Event, _: Timestamp) -> Vec<Command> {
        match event {
            Event::Waiting { until } => {
                vec![Command::SetTimer { key: "later".into(), due: *until }]
            }
            Event::Asked { key, class, script, deadline_ms } => vec![Command::Effect(Effect {
                key: key.clone(),
                target: "fake:one".into(),
                action: "set".into(),
                class: *class,
                seq: 1,
                payload: json!({ "script": script }),
                deadline_ms: *deadline_ms,
            })],
            Event::Forgot { key } => vec![Command::Forget { key: key.clone() }],
            Event::Added { .. }
            | Event::Answered { .. }
            | Event::Watching { .. }
            | Event::Sampled { .. } => Vec::new(),
        }
    }

    fn sense(
        _: &StreamId,
        _: &Count,
        (requests, batches): &mut (u64, u64),
        sensed: &Sensed<'_>,
        _: Timestamp,
    ) -> Reaction<Event> {
        let Sensed::Samples { records, segment } = sensed else { return Reaction::default() };
        *requests += records.iter().map(|r| u64::from(r.n)).sum::<u64>();
        *batches += 1;
        let event = Event::Sampled { requests: *requests, segment: (*segment).clone() };
        Reaction { events: vec![event], progress: None }
    }

    fn describe(event: &Event) -> (&'static str, Option<Reason>) {
        match event {
            Event::Added { .. } => ("added", Some(Reason::new("asked", "somebody asked for it"))),
            Event::Waiting { .. } => ("waiting", None),
            Event::Asked { .. } => ("asked", None),
            Event::Answered { .. } => ("answered", None),
            Event::Forgot { .. } => ("forgot", None),
            Event::Watching { .. } => ("watching", None),
            Event::Sampled { .. } => ("sampled", None),
        }
    }

    fn view(_: &StreamId, state: &Count, (requests, _): &(u64, u64)) -> View {
        let open = state.waiting || state.watching || !state.asked.is_empty();
        View { open, doc: json!({ "state": state, "requests": requests }) }
    }

    fn watches(state: &Count) -> Option<Watch> {
        state.watching.then(|| Watch {
            target: "fake:one".into(),
            lane: "test/web".into(),
            samples: true,
        })
    }
}

/// Does what an effect's script says, attempt by attempt, the last word for ever; notes every
/// attempt in `driver.log` of the home as `EPOCH ID WORD`.
pub(crate) struct Fake {
    home: Home,
    epoch: Epoch,
    tried: AtomicUsize,
    attempts: std::sync::Mutex<BTreeMap<u64, usize>>,
    records: Vec<SecondRecord>,
}

impl Fake {
    fn note(&self, text: &str) {
        let path = self.home.root().join("driver.log");
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(format!("{text}\n").as_bytes()).unwrap();
    }
}

impl Driver for Fake {
    fn attempt<'a>(&'a self, sending: &'a Sending) -> Job<'a, Attempt> {
        let index = {
            let mut attempts = self.attempts.lock().unwrap();
            let index = attempts.entry(sending.id).or_default();
            *index += 1;
            *index - 1
        };
        self.tried.fetch_add(1, Ordering::Relaxed);
        let script = sending.effect.payload["script"].as_array().unwrap();
        let word = script[index.min(script.len() - 1)].as_str().unwrap().to_owned();
        self.note(&format!("{} {} {word}", self.epoch.0, sending.id));
        Box::pin(async move {
            match word.as_str() {
                "done" => Attempt::Done(Outcome::Applied(json!({ "epoch": self.epoch.0 }))),
                "again" => Attempt::Again("told so".into()),
                "notSent" => Attempt::NotSent("nobody listens".into()),
                "hang" => std::future::pending().await,
                newer => Attempt::Superseded(Epoch(newer.parse().unwrap())),
            }
        })
    }

    fn watch<'a>(
        &'a self,
        target: &'a str,
        _: Epoch,
        reports: tokio::sync::mpsc::Sender<Report>,
    ) -> Job<'a, Epoch> {
        Box::pin(async move {
            self.note(&format!("{} watch", self.epoch.0));
            let seen = Seen::Samples(self.records.clone());
            reports.send(Report { target: target.to_owned(), seen }).await.ok();
            // Keeps the channel open, as a real watch does.
            std::future::pending().await
        })
    }

    fn set_open<'a>(&'a self, open: bool) -> Job<'a, ()> {
        self.note(&format!("{} open={open}", self.epoch.0));
        Box::pin(std::future::ready(()))
    }
}

/// A closed second with so many requests.
pub(crate) fn second(epoch: u64, seq: u64, second: u64, n: u32) -> SecondRecord {
    SecondRecord {
        switch_epoch: epoch,
        seq,
        second,
        lane: "test/web".into(),
        version: "v1".into(),
        digest: Digest::of(b"v1"),
        weight_bp: 10_000,
        n,
        outcomes: Outcomes { ok: n, ..Outcomes::default() },
        latency: vec![(3, n)],
        retries: 0,
        client_gone: 0,
        cutover: 0,
        shadow: 0,
        forced: 0,
        in_flight: 0,
    }
}

/// What the switch of the fake has counted: two minutes, one second twice.
pub(crate) fn counted() -> Vec<SecondRecord> {
    vec![second(9, 1, 59, 5), second(9, 2, 60, 7), second(9, 2, 60, 7), second(9, 3, 61, 11)]
}

pub(crate) fn config(folder: &Path, idle_exit: Duration, at_least: Epoch) -> ShellConfig {
    let home = Home::new(folder);
    let of_driver = home.clone();
    ShellConfig {
        home,
        registry: Registry::new().with::<Counter>(),
        drivers: Box::new(move |owner| {
            assert!(owner.home.starts_with("h-"), "{owner:?}");
            let fake: Arc<dyn Driver> = Arc::new(Fake {
                home: of_driver,
                epoch: owner.epoch,
                tried: AtomicUsize::new(0),
                attempts: std::sync::Mutex::default(),
                records: counted(),
            });
            BTreeMap::from([("fake".to_owned(), fake)])
        }),
        router: Box::new(|engine| {
            Router::new()
                .route("/v1/counter/{id}", post(add))
                .route("/v1/counter/{id}", get(look))
                .with_state(engine)
        }),
        idle_exit,
        version: "0.0.0-test".into(),
        at_least,
    }
}

#[derive(Deserialize)]
struct Question {
    input: Value,
    revision: Option<u64>,
}

async fn add(
    State(engine): State<EngineHandle>,
    axum::extract::Path(id): axum::extract::Path<String>,
    Json(question): Json<Question>,
) -> Result<Json<Value>, AskError> {
    let answer = engine.ask(stream(&id), question.input, question.revision).await?;
    Ok(Json(json!({ "revision": answer.revision, "seq": answer.seq, "noOp": answer.no_op })))
}

async fn look(
    State(engine): State<EngineHandle>,
    axum::extract::Path(id): axum::extract::Path<String>,
) -> Result<Json<Value>, AskError> {
    let row = engine.view(stream(&id)).await?;
    Ok(Json(row.map_or(Value::Null, |row| row.view.doc)))
}

pub(crate) fn stream(id: &str) -> StreamId {
    StreamId::new("shop", "counter", id)
}

/// Waits for a condition, at most 20 s.
pub(crate) fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A home and clients to its engine.
pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Place {
    pub(crate) fn new() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self { folder: tempfile::tempdir().unwrap(), runtime: runtime.unwrap() }
    }

    pub(crate) fn home(&self) -> Home {
        Home::new(self.folder.path())
    }

    /// Runs an engine in a thread of this process.
    pub(crate) fn engine(&self, idle_exit: Duration) -> JoinHandle<Result<Ended, ShellError>> {
        self.engine_at(idle_exit, Epoch(0))
    }

    pub(crate) fn engine_at(
        &self,
        idle_exit: Duration,
        at_least: Epoch,
    ) -> JoinHandle<Result<Ended, ShellError>> {
        let config = config(self.folder.path(), idle_exit, at_least);
        std::thread::spawn(move || shell::run(config))
    }

    /// Runs an engine in a process of its own.
    pub(crate) fn process(&self) -> Killed {
        let child = Process::new(std::env::current_exe().unwrap())
            .args(["--exact", "owners::an_engine_in_a_process_of_its_own", "--nocapture"])
            .env("TIDEGATE_TEST_HOME", self.folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        Killed(child.unwrap())
    }

    /// Any request; status and body.
    pub(crate) fn request(&self, method: &str, path: &str, body: &Value) -> Option<(u16, String)> {
        let client = Client::new(&self.home().socket("engine"));
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
        let within = Duration::from_secs(15);
        let reply = self.runtime.block_on(client.request(method, path, body.into(), within));
        reply.ok().map(|r| (r.status, String::from_utf8(r.body.to_vec()).unwrap()))
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let (status, body) = until(path, || self.request("GET", path, &Value::Null));
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Asks a counter.
    pub(crate) fn ask(&self, id: &str, input: &Input) -> Value {
        let body = json!({ "input": input });
        let path = format!("/v1/counter/{id}");
        let (status, body) = until("asked", || self.request("POST", &path, &body));
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    pub(crate) fn ask_effect(
        &self,
        id: &str,
        key: &str,
        class: EffectClass,
        script: &[&str],
        ms: u64,
    ) {
        let script = script.iter().map(ToString::to_string).collect();
        self.ask(id, &Input::Ask { key: key.into(), class, script, deadline_ms: ms });
    }

    pub(crate) fn answer(&self, id: &str, key: &str) -> Outcome {
        until(&format!("{id} has an answer for {key}"), || {
            let doc = self.get(&format!("/v1/counter/{id}"));
            serde_json::from_value(doc["state"]["answers"][key].clone()).ok()
        })
    }

    pub(crate) fn events(&self, query: &str) -> Vec<Value> {
        let path = format!("/v1/events?{query}");
        let (status, body) = until("events", || self.request("GET", &path, &Value::Null));
        assert_eq!(status, 200, "{body}");
        body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Lines that the driver has noted.
    pub(crate) fn noted(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path().join("driver.log"));
        text.unwrap_or_default().lines().map(str::to_owned).collect()
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        std::fs::read_to_string(self.home().pid("engine")).ok()?.trim().parse().ok()
    }
}

/// A process that ends with the test.
pub(crate) struct Killed(pub(crate) Child);

impl Killed {
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.0.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// What it has printed when it has ended.
    pub(crate) fn printed(mut self) -> String {
        use std::io::Read as _;
        let mut text = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        self.0.wait().unwrap();
        text
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
