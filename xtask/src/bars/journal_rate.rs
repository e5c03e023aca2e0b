//! `journal-rate`: how many events a second become durable through the running engine, beside a bare
//! loop over SQLite that is measured in turns with it; and the same for the journal alone.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::measured::{build, cargo, number};
use super::{Bound, Context, Figures};

/// Pairs of rounds that a median needs.
const PAIRS: f64 = 5.0;

pub(super) fn run(context: &Context, figures: &mut Figures) -> Result<()> {
    let engine = bench(context, "tidegate-engine", "engine_rate")?;
    let journal = bench(context, "tidegate-journal", "journal_rate")?;
    report(&engine, &journal, figures)
}

fn bench(context: &Context, package: &str, name: &str) -> Result<Value> {
    let program = ["bench", "--locked", "-q", "-p", package, "--bench", name];
    build(&[&program[..], &["--no-run"]].concat())?;
    let (said, ended) = cargo(&program)?;
    if !ended {
        bail!("{name} failed: {said}");
    }
    let said = serde_json::from_str(&said).with_context(|| format!("not JSON: {said}"))?;
    context.note(&format!("{name}.jsonl"), &said)?;
    Ok(said)
}

fn report(engine: &Value, journal: &Value, figures: &mut Figures) -> Result<()> {
    figures.add("waiters", number(engine, "waiters")?, "", Bound::Exactly(16.0));
    figures.add("bytes of a row", number(engine, "rowBytes")?, "", Bound::Exactly(300.0));
    figures.add("pairs of rounds", number(engine, "pairs")?, "", Bound::AtLeast(PAIRS));
    let rate = number(engine, "bare.eventsPerSecond")?;
    figures.note("bare loop, median", rate, "events/s");
    figures.note("bare loop, 99th percentile", number(engine, "bare.p99Micros")? / 1e3, "ms");
    let rate = number(engine, "engine.eventsPerSecond")?;
    figures.note("durable through the engine, median", rate, "events/s");
    let ratio = number(engine, "ratio")?;
    figures.add("engine by bare loop", ratio, "x", Bound::AtLeast(0.5));
    let slowest = number(engine, "engine.p99Micros")? / 1e3;
    figures.add("through the engine, 99th percentile", slowest, "ms", Bound::AtMost(20.0));
    figures.note("the journal alone by bare loop", number(journal, "ratio")?, "x");
    figures.note("the same, 1,000 in a commit", number(journal, "ratioBy1000")?, "x");
    figures.note("flush of the disk, median", number(journal, "flushMicros.median")? / 1e3, "ms");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Figures;
    use super::report;
    use serde_json::{Value, json};

    fn engine(ratio: f64, p99: f64) -> Value {
        json!({
            "waiters": 16, "rowBytes": 300, "pairs": 7, "ratio": ratio,
            "bare": {"eventsPerSecond": 9000.0, "p99Micros": 4000.0},
            "engine": {"eventsPerSecond": 6000.0, "p99Micros": p99},
        })
    }

    fn holds(engine: &Value) -> bool {
        let journal = json!({"ratio": 0.9, "ratioBy1000": 0.5, "flushMicros": {"median": 100.0}});
        let mut figures = Figures::default();
        report(engine, &journal, &mut figures).unwrap();
        figures.hold()
    }

    #[test]
    fn half_of_the_bare_loop_is_enough_and_less_is_not() {
        assert!(holds(&engine(0.5, 20_000.0)));
        assert!(!holds(&engine(0.49, 20_000.0)));
        assert!(!holds(&engine(0.9, 20_001.0)));
        assert!(report(&json!({}), &json!({}), &mut Figures::default()).is_err());
    }
}
