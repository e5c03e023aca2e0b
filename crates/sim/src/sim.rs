//! The loop: slots of simulated time, messages, processes, users, faults, checkers.

use std::collections::BTreeMap;

use tidegate_core::counts::SecondRecord;
use tidegate_core::{Digest, Fence, StreamId, rollout};
use tidegate_engine::{Input, Outputs, Request as Question};
use tidegate_journal::{Envelope, Reader};

use crate::check::Checks;
use crate::dice::Dice;
use crate::disk::Disk;
use crate::fact::Fact;
use crate::process::{AWAKE_MAX_MS, End, Process};
use crate::sabotage::Sabotage;
use crate::script::Script;
use crate::shop::TARGET;
use crate::world::{Body, Dest, Message, Net, Refusal, Reply, Request, Weather, World};

/// A dead process is followed by another one after this.
const RESTART_MS: u64 = 500;
/// How long a one-shot takes.
const RUN_MS: u64 = 500;
/// How long a request may be under way that outlives its sender, at a stop point.
const STRAY_MS: u64 = 1_500;

/// Where a process can be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// Before a commit is durable.
    BeforeDurable,
    /// After a commit is durable, before anybody is told.
    AfterDurable,
    /// Before an effect is sent.
    BeforeSend,
    /// It is under way and arrives when another process drives.
    SentNotApplied,
    /// It has arrived; its answer gets lost.
    AppliedNotAnswered,
    /// The answer has arrived and is not recorded.
    AnsweredNotRecorded,
}

/// A simulation that stops there and goes on with another process.
pub struct Fork {
    /// Where.
    pub point: Point,
    /// What was being done.
    pub what: String,
    /// It.
    pub sim: Sim,
}

/// One simulation.
pub struct Sim {
    /// The ground truth.
    pub world: World,
    /// Messages under way.
    pub net: Net,
    /// The seed's decisions.
    pub dice: Dice,
    /// How bad the network is.
    pub weather: Weather,
    /// The journal.
    pub disk: Disk,
    /// Sample segments, durable.
    pub segments: BTreeMap<StreamId, Vec<SecondRecord>>,
    /// The processes; the last one is the owner, others are left over.
    pub processes: Vec<Process>,
    /// Users.
    pub script: Script,
    /// Checkers.
    pub checks: Checks,
    /// Stop points, when they are wanted.
    pub forks: Option<Vec<Fork>>,
    /// How processes ended.
    pub ends: Vec<End>,
    shown: u64,
    restart_at: Option<u64>,
    at_least: u64,
    started: u64,
}

impl Sim {
    /// A simulation that begins now.
    #[must_use]
    pub fn new(seed: u64, sabotage: Sabotage, disk: Disk, checks: Checks, script: Script) -> Self {
        Self {
            world: World::new(sabotage),
            net: Net::default(),
            dice: Dice::new(seed),
            weather: Weather::default(),
            disk,
            segments: BTreeMap::new(),
            processes: Vec::new(),
            script,
            checks,
            forks: None,
            ends: Vec::new(),
            shown: 0,
            restart_at: Some(0),
            at_least: 0,
            started: 0,
        }
    }

    /// The same without its processes, on a copy of the disk (as it was, if so wanted).
    #[must_use]
    pub fn fork(&self, disk: Option<&tidegate_journal::memory::MemoryJournal>) -> Self {
        Self {
            world: self.world.clone(),
            net: self.net.clone(),
            dice: self.dice.clone(),
            weather: self.weather,
            disk: self.disk.fork(disk),
            segments: self.segments.clone(),
            processes: Vec::new(),
            script: self.script.clone(),
            checks: self.checks.clone(),
            forks: None,
            ends: Vec::new(),
            shown: self.shown,
            restart_at: Some(self.world.now + RESTART_MS),
            at_least: self.at_least,
            started: self.started,
        }
    }

    /// The owner, if one runs.
    #[must_use]
    pub fn owner(&self) -> Option<&Process> {
        self.processes.last().filter(|_| self.restart_at.is_none())
    }

    /// One slot of time.
    pub fn slot(&mut self) {
        let fence = self.world.switch.lane.as_ref().map(|lane| lane.fence);
        let before = self.world.switch.lane.clone();
        self.world.pass();
        if self.world.switch.lane.as_ref().map(|lane| lane.fence) != fence
            && let Some(after) = self.world.switch.lane.clone()
        {
            let fact = Fact::Traffic {
                before: before.as_ref().map(|b| (b.fence, &b.doc)),
                after: (after.fence, &after.doc),
                by_host: true,
            };
            self.checks.tell(&fact, &self.world);
        }
        for message in self.net.arrived(self.world.now) {
            self.arrive(message);
        }
        self.restart();
        for index in 0..self.processes.len() {
            if self.processes.get(index).is_some_and(|p| p.stopped_until <= self.world.now) {
                self.drive(index);
            }
        }
        let now = self.world.now;
        // Whoever was told to make room drives on until its successor has taken the journal over.
        let epoch = self.disk.epoch().unwrap_or_default().0;
        let driving = self.processes.last().filter(|p| p.epoch == epoch).is_some_and(|p| {
            // A process that stood still counts a little of it when it wakes.
            let awake = p.stopped_until <= now || now < p.stopped_at + AWAKE_MAX_MS;
            awake && p.host.claimed && p.switch.claimed
        });
        self.checks.tell(&Fact::Slot { driving }, &self.world);
    }

    /// The owner dies here and now.
    pub fn kill(&mut self, why: &str) {
        if self.restart_at.is_none() && self.processes.pop().is_some() {
            self.ends.push(End::Died(why.to_owned()));
            self.restart_at = Some(self.world.now + RESTART_MS);
        }
    }

    /// The owner stands still for so long; a successor takes over at once if it is wanted.
    pub fn stop_owner(&mut self, for_ms: u64, succeed: bool) {
        if self.restart_at.is_some() {
            return;
        }
        if let Some(owner) = self.processes.last_mut() {
            owner.stopped_at = self.world.now;
            owner.stopped_until = self.world.now + for_ms;
        }
        if succeed {
            self.restart_at = Some(self.world.now + RESTART_MS);
        }
    }

    /// A dead owner is not followed by another one for so long.
    pub fn stay_down(&mut self, for_ms: u64) {
        if self.restart_at.is_some() {
            self.restart_at = Some(self.world.now + for_ms);
        }
    }

    fn restart(&mut self) {
        if self.restart_at.is_none_or(|at| at > self.world.now) {
            return;
        }
        self.started += 1;
        self.disk.note_pending();
        let sabotage = self.world.sabotage;
        let now = self.world.now;
        let disk = self.disk.clone();
        let clocks = (now, self.world.wall());
        match Process::start(self.started, disk, self.at_least, clocks, sabotage) {
            Ok((mut process, outputs)) => {
                self.restart_at = None;
                self.checks.tell(&Fact::Recovered(&self.disk), &self.world);
                for stream in process.watchers.clone() {
                    let Some(records) = self.segments.get(&stream) else { continue };
                    process.samples(stream, records.clone(), records.len());
                }
                self.processes.push(process);
                self.catch_up();
                self.publish(outputs);
                let index = self.processes.len() - 1;
                self.step(index);
            }
            Err(error) => {
                self.ends.push(End::Died(error.to_string()));
                self.restart_at = Some(now + RESTART_MS);
            }
        }
    }

    /// Users and checkers are shown what is durable and was not shown yet.
    fn catch_up(&mut self) {
        let events = self.disk.read_all(self.shown, usize::MAX).unwrap_or_default();
        for event in &events {
            self.show(event);
        }
    }

    fn show(&mut self, event: &Envelope) {
        if event.seq <= self.shown {
            return;
        }
        self.shown = event.seq;
        self.script.note(&event.stream.id, &event.event);
        let decoded: Option<rollout::Event> = (event.stream.kind == "rollout")
            .then(|| serde_json::from_str(&event.data).ok())
            .flatten();
        self.checks.tell(&Fact::Event(event, decoded.as_ref()), &self.world);
    }

    fn publish(&mut self, outputs: Outputs) {
        for event in &outputs.events {
            self.show(event);
        }
        for reply in outputs.replies {
            self.checks.tell(&Fact::Told { seq: reply.seq }, &self.world);
            self.script.answered(reply.token);
        }
        for line in outputs.dropped {
            if line.contains("still moving") {
                self.checks.violated("restless", self.world.now, line);
            }
        }
    }

    fn drive(&mut self, index: usize) {
        let (now, wall) = (self.world.now, self.world.wall());
        let Some(process) = self.processes.get_mut(index) else { return };
        process.tick(now, wall);
        let requests = process.keep_up(now);
        let number = process.number;
        let is_owner = self.restart_at.is_none() && index + 1 == self.processes.len();
        for request in requests {
            self.net.send(now, &Dest::Target(request), self.weather, &mut self.dice);
        }
        self.read_targets(index);
        if is_owner {
            for (token, stream, input) in self.script.due(now, number) {
                let question = Question { token, stream, input, if_revision: None };
                if let Some(process) = self.processes.get_mut(index) {
                    process.inbox.push(Input::Ask(question));
                }
            }
        }
        if self.processes.get(index).is_some_and(|p| !p.inbox.is_empty()) {
            self.step(index);
        }
        self.dispatch(index, is_owner);
    }

    fn read_targets(&mut self, index: usize) {
        let World { now, sabotage, .. } = self.world;
        let Some(process) = self.processes.get_mut(index) else { return };
        let blind = sabotage.read_before_claim;
        let number = process.number;
        let host_up = now >= self.world.host.down_until;
        let switch_up = now >= self.world.switch.down_until;
        let mut reports = Vec::new();
        if host_up && (process.host.claimed || blind) {
            process.heard(true, now);
            if process.host.revision != Some(self.world.host.revision) {
                process.host.revision = Some(self.world.host.revision);
                if let Some(report) = self.world.capacity_report() {
                    let epoch = self.world.host.gate.epoch;
                    reports.push(Dest::Capacity(number, epoch, Box::new(report)));
                }
            }
        }
        if switch_up && (process.switch.claimed || blind) {
            process.heard(false, now);
            if process.switch.revision != Some(self.world.switch.revision) {
                process.switch.revision = Some(self.world.switch.revision);
                if let Some(report) = self.world.traffic_report() {
                    let epoch = self.world.switch.gate.epoch;
                    reports.push(Dest::Traffic(number, epoch, Box::new(report)));
                }
                self.read_counts(index);
            }
        }
        for report in reports {
            self.net.send(now, &report, self.weather, &mut self.dice);
        }
    }

    /// Closed seconds become durable in the segments of those who watch, then they are told.
    fn read_counts(&mut self, index: usize) {
        if self.world.counts_down {
            return;
        }
        let Some(process) = self.processes.get_mut(index) else { return };
        let cursor = process.cursor;
        let records = &self.world.switch.records;
        let new: Vec<SecondRecord> = records
            .iter()
            .filter(|r| r.switch_epoch != cursor.0 || r.seq > cursor.1)
            .cloned()
            .collect();
        let Some(last) = new.last() else { return };
        process.cursor = (last.switch_epoch, last.seq);
        for stream in process.watchers.clone() {
            let segment = self.segments.entry(stream.clone()).or_default();
            let last = segment.last().map_or((0, 0), |r| (r.switch_epoch, r.seq));
            let unseen = |r: &&SecondRecord| (r.switch_epoch, r.seq) > last;
            let fresh: Vec<SecondRecord> = if self.world.sabotage.old_samples {
                // All that the switch still has, as if it had been counted just now.
                let second = self.world.wall() / 1000;
                records.iter().map(|r| SecondRecord { second, ..r.clone() }).collect()
            } else {
                new.iter().filter(unseen).cloned().collect()
            };
            segment.extend(fresh.iter().cloned());
            let length = segment.len();
            if !fresh.is_empty() {
                process.samples(stream, fresh, length);
            }
        }
    }

    fn step(&mut self, index: usize) {
        let now = self.world.now;
        let base = self.forks.is_some().then(|| {
            self.disk.record();
            self.fork(None)
        });
        let Some(process) = self.processes.get_mut(index) else { return };
        match process.step(now) {
            Ok(outputs) => {
                self.publish(outputs);
                if let Some(base) = base {
                    self.stops_at_commits(&base);
                }
            }
            Err(error) => {
                let number = process.number;
                if self.world.sabotage.visible_before_durable {
                    let seq = self.disk.last_seq().unwrap_or(0) + 1;
                    self.checks.tell(&Fact::Told { seq }, &self.world);
                }
                let is_owner = self.restart_at.is_none() && index + 1 == self.processes.len();
                self.ends.push(End::Died(error.to_string()));
                self.processes.retain(|p| p.number != number);
                if is_owner {
                    self.restart_at = Some(now + RESTART_MS);
                }
            }
        }
    }

    fn stops_at_commits(&mut self, base: &Self) {
        let recorded = self.disk.recorded();
        let after = recorded.iter().skip(1).cloned();
        let after: Vec<_> = after.chain(std::iter::once(self.disk.read(Clone::clone))).collect();
        let Some(forks) = &mut self.forks else { return };
        for (before, after) in recorded.iter().zip(&after) {
            let what = format!("commit {}", before.commits() + 1);
            for (point, journal) in [(Point::BeforeDurable, before), (Point::AfterDurable, after)] {
                forks.push(Fork { point, what: what.clone(), sim: base.fork(Some(journal)) });
            }
        }
    }

    fn stop(&mut self, point: Point, effect: u64, change: impl FnOnce(&mut Self)) {
        if self.forks.is_none() {
            return;
        }
        let Some(intent) = self.disk.intent(effect) else { return };
        let what = format!("{} of {}", intent.key, intent.stream);
        let mut sim = self.fork(None);
        change(&mut sim);
        if let Some(forks) = &mut self.forks {
            forks.push(Fork { point, what, sim });
        }
    }

    fn dispatch(&mut self, index: usize, is_owner: bool) {
        let now = self.world.now;
        let Some(process) = self.processes.get_mut(index) else { return };
        let requests = process.attempts(now);
        for request in requests {
            let effect = request.effect;
            let first = request.attempt == 1;
            if is_owner
                && let Some(sending) = self.processes.get(index).and_then(|p| p.sending(effect))
            {
                self.checks.tell(&Fact::Sent(sending), &self.world);
            }
            let stray = Dest::Target(request.clone());
            if first {
                self.stop(Point::BeforeSend, effect, |_| {});
                self.stop(Point::SentNotApplied, effect, |sim| {
                    sim.net.put(now + STRAY_MS, stray);
                });
            }
            self.net.send(now, &Dest::Target(request), self.weather, &mut self.dice);
        }
    }

    fn arrive(&mut self, message: Message) {
        match message.dest {
            Dest::Target(request) => self.at_target(request),
            Dest::Process(number, effect, attempt, reply) => {
                if attempt == 1 && effect != 0 {
                    self.stop(Point::AnsweredNotRecorded, effect, |_| {});
                }
                let Some(process) = self.processes.iter_mut().find(|p| p.number == number) else {
                    return;
                };
                if let Some(end) = process.answered(effect, attempt, reply) {
                    self.superseded(number, end);
                }
            }
            Dest::Capacity(number, accepted, report) => {
                self.tell_report(number, accepted, Input::Capacity(TARGET.to_owned(), *report));
            }
            Dest::Traffic(number, accepted, report) => {
                self.tell_report(number, accepted, Input::Traffic(TARGET.to_owned(), *report));
            }
        }
    }

    fn tell_report(&mut self, number: u64, accepted: u64, input: Input) {
        let Some(process) = self.processes.iter_mut().find(|p| p.number == number) else { return };
        let fact = Fact::Read { accepted, process: process.epoch };
        process.inbox.push(input);
        self.checks.tell(&fact, &self.world);
    }

    fn superseded(&mut self, number: u64, end: End) {
        let was_owner =
            self.restart_at.is_none() && self.processes.last().is_some_and(|p| p.number == number);
        if let End::Superseded(epoch) = end {
            self.at_least = self.at_least.max(epoch + 1);
        }
        self.ends.push(end);
        self.processes.retain(|p| p.number != number);
        if was_owner {
            self.restart_at = Some(self.world.now + RESTART_MS);
        }
    }

    fn at_target(&mut self, request: Request) {
        let now = self.world.now;
        let to_switch = matches!(request.body, Body::Traffic(..))
            || (matches!(request.body, Body::Claim) && request.attempt == 2);
        let to_check = matches!(request.body, Body::Check(_));
        let down =
            if to_switch { self.world.switch.down_until } else { self.world.host.down_until };
        if now < down && !to_check {
            return;
        }
        let (effect, attempt, process) = (request.effect, request.attempt, request.process);
        let lasts = if matches!(request.body, Body::Run(_)) { RUN_MS } else { 0 };
        let Some(reply) = self.carry_out(request) else { return };
        if attempt == 1 && effect != 0 {
            self.stop(Point::AppliedNotAnswered, effect, |_| {});
        }
        let dest = Dest::Process(process, effect, attempt, reply);
        self.net.send(now + lasts, &dest, self.weather, &mut self.dice);
    }

    fn carry_out(&mut self, request: Request) -> Option<Reply> {
        let Request { process: _, epoch, effect, attempt, body } = request;
        let fence = |seq| Fence { epoch: tidegate_core::Epoch(epoch), seq };
        let result = match body {
            Body::Claim if attempt == 2 => self.world.switch.gate.claim(epoch),
            Body::Claim => {
                let result = self.world.host.gate.claim(epoch);
                if result.is_ok() {
                    self.world.host.last_contact = self.world.now;
                }
                result
            }
            Body::Contact(open) => {
                if epoch == self.world.host.gate.epoch && epoch > self.world.host.gate.shut {
                    self.world.host.last_contact = self.world.now;
                    self.world.host.work_open = open;
                }
                return None;
            }
            Body::Stage(digest) => {
                self.arrived(effect, None);
                let result = self.world.host.gate.claim(epoch);
                if result.is_ok() {
                    self.world.host.staged.insert(digest);
                }
                result
            }
            Body::Capacity(seq, doc) => self.take_capacity(effect, fence(seq), *doc),
            Body::Traffic(seq, doc) => self.take_traffic(effect, fence(seq), *doc),
            Body::Run(version) => return self.run(epoch, effect, &version),
            Body::Check(version) => {
                let ok = self.world.behaviour(&version).check_ok;
                return Some(match (self.world.checks_down, ok) {
                    (true, _) => Reply::Error("connection refused".to_owned()),
                    (false, true) => Reply::Done,
                    (false, false) => Reply::Failed("500".to_owned()),
                });
            }
        };
        Some(match result {
            Ok(()) => Reply::Done,
            Err(Refusal::Superseded(epoch)) => Reply::Superseded(epoch),
            Err(Refusal::Stale) => Reply::Refused("overtaken".to_owned()),
            Err(Refusal::OtherDocument) => Reply::Refused("another document".to_owned()),
        })
    }

    fn arrived(&mut self, effect: u64, document: Option<(u64, &Digest)>) {
        let intent = self.disk.intent(effect);
        let fact = Fact::Arrived { effect, document, intent: intent.as_ref() };
        self.checks.tell(&fact, &self.world);
    }

    fn take_capacity(
        &mut self,
        effect: u64,
        fence: Fence,
        doc: tidegate_core::capacity::CapacityDoc,
    ) -> Result<(), Refusal> {
        let digest = digest(&doc);
        self.arrived(effect, Some((fence.seq, &digest)));
        let before = self.world.host.lane.clone();
        // Checkers see the moment before instances are touched.
        let moment = self.world.clone();
        if self.world.take_capacity(fence, doc)?
            && let Some(after) = self.world.host.lane.clone()
        {
            let fact = Fact::Capacity {
                before: before.as_ref().map(|b| (b.fence, &b.doc)),
                after: (after.fence, &after.doc),
            };
            self.checks.tell(&fact, &moment);
        }
        Ok(())
    }

    fn take_traffic(
        &mut self,
        effect: u64,
        fence: Fence,
        doc: tidegate_core::traffic::TrafficDoc,
    ) -> Result<(), Refusal> {
        let digest = digest(&doc);
        self.arrived(effect, Some((fence.seq, &digest)));
        let before = self.world.switch.lane.clone();
        if self.world.take_traffic(fence, doc)?
            && let Some(after) = self.world.switch.lane.clone()
        {
            let fact = Fact::Traffic {
                before: before.as_ref().map(|b| (b.fence, &b.doc)),
                after: (after.fence, &after.doc),
                by_host: false,
            };
            self.checks.tell(&fact, &self.world);
        }
        Ok(())
    }

    /// A one-shot: at most once by its effect, the same answer again.
    fn run(&mut self, epoch: u64, effect: u64, version: &str) -> Option<Reply> {
        self.arrived(effect, None);
        if let Err(Refusal::Superseded(epoch)) = self.world.host.gate.claim(epoch) {
            return Some(Reply::Superseded(epoch));
        }
        let known = self.world.host.runs.contains_key(&effect) && !self.world.sabotage.no_dedupe;
        if !known {
            let ok = self.world.behaviour(version).run_ok;
            self.world.host.run(effect, ok);
            let times = self.world.host.executed.get(&effect).copied().unwrap_or(0);
            let intent = self.disk.intent(effect);
            let fact = Fact::Executed { effect, times, ok, intent: intent.as_ref() };
            self.checks.tell(&fact, &self.world);
        }
        let run = self.world.host.runs.get(&effect)?;
        Some(match (run.lost, run.ok) {
            (true, _) => Reply::Unknown("the host went down while it ran".to_owned()),
            (false, true) => Reply::Done,
            (false, false) => Reply::Failed("exit status 1".to_owned()),
        })
    }
}

/// The digest of a document in the form in which it is intended: with its keys in order.
fn digest<T: serde::Serialize>(doc: &T) -> Digest {
    let value = serde_json::to_value(doc).unwrap_or_default();
    Digest::of_json(&value).unwrap_or_default()
}
