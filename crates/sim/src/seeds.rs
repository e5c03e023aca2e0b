//! Random faults from a seed. Phase 1: everything goes wrong, nothing may be wrong. Phase 2: nothing
//! goes wrong any more, everything has to come to rest.

use std::collections::BTreeMap;

use tidegate_core::spec::{IfEngineLost, LostAction, NoDataPolicy, Step};
use tidegate_journal::Reader;
use tidegate_journal::memory::{Fault, MemoryJournal};

use crate::check::{Checks, Violation};
use crate::dice::Dice;
use crate::disk::Disk;
use crate::process::End;
use crate::sabotage::Sabotage;
use crate::script::{Script, When};
use crate::shop::{self, Shop};
use crate::sim::Sim;
use crate::world::{Behaviour, Weather};

/// After the faults everything has to rest within this.
const REST_MS: u64 = 400_000;

/// What happened in one seed, by name: so that nobody thinks that a poor world proves anything.
pub type Probes = BTreeMap<String, u64>;

/// A seed that went wrong.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What did not hold, the first one first.
    pub violations: Vec<Violation>,
    /// The last lines of the log.
    pub log: Vec<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "seed {}:", self.seed)?;
        for violation in self.violations.iter().take(5) {
            writeln!(f, "  {} at {} ms: {}", violation.invariant, violation.at, violation.text)?;
        }
        write!(
            f,
            "  again: cargo run --release -p tidegate-sim --example seeds -- --count 1 --from {}",
            self.seed
        )
    }
}

/// How likely each fault is in a slot, per million.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    kill: u64,
    disk: u64,
    stop: u64,
    crash: u64,
    switch_restart: u64,
    host_restart: u64,
    down: u64,
    clock: u64,
    checks: u64,
    verb: u64,
    release: u64,
    dark: u64,
}

/// Plays a seed.
///
/// # Errors
/// What did not hold.
pub fn run(seed: u64) -> Result<Probes, Failure> {
    play(seed, Sabotage::default(), false)
}

/// Plays a seed with a rule switched off.
///
/// # Errors
/// What did not hold.
pub fn run_sabotaged(seed: u64, sabotage: Sabotage) -> Result<Probes, Failure> {
    play(seed, sabotage, false)
}

/// Plays a seed with a log of everything.
///
/// # Errors
/// What did not hold, and the log.
pub fn run_logged(seed: u64) -> Result<Probes, Failure> {
    play(seed, Sabotage::default(), true)
}

fn play(seed: u64, sabotage: Sabotage, logged: bool) -> Result<Probes, Failure> {
    let mut dice = Dice::new(seed);
    let shop = draw_shop(&mut dice);
    let faults = draw_faults(&mut dice);
    let checks = if logged { Checks::new().logged() } else { Checks::new() };
    let disk = Disk::new(MemoryJournal::new("h-1"));
    let script = Script::default().release(When::At(0), &shop, "v1");
    let mut sim = Sim::new(dice.below(u64::MAX), sabotage, disk, checks, script);
    // The first version goes out in fair weather in most seeds.
    if dice.below(5) > 0 {
        sim.run_to_rest(60_000);
    }
    for number in 2..20 {
        sim.world.behaviours.insert(format!("v{number}"), draw_behaviour(&mut dice));
    }
    sim.weather = draw_weather(&mut dice);
    let hasty = dice.below(3) == 0;
    let mut storm = Storm { dice, faults, shop, released: 1, hasty };
    let end = sim.world.now + storm.dice.between(20_000, 120_000);
    while sim.world.now < end && sim.checks.violations.is_empty() {
        storm.blow(&mut sim);
        sim.slot();
    }
    calm(&mut sim);
    if sim.checks.violations.is_empty() && !sim.run_to_rest(REST_MS) {
        let lane = sim.disk.view(&shop::lane()).ok().flatten();
        let open = sim.disk.views("rollout", true, 3).unwrap_or_default();
        let docs: Vec<String> =
            lane.iter().chain(&open).map(|row| row.view.doc.to_string()).collect();
        let text = format!("it does not rest: {}", docs.join(" "));
        sim.checks.violated("LV1 liveness", sim.world.now, text);
    }
    if sim.checks.violations.is_empty() {
        return Ok(probes(&sim));
    }
    let (violations, log) = (sim.checks.violations.clone(), sim.checks.log().to_vec());
    Err(Failure { seed, violations, log })
}

fn probes(sim: &Sim) -> Probes {
    let mut probes = Probes::new();
    for ((_, event), times) in &sim.script.seen {
        *probes.entry(event.clone()).or_default() += u64::from(*times);
    }
    for row in sim.disk.views("rollout", false, usize::MAX).unwrap_or_default() {
        let outcome = row.view.doc["outcome"].as_str().unwrap_or("none").to_owned();
        *probes.entry(format!("outcome {outcome}")).or_default() += 1;
        let kind = row.view.doc["kind"].as_str().unwrap_or("none").to_owned();
        *probes.entry(format!("kind {kind}, {outcome}")).or_default() += 1;
        let reason = row.view.doc["reason"]["code"].as_str().unwrap_or("none").to_owned();
        *probes.entry(format!("reason {reason}")).or_default() += 1;
    }
    for end in &sim.ends {
        let name = match end {
            End::Died(why) if why.contains("epoch") => "process fenced by the journal",
            End::Died(why) if why.contains("journal") => "process died of its disk",
            End::Died(_) => "process killed",
            End::Superseded(_) => "process fenced by a target",
        };
        *probes.entry(name.to_owned()).or_default() += 1;
    }
    probes
}

fn draw_shop(dice: &mut Dice) -> Shop {
    let mut steps: Vec<Step> = Vec::new();
    let mut weight = 0;
    for _ in 0..dice.between(0, 6) {
        match dice.below(4) {
            0 => steps.push(shop::pause(dice.between(1, 8))),
            1 => steps.push(shop::gate()),
            2 => steps.push(shop::run()),
            _ => {
                weight += u32::try_from(dice.between(5, 40)).unwrap_or(5);
                if weight < 100 {
                    steps.push(shop::weight(weight));
                }
            }
        }
    }
    let lost = |dice: &mut Dice| match dice.below(3) {
        0 => LostAction::Stay,
        _ => LostAction::Rollback,
    };
    let mut watching = Vec::new();
    for name in ["errors", "alive"] {
        if dice.below(3) > 0 {
            watching.push(name.to_owned());
        }
    }
    Shop {
        steps,
        watching,
        instances: u32::try_from(dice.between(1, 4)).unwrap_or(1),
        bake_ms: dice.below(8) * 1_000,
        scale_down_delay_ms: dice.below(3) * 1_000,
        progress_deadline_ms: dice.between(5, 25) * 1_000,
        grace_ms: dice.between(1, 5) * 1_000,
        lost: IfEngineLost {
            after_ms: dice.between(2, 30) * 1_000,
            canary: lost(dice),
            bake: lost(dice),
        },
        source_down: if dice.below(4) == 0 { NoDataPolicy::Fail } else { NoDataPolicy::Hold },
    }
}

fn draw_behaviour(dice: &mut Dice) -> Behaviour {
    let bad = dice.below(3) == 0;
    Behaviour {
        ready_after_ms: dice.between(0, 3_000),
        never_ready: dice.below(12) == 0,
        errors: if bad { u32::try_from(dice.between(20, 900)).unwrap_or(20) } else { 0 },
        errors_after_ms: if dice.below(2) == 0 { 0 } else { dice.between(0, 15_000) },
        request_ms: dice.between(50, 2_500),
        run_ok: dice.below(8) > 0,
        check_ok: dice.below(10) > 0,
    }
}

fn draw_weather(dice: &mut Dice) -> Weather {
    let some = |dice: &mut Dice, most: u64| if dice.below(3) == 0 { 0 } else { dice.below(most) };
    Weather {
        lost: some(dice, 300_000),
        doubled: some(dice, 500_000),
        delayed: some(dice, 500_000),
        delay_ms: dice.between(100, 10_000),
        unanswered: some(dice, 100_000),
    }
}

fn draw_faults(dice: &mut Dice) -> Faults {
    // Every seed has some of them only: otherwise nothing ever gets far.
    let some = |dice: &mut Dice, most: u64| if dice.below(2) == 0 { 0 } else { dice.below(most) };
    Faults {
        kill: some(dice, 20_000),
        disk: some(dice, 20_000),
        stop: some(dice, 8_000),
        crash: some(dice, 20_000),
        switch_restart: some(dice, 4_000),
        host_restart: some(dice, 4_000),
        down: some(dice, 8_000),
        clock: some(dice, 2_000),
        checks: some(dice, 20_000),
        verb: some(dice, 20_000),
        release: 2_000 + dice.below(20_000),
        dark: some(dice, 8_000),
    }
}

struct Storm {
    dice: Dice,
    faults: Faults,
    shop: Shop,
    released: u32,
    /// Releases while something else is under way.
    hasty: bool,
}

impl Storm {
    /// What goes wrong in this slot.
    fn blow(&mut self, sim: &mut Sim) {
        let Faults { kill, disk, stop, crash, down, clock, checks, .. } = self.faults;
        if self.dice.happens(kill) {
            sim.kill("killed");
        }
        if self.dice.happens(self.faults.dark) {
            // Nobody restarts it for a while: long enough for the host to act by itself.
            sim.kill("killed");
            sim.stay_down(self.dice.between(2_000, 60_000));
        }
        if self.dice.happens(disk) {
            let fault =
                if self.dice.below(2) == 0 { Fault::BeforeDurable } else { Fault::AfterDurable };
            sim.disk.fail_after(self.dice.below(3), fault);
        }
        if self.dice.happens(stop) {
            let (ms, succeed) = (self.dice.between(200, 40_000), self.dice.below(2) == 0);
            sim.stop_owner(ms, succeed);
        }
        if self.dice.happens(crash) {
            let ready: Vec<String> =
                sim.world.host.instances.iter().map(|i| i.version.clone()).collect();
            if let Some(version) = self.dice.one_of(&ready) {
                sim.world.crash_instance(version);
            }
        }
        if self.dice.happens(self.faults.switch_restart) {
            sim.world.switch.restart();
        }
        if self.dice.happens(self.faults.host_restart) {
            sim.world.restart_host();
        }
        if self.dice.happens(down) {
            let until = sim.world.now + self.dice.between(100, 15_000);
            if self.dice.below(2) == 0 {
                sim.world.host.down_until = until;
            } else {
                sim.world.switch.down_until = until;
            }
        }
        if self.dice.happens(clock) {
            sim.world.clock_ahead += self.dice.below(86_400_000);
        }
        if self.dice.happens(checks) {
            sim.world.checks_down = !sim.world.checks_down;
        }
        self.act(sim);
    }

    /// What users do in this slot.
    fn act(&mut self, sim: &mut Sim) {
        let now = When::At(sim.world.now);
        // Most users wait until nothing is under way; then they try again or bring the next one.
        let idle = sim.script.is_over() && sim.owner().is_some_and(|owner| !owner.is_open());
        if idle && !self.hasty && self.dice.happens(30_000) {
            sim.script = std::mem::take(&mut sim.script).lane(now.clone(), "retry");
            self.repair(sim);
        }
        let wants = if idle { 20_000 } else { 0 };
        let wants = if self.hasty { self.faults.release } else { wants };
        if self.dice.happens(wants) && self.released < 19 {
            self.released += 1;
            let version = format!("v{}", self.released);
            sim.script = std::mem::take(&mut sim.script).release(now.clone(), &self.shop, &version);
        }
        if self.dice.happens(self.faults.verb) {
            let number = sim.started_rollouts();
            let script = std::mem::take(&mut sim.script);
            sim.script = match self.dice.below(10) {
                0 => script.lane(now, "undo"),
                1 | 8 | 9 => script.lane(now, "retry"),
                2 => script.verb(now, number, "abort"),
                3 => script.verb(now, number, "pause"),
                4 | 5 => script.verb(now, number, "resume"),
                6 => script.verb(now, number, "promote"),
                _ => script.verb(now, number, "promote --full"),
            };
            self.repair(sim);
        }
    }

    /// Whoever tries again has repaired it, sometimes.
    fn repair(&mut self, sim: &mut Sim) {
        if self.dice.below(2) == 0 {
            for behaviour in sim.world.behaviours.values_mut() {
                behaviour.errors = 0;
            }
        }
    }
}

/// From now on nothing goes wrong any more, and people decide.
fn calm(sim: &mut Sim) {
    sim.weather = Weather::default();
    sim.disk.heal();
    let now = sim.world.now;
    sim.world.host.down_until = 0;
    sim.world.switch.down_until = 0;
    sim.world.checks_down = false;
    for process in &mut sim.processes {
        process.stopped_until = process.stopped_until.min(now);
    }
    // What was asked before may still be on its way, a pause as well.
    let last = sim.started_rollouts();
    for number in last.saturating_sub(1)..=last + 2 {
        let script = std::mem::take(&mut sim.script);
        sim.script = script.verb(When::At(now + 20_000), number, "resume");
    }
}
