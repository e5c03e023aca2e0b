//! S27: the way back needs the journal, the targets and the old version, and nothing else.

use tidegate_sim::Sabotage;
use tidegate_sim::crash_points::scenarios;
use tidegate_sim::ending::Ending;

#[test]
fn an_abort_and_an_undo_end_all_old_with_checks_and_counts_dead() {
    let mut tried = 0;
    for scenario in scenarios() {
        if !["abort", "undo while baking", "undo after the end"].contains(&scenario.name) {
            continue;
        }
        tried += 1;
        let mut sim = scenario.simulation(Sabotage::default());
        // Until the first decision everything works; the way back begins in the dark.
        let decided = |sim: &tidegate_sim::Sim| {
            sim.script.wishes.iter().all(|wish| wish.done || wish.asked.is_some())
        };
        while !decided(&sim) && sim.world.now < 120_000 {
            sim.slot();
        }
        sim.world.checks_down = true;
        sim.world.counts_down = true;
        assert!(sim.run_to_rest(120_000), "{} does not rest", scenario.name);
        assert!(sim.checks.violations.is_empty(), "{:?}", sim.checks.violations);
        let ending = Ending::of(&sim);
        assert_eq!(ending.stable.as_deref(), Some("v1"), "{}: {ending:?}", scenario.name);
        assert_eq!(ending.held, 0);
    }
    assert_eq!(tried, 3);
}
