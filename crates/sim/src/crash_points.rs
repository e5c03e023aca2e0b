//! Every stop point of every scenario: the process is stopped there, another one takes over, and
//! the end has to be that of the undisturbed twin.

use std::collections::BTreeMap;

use tidegate_journal::memory::MemoryJournal;

use crate::check::{Checks, Violation};
use crate::disk::Disk;
use crate::ending::Ending;
use crate::sabotage::Sabotage;
use crate::script::{Script, When};
use crate::shop::{self, Shop};
use crate::sim::{Fork, Point, Sim};
use crate::world::Behaviour;

/// A scenario has to rest within this.
const LIMIT_MS: u64 = 180_000;

/// What was tried and what was found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Stop points.
    pub points: u64,
    /// Simulations, the undisturbed ones included.
    pub runs: u64,
    /// What did not hold.
    pub violations: Vec<Finding>,
    /// By scenario.
    pub per_scenario: Vec<ScenarioReport>,
}

/// One scenario.
#[derive(Debug, Clone, Default)]
pub struct ScenarioReport {
    /// Its name.
    pub name: String,
    /// Stop points.
    pub points: u64,
    /// Stop points of each kind.
    pub by_kind: BTreeMap<String, u64>,
    /// How its rollouts end, stopped or not.
    pub outcomes: Vec<String>,
}

/// Something that does not hold, and where the process was stopped.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The scenario.
    pub scenario: String,
    /// The stop point.
    pub point: String,
    /// What.
    pub text: String,
}

/// One scenario: what users do and what the versions are like.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// How its last rollout ends.
    pub outcome: &'static str,
    shop: Shop,
    /// Whether v1 runs before it begins.
    prepared: bool,
    script: Script,
    v2: Behaviour,
}

/// All scenarios. Each begins with v1 in force, but for the first.
#[must_use]
pub fn scenarios() -> Vec<Scenario> {
    let shop = Shop::default();
    let r2 = shop::rollout(2).id;
    let now = || When::At(0);
    let seen = |event| When::Seen(r2.clone(), event, 1);
    let release = |script: Script, version: &str| script.release(now(), &shop, version);
    let scenario = |name, outcome, script| Scenario {
        name,
        outcome,
        shop: shop.clone(),
        prepared: true,
        script,
        v2: Behaviour::default(),
    };
    let v2 = || release(Script::default(), "v2");
    let with_run =
        Shop { steps: vec![shop::run(), shop::weight(20), shop::pause(2)], ..Shop::default() };
    let forever = tidegate_core::spec::Step::Pause { duration_ms: None };
    let by_hand = Shop {
        steps: vec![shop::weight(10), forever.clone(), shop::weight(30), forever, shop::weight(60)],
        ..Shop::default()
    };
    let failing = Behaviour { errors: 500, ..Behaviour::default() };
    let unfit = Behaviour { check_ok: false, ..Behaviour::default() };
    let never = Behaviour { never_ready: true, ..Behaviour::default() };
    vec![
        Scenario {
            prepared: false,
            ..scenario("first release", "promoted", release(Script::default(), "v1"))
        },
        scenario("good canary", "promoted", v2()),
        Scenario { v2: failing, ..scenario("bad canary", "rolledBack", v2()) },
        scenario("abort", "rolledBack", v2().verb(seen("trafficObserved"), 2, "abort")),
        scenario("undo while baking", "rolledBack", v2().lane(seen("promoted"), "undo")),
        scenario("undo after the end", "promoted", v2().lane(seen("ended"), "undo")),
        scenario("supersede", "promoted", v2().release(seen("trafficObserved"), &shop, "v3")),
        Scenario {
            shop: with_run.clone(),
            script: Script::default().release(now(), &with_run, "v2"),
            ..scenario("run step", "promoted", Script::default())
        },
        Scenario {
            shop: by_hand.clone(),
            script: Script::default()
                .release(now(), &by_hand, "v2")
                .verb(seen("trafficObserved"), 2, "pause")
                .verb(seen("paused"), 2, "resume")
                .verb(seen("resumed"), 2, "promote")
                .verb(When::Seen(r2.clone(), "trafficObserved", 2), 2, "promote --full"),
            ..scenario("by hand", "promoted", Script::default())
        },
        Scenario {
            v2: unfit.clone(),
            ..scenario("retry", "rolledBack", v2().lane(seen("ended"), "retry"))
        },
        Scenario { v2: unfit, ..scenario("gate that fails", "rolledBack", v2()) },
        Scenario { v2: never, ..scenario("never ready", "rolledBack", v2()) },
    ]
}

impl Scenario {
    /// The simulation just before it begins.
    #[must_use]
    pub fn simulation(&self, sabotage: Sabotage) -> Sim {
        let disk = Disk::new(MemoryJournal::new("h-1"));
        let mut sim = Sim::new(1, sabotage, disk, Checks::new(), Script::default());
        sim.world.behaviours.insert("v2".to_owned(), self.v2.clone());
        if self.prepared {
            sim.script = Script::default().release(When::At(0), &self.shop, "v1");
            sim.run_to_rest(LIMIT_MS);
            sim = sim.fork(None);
        }
        sim.script.wishes.clone_from(&self.script.wishes);
        sim
    }
}

/// Tries every stop point of one scenario.
#[must_use]
pub fn run(scenario: &Scenario) -> Report {
    let mut twin = scenario.simulation(Sabotage::default());
    twin.forks = Some(Vec::new());
    let rested = twin.run_to_rest(LIMIT_MS);
    let forks = twin.forks.take().unwrap_or_default();
    let ending = Ending::of(&twin);
    let mut report = Report { runs: 1, ..Report::default() };
    let mut finding = |point: &str, text: String| {
        let (scenario, point) = (scenario.name.to_owned(), point.to_owned());
        report.violations.push(Finding { scenario, point, text });
    };
    if !rested {
        finding("undisturbed", format!("does not rest: {ending:?}"));
    }
    let last = ending.rollouts.values().next_back().cloned();
    if last.as_deref() != Some(scenario.outcome) {
        finding("undisturbed", format!("does not end {}: {ending:?}", scenario.outcome));
    }
    for violation in &twin.checks.violations {
        finding("undisturbed", words(violation));
    }
    let mut by_kind: BTreeMap<String, u64> = BTreeMap::new();
    for fork in &forks {
        *by_kind.entry(kind(fork.point).to_owned()).or_default() += 1;
    }
    let points = forks.len() as u64;
    report.points = points;
    report.runs += points;
    report.violations.extend(run_forks(scenario.name, forks, &ending));
    report.per_scenario.push(ScenarioReport {
        name: scenario.name.to_owned(),
        points,
        by_kind,
        outcomes: ending.rollouts.into_values().collect(),
    });
    report
}

/// The same on all cores.
fn run_forks(scenario: &str, forks: Vec<Fork>, twin: &Ending) -> Vec<Finding> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let mut parts: Vec<Vec<Fork>> = (0..cores).map(|_| Vec::new()).collect();
    for (index, fork) in forks.into_iter().enumerate() {
        if let Some(part) = parts.get_mut(index % cores) {
            part.push(fork);
        }
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = parts
            .into_iter()
            .map(|part| {
                scope.spawn(move || {
                    let found = part.into_iter().flat_map(|fork| run_fork(scenario, fork, twin));
                    found.collect::<Vec<_>>()
                })
            })
            .collect();
        let gone = |_| {
            let text = "the simulation panicked".to_owned();
            let (scenario, point) = (scenario.to_owned(), "unknown".to_owned());
            vec![Finding { scenario, point, text }]
        };
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_else(gone)).collect()
    })
}

fn run_fork(scenario: &str, fork: Fork, twin: &Ending) -> Vec<Finding> {
    let Fork { point, what, mut sim } = fork;
    let finding = |text| Finding {
        scenario: scenario.to_owned(),
        point: format!("{}: {what}", kind(point)),
        text,
    };
    let mut found = Vec::new();
    let rested = sim.run_to_rest(LIMIT_MS);
    let ending = Ending::of(&sim);
    if !rested {
        found.push(finding(format!("does not rest: {ending:?}")));
    } else if ending != *twin {
        found.push(finding(format!("ends as {ending:?}, its twin as {twin:?}")));
    }
    found.extend(sim.checks.violations.iter().map(|v| finding(words(v))));
    found
}

fn words(violation: &Violation) -> String {
    format!("{} at {} ms: {}", violation.invariant, violation.at, violation.text)
}

/// A point's kind in words.
#[must_use]
pub fn kind(point: Point) -> &'static str {
    match point {
        Point::BeforeDurable => "before durable",
        Point::AfterDurable => "after durable",
        Point::BeforeSend => "before send",
        Point::SentNotApplied => "sent, not applied",
        Point::AppliedNotAnswered => "applied, not answered",
        Point::AnsweredNotRecorded => "answered, not recorded",
    }
}

/// All scenarios, all stop points.
#[must_use]
pub fn run_all() -> Report {
    let mut all = Report::default();
    for scenario in scenarios() {
        let report = run(&scenario);
        all.points += report.points;
        all.runs += report.runs;
        all.violations.extend(report.violations);
        all.per_scenario.extend(report.per_scenario);
    }
    all
}
