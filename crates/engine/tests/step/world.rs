//! A trivial world: takes every document at once and honours it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidegate_core::capacity::{CapacityDoc, LaneCapacity, VersionObserved};
use tidegate_core::counts::{Outcomes, SecondRecord};
use tidegate_core::lane::LaneMachine;
use tidegate_core::machine::Outcome;
use tidegate_core::release::ReleaseMachine;
use tidegate_core::rollout::RolloutMachine;
use tidegate_core::traffic::{LaneTraffic, TrafficDoc, VersionTraffic};
use tidegate_core::{Digest, Epoch, Fence, Reason, Rejected, StreamId, Timestamp};
use tidegate_engine::effects::Sending;
use tidegate_engine::{Engine, Input, Outputs, Registry, Request};
use tidegate_journal::memory::MemoryJournal;
use tidegate_journal::{Envelope, Reader};

pub(crate) const TARGET: &str = "process:local";
pub(crate) const LANE: &str = "production/web";

pub(crate) fn registry() -> Registry {
    Registry::new().with::<LaneMachine>().with::<ReleaseMachine>().with::<RolloutMachine>()
}

pub(crate) struct World {
    pub(crate) engine: Option<Engine<MemoryJournal>>,
    pub(crate) now: u64,
    capacity: Option<(Fence, CapacityDoc)>,
    traffic: Option<(Fence, TrafficDoc)>,
    in_flight: BTreeMap<String, u32>,
    records: u64,
    second: u64,
    /// Versions whose requests fail.
    pub(crate) bad: Vec<String>,
    /// Versions that are never ready.
    pub(crate) never_ready: Vec<String>,
    /// Outcomes by action, or by name of the check; else all succeed.
    pub(crate) outcomes: BTreeMap<String, Outcome>,
    pub(crate) ran: Vec<String>,
    pub(crate) events: Vec<Envelope>,
    pub(crate) dropped: Vec<String>,
    samples: Vec<(StreamId, SecondRecord)>,
    watchers: Vec<StreamId>,
    queue: Vec<Sending>,
    token: u64,
    /// Actions that the world does not take at present.
    pub(crate) stuck: Vec<&'static str>,
    /// Documents come into force, and their answers get lost.
    pub(crate) unanswered: bool,
    /// Documents as they were taken: (action, sequence, document).
    pub(crate) taken: Vec<(String, u64, Value)>,
}

impl World {
    pub(crate) fn new() -> Self {
        let journal = MemoryJournal::new("home");
        let mut world = Self {
            engine: None,
            now: 1_700_000_000_000,
            capacity: None,
            traffic: None,
            in_flight: BTreeMap::new(),
            records: 0,
            second: 0,
            bad: Vec::new(),
            never_ready: Vec::new(),
            outcomes: BTreeMap::new(),
            ran: Vec::new(),
            events: Vec::new(),
            dropped: Vec::new(),
            samples: Vec::new(),
            watchers: Vec::new(),
            queue: Vec::new(),
            token: 0,
            stuck: Vec::new(),
            unanswered: false,
            taken: Vec::new(),
        };
        world.start(journal);
        world
    }

    fn start(&mut self, journal: MemoryJournal) {
        let (engine, outputs) =
            Engine::recover(journal, registry(), Epoch(0)).expect("the journal is good");
        self.engine = Some(engine);
        self.queue.clear();
        self.take(outputs);
        let samples = self.samples.clone();
        for (stream, record) in samples {
            let input = Input::Samples { stream, records: vec![record], segment: Digest::of(b"s") };
            self.step(vec![input]);
        }
        self.report();
    }

    /// The engine process dies and another one takes over.
    pub(crate) fn restart(&mut self) {
        let journal = self.engine.take().expect("it runs").into_journal();
        self.start(journal);
    }

    pub(crate) fn engine(&self) -> &Engine<MemoryJournal> {
        self.engine.as_ref().expect("it runs")
    }

    fn take(&mut self, outputs: Outputs) {
        self.queue.retain(|s| !outputs.forget.contains(&s.id));
        self.queue.extend(outputs.send);
        self.events.extend(outputs.events);
        self.dropped.extend(outputs.dropped);
        if let Some(watches) = outputs.watches {
            self.watchers = watches.values().flatten().cloned().collect();
        }
    }

    pub(crate) fn step(&mut self, inputs: Vec<Input>) {
        let now = Timestamp(self.now);
        let engine = self.engine.as_mut().expect("it runs");
        let outputs = engine.step(now, inputs).expect("no defect");
        self.take(outputs);
    }

    /// Asks a machine and lets the world settle.
    pub(crate) fn ask(&mut self, kind: &str, id: &str, input: Value) -> Result<u64, Rejected> {
        self.ask_at(kind, id, input, None)
    }

    pub(crate) fn ask_at(
        &mut self,
        kind: &str,
        id: &str,
        input: Value,
        if_revision: Option<u64>,
    ) -> Result<u64, Rejected> {
        self.token += 1;
        let stream = StreamId::new("shop", kind, id);
        let request = Request { token: self.token, stream, input, if_revision };
        let engine = self.engine.as_mut().expect("it runs");
        let mut outputs =
            engine.step(Timestamp(self.now), vec![Input::Ask(request)]).expect("no defect");
        let reply = outputs.replies.pop().expect("a reply");
        self.take(outputs);
        self.settle();
        reply.result
    }

    pub(crate) fn settle(&mut self) {
        for _ in 0..200 {
            let ready =
                self.queue.iter().position(|s| !self.stuck.contains(&s.effect.action.as_str()));
            let Some(ready) = ready else { return };
            let sending = self.queue.remove(ready);
            let outcome = self.carry_out(&sending);
            let is_document = ["capacity", "traffic"].contains(&sending.effect.action.as_str());
            if !(self.unanswered && is_document) {
                self.step(vec![Input::Answer { id: sending.id, outcome }]);
            }
            self.report();
        }
        panic!("it does not settle");
    }

    fn carry_out(&mut self, sending: &Sending) -> Outcome {
        let effect = &sending.effect;
        let fence = Fence { epoch: sending.epoch, seq: effect.seq };
        let applied = Outcome::Applied(json!({}));
        if let Some(outcome) = self.outcomes.get(&effect.action) {
            return outcome.clone();
        }
        self.taken.push((effect.action.clone(), effect.seq, effect.payload.clone()));
        match effect.action.as_str() {
            "capacity" => {
                let doc = serde_json::from_value(effect.payload.clone()).expect("a document");
                assert!(self.capacity.as_ref().is_none_or(|(last, _)| *last <= fence));
                self.capacity = Some((fence, doc));
                applied
            }
            "traffic" => {
                let doc = serde_json::from_value(effect.payload.clone()).expect("a document");
                assert!(self.traffic.as_ref().is_none_or(|(last, _)| *last <= fence));
                self.traffic = Some((fence, doc));
                applied
            }
            "run" => {
                self.ran.push(effect.key.clone());
                applied
            }
            "check" => {
                let name = effect.key.rsplit('-').next().unwrap_or_default();
                self.outcomes.get(name).cloned().unwrap_or(applied)
            }
            "stage" => applied,
            other => Outcome::Refused(Reason::new("unknown", other)),
        }
    }

    pub(crate) fn report(&mut self) {
        if let Some((fence, doc)) = &self.capacity {
            let versions = doc
                .versions
                .iter()
                .map(|v| VersionObserved {
                    version: v.version.clone(),
                    digest: v.digest.clone(),
                    wanted: v.instances,
                    running: v.instances,
                    ready: if self.never_ready.contains(&v.version) { 0 } else { v.instances },
                    addresses: vec![format!("http://127.0.0.1/{}", v.version)],
                    ..VersionObserved::default()
                })
                .collect();
            let report = LaneCapacity {
                lane: doc.lane.clone(),
                fence: Some(*fence),
                versions,
                fallback_applied: None,
            };
            self.step(vec![Input::Capacity(TARGET.into(), report)]);
        }
        if let Some((fence, doc)) = &self.traffic {
            let versions = doc
                .weights
                .iter()
                .map(|w| VersionTraffic {
                    version: w.version.clone(),
                    digest: w.digest.clone(),
                    weight_bp: w.weight_bp,
                    in_flight: self.in_flight.get(&w.version).copied().unwrap_or(0),
                    usable: 1,
                })
                .collect();
            let report = LaneTraffic { lane: doc.lane.clone(), fence: Some(*fence), versions };
            self.step(vec![Input::Traffic(TARGET.into(), report)]);
        }
    }

    /// Keys of effects that wait to be sent.
    pub(crate) fn waiting(&self) -> Vec<String> {
        self.queue.iter().map(|s| s.effect.key.clone()).collect()
    }

    /// Requests under way of a version from now on.
    pub(crate) fn in_flight(&mut self, version: &str, count: u32) {
        self.in_flight.insert(version.into(), count);
        self.report();
        self.settle();
    }

    /// One second passes: requests, counts, a tick.
    pub(crate) fn second(&mut self) {
        self.now += 1000;
        self.second = self.now / 1000 - 1;
        let mut records = Vec::new();
        if let Some((_, doc)) = &self.traffic {
            for w in doc.weights.iter().filter(|w| w.weight_bp > 0) {
                self.records += 1;
                let n = w.weight_bp / 100;
                let bad = self.bad.contains(&w.version);
                let outcomes = Outcomes {
                    ok: if bad { 0 } else { n },
                    status: if bad { n } else { 0 },
                    ..Outcomes::default()
                };
                records.push(SecondRecord {
                    switch_epoch: 1,
                    seq: self.records,
                    second: self.second,
                    lane: doc.lane.clone(),
                    version: w.version.clone(),
                    digest: w.digest.clone(),
                    weight_bp: w.weight_bp,
                    n,
                    outcomes,
                    latency: vec![(1, n)],
                    retries: 0,
                    client_gone: 0,
                    cutover: 0,
                    shadow: 0,
                    forced: 0,
                    in_flight: 0,
                });
            }
        }
        for stream in self.watchers.clone() {
            if records.is_empty() {
                continue;
            }
            self.samples.extend(records.iter().map(|r| (stream.clone(), r.clone())));
            let input =
                Input::Samples { stream, records: records.clone(), segment: Digest::of(b"s") };
            self.step(vec![input]);
        }
        self.step(vec![Input::Tick { awake_ms: 1000 }]);
        self.settle();
    }

    /// Seconds pass until the rollout's document satisfies the condition.
    pub(crate) fn until(&mut self, rollout: &str, what: &str, is: impl Fn(&Value) -> bool) {
        for _ in 0..2_000 {
            if is(&self.rollout(rollout)) {
                return;
            }
            self.second();
        }
        panic!("never {what}: {:#}", self.rollout(rollout));
    }

    pub(crate) fn rollout(&self, id: &str) -> Value {
        let stream = StreamId::new("shop", "rollout", id);
        let view = self.engine().view(&stream).expect("readable");
        view.map_or(Value::Null, |v| v.doc)
    }

    pub(crate) fn lane(&self) -> Value {
        let stream = StreamId::new("shop", "lane", LANE);
        self.engine().view(&stream).expect("readable").map_or(Value::Null, |v| v.doc)
    }

    /// Weights in force, by version, without zeros.
    pub(crate) fn weights(&self) -> Vec<(String, u32)> {
        let Some((_, doc)) = &self.traffic else { return Vec::new() };
        let mut weights: Vec<_> = doc
            .weights
            .iter()
            .filter(|w| w.weight_bp > 0)
            .map(|w| (w.version.clone(), w.weight_bp))
            .collect();
        weights.sort();
        weights
    }

    /// Versions and instances in force.
    pub(crate) fn running(&self) -> Vec<(String, u32)> {
        let Some((_, doc)) = &self.capacity else { return Vec::new() };
        let mut all: Vec<_> =
            doc.versions.iter().map(|v| (v.version.clone(), v.instances)).collect();
        all.sort();
        all
    }

    /// Names of a stream's events, in order.
    pub(crate) fn names(&self, id: &str) -> Vec<String> {
        self.events.iter().filter(|e| e.stream.id == id).map(|e| e.event.clone()).collect()
    }

    pub(crate) fn is_open(&mut self) -> bool {
        let engine = self.engine.as_mut().expect("it runs");
        let outputs = engine.step(Timestamp(self.now), Vec::new()).expect("no defect");
        outputs.open
    }

    pub(crate) fn verify(&self) {
        self.engine().journal().verify().expect("the chains hold");
    }
}
