//! Many rollouts at once.

use tidegate_sim::many;

#[test]
fn a_rollout_costs_little_memory() {
    let figures = many::run(200).expect("no defect");
    assert!(figures.events > 200 * 30, "{figures:?}");
    assert!(figures.engine_bytes > 0 && figures.engine_bytes <= 20_000, "{figures:?}");
}
