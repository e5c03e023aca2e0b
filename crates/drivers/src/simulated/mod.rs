//! A platform that does at once whatever it is told: for measuring the engine with a thousand
//! rollouts, and for trying out a strategy without a machine. Honours documents and fences as a
//! host and a switch do; nothing runs and nobody is served.
#![expect(clippy::disallowed_methods, reason = "its log says when a command came")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use tidegate_core::capacity::{CapacityDoc, LaneCapacity, VersionObserved};
use tidegate_core::machine::Outcome;
use tidegate_core::traffic::{LaneTraffic, TrafficDoc, VersionTraffic};
use tidegate_core::{Epoch, Fence, Reason};
use tidegate_engine::effects::{Attempt, Driver, Job, Report, Seen, Sending};
use tokio::sync::mpsc::{Sender, UnboundedSender, unbounded_channel};

/// The simulated platform behind the targets that a process platform would have.
#[derive(Default)]
pub struct Simulated {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lanes: BTreeMap<String, (LaneCapacity, LaneTraffic)>,
    watchers: Vec<UnboundedSender<Seen>>,
    log: Option<File>,
}

impl Simulated {
    /// A platform without lanes. With a log, every command that reaches it is a line there:
    /// unix microseconds, stream, key, action.
    ///
    /// # Errors
    /// If the log cannot be opened.
    pub fn new(log: Option<&Path>) -> std::io::Result<Self> {
        let log =
            log.map(|path| File::options().create(true).append(true).open(path)).transpose()?;
        Ok(Self { state: Mutex::new(State { log, ..State::default() }) })
    }

    fn apply(&self, sending: &Sending) -> Outcome {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.note(sending);
        let fence = Fence { epoch: sending.epoch, seq: sending.effect.seq };
        let payload = sending.effect.payload.clone();
        let wrong = |e: serde_json::Error| {
            Outcome::Refused(Reason::new("impossible", format!("not a document: {e}")))
        };
        match sending.effect.action.as_str() {
            "capacity" => match serde_json::from_value(payload) {
                Ok(doc) => state.capacity(fence, &doc),
                Err(e) => wrong(e),
            },
            "traffic" => match serde_json::from_value(payload) {
                Ok(doc) => state.traffic(fence, &doc),
                Err(e) => wrong(e),
            },
            "stage" | "run" | "check" => Outcome::Applied(json!({ "detail": "simulated" })),
            other => Outcome::Refused(Reason::new("impossible", format!("no action {other}"))),
        }
    }
}

fn stale(last: Option<Fence>, fence: Fence) -> Option<Outcome> {
    let last = last.filter(|last| *last > fence)?;
    let text = format!("{fence} is older than {last}");
    Some(Outcome::Refused(Reason::new("staleFence", text)))
}

impl State {
    fn note(&mut self, sending: &Sending) {
        let Some(log) = &mut self.log else { return };
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros());
        let effect = &sending.effect;
        let line = format!("{at} {} {} {}\n", sending.stream, effect.key, effect.action);
        // A log that cannot be written makes its reader find too few lines, not the engine fail.
        let _ = log.write_all(line.as_bytes());
    }

    fn tell(&mut self, seen: &Seen) {
        self.watchers.retain(|watcher| watcher.send(seen.clone()).is_ok());
    }

    fn capacity(&mut self, fence: Fence, doc: &CapacityDoc) -> Outcome {
        let (capacity, _) = self.lanes.entry(doc.lane.clone()).or_default();
        if let Some(refused) = stale(capacity.fence, fence) {
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
        *capacity = LaneCapacity {
            lane: doc.lane.clone(),
            fence: Some(fence),
            versions: doc.versions.iter().map(ready).collect(),
            fallback_applied: None,
        };
        let seen = Seen::Capacity(capacity.clone());
        self.tell(&seen);
        Outcome::Applied(json!({ "fence": fence }))
    }

    fn traffic(&mut self, fence: Fence, doc: &TrafficDoc) -> Outcome {
        let (_, traffic) = self.lanes.entry(doc.lane.clone()).or_default();
        if let Some(refused) = stale(traffic.fence, fence) {
            return refused;
        }
        let share = |v: &tidegate_core::traffic::VersionWeight| VersionTraffic {
            version: v.version.clone(),
            digest: v.digest.clone(),
            weight_bp: v.weight_bp,
            in_flight: 0,
            usable: 1,
        };
        *traffic = LaneTraffic {
            lane: doc.lane.clone(),
            fence: Some(fence),
            versions: doc.weights.iter().map(share).collect(),
        };
        let seen = Seen::Traffic(traffic.clone());
        self.tell(&seen);
        Outcome::Applied(json!({ "fence": fence }))
    }
}

impl Driver for Simulated {
    fn attempt<'a>(&'a self, sending: &'a Sending) -> Job<'a, Attempt> {
        Box::pin(async move { Attempt::Done(self.apply(sending)) })
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
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                for (capacity, traffic) in state.lanes.values() {
                    let _ = sender.send(Seen::Capacity(capacity.clone()));
                    let _ = sender.send(Seen::Traffic(traffic.clone()));
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
