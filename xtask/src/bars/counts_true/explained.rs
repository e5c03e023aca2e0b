//! Part 1: the sums explain every request that the client sent, whatever becomes of the instances.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;
use tidegate_core::counts::SecondRecord;
use tidegate_wire::switch::EndpointState;

use super::super::{Bound, Chance, Context, Figures};
use super::fates::{Breaker, FATES, Seen, Service, raw};
use super::rig::{HOST, Instance, Rig};
use crate::load::{Load, LoadOptions, LoadReport};
use crate::stage::wait_until;

/// Requests per second.
const RATE: f64 = 250.0;
/// How long the switch waits for a head in the two halves of the run; the client's patience lies
/// between: in one half it gets timeouts, in the other it goes away before there is an outcome.
const HEAD_MS: [u64; 2] = [150, 1_000];
const PATIENCE: Duration = Duration::from_millis(330);
/// Kinds of faults.
const FAULTS: u64 = 8;
/// Between two faults, at most.
const FAULT_MS: u64 = 400;

pub(super) fn run(context: &Context, figures: &mut Figures) -> Result<()> {
    let mut rig = Rig::start(&context.binaries, &context.folder.join("explained-switch.log"))?;
    let mut chaos = Chaos::new(context, &rig)?;
    chaos.tell(&mut rig)?;
    rig.weights(5_000, chaos.head_ms)?;
    let log = context.folder.join("explained.log");
    let load = Load::start(LoadOptions {
        rate: RATE,
        host: HOST.into(),
        connections: 64,
        timeout: PATIENCE,
        ..LoadOptions::new(rig.listen, &log)
    })?;
    // Rubbish, a name that is no route, and one that is too slow with its head.
    let to = rig.listen;
    let slow = std::thread::spawn(move || raw(to, b"GET / HTTP/1.1\r\nhost: "));
    let half = Duration::from_secs(context.count(45, 8).into());
    let mut others = 1;
    for head_ms in HEAD_MS {
        let start = Instant::now();
        chaos.all_break(&mut rig, head_ms)?;
        while start.elapsed() < half {
            let pause = Duration::from_millis(chaos.chance.below(FAULT_MS));
            let since = Instant::now();
            wait_until(Duration::from_secs(2), "the next fault", || {
                (since.elapsed() >= pause).then_some(())
            })?;
            chaos.fault(&mut rig, context)?;
            others += strangers(&rig, &mut chaos.chance, context)?;
        }
    }
    let report = load.stop()?;
    let answer = slow.join().ok().context("the slow client panicked")??;
    context.note("others.jsonl", &json!({"sent": "half a head", "answer": answer}))?;
    let records = rig.records()?;
    for record in &records {
        context.note("explained-records.jsonl", record)?;
    }
    let refused = rig.observe()?.refused;
    balance(&report, others, &records, refused, figures);
    chaos.account(context, &report, &records, figures)
}

/// Requests that are no version's; how many were sent.
fn strangers(rig: &Rig, chance: &mut Chance, context: &Context) -> Result<u64> {
    let sent: &[u8] = match chance.below(6) {
        0 => b"rubbish\r\n\r\n",
        1 => b"GET / HTTP/1.1\r\nhost: other.test\r\nconnection: close\r\n\r\n",
        2 => b"GET / HTTP/1.1\r\nhost: shop.test\r\nhost: other.test\r\nconnection: close\r\n\r\n",
        _ => return Ok(0),
    };
    let answer = raw(rig.listen, sent)?;
    let line = json!({"sent": String::from_utf8_lossy(sent), "answer": answer});
    context.note("others.jsonl", &line)?;
    Ok(1)
}

/// The balance itself.
fn balance(
    report: &LoadReport,
    others: u64,
    records: &[SecondRecord],
    refused: u64,
    figures: &mut Figures,
) {
    let sum = |of: fn(&SecondRecord) -> u32| records.iter().map(|r| f64::from(of(r))).sum::<f64>();
    let sent = report.lines.len() as f64 + others as f64;
    let (n, gone) = (sum(|r| r.n), sum(|r| r.client_gone));
    let (cutover, beside) = (sum(|r| r.cutover), sum(|r| r.shadow + r.forced));
    let explained = n + gone + cutover + beside + refused as f64;
    figures.note("1: requests sent by the numbering client", report.lines.len() as f64, "");
    figures.note("1: requests sent that are no version's", others as f64, "");
    figures.note("1: counted for a version (n)", n, "");
    figures.add("1: client_gone", gone, "", Bound::AtLeast(1.0));
    figures.add("1: cutover", cutover, "", Bound::AtLeast(1.0));
    figures.add("1: refused", refused as f64, "", Bound::Exactly(others as f64));
    for (name, of) in [
        ("status", (|r| r.outcomes.status) as fn(&SecondRecord) -> u32),
        ("connect", |r| r.outcomes.connect),
        ("timeout", |r| r.outcomes.timeout),
        ("protocol", |r| r.outcomes.protocol),
        ("broken", |r| r.outcomes.broken),
        ("retries", |r| r.retries),
    ] {
        // A run in which one of them never happened has shown nothing of it.
        figures.add(&format!("1: {name}"), sum(of), "", Bound::AtLeast(1.0));
    }
    figures.add("1: sent and not explained", sent - explained, "", Bound::Exactly(0.0));
    let parts = |r: &&SecondRecord| {
        let o = &r.outcomes;
        o.ok + o.status + o.connect + o.timeout + o.protocol != r.n
    };
    figures.exactly("1: records that do not add up", records.iter().filter(parts).count(), 0);
}

/// The instances and what is done to them.
struct Chaos {
    chance: Chance,
    services: Vec<(Instance, Service)>,
    breakers: Vec<(Instance, Breaker)>,
    /// Of those that were killed and started again.
    past: Vec<(u64, String, &'static str)>,
    folder: std::path::PathBuf,
    head_ms: u64,
    /// Kinds of faults that are still to come before any comes again.
    deck: Vec<u64>,
}

impl Chaos {
    fn new(context: &Context, rig: &Rig) -> Result<Self> {
        let instance = |name: String, version, address| Instance {
            name,
            generation: 1,
            version,
            address,
            state: EndpointState::Ready,
        };
        let (mut services, mut breakers) = (Vec::new(), Vec::new());
        for (name, version) in [("a", "v1"), ("b", "v1"), ("c", "v2"), ("d", "v2")] {
            let service = Service::start(&context.binaries, rig.folder(), name, version)?;
            services.push((instance(name.into(), version, service.address), service));
        }
        for fate in FATES {
            let breaker = Breaker::start(fate)?;
            let mut one = instance(format!("{fate:?}"), "v2", breaker.address);
            one.state = EndpointState::NotReady;
            breakers.push((one, breaker));
        }
        let chance = Chance::new(context.seed, 61);
        let folder = rig.folder().to_owned();
        let (past, head_ms) = (Vec::new(), HEAD_MS[0]);
        let deck = Vec::new();
        Ok(Self { chance, services, breakers, past, folder, head_ms, deck })
    }

    /// Every way to break is there at the beginning, whatever chance brings afterwards.
    fn all_break(&mut self, rig: &mut Rig, head_ms: u64) -> Result<()> {
        self.head_ms = head_ms;
        for (one, _) in &mut self.breakers {
            one.state = EndpointState::Ready;
        }
        rig.weights(5_000, head_ms)?;
        self.tell(rig)
    }

    fn tell(&self, rig: &mut Rig) -> Result<()> {
        let services = self.services.iter().map(|(one, _)| one);
        let all: Vec<Instance> =
            services.chain(self.breakers.iter().map(|(one, _)| one)).cloned().collect();
        rig.instances(&all)
    }

    /// One random fault.
    fn fault(&mut self, rig: &mut Rig, context: &Context) -> Result<()> {
        let which = usize::try_from(self.chance.below(4))?;
        if self.deck.is_empty() {
            self.deck.extend(0..FAULTS);
            self.chance.shuffle(&mut self.deck);
        }
        let what = self.deck.pop().unwrap_or(0);
        match what {
            0 => self.behave(which, r#"{"errors":0.4}"#)?,
            1 => self.behave(which, r#"{"cuts":0.3}"#)?,
            2 => self.behave(which, r#"{"latencyMs":100,"jitterMs":300}"#)?,
            3 => self.behave(which, r#"{"errors":0,"cuts":0,"latencyMs":0,"jitterMs":0}"#)?,
            4 => {
                let bp = [0, 1_000, 5_000, 9_000, 10_000];
                let at = usize::try_from(self.chance.below(5))?;
                rig.weights(bp.get(at).copied().unwrap_or(5_000), self.head_ms)?;
            }
            // Told to stop, and then dead with requests under way; the next one takes its place.
            5 => self.restart(which, rig, context, true)?,
            // Dead without a word.
            6 => self.restart(which, rig, context, false)?,
            _ => {
                let at = usize::try_from(self.chance.below(FATES.len() as u64))?;
                if let Some((one, _)) = self.breakers.get_mut(at) {
                    one.state = match one.state {
                        EndpointState::Ready => EndpointState::NotReady,
                        EndpointState::NotReady | EndpointState::Draining => EndpointState::Ready,
                    };
                }
                self.tell(rig)?;
            }
        }
        context.note(
            "faults.jsonl",
            &json!({"at": crate::stage::now_us(), "what": what, "which": which}),
        )
    }

    fn behave(&self, which: usize, change: &str) -> Result<()> {
        self.services.get(which).map_or(Ok(()), |(_, service)| service.behave(change))
    }

    fn restart(
        &mut self,
        which: usize,
        rig: &mut Rig,
        context: &Context,
        told: bool,
    ) -> Result<()> {
        let Some((one, service)) = self.services.get_mut(which) else { return Ok(()) };
        if told {
            // Slow, so that there is something under way when it dies.
            service.behave(r#"{"latencyMs":200,"errors":0,"cuts":0}"#)?;
            let since = Instant::now();
            wait_until(Duration::from_secs(1), "some requests are under way", || {
                (since.elapsed() >= Duration::from_millis(60)).then_some(())
            })?;
            one.state = EndpointState::Draining;
            self.tell(rig)?;
        }
        let Some((one, service)) = self.services.get_mut(which) else { return Ok(()) };
        service.kill();
        self.past.extend(service.seen()?.into_iter().map(|(n, how)| (n, how, one.version)));
        let (generation, version) = (one.generation + 1, one.version);
        let name = format!("{}{generation}", &one.name);
        let fresh = Service::start(&context.binaries, &self.folder, &name, version)?;
        let (name, address) = (one.name.clone(), fresh.address);
        let state = EndpointState::Ready;
        let ready = Instance { name, generation, version, address, state };
        if let Some(place) = self.services.get_mut(which) {
            *place = (ready, fresh);
        }
        self.tell(rig)
    }

    /// What the instances saw against what the client sent and the switch counted.
    fn account(
        &self,
        context: &Context,
        report: &LoadReport,
        records: &[SecondRecord],
        figures: &mut Figures,
    ) -> Result<()> {
        let mut reached = self.past.clone();
        for (one, service) in &self.services {
            reached.extend(service.seen()?.into_iter().map(|(n, how)| (n, how, one.version)));
        }
        let mut seen: Seen = BTreeMap::new();
        let mut by_version: BTreeSet<(u64, &str)> = BTreeSet::new();
        for (n, _, version) in &reached {
            *seen.entry(*n).or_default() += 1;
            by_version.insert((*n, version));
        }
        for (_, breaker) in &self.breakers {
            for (n, times) in breaker.seen() {
                *seen.entry(n).or_default() += times;
            }
        }
        for (n, times) in &seen {
            context.note("reached.jsonl", &json!({"n": n, "times": times}))?;
        }
        let sent = report.lines.len() as u64;
        figures.exactly(
            "1: reached an instance and never sent",
            seen.keys().filter(|n| **n >= sent).count(),
            0,
        );
        let posts = report.lines.iter().filter(|line| line.method == "POST");
        let twice = posts.filter(|line| seen.get(&line.n).is_some_and(|times| *times > 1)).count();
        figures.exactly("1: POSTs that reached instances twice", twice, 0);
        let named = |line: &&crate::load::Line| line.error.is_none() && line.version != "-";
        let answers = report.lines.iter().filter(named);
        let made_up = answers.filter(|line| !by_version.contains(&(line.n, line.version.as_str())));
        figures.exactly("1: answers of a version that never saw the request", made_up.count(), 0);
        // Each attempt that reached an instance is a request that is accounted for, or a retry.
        let attempts: u64 = seen.values().map(|times| u64::from(*times)).sum();
        let may: u64 = records
            .iter()
            .map(|r| u64::from(r.n) + u64::from(r.client_gone + r.cutover + r.retries))
            .sum();
        figures.note("1: attempts that reached an instance", attempts as f64, "");
        figures.exactly(
            "1: attempts that no count explains",
            usize::try_from(attempts.saturating_sub(may))?,
            0,
        );
        Ok(())
    }
}
