//! A platform that does at once whatever it is told: for measuring the engine with a thousand
//! rollouts, and for trying out a strategy without a machine. Honours documents and fences as a
//! host and a switch do, and remembers them in its log, as those do when the engine dies; nothing
//! runs and nobody is served.
#![expect(clippy::disallowed_methods, reason = "its log says when a command arrived")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, Write as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tidegate_core::capacity::{CapacityDoc, LaneCapacity, VersionObserved};
use tidegate_core::machine::{Effect, Outcome};
use tidegate_core::traffic::{LaneTraffic, TrafficDoc, VersionTraffic};
use tidegate_core::{Digest, Epoch, Fence, Reason};
use tidegate_engine::effects::{Attempt, Driver, Job, Report, Seen, Sending};
use tokio::sync::mpsc::{Sender, UnboundedSender, unbounded_channel};

/// The simulated platform behind the targets that a process platform would have.
pub struct Simulated {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lanes: BTreeMap<String, Lane>,
    watchers: Vec<UnboundedSender<Seen>>,
    log: Option<File>,
}

/// What is in force in one lane, with the digests of its documents.
#[derive(Default)]
struct Lane {
    capacity: LaneCapacity,
    capacity_doc: Digest,
    traffic: LaneTraffic,
    traffic_doc: Digest,
}

impl Simulated {
    /// A platform with the lanes that its log tells of; without a log, or with an empty one,
    /// without any. Every command that reaches it becomes a line there: Unix microseconds, stream,
    /// key, action, fence, payload as JSON.
    ///
    /// # Errors
    /// If the log cannot be opened, or holds something else.
    pub fn new(log: Option<&Path>) -> io::Result<Self> {
        let mut state = State::default();
        if let Some(path) = log {
            let file = File::options().create(true).read(true).append(true).open(path)?;
            for line in io::BufReader::new(&file).lines() {
                let line = line?;
                let (fence, action, payload) = parse(&line).ok_or_else(|| {
                    io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("{}: not a line of a simulated platform: {line}", path.display()),
                    )
                })?;
                state.apply(fence, action, payload);
            }
            state.log = Some(file);
        }
        Ok(Self { state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, sending: &Sending) -> Outcome {
        let Sending { epoch, effect, .. } = sending;
        let fence = Fence { epoch: *epoch, seq: effect.seq };
        let mut state = self.state();
        if let Err(error) = state.note(&sending.stream.to_string(), fence, effect) {
            // As a target whose disk is full: nothing of it is in force.
            return Outcome::Failed(Reason::new("log", format!("cannot write the log: {error}")));
        }
        state.apply(fence, &effect.action, effect.payload.clone())
    }
}

/// Fence, action and payload of a line of the log.
fn parse(line: &str) -> Option<(Fence, &str, Value)> {
    let mut words = line.splitn(6, ' ');
    let action = words.nth(3)?;
    let (epoch, seq) = words.next()?.split_once('.')?;
    let fence = Fence { epoch: Epoch(epoch.parse().ok()?), seq: seq.parse().ok()? };
    Some((fence, action, serde_json::from_str(words.next()?).ok()?))
}

/// Why a document is not taken: an older fence, or the same one with another document.
fn stale(last: Option<Fence>, known: &Digest, fence: Fence, doc: &Digest) -> Option<Outcome> {
    let last = last.filter(|last| *last > fence || (*last == fence && known != doc))?;
    let text = format!("{fence} is not newer than {last}");
    Some(Outcome::Refused(Reason::new("staleFence", text)))
}

impl State {
    fn note(&mut self, stream: &str, fence: Fence, effect: &Effect) -> io::Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros());
        let (Effect { key, action, payload, .. }, Fence { epoch, seq }) = (effect, fence);
        let line = format!("{at} {stream} {key} {action} {}.{seq} {payload}\n", epoch.0);
        // One write, so that a killed process leaves no half of a line to its successor.
        log.write_all(line.as_bytes())
    }

    fn apply(&mut self, fence: Fence, action: &str, payload: Value) -> Outcome {
        let doc = Digest::of(payload.to_string().as_bytes());
        let wrong = |error: serde_json::Error| {
            Outcome::Refused(Reason::new("impossible", format!("not a document: {error}")))
        };
        match action {
            "capacity" => match serde_json::from_value(payload) {
                Ok(wanted) => self.capacity(fence, wanted, doc),
                Err(error) => wrong(error),
            },
            "traffic" => match serde_json::from_value(payload) {
                Ok(wanted) => self.traffic(fence, wanted, doc),
                Err(error) => wrong(error),
            },
            "stage" | "run" | "check" => Outcome::Applied(json!({ "detail": "simulated" })),
            other => Outcome::Refused(Reason::new("impossible", format!("no action {other}"))),
        }
    }

    fn tell(&mut self, seen: &Seen) {
        self.watchers.retain(|watcher| watcher.send(seen.clone()).is_ok());
    }

    fn capacity(&mut self, fence: Fence, wanted: CapacityDoc, doc: Digest) -> Outcome {
        let lane = self.lanes.entry(wanted.lane.clone()).or_default();
        if let Some(refused) = stale(lane.capacity.fence, &lane.capacity_doc, fence, &doc) {
            return refused;
        }
        let ready = |v: &tidegate_core::capacity::VersionCapacity| VersionObserved {
            version: v.version.clone(),
            digest: v.digest.clone(),
            wanted: v.instances,
            running: v.instances,
            ready: v.instances,
            addresses: vec!["http://127.0.0.1:9".to_owned()],
            ..VersionObserved::default()
        };
        lane.capacity_doc = doc;
        lane.capacity = LaneCapacity {
            lane: wanted.lane,
            fence: Some(fence),
            versions: wanted.versions.iter().map(ready).collect(),
            fallback_applied: None,
        };
        let seen = Seen::Capacity(lane.capacity.clone());
        self.tell(&seen);
        Outcome::Applied(json!({ "fence": fence }))
    }

    fn traffic(&mut self, fence: Fence, wanted: TrafficDoc, doc: Digest) -> Outcome {
        let lane = self.lanes.entry(wanted.lane.clone()).or_default();
        if let Some(refused) = stale(lane.traffic.fence, &lane.traffic_doc, fence, &doc) {
            return refused;
        }
        let share = |v: &tidegate_core::traffic::VersionWeight| VersionTraffic {
            version: v.version.clone(),
            digest: v.digest.clone(),
            weight_bp: v.weight_bp,
            in_flight: 0,
            usable: 1,
        };
        lane.traffic_doc = doc;
        lane.traffic = LaneTraffic {
            lane: wanted.lane,
            fence: Some(fence),
            versions: wanted.weights.iter().map(share).collect(),
        };
        let seen = Seen::Traffic(lane.traffic.clone());
        self.tell(&seen);
        Outcome::Applied(json!({ "fence": fence }))
    }
}

impl Driver for Simulated {
    fn attempt<'a>(&'a self, sending: &'a Sending) -> Job<'a, Attempt> {
        Box::pin(async move { Attempt::Done(self.take(sending)) })
    }

    fn watch<'a>(
        &'a self,
        target: &'a str,
        _epoch: Epoch,
        reports: Sender<Report>,
    ) -> Job<'a, Epoch> {
        Box::pin(async move {
            let (sender, mut seen) = unbounded_channel();
            {
                let mut state = self.state();
                for lane in state.lanes.values() {
                    // The other end lives as long as this future.
                    let _ = sender.send(Seen::Capacity(lane.capacity.clone()));
                    let _ = sender.send(Seen::Traffic(lane.traffic.clone()));
                }
                state.watchers.push(sender);
            }
            while let Some(seen) = seen.recv().await {
                let report = Report { target: target.to_owned(), seen };
                if reports.send(report).await.is_err() {
                    break;
                }
            }
            std::future::pending().await
        })
    }
}
