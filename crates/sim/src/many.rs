//! Many rollouts in one engine: the real `step` over a journal in memory, and a platform that does
//! at once what it is told. Nothing fails here; it is about what one event costs beside the others.

use std::collections::VecDeque;

use serde_json::{Value, json};
use tidegate_core::capacity::{CapacityDoc, LaneCapacity, VersionObserved};
use tidegate_core::lane::LaneMachine;
use tidegate_core::machine::Outcome;
use tidegate_core::release::ReleaseMachine;
use tidegate_core::rollout::{self, RolloutMachine};
use tidegate_core::spec::Step;
use tidegate_core::traffic::{LaneTraffic, TrafficDoc, VersionTraffic};
use tidegate_core::{Epoch, Fence, StreamId, Timestamp};
use tidegate_engine::Registry;
use tidegate_engine::effects::Sending;
use tidegate_engine::step::{Engine, Input, Outputs, Request};
use tidegate_journal::memory::MemoryJournal;

use crate::shop::{ENVIRONMENT, PROJECT, Shop, TARGET, weight};

/// Between two ticks with many streams, as in the shell.
const TICK_MS: u64 = 1_000;
/// Inputs of one step at most, as in the shell.
const BATCH: usize = 256;

/// An engine with rollouts in progress.
pub struct Many {
    engine: Engine<MemoryJournal>,
    rollouts: usize,
    now: u64,
    events: u64,
    answers: VecDeque<Input>,
}

/// Why it could not be done: a defect of this module or of the engine.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Stuck(String);

impl Many {
    /// So many lanes, in each a canary that pauses until somebody promotes.
    ///
    /// # Errors
    /// [`Stuck`] if one of them does not come so far.
    pub fn new(rollouts: usize) -> Result<Self, Stuck> {
        let registry =
            Registry::new().with::<LaneMachine>().with::<ReleaseMachine>().with::<RolloutMachine>();
        let journal = MemoryJournal::new("many");
        let (engine, _) =
            Engine::recover(journal, registry, Epoch(0)).map_err(|e| Stuck(e.to_string()))?;
        let mut many = Self { engine, rollouts, now: 1, events: 0, answers: VecDeque::new() };
        let shop = |steps| Shop {
            steps,
            watching: Vec::new(),
            bake_ms: 0,
            scale_down_delay_ms: 0,
            progress_deadline_ms: 600_000,
            ..Shop::default()
        };
        let pause = || Step::Pause { duration_ms: None };
        many.release(&shop(vec![weight(100)]), "v1")?;
        many.release(&shop(vec![weight(10), pause(), weight(50), pause()]), "v2")?;
        for number in 0..rollouts {
            many.expect_paused(number)?;
        }
        Ok(many)
    }

    /// Pauses a rollout and resumes it, so often in all, taking turns over `among` of them; each
    /// question is a step of its own. Returns the events.
    ///
    /// # Errors
    /// [`Stuck`] if the engine refuses one.
    pub fn steer(&mut self, among: usize, often: usize) -> Result<u64, Stuck> {
        let from = self.events;
        let principal = || "ada".to_owned();
        for turn in 0..often {
            let number = turn % among.min(self.rollouts);
            for input in [
                rollout::Input::Pause { principal: principal() },
                rollout::Input::Resume { principal: principal() },
            ] {
                self.ask(rollout(number), json!(input))?;
            }
        }
        Ok(self.events - from)
    }

    /// A second passes: every rollout in progress is told so.
    ///
    /// # Errors
    /// [`Stuck`] if the engine fails.
    pub fn tick(&mut self) -> Result<(), Stuck> {
        self.step(vec![Input::Tick { awake_ms: TICK_MS }])
    }

    fn release(&mut self, shop: &Shop, version: &str) -> Result<(), Stuck> {
        let numbers: Vec<usize> = (0..self.rollouts).collect();
        // As many at a time as the shell takes in one step: whoever watches is told of all
        // watches once for each step in which they change.
        for some in numbers.chunks(BATCH) {
            let ask = |number: &usize| {
                let (stream, input) = shop.release(&service(*number), version);
                Input::Ask(Request { token: 1, stream, input, if_revision: None })
            };
            self.step(some.iter().map(ask).collect())?;
        }
        Ok(())
    }

    fn expect_paused(&self, number: usize) -> Result<(), Stuck> {
        let stream = rollout(number);
        let view = self.engine.view(&stream).map_err(|e| Stuck(e.to_string()))?;
        let phase = view.as_ref().and_then(|view| view.doc["phase"].as_str());
        if phase == Some("Paused") {
            return Ok(());
        }
        Err(Stuck(format!("{stream} does not pause: {view:?}")))
    }

    fn ask(&mut self, stream: StreamId, input: Value) -> Result<(), Stuck> {
        self.step(vec![Input::Ask(Request { token: 1, stream, input, if_revision: None })])
    }

    /// One step and all the steps that its commands lead to.
    fn step(&mut self, inputs: Vec<Input>) -> Result<(), Stuck> {
        self.once(inputs)?;
        while !self.answers.is_empty() {
            let count = self.answers.len().min(BATCH);
            let inputs = self.answers.drain(..count).collect();
            self.once(inputs)?;
        }
        Ok(())
    }

    fn once(&mut self, inputs: Vec<Input>) -> Result<(), Stuck> {
        self.now += 1;
        let outputs = self.engine.step(Timestamp(self.now), inputs);
        let Outputs { replies, send, events, .. } = outputs.map_err(|e| Stuck(e.to_string()))?;
        self.events += events.len() as u64;
        if let Some(rejected) = replies.into_iter().find_map(|reply| reply.result.err()) {
            return Err(Stuck(format!("refused: {rejected}")));
        }
        for sending in send {
            self.obey(&sending)?;
        }
        Ok(())
    }

    /// Does what the command says and reports it.
    fn obey(&mut self, sending: &Sending) -> Result<(), Stuck> {
        let effect = &sending.effect;
        let fence = Fence { epoch: sending.epoch, seq: effect.seq };
        let wrong = |e: serde_json::Error| Stuck(format!("{}: {e}", effect.action));
        let outcome = Outcome::Applied(json!({ "fence": fence }));
        self.answers.push_back(Input::Answer { id: sending.id, outcome });
        let payload = effect.payload.clone();
        match effect.action.as_str() {
            "capacity" => {
                let doc: CapacityDoc = serde_json::from_value(payload).map_err(wrong)?;
                let report = capacity(fence, &doc);
                self.answers.push_back(Input::Capacity(TARGET.to_owned(), report));
            }
            "traffic" => {
                let doc: TrafficDoc = serde_json::from_value(payload).map_err(wrong)?;
                let report = traffic(fence, &doc);
                self.answers.push_back(Input::Traffic(TARGET.to_owned(), report));
            }
            _ => {}
        }
        Ok(())
    }
}

fn service(number: usize) -> String {
    format!("s{number:05}")
}

fn rollout(number: usize) -> StreamId {
    StreamId::new(PROJECT, "rollout", &format!("{ENVIRONMENT}-{}-2", service(number)))
}

fn capacity(fence: Fence, doc: &CapacityDoc) -> LaneCapacity {
    let ready = |v: &tidegate_core::capacity::VersionCapacity| VersionObserved {
        version: v.version.clone(),
        digest: v.digest.clone(),
        wanted: v.instances,
        running: v.instances,
        ready: v.instances,
        addresses: vec!["http://127.0.0.1:9".to_owned()],
        ..VersionObserved::default()
    };
    LaneCapacity {
        lane: doc.lane.clone(),
        fence: Some(fence),
        versions: doc.versions.iter().map(ready).collect(),
        fallback_applied: None,
    }
}

fn traffic(fence: Fence, doc: &TrafficDoc) -> LaneTraffic {
    let share = |v: &tidegate_core::traffic::VersionWeight| VersionTraffic {
        version: v.version.clone(),
        digest: v.digest.clone(),
        weight_bp: v.weight_bp,
        in_flight: 0,
        usable: 1,
    };
    LaneTraffic {
        lane: doc.lane.clone(),
        fence: Some(fence),
        versions: doc.weights.iter().map(share).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::Many;

    #[test]
    fn a_hundred_rollouts_pause_and_every_question_is_events() {
        let mut many = Many::new(100).unwrap();
        let few = many.steer(10, 100).unwrap();
        let all = many.steer(100, 100).unwrap();
        assert_eq!(few, 200);
        many.tick().unwrap();
        assert_eq!(all, few, "the same questions are as many events");
    }
}
