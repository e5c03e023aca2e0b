//! `crash-points`: in the simulator, the process is stopped at every journal write and at every
//! stage of every effect, of every scenario; another one takes over, and the end has to be that of
//! the undisturbed twin, with no invariant broken on the way.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::measured::{build, cargo, lines, number};
use super::{Bound, Context, Figures};

/// Every kind of point that there is; none may be left out.
const KINDS: [&str; 6] = [
    "before durable",
    "after durable",
    "before send",
    "sent, not applied",
    "applied, not answered",
    "answered, not recorded",
];

/// In CI it must not take longer.
const BOUND_S: f64 = 180.0;

pub(super) fn run(context: &Context, figures: &mut Figures) -> Result<()> {
    let program =
        ["--release", "--locked", "-q", "-p", "tidegate-sim", "--example", "crash_points"];
    build(&[&["build"], &program[..]].concat())?;
    let (said, _) = cargo(&[&["run"], &program[..]].concat())?;
    let said = lines(&said)?;
    for line in &said {
        context.note("points.jsonl", line)?;
    }
    report(&said, figures)
}

fn report(said: &[Value], figures: &mut Figures) -> Result<()> {
    let totals = said.last().context("the simulator said nothing")?;
    let (points, runs) = (number(totals, "points")?, number(totals, "runs")?);
    let scenarios = number(totals, "scenarios")?;
    let done: Vec<&Value> = said.iter().filter(|line| line["byKind"].is_object()).collect();
    let findings: Vec<&Value> = said.iter().filter(|line| line["finding"].is_string()).collect();
    let failed: std::collections::BTreeSet<(&str, &str)> = findings
        .iter()
        .map(|line| (line["scenario"].as_str().unwrap_or(""), line["point"].as_str().unwrap_or("")))
        .collect();
    let mut by_kind: BTreeMap<&str, f64> = BTreeMap::new();
    for kind in done.iter().filter_map(|line| line["byKind"].as_object()) {
        for (name, count) in kind {
            let known = KINDS.iter().find(|kind| *kind == name);
            let known = known.with_context(|| format!("{name} is no kind of point"))?;
            *by_kind.entry(known).or_default() += count.as_f64().unwrap_or(0.0);
        }
    }
    figures.add("scenarios played to their end", done.len() as f64, "", Bound::Exactly(scenarios));
    figures.at_least("scenarios", done.len(), 10);
    // Every run is stopped once, but for the undisturbed twin of each scenario.
    figures.add("points", points, "", Bound::AtLeast(500.0));
    figures.add("runs", runs, "", Bound::Exactly(points + scenarios));
    for kind in KINDS {
        let count = by_kind.get(kind).copied().unwrap_or(0.0);
        figures.add(&format!("points: {kind}"), count, "", Bound::AtLeast(1.0));
    }
    figures.add("points by kind", by_kind.values().sum(), "", Bound::Exactly(points));
    let good = (points - failed.len() as f64) / points * 100.0;
    figures.add("points that end as the undisturbed twin", good, "%", Bound::Exactly(100.0));
    figures.exactly("findings", findings.len(), 0);
    figures.add("took", number(totals, "seconds")?, "s", Bound::AtMost(BOUND_S));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Figures;
    use super::{KINDS, report};
    use serde_json::{Value, json};

    fn said(findings: u32) -> Vec<Value> {
        let by_kind: serde_json::Map<String, Value> =
            KINDS.iter().map(|kind| ((*kind).to_owned(), json!(10))).collect();
        let mut said: Vec<Value> = (0..10)
            .map(|n| json!({"scenario": n.to_string(), "points": 60, "byKind": by_kind}))
            .collect();
        for n in 0..findings {
            said.push(json!({"scenario": "3", "point": n.to_string(), "finding": "held"}));
        }
        said.push(json!({"scenarios": 10, "points": 600, "runs": 610, "seconds": 9.0}));
        said
    }

    fn holds(said: &[Value]) -> bool {
        let mut figures = Figures::default();
        report(said, &mut figures).unwrap();
        figures.hold()
    }

    #[test]
    fn one_finding_or_a_scenario_that_is_missing_is_enough() {
        assert!(holds(&said(0)));
        assert!(!holds(&said(1)));
        assert!(!holds(&said(0)[1..]));
        assert!(report(&[], &mut Figures::default()).is_err());
    }
}
