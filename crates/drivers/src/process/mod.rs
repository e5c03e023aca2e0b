//! The process platform of this machine: capacity at the host, traffic at the switch.
//!
//! Both are claimed for the owner's epoch before anything else is said or read, and again whenever
//! their process has changed. A dead host is started (it starts the switch); while work is open it
//! hears from us every second. Open or not, it is kept alive while an engine lives.

mod contact;
mod launch;
mod link;
mod watch;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tidegate_core::capacity::{CapacityDoc, LaneCapacity};
use tidegate_core::machine::{Effect, Outcome};
use tidegate_core::spec::ServiceSpec;
use tidegate_core::traffic::{LaneTraffic, TrafficDoc};
use tidegate_core::{Digest, Epoch, Fence, Reason};
use tidegate_engine::effects::{Attempt, Driver, Job, Report, Sending};
use tidegate_wire::home::Home;
use tidegate_wire::host::{self, Accepted, HostReport, RunEnded};
use tidegate_wire::switch::{SwitchReport, Table};

use crate::traits::{Capacity, TargetError, Traffic};
use contact::Contact;
use launch::Launcher;
pub use launch::spawn_host;
use link::{Link, OBSERVE};

/// The only target so far.
pub const LOCAL: &str = "process:local";

/// A document is answered within this.
const DOCUMENT_MAX: Duration = Duration::from_secs(10);
/// Beyond a command's own time limit, for starting it and for the answer.
const RUN_MARGIN: Duration = Duration::from_secs(30);

/// What the driver needs.
pub struct ProcessConfig {
    /// The home, for its sockets.
    pub home: Home,
    /// The home's identity.
    pub identity: String,
    /// This ownership of it.
    pub epoch: Epoch,
    /// Starts a host, detached, and returns at once; see [`spawn_host`]. Called when none answers,
    /// with growing pauses.
    pub start_host: Box<dyn Fn() -> io::Result<()> + Send + Sync>,
}

/// Host and switch of this machine.
pub struct ProcessDriver {
    inner: Arc<Inner>,
}

struct Inner {
    home: Home,
    identity: String,
    epoch: Epoch,
    host: Link,
    switch: Link,
    launcher: Launcher,
    contact: Contact,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StagePayload {
    path: String,
    digest: Digest,
    command: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RunPayload {
    version: String,
    digest: Digest,
    service: ServiceSpec,
    command: Vec<String>,
    timeout_ms: u64,
}

impl ProcessDriver {
    /// A driver; nothing is said to anybody before the first call.
    #[must_use]
    pub fn new(config: ProcessConfig) -> Self {
        let ProcessConfig { home, identity, epoch, start_host } = config;
        let link = |role| Link::new(&home, role, &identity, epoch);
        let (host, switch) = (link("host"), link("switch"));
        let launcher = Launcher::new(home.socket("host"), start_host);
        let contact = Contact::new();
        Self { inner: Arc::new(Inner { home, identity, epoch, host, switch, launcher, contact }) }
    }
}

impl Inner {
    fn fence(&self, seq: u64) -> Fence {
        Fence { epoch: self.epoch, seq }
    }

    /// Whatever failed because nobody listened: a host that is dead is started.
    async fn mend<T>(&self, result: Result<T, TargetError>) -> Result<T, TargetError> {
        if let Err(TargetError::Unreachable(why)) = &result {
            self.launcher
                .ensure()
                .await
                .map_err(|error| TargetError::Unreachable(format!("{why}; {error}")))?;
        }
        result
    }

    async fn act(&self, sending: &Sending) -> Result<Outcome, TargetError> {
        let effect = &sending.effect;
        match effect.action.as_str() {
            "stage" => {
                let StagePayload { path, digest, command } = payload(effect)?;
                let (home, fence) = (self.identity.clone(), self.fence(effect.seq));
                let stage = host::Stage { home, fence, path, digest, command };
                let within = Duration::from_millis(effect.deadline_ms).max(DOCUMENT_MAX);
                let answer: Value =
                    self.mend(self.host.post("/v1/stage", &stage, within).await).await?;
                Ok(Outcome::Applied(answer))
            }
            "capacity" => {
                let doc: CapacityDoc = payload(effect)?;
                self.capacity(self.fence(effect.seq), &doc).await.map(applied)
            }
            "traffic" => {
                let doc: TrafficDoc = payload(effect)?;
                self.traffic(self.fence(effect.seq), &doc).await.map(applied)
            }
            "run" => self.run(sending, payload(effect)?).await,
            other => Err(TargetError::Refused(Reason::new(
                "unsupported",
                format!("{other} is nothing that {LOCAL} can do"),
            ))),
        }
    }

    async fn capacity(&self, fence: Fence, doc: &CapacityDoc) -> Result<Fence, TargetError> {
        let message = host::Capacity { home: self.identity.clone(), fence, doc: doc.clone() };
        let accepted: Accepted =
            self.mend(self.host.post("/v1/capacity", &message, DOCUMENT_MAX).await).await?;
        Ok(accepted.fence)
    }

    async fn traffic(&self, fence: Fence, doc: &TrafficDoc) -> Result<Fence, TargetError> {
        let message = Table { home: self.identity.clone(), fence, doc: doc.clone(), shut: false };
        let result = self.switch.post("/v1/table", &message, DOCUMENT_MAX).await;
        let result = match result {
            // The switch cannot always tell an overtaken table from a shut epoch; the host can.
            Err(TargetError::Overtaken(reason)) => {
                self.host.reclaim().await?;
                Err(TargetError::Overtaken(reason))
            }
            Ok(_)
            | Err(
                TargetError::Unreachable(_)
                | TargetError::Unanswered(_)
                | TargetError::Superseded(_)
                | TargetError::Refused(_),
            ) => result,
        };
        let accepted: Accepted = self.mend(result).await?;
        Ok(accepted.fence)
    }

    async fn run(&self, sending: &Sending, run: RunPayload) -> Result<Outcome, TargetError> {
        let RunPayload { version, digest, service, command, timeout_ms } = run;
        let within = Duration::from_millis(timeout_ms) + RUN_MARGIN;
        let message = host::Run {
            home: self.identity.clone(),
            fence: self.fence(sending.effect.seq),
            effect: format!("{}:{}", self.identity, sending.id),
            version,
            digest,
            service,
            command,
            timeout_ms,
        };
        let ended = self.mend(self.host.post("/v1/run", &message, within).await).await?;
        Ok(match ended {
            RunEnded::Exited { status: 0, tail } => {
                Outcome::Applied(json!({ "status": 0, "tail": tail }))
            }
            RunEnded::Exited { status, tail } => {
                let text = format!("exit status {status}{}", last_words(&tail));
                Outcome::Failed(Reason::new("exitStatus", text))
            }
            RunEnded::TimedOut { tail } => {
                let text = format!("killed after {} s{}", timeout_ms / 1_000, last_words(&tail));
                Outcome::Failed(Reason::new("timedOut", text))
            }
            RunEnded::Unknown { why } => Outcome::Unknown(Reason::new("unknown", why)),
        })
    }
}

fn applied(fence: Fence) -> Outcome {
    Outcome::Applied(json!({ "fence": fence }))
}

/// The last line that was printed, for a sentence.
fn last_words(tail: &str) -> String {
    match tail.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => format!(": {}", line.trim()),
        None => String::new(),
    }
}

fn payload<T: DeserializeOwned>(effect: &Effect) -> Result<T, TargetError> {
    serde_json::from_value(effect.payload.clone()).map_err(|error| {
        let text = format!("the document of {} is not understood: {error}", effect.action);
        TargetError::Refused(Reason::new("notUnderstood", text))
    })
}

impl Driver for ProcessDriver {
    fn attempt<'a>(&'a self, sending: &'a Sending) -> Job<'a, Attempt> {
        Box::pin(async move {
            if sending.effect.target != LOCAL {
                let text = format!("there is no {}, only {LOCAL}", sending.effect.target);
                return Attempt::Done(Outcome::Refused(Reason::new("unsupported", text)));
            }
            if let Some(epoch) = self.inner.contact.superseded() {
                return Attempt::Superseded(epoch);
            }
            match self.inner.act(sending).await {
                Ok(outcome) => Attempt::Done(outcome),
                Err(error) => error.into(),
            }
        })
    }

    fn watch<'a>(
        &'a self,
        target: &'a str,
        _epoch: Epoch,
        reports: tokio::sync::mpsc::Sender<Report>,
    ) -> Job<'a, Epoch> {
        Box::pin(async move {
            if target != LOCAL {
                return std::future::pending().await;
            }
            let _listened_to = contact::keep(&self.inner);
            watch::run(&self.inner, &reports).await
        })
    }

    fn keep_alive<'a>(&'a self) -> Job<'a, ()> {
        // A host that was here has versions to run.
        let before = self.inner.home.host().exists();
        Box::pin(self.inner.launcher.keep(before))
    }

    fn set_open<'a>(&'a self, open: bool) -> Job<'a, ()> {
        Box::pin(contact::set_open(&self.inner, open))
    }
}

impl Capacity for ProcessDriver {
    fn converge<'a>(
        &'a self,
        fence: Fence,
        doc: &'a CapacityDoc,
    ) -> Job<'a, Result<Fence, TargetError>> {
        Box::pin(self.inner.capacity(fence, doc))
    }

    fn observe<'a>(&'a self, lane: &'a str) -> Job<'a, Result<Option<LaneCapacity>, TargetError>> {
        Box::pin(async move {
            let report: HostReport = self.inner.host.get(OBSERVE, DOCUMENT_MAX).await?;
            Ok(report.lanes.into_iter().find(|l| l.lane == lane))
        })
    }
}

impl Traffic for ProcessDriver {
    fn converge<'a>(
        &'a self,
        fence: Fence,
        doc: &'a TrafficDoc,
    ) -> Job<'a, Result<Fence, TargetError>> {
        Box::pin(self.inner.traffic(fence, doc))
    }

    fn observe<'a>(&'a self, lane: &'a str) -> Job<'a, Result<Option<LaneTraffic>, TargetError>> {
        Box::pin(async move {
            let report: SwitchReport = self.inner.switch.get(OBSERVE, DOCUMENT_MAX).await?;
            Ok(report.lanes.into_iter().find(|l| l.lane == lane))
        })
    }
}
