//! Random seeds, and rules switched off one at a time.

use tidegate_sim::sabotage::Sabotage;
use tidegate_sim::seeds;

/// Seeds played by every run of the tests.
const SMOKE: u64 = 200;
/// A broken rule has to be noticed within so many seeds.
const NOTICED_WITHIN: u64 = 200;
/// How often that is tried, from different seeds on.
const TRIES: u64 = 3;

#[test]
fn whatever_goes_wrong_nothing_is_wrong_and_everything_comes_to_rest() {
    let mut seen = seeds::Probes::new();
    let mut failures = Vec::new();
    for seed in 1..=SMOKE {
        match seeds::run(seed) {
            Ok(probes) => {
                for (name, times) in probes {
                    *seen.entry(name).or_default() += times;
                }
            }
            Err(failure) => failures.push(failure.to_string()),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    // Seeds in which nothing happens prove nothing.
    let wanted = [
        "outcome promoted",
        "outcome rolledBack",
        "outcome superseded",
        "fallbackApplied",
        "process fenced by a target",
        "process fenced by the journal",
        "process died of its disk",
        "undoRequested",
        "runEnded",
        "paused",
    ];
    for name in wanted {
        assert!(seen.contains_key(name), "in {SMOKE} seeds there was never: {name}");
    }
}

#[test]
fn a_seed_plays_the_same_every_time() {
    for seed in [3, 5, 8] {
        assert_eq!(seeds::run(seed).ok(), seeds::run(seed).ok());
    }
}

/// Seeds until the first one that fails, and what was noticed.
fn noticed(sabotage: Sabotage, from: u64) -> Option<(u64, &'static str)> {
    (0..NOTICED_WITHIN).find_map(|number| {
        let failure = seeds::run_sabotaged(from + number, sabotage).err()?;
        Some((number + 1, failure.violations.first()?.invariant))
    })
}

#[test]
fn every_broken_rule_is_noticed() {
    let rules = Sabotage::all();
    let lines: Vec<(bool, String)> = std::thread::scope(|scope| {
        let half = rules.len().div_ceil(2);
        let workers: Vec<_> = rules
            .chunks(half)
            .map(|part| scope.spawn(move || part.iter().map(try_rule).collect::<Vec<_>>()))
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect()
    });
    for (_, line) in &lines {
        println!("{line}");
    }
    let unnoticed: Vec<_> = lines.iter().filter(|(noticed, _)| !noticed).collect();
    assert!(unnoticed.is_empty(), "not noticed within {NOTICED_WITHIN} seeds: {unnoticed:?}");
}

/// Whether a broken rule is noticed from every start, and after how many seeds.
fn try_rule((name, sabotage): &(&str, Sabotage)) -> (bool, String) {
    let mut found: Vec<_> = (0..TRIES).filter_map(|n| noticed(*sabotage, n * 10_000 + 1)).collect();
    found.sort_unstable();
    let median = found.get(found.len() / 2).copied();
    (found.len() as u64 == TRIES, format!("{name:<32} median {median:?} of {found:?}"))
}
