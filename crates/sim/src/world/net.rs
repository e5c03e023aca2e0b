//! The network between processes and targets: loses, delays, doubles and reorders.

use tidegate_core::capacity::{CapacityDoc, LaneCapacity};
use tidegate_core::traffic::{LaneTraffic, TrafficDoc};

use crate::dice::Dice;

/// What a process sends.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Which process.
    pub process: u64,
    /// Its epoch.
    pub epoch: u64,
    /// The effect (an outbox row); 0 for what is no effect.
    pub effect: u64,
    /// Which attempt of it.
    pub attempt: u32,
    /// What.
    pub body: Body,
}

/// What is asked of a target.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// To both: a new owner.
    Claim,
    /// To the host: the engine lives, and whether work is open.
    Contact(bool),
    /// To the host.
    Stage(tidegate_core::Digest),
    /// To the host: the sequence and the document.
    Capacity(u64, Box<CapacityDoc>),
    /// To the switch: the sequence and the document.
    Traffic(u64, Box<TrafficDoc>),
    /// To the host: a command with this version's files.
    Run(String),
    /// To whatever is checked, about this version.
    Check(String),
}

/// What comes back.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// It is in force, or it has succeeded.
    Done,
    /// It was carried out and failed.
    Failed(String),
    /// Overtaken, or a wrong document.
    Refused(String),
    /// It may have happened.
    Unknown(String),
    /// It could not be asked.
    Error(String),
    /// Too old; which epoch to pass.
    Superseded(u64),
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq)]
pub enum Dest {
    /// To a target.
    Target(Request),
    /// Back to a process: effect, attempt, answer.
    Process(u64, u64, u32, Reply),
    /// A report to a process, with the epoch that the target had accepted when it was read.
    Capacity(u64, u64, Box<LaneCapacity>),
    /// As [`Dest::Capacity`], of the switch.
    Traffic(u64, u64, Box<LaneTraffic>),
}

/// Something under way.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// When it arrives.
    pub at: u64,
    /// Breaks ties.
    pub number: u64,
    /// Where.
    pub dest: Dest,
}

/// How bad the network is, per million messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Requests that never arrive.
    pub lost: u64,
    /// Requests that arrive twice.
    pub doubled: u64,
    /// Messages that take up to `delay_ms`.
    pub delayed: u64,
    /// The longest delay.
    pub delay_ms: u64,
    /// Answers that never arrive: it was carried out, and nobody is told.
    pub unanswered: u64,
}

/// Messages under way.
#[derive(Clone, Default)]
pub struct Net {
    under_way: Vec<Message>,
    numbers: u64,
}

impl Net {
    /// Sends at `now`; what becomes of it is up to the weather.
    pub fn send(&mut self, now: u64, dest: &Dest, weather: Weather, dice: &mut Dice) {
        let is_request = matches!(dest, Dest::Target(_));
        let is_report = matches!(dest, Dest::Capacity(..) | Dest::Traffic(..));
        let lost = match dest {
            Dest::Target(_) => weather.lost,
            Dest::Process(..) => weather.unanswered,
            Dest::Capacity(..) | Dest::Traffic(..) => 0,
        };
        if dice.happens(lost) {
            return;
        }
        let copies = if is_request && dice.happens(weather.doubled) { 2 } else { 1 };
        for _ in 0..copies {
            // Reports come over one connection that waits for news: in order, or not at all.
            let delayed = !is_report && dice.happens(weather.delayed);
            let delay = if delayed { dice.below(weather.delay_ms) } else { 0 };
            self.put(now + delay, dest.clone());
        }
    }

    /// Puts a message under way that arrives at a time.
    pub fn put(&mut self, at: u64, dest: Dest) {
        self.numbers += 1;
        self.under_way.push(Message { at, number: self.numbers, dest });
    }

    /// Takes what arrives by now, in order.
    pub fn arrived(&mut self, now: u64) -> Vec<Message> {
        if self.under_way.iter().all(|m| m.at > now) {
            return Vec::new();
        }
        let (mut here, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.under_way).into_iter().partition(|m| m.at <= now);
        self.under_way = rest;
        here.sort_by_key(|m| (m.at, m.number));
        here
    }

    /// Whether nothing is under way for any effect.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.under_way.iter().all(|message| match &message.dest {
            Dest::Target(request) => request.effect == 0,
            Dest::Process(_, effect, ..) => *effect == 0,
            Dest::Capacity(..) | Dest::Traffic(..) => true,
        })
    }
}
