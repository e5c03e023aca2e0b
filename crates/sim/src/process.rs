//! The engine's process: the real engine with the real machines, and a small model of the shell
//! around it, by the same rules: first attempts in order for each stream and action, retries,
//! deadlines, forgetting, a claim before anything is read, the last reports read anew after a
//! start, samples fed again from their durable segment before anything new.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::counts::SecondRecord;
use tidegate_core::lane::LaneMachine;
use tidegate_core::machine::{EffectClass, Outcome};
use tidegate_core::release::ReleaseMachine;
use tidegate_core::rollout::RolloutMachine;
use tidegate_core::{Digest, Epoch, Reason, StreamId, Timestamp};
use tidegate_engine::effects::Sending;
use tidegate_engine::step::Fatal;
use tidegate_engine::{Engine, Input, Outputs, Registry};

use crate::disk::Disk;
use crate::sabotage::Sabotage;
use crate::world::{Body, Reply, Request};

/// An attempt without an answer is given up after this.
const ATTEMPT_MS: u64 = 1_500;
/// A one-shot's attempt stays open for longer.
const RUN_ATTEMPT_MS: u64 = 4_000;
const PAUSE_MIN_MS: u64 = 50;
const PAUSE_MAX_MS: u64 = 2_000;
/// How long a newer effect waits for the first attempt of an older one.
const ELDER_MAX_MS: u64 = 500;
const TICK_MS: u64 = 500;
/// A tick counts at most so much as observed.
pub(crate) const AWAKE_MAX_MS: u64 = 2_000;
const CLAIM_EVERY_MS: u64 = 500;
const CONTACT_EVERY_MS: u64 = 1_000;
const SILENT_AFTER_MS: u64 = 2_000;

/// All machines.
#[must_use]
pub fn registry() -> Registry {
    Registry::new().with::<LaneMachine>().with::<ReleaseMachine>().with::<RolloutMachine>()
}

/// Why a process is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The journal failed, or it was killed.
    Died(String),
    /// A target has seen a newer owner, or has shut this epoch.
    Superseded(u64),
}

/// One effect on its way.
#[derive(Debug, Clone)]
struct Task {
    sending: Sending,
    attempts: u32,
    next: u64,
    pause: u64,
    deadline: Option<u64>,
    sent: bool,
    /// The attempt under way is given up then.
    open_until: Option<u64>,
    elder: Option<(u64, u64)>,
}

/// What is known of one target.
#[derive(Debug, Clone, Default)]
pub struct Link {
    /// It has accepted this process's epoch.
    pub claimed: bool,
    /// When it was last asked to.
    asked: Option<u64>,
    /// The revision that was read last.
    pub revision: Option<u64>,
    /// When it last answered anything.
    heard: u64,
}

/// The process.
pub struct Process {
    /// Which one.
    pub number: u64,
    /// The engine itself.
    pub engine: Engine<Disk>,
    /// The owner's number.
    pub epoch: u64,
    /// The host, as seen from here.
    pub host: Link,
    /// The switch, as seen from here.
    pub switch: Link,
    /// It does nothing until then (SIGSTOP).
    pub stopped_until: u64,
    /// Since when it does nothing.
    pub stopped_at: u64,
    /// What it has been told and not worked on.
    pub inbox: Vec<Input>,
    /// Streams that want samples.
    pub watchers: BTreeSet<StreamId>,
    /// Position in the switch's records: life and sequence.
    pub cursor: (u64, u64),
    tasks: BTreeMap<u64, Task>,
    recovered: u64,
    open: bool,
    next_due: Option<Timestamp>,
    last_tick: Option<u64>,
    last_wall: u64,
    /// The engine's clock: the wall clock is read once, then only monotonic time counts.
    clock: (u64, u64),
    last_contact: Option<u64>,
    last_silence: u64,
    sabotage: Sabotage,
}

impl Process {
    /// Takes the journal over and recovers.
    ///
    /// # Errors
    /// What the engine says.
    pub fn start(
        number: u64,
        disk: Disk,
        at_least: u64,
        (now, wall): (u64, u64),
        sabotage: Sabotage,
    ) -> Result<(Self, Outputs), Fatal> {
        let last_wall = tidegate_journal::Reader::last_at(&disk)?.0;
        let (engine, mut outputs) = Engine::recover(disk, registry(), Epoch(at_least))?;
        let epoch = engine.epoch().0;
        let recovered = outputs.send.iter().map(|s| s.id).max().unwrap_or(0);
        let mut process = Self {
            number,
            engine,
            epoch,
            host: Link { heard: now, ..Link::default() },
            switch: Link { heard: now, ..Link::default() },
            stopped_until: 0,
            stopped_at: 0,
            inbox: Vec::new(),
            watchers: BTreeSet::new(),
            cursor: (0, 0),
            tasks: BTreeMap::new(),
            recovered,
            open: false,
            next_due: None,
            last_tick: None,
            last_wall,
            clock: (wall.max(last_wall), now),
            last_contact: None,
            last_silence: now,
            sabotage,
        };
        if sabotage.pending_is_forgotten {
            outputs.send.clear();
        }
        process.take(&mut outputs, now);
        Ok((process, outputs))
    }

    fn engine_time(&self, now: u64) -> u64 {
        self.clock.0 + (now - self.clock.1)
    }

    /// Works on what it has been told. Outputs are durable.
    ///
    /// # Errors
    /// The process has to end.
    pub fn step(&mut self, now: u64) -> Result<Outputs, Fatal> {
        let inputs = std::mem::take(&mut self.inbox);
        let time = Timestamp(self.engine_time(now));
        let mut outputs = self.engine.step(time, inputs)?;
        self.take(&mut outputs, now);
        Ok(outputs)
    }

    fn take(&mut self, outputs: &mut Outputs, now: u64) {
        for sending in &outputs.send {
            self.add(sending.clone(), now);
        }
        for id in &outputs.forget {
            self.tasks.remove(id);
        }
        if let Some(watches) = &outputs.watches {
            let wanted = watches.iter().filter(|(watch, _)| watch.samples);
            self.watchers = wanted.flat_map(|(_, streams)| streams.iter().cloned()).collect();
        }
        self.open = outputs.open;
        self.next_due = outputs.next_due;
    }

    fn add(&mut self, sending: Sending, now: u64) {
        let effect = &sending.effect;
        let elder = (effect.class == EffectClass::StateSetting)
            .then(|| {
                self.tasks
                    .values()
                    .filter(|t| {
                        t.sending.stream == sending.stream
                            && t.sending.effect.action == effect.action
                            && t.attempts == 0
                            && t.sending.id < sending.id
                    })
                    .map(|t| t.sending.id)
                    .max()
            })
            .flatten()
            .map(|id| (id, now + ELDER_MAX_MS));
        let sent = sending.id <= self.recovered;
        let task = Task {
            sending,
            attempts: 0,
            next: now,
            pause: PAUSE_MIN_MS,
            deadline: None,
            sent,
            open_until: None,
            elder,
        };
        self.tasks.insert(task.sending.id, task);
    }

    /// Whether there is unfinished work.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open || !self.inbox.is_empty()
    }

    /// Ticks when it is time to.
    pub fn tick(&mut self, now: u64, wall: u64) {
        let regular =
            !self.watchers.is_empty() && self.last_tick.is_none_or(|last| now >= last + TICK_MS);
        let due = self.next_due.is_some_and(|due| due.0 <= self.engine_time(now));
        if !regular && !due {
            return;
        }
        let awake = self.last_tick.map_or(0, |last| now - last).min(AWAKE_MAX_MS);
        let awake_ms =
            if self.sabotage.wall_clock_soak { wall.saturating_sub(self.last_wall) } else { awake };
        self.last_tick = Some(now);
        self.last_wall = wall;
        if self.sabotage.wall_clock_soak {
            // Another tick first, so that the first one of a process counts as well.
            self.inbox.push(Input::Tick { awake_ms: 0 });
        }
        self.inbox.push(Input::Tick { awake_ms });
    }

    /// What it sends by itself: claims, contact, silences that it tells its engine.
    pub fn keep_up(&mut self, now: u64) -> Vec<Request> {
        let mut requests = Vec::new();
        let (number, epoch) = (self.number, self.epoch);
        let request = |attempt, body| Request { process: number, epoch, effect: 0, attempt, body };
        for (attempt, link) in [(1, &mut self.host), (2, &mut self.switch)] {
            if !link.claimed && link.asked.is_none_or(|at| now >= at + CLAIM_EVERY_MS) {
                link.asked = Some(now);
                requests.push(request(attempt, Body::Claim));
            }
        }
        if self.last_contact.is_none_or(|at| now >= at + CONTACT_EVERY_MS) && self.host.claimed {
            self.last_contact = Some(now);
            requests.push(request(3, Body::Contact(self.is_open())));
        }
        let silent = now.saturating_sub(self.host.heard.min(self.switch.heard));
        if silent >= SILENT_AFTER_MS
            && now >= self.last_silence + 1_000
            && !self.watchers.is_empty()
        {
            self.last_silence = now;
            let why = "no answer".to_owned();
            self.inbox.push(Input::Silence(crate::shop::TARGET.to_owned(), silent, why));
        }
        requests
    }

    /// A target has answered something.
    pub fn heard(&mut self, host: bool, now: u64) {
        let link = if host { &mut self.host } else { &mut self.switch };
        link.heard = link.heard.max(now);
    }

    /// The attempts that begin now.
    pub fn attempts(&mut self, now: u64) -> Vec<Request> {
        let untried: BTreeSet<u64> =
            self.tasks.values().filter(|t| t.attempts == 0).map(|t| t.sending.id).collect();
        let mut requests = Vec::new();
        let mut late = Vec::new();
        for (id, task) in &mut self.tasks {
            if task.open_until.is_some_and(|until| now >= until) {
                if self.sabotage.unknown_is_failed
                    && task.sending.effect.class == EffectClass::OneShot
                {
                    late.push(*id);
                    continue;
                }
                task.open_until = None;
                task.next = now + task.pause;
                task.pause = (task.pause * 2).min(PAUSE_MAX_MS);
            }
            if task.deadline.is_some_and(|deadline| now >= deadline) {
                late.push(*id);
                continue;
            }
            let waits = task.elder.is_some_and(|(elder, until)| {
                task.attempts == 0 && now < until && untried.contains(&elder)
            });
            if task.open_until.is_some() || now < task.next || waits {
                continue;
            }
            let claimed = match task.sending.effect.action.as_str() {
                "traffic" => self.switch.claimed,
                "check" => true,
                _ => self.host.claimed,
            };
            if !claimed {
                continue;
            }
            task.deadline.get_or_insert(now + task.sending.effect.deadline_ms);
            let Some(body) = body(&task.sending) else { continue };
            task.attempts += 1;
            task.sent = true;
            let open = if matches!(body, Body::Run(_)) { RUN_ATTEMPT_MS } else { ATTEMPT_MS };
            task.open_until = Some(now + open);
            requests.push(Request {
                process: self.number,
                epoch: self.epoch,
                effect: *id,
                attempt: task.attempts,
                body,
            });
        }
        for id in late {
            self.give_up(id);
        }
        if self.sabotage.sent_is_done {
            for request in &requests {
                self.decide(request.effect, Outcome::Applied(serde_json::json!({})));
            }
        }
        requests
    }

    /// What is being tried, for checkers.
    #[must_use]
    pub fn sending(&self, id: u64) -> Option<&Sending> {
        self.tasks.get(&id).map(|task| &task.sending)
    }

    fn give_up(&mut self, id: u64) {
        let Some(task) = self.tasks.get(&id) else { return };
        let reason = Reason::new("noAnswer", "no answer in time");
        let outcome = match task.sending.effect.class {
            EffectClass::OneShot if task.sent && !self.sabotage.unknown_is_failed => {
                Outcome::Unknown(reason)
            }
            EffectClass::OneShot if task.sent => Outcome::Failed(reason),
            EffectClass::OneShot | EffectClass::StateSetting | EffectClass::Read => {
                Outcome::Unreachable(reason)
            }
        };
        self.decide(id, outcome);
    }

    fn decide(&mut self, id: u64, outcome: Outcome) {
        if self.tasks.remove(&id).is_some() {
            self.inbox.push(Input::Answer { id, outcome });
        }
    }

    /// An answer comes in; `Some` if the process has to end.
    pub fn answered(&mut self, effect: u64, attempt: u32, reply: Reply) -> Option<End> {
        if let Reply::Superseded(epoch) = reply {
            return Some(End::Superseded(epoch));
        }
        if effect == 0 {
            match attempt {
                1 => self.host.claimed = true,
                2 => self.switch.claimed = true,
                _ => {}
            }
            return None;
        }
        // The answer to an attempt that was given up reaches nobody.
        let open = self
            .tasks
            .get(&effect)
            .is_some_and(|task| task.open_until.is_some() && task.attempts == attempt);
        if !open {
            return None;
        }
        let outcome = match reply {
            Reply::Done => Outcome::Applied(serde_json::json!({})),
            Reply::Failed(why) => Outcome::Failed(Reason::new("failed", why)),
            Reply::Refused(why) => Outcome::Refused(Reason::new("refused", why)),
            Reply::Unknown(why) => Outcome::Unknown(Reason::new("unknown", why)),
            Reply::Error(why) => Outcome::Unreachable(Reason::new("sourceDown", why)),
            Reply::Superseded(_) => return None,
        };
        self.decide(effect, outcome);
        None
    }

    /// New closed seconds, durable in the segments of those who watch.
    pub fn samples(&mut self, stream: StreamId, records: Vec<SecondRecord>, length: usize) {
        let segment = Digest::of(&length.to_be_bytes());
        self.inbox.push(Input::Samples { stream, records, segment });
    }
}

/// What a sending says to its target.
fn body(sending: &Sending) -> Option<Body> {
    let effect = &sending.effect;
    let text = |key: &str| effect.payload[key].as_str().unwrap_or_default().to_owned();
    match effect.action.as_str() {
        "stage" => Some(Body::Stage(text("digest").parse().ok()?)),
        "capacity" => {
            let doc = serde_json::from_value(effect.payload.clone()).ok()?;
            Some(Body::Capacity(effect.seq, Box::new(doc)))
        }
        "traffic" => {
            let doc = serde_json::from_value(effect.payload.clone()).ok()?;
            Some(Body::Traffic(effect.seq, Box::new(doc)))
        }
        "run" => Some(Body::Run(text("version"))),
        "check" => {
            // The simulated preview address ends with the version.
            let url = effect.payload["check"]["url"].as_str().unwrap_or_default();
            let version = url.rsplit('/').nth(1).unwrap_or_default();
            Some(Body::Check(version.to_owned()))
        }
        _ => None,
    }
}
