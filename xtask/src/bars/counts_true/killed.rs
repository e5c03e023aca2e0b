//! Part 5: switch, host and engine are killed with -9 in mid-canary. What is missing is a gap and
//! never a zero, and no record is there twice, least of all in a verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;
use tidegate_core::counts::SecondRecord;

use super::super::{Bound, Chance, Context, Figures, rounds};
use super::samples::{self, Samples};
use crate::load::LoadReport;
use crate::stage::{Project, Signal, Stage, kill, now_us, wait_until};

const RATE: f64 = 100.0;

/// Long enough for a kill and for what comes after it.
const CANARY: &str = "
      steps:
        - setWeight: 30
        - pause: { duration: 3s }
        - setWeight: 60
        - pause: { duration: 3s }
      analysis: [errors]
      scaleDownDelay: 0s";

/// Closed seconds that a killed switch takes with it at most, beside the one that it died in: what
/// the engine had not yet read.
const GAP_S: u64 = 2;

/// One canary.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Round {
    version: String,
    id: String,
    good: bool,
    target: &'static str,
    at_us: u64,
    right: bool,
    records: usize,
    twice: usize,
    holes: usize,
    zeros: usize,
    /// Lives of the switch whose counts cannot be those of the client's log.
    false_sums: usize,
    /// Seconds with requests that are in no record, and may not be missing.
    missing: Vec<u64>,
    /// Those that may: a killed switch took them along.
    gaps: Vec<u64>,
    verdict: Option<Verdict>,
}

/// What a deciding verdict says, and what its segment says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    requests: u64,
    errors: u64,
    from_segment: Option<(u64, u64)>,
}

impl Verdict {
    fn agrees(&self) -> bool {
        self.from_segment == Some((self.requests, self.errors))
    }
}

pub(super) fn run(context: &Context, figures: &mut Figures) -> Result<()> {
    let stage = Stage::keeping(&context.binaries, &context.folder)?;
    stage.write_project(&Project { canary: CANARY.into(), bake: "1s".into() })?;
    rounds::first(&stage, "v1")?;
    let log = context.folder.join("killed.log");
    let load = stage.load(RATE, &log)?;
    let mut chance = Chance::new(context.seed, 65);
    let (mut stable, mut played) = ("v1".to_owned(), Vec::new());
    for index in 0..context.count(5, 1) {
        for target in ["switch", "host", "engine"] {
            for good in [true, false] {
                // The short run has one bad canary, beside a killed engine.
                if context.short && !good && target != "engine" {
                    continue;
                }
                let version = format!("v{}", played.len() + 2);
                let (at_us, ended) = play(&stage, &version, good, target, index, &mut chance)?;
                let right = rounds::right(&ended, good, &version, &stable);
                stable.clone_from(&ended.stable);
                played.push((version, good, target, at_us, right, ended.id));
            }
        }
    }
    let report = load.stop()?;
    let mut rounds = Vec::new();
    for (version, good, target, at_us, right, id) in played {
        let samples = samples::read(&stage, &id)?;
        let mut round = Round {
            version,
            id,
            good,
            target,
            at_us,
            right,
            records: samples.records().count(),
            twice: 0,
            holes: 0,
            zeros: 0,
            false_sums: 0,
            missing: Vec::new(),
            gaps: Vec::new(),
            verdict: None,
        };
        round.inspect(&samples, &report);
        round.verdict = verdict(&stage, &round, &samples)?;
        for record in samples.records() {
            context.note("killed-records.jsonl", record)?;
        }
        context.note("killed-rounds.jsonl", &round)?;
        rounds.push(round);
    }
    report_on(&rounds, figures);
    Ok(())
}

fn play(
    stage: &Stage,
    version: &str,
    good: bool,
    target: &'static str,
    index: u32,
    chance: &mut Chance,
) -> Result<(u64, crate::stage::Ended)> {
    rounds::prepare(stage, version, good)?;
    rounds::accept(stage, version)?;
    wait_until(Duration::from_secs(30), "the canary has traffic", || {
        let rollout = stage.environment("production").ok()?["rollout"].clone();
        let shifted = rollout["weight"]["observed"].as_f64().is_some_and(|weight| weight > 0.0);
        (rollout["version"] == version && shifted).then_some(())
    })?;
    // A bad one is back within two seconds.
    let most = if good { 4_500 } else { 900 };
    let pause = chance.up_to(Duration::from_millis(most + u64::from(index)));
    let since = std::time::Instant::now();
    wait_until(pause + Duration::from_secs(1), "the moment of the kill", || {
        (since.elapsed() >= pause).then_some(())
    })?;
    let pid = stage.living(target, None)?;
    let at_us = now_us();
    kill(pid, Signal::KILL);
    let ended = stage.ended(version, rounds::ROUND_BOUND)?;
    if target != "engine" {
        stage.living(target, Some(pid))?;
    }
    Ok((at_us, ended))
}

impl Round {
    fn inspect(&mut self, samples: &Samples, report: &LoadReport) {
        let records: Vec<&SecondRecord> = samples.records().collect();
        let mut lives: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for record in &records {
            if !lives.entry(record.switch_epoch).or_default().insert(record.seq) {
                self.twice += 1;
            }
            let something = record.n
                + record.client_gone
                + record.cutover
                + record.retries
                + record.forced
                + record.outcomes.broken;
            self.zeros += usize::from(something == 0);
        }
        for seqs in lives.values() {
            let (first, last) = (seqs.first().unwrap_or(&0), seqs.last().unwrap_or(&0));
            // This lane is the only one at the switch, so every record is one of its own.
            self.holes += usize::try_from(last - first + 1).unwrap_or(0) - seqs.len();
        }
        for life in lives.keys() {
            let mine: Vec<&SecondRecord> =
                records.iter().copied().filter(|record| record.switch_epoch == *life).collect();
            self.false_sums += usize::from(!sums_fit(&mine, report));
        }
        self.find_gaps(&records, report);
    }

    /// Seconds in which a version surely had more outcomes, by the client's log, than records say.
    fn find_gaps(&mut self, records: &[&SecondRecord], report: &LoadReport) {
        let seconds = records.iter().map(|record| record.second);
        let (Some(first), Some(last)) = (seconds.clone().min(), seconds.max()) else { return };
        let mut counted: BTreeMap<(u64, &str), u64> = BTreeMap::new();
        for record in records {
            let key = (record.second, record.version.as_str());
            *counted.entry(key).or_default() += u64::from(record.n);
        }
        let killed_s = self.at_us / 1_000_000;
        // The first second may have begun before the rollout watched.
        for second in first + 1..=last {
            let enough = |(version, least): (&str, u64)| {
                counted.get(&(second, version)).copied().unwrap_or(0) >= least
            };
            if surely_in(report, second).into_iter().all(enough) {
                continue;
            }
            let may = self.target == "switch" && second <= killed_s && second + GAP_S >= killed_s;
            if may {
                self.gaps.push(second);
            } else {
                self.missing.push(second);
            }
        }
    }
}

/// By version, the requests whose outcome lies within this second for certain: sent and answered
/// in it.
fn surely_in(report: &LoadReport, second: u64) -> BTreeMap<&str, u64> {
    let (from_us, to_us) = (second * 1_000_000, (second + 1) * 1_000_000);
    let mut sure: BTreeMap<&str, u64> = BTreeMap::new();
    for line in &report.lines {
        let inside = line.sent_us >= from_us && line.answered_us < to_us;
        if inside && line.error.is_none() && line.version != "-" {
            *sure.entry(line.version.as_str()).or_default() += 1;
        }
    }
    sure
}

/// Whether the sum over all whole seconds of one life of the switch can be that of the client's
/// log: at least what was sent and answered in them, at most what touches them.
fn sums_fit(records: &[&SecondRecord], report: &LoadReport) -> bool {
    let seconds = records.iter().map(|record| record.second);
    let (Some(first), Some(last)) = (seconds.clone().min(), seconds.max()) else { return true };
    // The first second may have begun before the rollout watched, the last may have been cut off.
    if last < first + 2 {
        return true;
    }
    let (from, to) = (first + 1, last - 1);
    let counted: u64 = records
        .iter()
        .filter(|record| (from..=to).contains(&record.second))
        .map(|record| u64::from(record.n))
        .sum();
    let (from_us, to_us) = (from * 1_000_000, (to + 1) * 1_000_000);
    let answered = |line: &&crate::load::Line| line.error.is_none() && line.version != "-";
    let least = report.lines.iter().filter(answered);
    let least = least.filter(|line| line.sent_us >= from_us && line.answered_us < to_us).count();
    let most = report.window(from_us, to_us).lines.len();
    (least as u64..=most as u64).contains(&counted)
}

/// The verdict that decided the rollout, if one did.
fn verdict(stage: &Stage, round: &Round, samples: &Samples) -> Result<Option<Verdict>> {
    let ran = stage.tidegate(&["watch", &round.id, "-o", "jsonl", "--until", "ended"])?;
    for line in ran.stdout.lines().filter(|line| !line.trim().is_empty()) {
        let event: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let Some(evidence) = find(&event["data"], "evidence") else { continue };
        let Some(segment) = evidence["segment"].as_str() else { continue };
        let number = |name: &str| evidence["numbers"][name].as_u64().unwrap_or(0);
        let (from, to) = (number("from"), number("to"));
        let sum = |records: Vec<&SecondRecord>| {
            let unique: BTreeMap<(u64, u64), &SecondRecord> =
                records.iter().map(|r| ((r.switch_epoch, r.seq), *r)).collect();
            let judged = unique.values().filter(|record| {
                record.version == round.version && (from..=to).contains(&record.second)
            });
            judged.fold((0, 0), |(n, k), r| (n + u64::from(r.n), k + u64::from(r.errors())))
        };
        return Ok(Some(Verdict {
            requests: number("requests"),
            errors: number("errors"),
            from_segment: samples.up_to(segment).map(sum),
        }));
    }
    Ok(None)
}

/// The value of a key, however deep.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    if let Some(found) = value.get(key) {
        return Some(found);
    }
    match value {
        Value::Object(fields) => fields.values().find_map(|value| find(value, key)),
        Value::Array(values) => values.iter().find_map(|value| find(value, key)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn report_on(rounds: &[Round], figures: &mut Figures) {
    let total = |of: &dyn Fn(&Round) -> usize| rounds.iter().map(of).sum::<usize>();
    figures.exactly("5: canaries that end right", total(&|r| usize::from(r.right)), rounds.len());
    for target in ["switch", "host", "engine"] {
        let killed = total(&|round| usize::from(round.target == target));
        figures.at_least(&format!("5: kills of the {target}"), killed, 1);
    }
    figures.at_least("5: records", total(&|round| round.records), 10 * rounds.len());
    figures.exactly("5: records that are there twice", total(&|round| round.twice), 0);
    figures.exactly("5: holes in the numbers of one life", total(&|round| round.holes), 0);
    figures.exactly("5: records of nothing", total(&|round| round.zeros), 0);
    figures.exactly("5: sums that the client's log refutes", total(&|round| round.false_sums), 0);
    figures.exactly("5: seconds missing without a killed switch", total(&|r| r.missing.len()), 0);
    let gaps = total(&|round| round.gaps.len()) as f64;
    figures.note("5: gaps, seconds that a killed switch took along", gaps, "");
    let verdicts: Vec<&Verdict> = rounds.iter().filter_map(|r| r.verdict.as_ref()).collect();
    let bad = total(&|round| usize::from(!round.good));
    figures.add("5: deciding verdicts", verdicts.len() as f64, "", Bound::Exactly(bad as f64));
    let agree = verdicts.iter().filter(|verdict| verdict.agrees()).count();
    figures.exactly("5: verdicts whose numbers are their segment's", agree, verdicts.len());
}

#[cfg(test)]
mod tests {
    use super::{Round, find, sums_fit};
    use crate::load::{Line, LoadReport};
    use serde_json::json;
    use tidegate_core::counts::SecondRecord;

    fn record(second: u64, n: u32) -> SecondRecord {
        serde_json::from_value(json!({
            "switchEpoch": 1, "seq": second, "second": second, "lane": "l", "version": "v2",
            "digest": "sha256:00", "weightBp": 1, "n": n, "outcomes": {"ok": n}, "latency": [],
            "retries": 0, "clientGone": 0, "cutover": 0, "shadow": 0, "forced": 0, "inFlight": 0,
        }))
        .unwrap()
    }

    /// Ten requests in each of the seconds 10 to 19.
    fn report() -> LoadReport {
        let line = |n: u64| Line {
            n,
            sent_us: 10_000_000 + n * 100_000 + 1_000,
            answered_us: 10_000_000 + n * 100_000 + 2_000,
            status: 200,
            version: "v2".into(),
            method: "GET",
            error: None,
            due_us: 0,
        };
        LoadReport { lines: (0..100).map(line).collect() }
    }

    fn round(target: &'static str) -> Round {
        Round {
            version: "v2".into(),
            id: "r".into(),
            good: true,
            target,
            at_us: 14_500_000,
            right: true,
            records: 0,
            twice: 0,
            holes: 0,
            zeros: 0,
            false_sums: 0,
            missing: Vec::new(),
            gaps: Vec::new(),
            verdict: None,
        }
    }

    #[test]
    fn a_second_that_misses_something_is_a_gap_only_where_the_switch_died() {
        let records: Vec<SecondRecord> =
            (10..20).map(|second| record(second, if second == 14 { 9 } else { 10 })).collect();
        let records: Vec<&SecondRecord> = records.iter().collect();
        for (target, gaps, missing) in [("switch", vec![14], vec![]), ("host", vec![], vec![14])] {
            let mut round = round(target);
            round.find_gaps(&records, &report());
            assert_eq!((round.gaps, round.missing), (gaps, missing), "{target}");
        }
    }

    #[test]
    fn a_sum_with_a_record_too_many_or_too_few_is_refuted() {
        let all: Vec<SecondRecord> = (10..20).map(|second| record(second, 10)).collect();
        let whole: Vec<&SecondRecord> = all.iter().collect();
        assert!(sums_fit(&whole, &report()));
        let fewer: Vec<&SecondRecord> = all.iter().filter(|r| r.second != 15).collect();
        assert!(!sums_fit(&fewer, &report()));
        let mut more = whole.clone();
        more.push(&all[5]);
        assert!(!sums_fit(&more, &report()));
    }

    #[test]
    fn evidence_is_found_however_deep() {
        let event = json!({"verdict": {"evidence": {"segment": "s"}}});
        assert_eq!(find(&event, "evidence").unwrap()["segment"], "s");
        assert!(find(&json!([1, {"a": null}]), "evidence").is_none());
    }
}
