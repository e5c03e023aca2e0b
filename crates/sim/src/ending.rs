//! Running a simulation until it rests, and how it ended.

use std::collections::BTreeMap;

use tidegate_journal::Reader;

use crate::fact::Fact;
use crate::shop;
use crate::sim::Sim;
use crate::world::SLOT_MS;

/// What is compared with the undisturbed twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// How each rollout ended, by its id.
    pub rollouts: BTreeMap<String, String>,
    /// The stable version.
    pub stable: Option<String>,
    /// Who has how much traffic.
    pub shares: BTreeMap<String, u32>,
    /// What runs.
    pub shape: BTreeMap<String, u32>,
    /// How often each one-shot was carried out, by stream and key.
    pub one_shots: BTreeMap<String, u32>,
    /// Rollouts that were held for a person at some time.
    pub held: u32,
}

impl Ending {
    /// How it is now.
    #[must_use]
    pub fn of(sim: &Sim) -> Self {
        let rows = sim.disk.views("rollout", false, usize::MAX).unwrap_or_default();
        let rollouts = rows
            .iter()
            .map(|row| {
                let outcome = row.view.doc["outcome"].as_str().unwrap_or("none").to_owned();
                (row.stream.id.clone(), outcome)
            })
            .collect();
        let lane = sim.disk.view(&shop::lane()).ok().flatten();
        let stable =
            lane.and_then(|row| row.view.doc["stable"]["version"].as_str().map(ToOwned::to_owned));
        let mut one_shots = BTreeMap::new();
        for (effect, times) in &sim.world.host.executed {
            if let Some(intent) = sim.disk.intent(*effect) {
                *one_shots.entry(format!("{} {}", intent.stream.id, intent.key)).or_default() +=
                    times;
            }
        }
        let held = sim.script.seen.iter().filter(|((_, event), _)| event == "held");
        Self {
            rollouts,
            stable,
            shares: sim.world.switch.shares(),
            shape: sim.world.host.shape(),
            one_shots,
            held: held.map(|(_, times)| times).sum(),
        }
    }
}

impl Sim {
    /// Whether users want nothing more and nothing is left to do.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.script.is_over()
            && self
                .owner()
                .is_some_and(|owner| owner.stopped_until <= self.world.now && !owner.is_open())
            && self.net.is_quiet()
    }

    /// How many rollouts have started as far as users know.
    #[must_use]
    pub fn started_rollouts(&self) -> u64 {
        let prefix = format!("{}-", shop::ENVIRONMENT);
        let is_start =
            |(stream, event): &&(String, String)| event == "started" && stream.starts_with(&prefix);
        self.script.seen.keys().filter(is_start).count() as u64
    }

    /// Lets time pass until everything rests; whether it did within so many milliseconds.
    pub fn run_to_rest(&mut self, limit_ms: u64) -> bool {
        let end = self.world.now + limit_ms;
        let mut quiet = 0;
        while self.world.now < end {
            self.slot();
            quiet = if self.is_at_rest() { quiet + 1 } else { 0 };
            if quiet > 500 / SLOT_MS {
                let fact = Fact::Rest(&self.disk);
                self.checks.tell(&fact, &self.world);
                return true;
            }
        }
        false
    }
}
