//! Every stop point of every scenario.
#![expect(clippy::print_stdout, reason = "says what was tried")]

use tidegate_sim::crash_points::{Report, run_all};

#[test]
fn wherever_the_process_is_stopped_the_end_is_that_of_the_undisturbed_twin() {
    let report = run_all();
    print(&report);
    assert!(report.points > 500, "only {} points", report.points);
    assert!(report.violations.is_empty(), "{} violations", report.violations.len());
}

fn print(report: &Report) {
    for scenario in &report.per_scenario {
        println!(
            "{:<20} {:>5} points, ends {:?} {:?}",
            scenario.name, scenario.points, scenario.outcomes, scenario.by_kind
        );
    }
    println!("{} points, {} runs", report.points, report.runs);
    for finding in report.violations.iter().take(20) {
        println!("{} / {}: {}", finding.scenario, finding.point, finding.text);
    }
}
