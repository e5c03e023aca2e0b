//! `walk-away`: the release is typed in a terminal; the terminal is closed, the client killed, and
//! later the engine killed as well, with nobody typing. The canary ends right all the same, and a
//! second terminal sees the whole of it, without a gap.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde_json::Value;

use super::rounds::{self, ROUND_BOUND};
use super::{Chance, Context, Figures};
use crate::load::LoadReport;
use crate::stage::{Background, Pid, Project, Signal, Stage, alive, kill, wait_until};

const RATE: f64 = 100.0;

/// One canary, one line of `rounds.jsonl`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Walked {
    version: String,
    good: bool,
    right: bool,
    outcome: String,
    /// The engine was killed while the rollout was in progress.
    killed_inside: bool,
    /// The client was killed with -9 in its terminal, before that was closed.
    client_killed: bool,
    /// The client ended with its terminal; nobody had to kill it.
    client_gone: bool,
    /// Whether somebody watched meanwhile, or only looked afterwards.
    watched: bool,
    /// Events that the second terminal saw of this rollout.
    events: usize,
    /// What is wrong with their numbers.
    gap: Option<String>,
    /// The second terminal saw the same rollout, and the same of it as one that looks later.
    same: bool,
}

pub(super) fn run(context: &Context, figures: &mut Figures) -> Result<()> {
    let stage = Stage::keeping(&context.binaries, &context.folder)?;
    stage.write_project(&Project::default())?;
    rounds::first(&stage, "v1")?;
    let load = stage.load(RATE, &context.folder.join("requests.log"))?;
    let before = rounds::settled(&stage);
    let mut chance = Chance::new(context.seed, 2);
    let (mut stable, mut walks, mut bad) = ("v1".to_owned(), Vec::<Walked>::new(), Vec::new());
    let wanted = usize::try_from(context.count(50, 6))?;
    for index in 0..2 * wanted {
        // Where the kill came too late, when the rollout was over, the round is played again.
        if walks.iter().filter(|walked| walked.killed_inside).count() >= wanted {
            break;
        }
        let good = index % 2 == 0;
        let version = format!("v{}", index + 2);
        let way = Way { watched: index % 4 < 2, client_killed: index % 8 >= 4 };
        let walked = walk(&stage, &version, &stable, good, way, &mut chance)?;
        context.note("rounds.jsonl", &walked)?;
        if !good {
            bad.push(version.clone());
        }
        stable = stage.ended(&version, Duration::ZERO)?.stable;
        walks.push(walked);
    }
    let after = rounds::settled(&stage);
    report_on(&walks, wanted, &bad, &load.stop()?, figures);
    context.note("processes.jsonl", &before)?;
    context.note("processes.jsonl", &after)?;
    rounds::compare(&before, &after, figures);
    Ok(())
}

/// How somebody walks away.
#[derive(Debug, Clone, Copy)]
struct Way {
    watched: bool,
    client_killed: bool,
}

fn walk(
    stage: &Stage,
    version: &str,
    before: &str,
    good: bool,
    way: Way,
    chance: &mut Chance,
) -> Result<Walked> {
    let Way { watched, client_killed } = way;
    rounds::prepare(stage, version, good)?;
    let mut terminal = Background::in_terminal(stage, &["release", version, "--to", "production"])?;
    let id = wait_until(Duration::from_secs(20), "the rollout is there", || {
        let rollout = stage.environment("production").ok()?["rollout"].clone();
        (rollout["version"] == version).then(|| rollout["id"].as_str().map(str::to_owned))?
    })?;
    let client = child_of(terminal.pid()).context("the terminal runs no client")?;
    let watch = ["watch", &id, "-o", "jsonl", "--until", "ended"];
    let second = if watched { Some(stage.background(&watch)?) } else { None };
    pass(chance.up_to(Duration::from_millis(500)))?;
    let client_killed = client_killed && kill(client, Signal::KILL);
    terminal.kill();
    let client_gone =
        wait_until(Duration::from_secs(2), "the client is gone", || (!alive(client)).then_some(()));
    kill(client, Signal::KILL);
    // A bad version is back after two seconds, a good one takes four.
    pass(chance.up_to(Duration::from_millis(if good { 2500 } else { 700 })))?;
    let killed_inside = stage.ended(version, Duration::ZERO).is_err()
        && stage.pid("engine").is_some_and(|pid| kill(pid, Signal::KILL));
    let ended = stage.ended(version, ROUND_BOUND)?;
    let again = events(&stage.tidegate(&watch)?.stdout)?;
    let (events, resumed) = match second {
        Some(second) => (events(&second.end(ROUND_BOUND)?.stdout)?, Vec::new()),
        None => (again.clone(), resumed(stage, &watch, &again)?),
    };
    let of_it = events.iter().filter(|event| {
        event["stream"].as_str().is_some_and(|stream| stream.ends_with(&format!("/rollout/{id}")))
    });
    let of_it = of_it.count();
    Ok(Walked {
        version: version.into(),
        good,
        right: rounds::right(&ended, good, version, before),
        outcome: ended.outcome,
        killed_inside,
        client_killed,
        client_gone: client_gone.is_ok() && !client_killed,
        watched,
        events: of_it,
        gap: gap(&events),
        same: of_it > 0 && ended.id == id && events == again && again.ends_with(&resumed),
    })
}

/// Lets a random time pass: the moment of a fault, not a wait for something.
fn pass(time: Duration) -> Result<()> {
    let start = std::time::Instant::now();
    wait_until(time + Duration::from_secs(1), "a moment", || {
        (start.elapsed() >= time).then_some(())
    })
}

/// What a terminal sees that comes back in the middle of a story: it has to be the rest of it.
fn resumed(stage: &Stage, watch: &[&str], all: &[Value]) -> Result<Vec<Value>> {
    let middle = all.get(all.len() / 2).and_then(|event| event["seq"].as_u64());
    let since = middle.context("an empty story has no middle")?;
    let text = since.to_string();
    let ran = stage.tidegate(&[watch, &["--since", &text]].concat())?;
    let rest = events(&ran.stdout)?;
    let first = rest.first().and_then(|event| event["seq"].as_u64());
    if first != all.get(all.len() / 2 + 1).and_then(|event| event["seq"].as_u64()) {
        bail!("`--since {since}` goes on with {first:?}");
    }
    Ok(rest)
}

fn events(stdout: &str) -> Result<Vec<Value>> {
    let lines = stdout.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| serde_json::from_str(line).with_context(|| format!("not an event: {line}")))
        .collect()
}

/// What is wrong with a sequence that has to go up by one: nothing, or the first break.
fn gap(events: &[Value]) -> Option<String> {
    let mut last: Option<u64> = None;
    for event in events {
        let Some(seq) = event["seq"].as_u64() else {
            return Some(format!("an event without seq: {event}"));
        };
        if let Some(last) = last.filter(|last| last + 1 != seq) {
            return Some(format!("{seq} after {last}"));
        }
        last = Some(seq);
    }
    if last.is_none() { Some("no event".into()) } else { None }
}

/// The only child of a process.
fn child_of(pid: Pid) -> Option<Pid> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

fn report_on(
    walks: &[Walked],
    wanted: usize,
    bad: &[String],
    report: &LoadReport,
    figures: &mut Figures,
) {
    let all = walks.len();
    let count = |what: fn(&Walked) -> bool| walks.iter().filter(|walked| what(walked)).count();
    figures.exactly("canaries that end right", count(|walked| walked.right), all);
    figures.exactly("held", count(|walked| walked.outcome == "held"), 0);
    figures.at_least("engine killed in mid-canary", count(|w| w.killed_inside), wanted);
    figures.note("clients that were killed", count(|w| w.client_killed) as f64, "");
    figures.note("clients that ended with their terminal", count(|w| w.client_gone) as f64, "");
    figures.exactly("second terminals that saw the same rollout", count(|w| w.same), all);
    figures.exactly("second terminals with a gap in seq", count(|w| w.gap.is_some()), 0);
    let bad: Vec<&str> = bad.iter().map(String::as_str).collect();
    figures.note("requests", report.lines.len() as f64, "");
    let lost = report.failures_not_answered_by(&bad).len();
    figures.exactly("failed, not answered by a bad version itself", lost, 0);
}

#[cfg(test)]
mod tests {
    use super::{events, gap};

    #[test]
    fn a_sequence_without_a_gap_goes_up_by_one() {
        let of = |text: &str| gap(&events(text).unwrap());
        assert_eq!(of("{\"seq\":4}\n{\"seq\":5}\n\n{\"seq\":6}\n"), None);
        assert_eq!(of("{\"seq\":4}\n{\"seq\":6}\n").as_deref(), Some("6 after 4"));
        assert_eq!(of("{\"seq\":4}\n{\"seq\":4}\n").as_deref(), Some("4 after 4"));
        assert_eq!(of("").as_deref(), Some("no event"));
        assert!(of("{\"a\":1}\n").is_some());
        assert!(events("not json").is_err());
    }
}
