//! Checkers, one invariant a file. Each sees every fact at the moment at which it happens, with the
//! world as it is then.

mod durable;
mod effects;
mod fence_first;
mod floors;
mod fresh_data;
mod intent_first;
mod monotone;
mod names;
mod one_active;
mod one_terminal;
mod remove_last;
mod rest;
mod soak;
mod token_order;
mod truth;

use crate::fact::Fact;
use crate::world::World;

/// One invariant.
pub(crate) trait Check: Send {
    /// Its number in the reference.
    fn name(&self) -> &'static str;
    /// Sees a fact; says what is wrong, if something is.
    fn see(&mut self, fact: &Fact<'_>, world: &World) -> Result<(), String>;
    /// A copy, for a simulation that forks.
    fn copy(&self) -> Box<dyn Check>;
}

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub invariant: &'static str,
    /// When, in milliseconds since the simulation began.
    pub at: u64,
    /// What was seen.
    pub text: String,
}

/// All checkers, and what they have found.
pub struct Checks {
    all: Vec<Box<dyn Check>>,
    /// In the order in which they were found; at most a few.
    pub violations: Vec<Violation>,
    log: Option<Vec<String>>,
}

impl Clone for Checks {
    fn clone(&self) -> Self {
        Self {
            all: self.all.iter().map(|check| check.copy()).collect(),
            violations: self.violations.clone(),
            log: self.log.clone(),
        }
    }
}

impl Default for Checks {
    fn default() -> Self {
        Self::new()
    }
}

impl Checks {
    /// All of them.
    #[must_use]
    pub fn new() -> Self {
        Self {
            all: vec![
                Box::new(durable::Durable::default()),
                Box::new(token_order::TokenOrder),
                Box::new(fence_first::FenceFirst),
                Box::new(intent_first::IntentFirst),
                Box::new(effects::AtMostOnce),
                Box::new(truth::UnknownIsExplicit::default()),
                Box::new(floors::TrafficFloor::default()),
                Box::new(floors::CapacityFloor),
                Box::new(remove_last::RemoveLast),
                Box::new(monotone::Monotone::default()),
                Box::new(truth::CompleteMeansComplete::default()),
                Box::new(one_active::OneActive::default()),
                Box::new(one_terminal::OneTerminal::default()),
                Box::new(soak::Soak::default()),
                Box::new(fresh_data::FreshData::default()),
                Box::new(rest::AllOrNothing),
                Box::new(rest::NoZombies),
            ],
            violations: Vec::new(),
            log: None,
        }
    }

    /// With a log of everything that happens, for a person who looks for a cause.
    #[must_use]
    pub fn logged(mut self) -> Self {
        self.log = Some(Vec::new());
        self
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &[String] {
        self.log.as_deref().unwrap_or_default()
    }

    /// Adds a line to the log.
    pub fn note(&mut self, at: u64, line: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(format!("{at:>7} {}", line()));
        }
    }

    /// Tells everybody.
    pub fn tell(&mut self, fact: &Fact<'_>, world: &World) {
        if self.log.is_some() {
            let line = names::line(fact);
            if let Some(line) = line {
                self.note(world.now, || line);
            }
        }
        for check in &mut self.all {
            if let Err(text) = check.see(fact, world)
                && self.violations.len() < 10
            {
                let violation = Violation { invariant: check.name(), at: world.now, text };
                self.violations.push(violation);
            }
        }
    }

    /// Adds a finding of the simulation itself.
    pub fn violated(&mut self, invariant: &'static str, at: u64, text: String) {
        if self.violations.len() < 10 {
            self.violations.push(Violation { invariant, at, text });
        }
    }
}
