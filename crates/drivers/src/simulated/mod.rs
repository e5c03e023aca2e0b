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

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
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
    /// What is in force, for the next process: a real platform outlives its engine.
    documents: Option<File>,
}

/// A document that was put in force, as a line of the file of documents.
#[derive(Serialize, Deserialize)]
struct InForce {
    fence: Fence,
    action: String,
    payload: Value,
}

impl Simulated {
    /// A platform without lanes. With a log, every command that reaches it is a line there:
    /// unix microseconds, stream, key, action. Beside the log, in `LOG.documents`, it remembers
    /// what is in force, and finds it there again.
    ///
    /// # Errors
    /// If the log cannot be opened.
    pub fn new(log: Option<&Path>) -> std::io::Result<Self> {
        let Some(log) = log else { return Ok(Self::default()) };
        let append = |path: &Path| File::options().create(true).append(true).open(path);
        let mut documents = log.as_os_str().to_owned();
        documents.push(".documents");
        let documents = Path::new(&documents);
        let mut state = State { log: Some(append(log)?), ..State::default() };
        if documents.exists() {
            for line in std::fs::read_to_string(documents)?.lines() {
                // The last line of a process that was killed may be torn: it was not answered.
                let Ok(in_force) = serde_json::from_str::<InForce>(line) else { continue };
                state.put(in_force.fence, &in_force.action, in_force.payload);
            }
        }
        state.documents = Some(append(documents)?);
        Ok(Self { state: Mutex::new(state) })
    }

    fn apply(&self, sending: &Sending) -> Outcome {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.note(sending);
        let fence = Fence { epoch: sending.epoch, seq: sending.effect.seq };
        state.remember(fence, &sending.effect.action, &sending.effect.payload);
        state.put(fence, &sending.effect.action, sending.effect.payload.clone())
    }
}

fn stale(last: Option<Fence>, fence: Fence) -> Option<Outcome> {
    let last = last.filter(|last| *last > fence)?;
    let text = format!("{fence} is older than {last}");
    Some(Outcome::Refused(Reason::new("staleFence", text)))
}

impl State {
    fn put(&mut self, fence: Fence, action: &str, payload: Value) -> Outcome {
        let wrong = |e: serde_json::Error| {
            Outcome::Refused(Reason::new("impossible", format!("not a document: {e}")))
        };
        match action {
            "capacity" => match serde_json::from_value(payload) {
                Ok(doc) => self.capacity(fence, &doc),
                Err(e) => wrong(e),
            },
            "traffic" => match serde_json::from_value(payload) {
                Ok(doc) => self.traffic(fence, &doc),
                Err(e) => wrong(e),
            },
            "stage" | "run" | "check" => Outcome::Applied(json!({ "detail": "simulated" })),
            other => Outcome::Refused(Reason::new("impossible", format!("no action {other}"))),
        }
    }

    fn remember(&mut self, fence: Fence, action: &str, payload: &Value) {
        let Some(documents) = &mut self.documents else { return };
        if !matches!(action, "capacity" | "traffic") {
            return;
        }
        let line = json!({ "fence": fence, "action": action, "payload": payload });
        // What could not be written is not found again by the next process: its rollouts wait.
        let _ = documents.write_all(format!("{line}\n").as_bytes());
    }

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

#[cfg(test)]
mod tests {
    use super::{Fence, Simulated};
    use serde_json::json;
    use tidegate_core::Epoch;
    use tidegate_core::machine::{Effect, EffectClass, Outcome};
    use tidegate_engine::effects::Sending;

    fn traffic(epoch: u64, seq: u64) -> Sending {
        let payload = json!({
            "lane": "production/web", "listen": "127.0.0.1:1", "routes": [], "weights": [],
            "stickyCookie": null, "errors": { "status": [[500, 599]], "timeoutMs": 1000 },
            "seed": 1,
        });
        Sending {
            id: 1,
            stream: tidegate_core::StreamId::new("shop", "rollout", "r"),
            epoch: Epoch(epoch),
            effect: Effect {
                key: "traffic-1".to_owned(),
                target: "process:local".to_owned(),
                action: "traffic".to_owned(),
                class: EffectClass::StateSetting,
                seq,
                payload,
                deadline_ms: 1_000,
            },
        }
    }

    #[test]
    fn what_was_in_force_is_in_force_for_the_next_process_and_fenced() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let first = Simulated::new(Some(&log)).unwrap().apply(&traffic(2, 7));
        assert!(matches!(first, Outcome::Applied(_)), "{first:?}");
        let again = Simulated::new(Some(&log)).unwrap();
        let fence = again.state.lock().unwrap().lanes["production/web"].1.fence;
        assert_eq!(fence, Some(Fence { epoch: Epoch(2), seq: 7 }));
        let late = again.apply(&traffic(1, 9));
        assert!(matches!(&late, Outcome::Refused(r) if r.code == "staleFence"), "{late:?}");
        assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 2);
    }
}
