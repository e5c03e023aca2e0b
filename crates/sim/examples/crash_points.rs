//! Stops at every point of every scenario and says as JSON lines what was tried and found:
//! `cargo run --release -p tidegate-sim --example crash_points`. One line for each scenario, one
//! for each finding, and last the totals.
#![expect(clippy::print_stdout, reason = "a program for a terminal")]
#![expect(clippy::disallowed_methods, reason = "measures how long it takes")]

use std::process::ExitCode;
use std::time::Instant;

use serde_json::json;
use tidegate_sim::crash_points;

fn main() -> ExitCode {
    let begun = Instant::now();
    let scenarios = crash_points::scenarios();
    let (mut points, mut runs, mut findings) = (0, 0, 0);
    for scenario in &scenarios {
        let report = crash_points::run(scenario);
        points += report.points;
        runs += report.runs;
        findings += report.violations.len();
        for done in &report.per_scenario {
            let line = json!({
                "scenario": done.name, "points": done.points, "byKind": done.by_kind,
                "outcomes": done.outcomes, "findings": report.violations.len(),
            });
            println!("{line}");
        }
        for found in &report.violations {
            let line = json!({
                "scenario": found.scenario, "point": found.point, "finding": found.text,
            });
            println!("{line}");
        }
    }
    let totals = json!({
        "scenarios": scenarios.len(), "points": points, "runs": runs, "findings": findings,
        "seconds": begun.elapsed().as_secs_f64(),
    });
    println!("{totals}");
    if findings == 0 && points > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
