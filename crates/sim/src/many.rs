//! What a rollout costs when there are many: one engine, one journal in memory, and a platform that
//! does at once what it is told.
#![expect(clippy::disallowed_methods, reason = "this is the part that measures time")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;
use tidegate_core::capacity::{CapacityDoc, LaneCapacity, VersionObserved};
use tidegate_core::counts::{Outcomes, SecondRecord};
use tidegate_core::machine::Outcome;
use tidegate_core::spec::Step;
use tidegate_core::traffic::{LaneTraffic, TrafficDoc, VersionTraffic};
use tidegate_core::{Digest, Epoch, Fence, StreamId, Timestamp};
use tidegate_engine::effects::Sending;
use tidegate_engine::step::Fatal;
use tidegate_engine::{Engine, Input, Outputs, Request};
use tidegate_journal::Reader as _;
use tidegate_journal::memory::MemoryJournal;

use crate::process::registry;
use crate::shop::{ENVIRONMENT, PROJECT, Shop, TARGET, weight};

/// Promotions that are timed; a rollout has steps for so many on each of ten rollouts, twice.
const TIMED: usize = 150;
/// Rollouts that are promoted again and again.
const HOT: usize = 10;

/// What was measured with so many rollouts in progress.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Rollouts in progress.
    pub rollouts: usize,
    /// Events in the journal at the end.
    pub events: u64,
    /// Microseconds per event of ten rollouts beside the others: a promotion with all that follows,
    /// divided by its events (median).
    pub event_us: f64,
    /// The same, spread over all rollouts: most of them are in no cache then.
    pub spread_event_us: f64,
    /// Microseconds of a tick, per rollout.
    pub tick_us: f64,
    /// Microseconds of a host's and a switch's report in which nothing is new (median).
    pub report_us: f64,
    /// Microseconds of a second's samples (median).
    pub samples_us: f64,
    /// Growth of the process's resident memory per rollout, the journal in memory included.
    pub resident_bytes: u64,
    /// Growth by a second engine on the same journal that has read a report of every rollout: its
    /// states and tables, and a copy of the journal's tables.
    pub engine_bytes: u64,
    /// Milliseconds from the journal to the first step.
    pub recovery_ms: f64,
}

/// A platform that does at once what it is told.
struct Platform {
    engine: Engine<MemoryJournal>,
    now: u64,
    capacity: BTreeMap<String, (Fence, CapacityDoc)>,
    traffic: BTreeMap<String, (Fence, TrafficDoc)>,
    queue: Vec<Sending>,
    events: usize,
}

fn shop() -> Shop {
    let forever = Step::Pause { duration_ms: None };
    let steps = (1..36).flat_map(|n| [weight(n * 2), forever.clone()]).collect();
    Shop { steps, instances: 1, bake_ms: 1_000, scale_down_delay_ms: 0, ..Shop::default() }
}

impl Platform {
    fn new(journal: MemoryJournal, now: u64) -> Result<Self, Fatal> {
        let (engine, outputs) = Engine::recover(journal, registry(), Epoch(0))?;
        let engine = engine.with_watch_changes_only();
        let mut platform = Self {
            engine,
            now,
            capacity: BTreeMap::new(),
            traffic: BTreeMap::new(),
            queue: Vec::new(),
            events: 0,
        };
        platform.take(outputs);
        Ok(platform)
    }

    fn take(&mut self, outputs: Outputs) {
        self.queue.retain(|sending| !outputs.forget.contains(&sending.id));
        self.queue.extend(outputs.send);
        self.events += outputs.events.len();
    }

    fn step(&mut self, inputs: Vec<Input>) -> Result<(), Fatal> {
        let outputs = self.engine.step(Timestamp(self.now), inputs)?;
        self.take(outputs);
        Ok(())
    }

    fn ask(&mut self, stream: StreamId, input: serde_json::Value) -> Result<(), Fatal> {
        self.step(vec![Input::Ask(Request { token: 0, stream, input, if_revision: None })])?;
        self.settle()
    }

    fn settle(&mut self) -> Result<(), Fatal> {
        while !self.queue.is_empty() {
            let sending = self.queue.remove(0);
            let lane = self.carry_out(&sending);
            let outcome = Outcome::Applied(json!({}));
            self.step(vec![Input::Answer { id: sending.id, outcome }])?;
            if let Some(lane) = lane {
                self.report(&lane)?;
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, sending: &Sending) -> Option<String> {
        let effect = &sending.effect;
        let fence = Fence { epoch: sending.epoch, seq: effect.seq };
        match effect.action.as_str() {
            "capacity" => {
                let doc: CapacityDoc = serde_json::from_value(effect.payload.clone()).ok()?;
                let lane = doc.lane.clone();
                self.capacity.insert(lane.clone(), (fence, doc));
                Some(lane)
            }
            "traffic" => {
                let doc: TrafficDoc = serde_json::from_value(effect.payload.clone()).ok()?;
                let lane = doc.lane.clone();
                self.traffic.insert(lane.clone(), (fence, doc));
                Some(lane)
            }
            _ => None,
        }
    }

    fn report(&mut self, lane: &str) -> Result<(), Fatal> {
        let inputs = self.reports(lane);
        self.step(inputs)
    }

    fn reports(&self, lane: &str) -> Vec<Input> {
        let mut inputs = Vec::new();
        if let Some((fence, doc)) = self.capacity.get(lane) {
            let versions = doc.versions.iter().map(|v| VersionObserved {
                version: v.version.clone(),
                digest: v.digest.clone(),
                wanted: v.instances,
                running: v.instances,
                ready: v.instances,
                ..VersionObserved::default()
            });
            inputs.push(Input::Capacity(
                TARGET.to_owned(),
                LaneCapacity {
                    lane: lane.to_owned(),
                    fence: Some(*fence),
                    versions: versions.collect(),
                    fallback_applied: None,
                },
            ));
        }
        if let Some((fence, doc)) = self.traffic.get(lane) {
            let versions = doc.weights.iter().map(|w| VersionTraffic {
                version: w.version.clone(),
                digest: w.digest.clone(),
                weight_bp: w.weight_bp,
                in_flight: 0,
                usable: 1,
            });
            inputs.push(Input::Traffic(
                TARGET.to_owned(),
                LaneTraffic {
                    lane: lane.to_owned(),
                    fence: Some(*fence),
                    versions: versions.collect(),
                },
            ));
        }
        inputs
    }

    fn tick(&mut self) -> Result<(), Fatal> {
        self.now += 1_000;
        self.step(vec![Input::Tick { awake_ms: 1_000 }])?;
        self.settle()
    }
}

fn service(number: usize) -> String {
    format!("web-{number}")
}

fn lane(number: usize) -> String {
    format!("{ENVIRONMENT}/{}", service(number))
}

fn rollout(number: usize) -> StreamId {
    StreamId::new(PROJECT, "rollout", &format!("{ENVIRONMENT}-{}-2", service(number)))
}

/// Puts `n` rollouts in progress and measures.
///
/// # Errors
/// If the engine ends, which would be a defect.
pub fn run(n: usize) -> Result<Figures, Fatal> {
    let before = resident();
    let shop = shop();
    let mut platform = Platform::new(MemoryJournal::new("h-1"), 1_700_000_000_000)?;
    for number in 0..n {
        let (stream, input) = shop.release(&service(number), "v1");
        platform.ask(stream, input)?;
    }
    for _ in 0..4 {
        platform.tick()?;
    }
    for number in 0..n {
        let (stream, input) = shop.release(&service(number), "v2");
        platform.ask(stream, input)?;
    }
    platform.tick()?;
    let grown = resident().saturating_sub(before);
    let event_us = promotions(&mut platform, n, 1, n.min(HOT))?;
    let spread_event_us = promotions(&mut platform, n, (n / TIMED).max(1), n)?;
    let report_us = reports(&mut platform, n)?;
    let samples_us = samples(&mut platform, n)?;
    let tick_us = ticks(&mut platform, n)?;
    // A second engine beside the first one: what it adds is its own, and a copy of the tables of
    // the journal, whose events the two share.
    let journal = platform.engine.journal().clone();
    let events = journal.last_seq()?;
    let (before, begun) = (resident(), Instant::now());
    let mut second = Platform::new(journal, platform.now)?;
    second.step(Vec::new())?;
    let recovery_ms = begun.elapsed().as_secs_f64() * 1_000.0;
    for number in 0..n {
        let lane = lane(number);
        second.capacity.extend(platform.capacity.remove_entry(&lane));
        second.traffic.extend(platform.traffic.remove_entry(&lane));
        second.report(&lane)?;
    }
    let engine_bytes = resident().saturating_sub(before);
    let each = |bytes: u64| bytes / n.max(1) as u64;
    Ok(Figures {
        rollouts: n,
        events,
        event_us,
        spread_event_us,
        tick_us,
        report_us,
        samples_us,
        resident_bytes: each(grown),
        engine_bytes: each(engine_bytes),
        recovery_ms,
    })
}

/// Every `stride`th of the first `among` rollouts is promoted by a step.
fn promotions(
    platform: &mut Platform,
    n: usize,
    stride: usize,
    among: usize,
) -> Result<f64, Fatal> {
    let mut times = Vec::new();
    for index in 0..TIMED {
        let number = (index * stride) % among.min(n).max(1);
        let (before, begun) = (platform.events, Instant::now());
        platform
            .ask(rollout(number), json!({ "promote": { "full": false, "principal": "ada" } }))?;
        let events = platform.events - before;
        if events > 0 {
            times.push(begun.elapsed().as_secs_f64() * 1e6 / events as f64);
        }
    }
    Ok(median(times))
}

fn reports(platform: &mut Platform, n: usize) -> Result<f64, Fatal> {
    let mut times = Vec::new();
    for index in 0..TIMED {
        let inputs = platform.reports(&lane(index * 7 % n.max(1)));
        let begun = Instant::now();
        platform.step(inputs)?;
        times.push(micros(begun.elapsed()));
    }
    Ok(median(times))
}

fn samples(platform: &mut Platform, n: usize) -> Result<f64, Fatal> {
    let mut times = Vec::new();
    for index in 0..TIMED {
        let number = index * 7 % n.max(1);
        let record = SecondRecord {
            switch_epoch: 1,
            seq: index as u64,
            second: platform.now / 1_000,
            lane: lane(number),
            version: "v2".to_owned(),
            digest: Digest::of(b"v2"),
            weight_bp: 500,
            n: 10,
            outcomes: Outcomes { ok: 10, ..Outcomes::default() },
            latency: vec![(3, 10)],
            retries: 0,
            client_gone: 0,
            cutover: 0,
            shadow: 0,
            forced: 0,
            in_flight: 0,
        };
        let begun = Instant::now();
        platform.step(vec![Input::Samples {
            stream: rollout(number),
            records: vec![record],
            segment: Digest::default(),
        }])?;
        times.push(micros(begun.elapsed()));
    }
    Ok(median(times))
}

fn ticks(platform: &mut Platform, n: usize) -> Result<f64, Fatal> {
    let mut times = Vec::new();
    for _ in 0..12 {
        let begun = Instant::now();
        platform.tick()?;
        times.push(micros(begun.elapsed()) / n.max(1) as f64);
    }
    Ok(median(times))
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(0.0)
}

/// Resident memory of this process in bytes; 0 where the system does not say.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1_024
}
