//! `stale-owner`: the engine is stopped (not killed) at random points of a canary, some of them
//! inside a commit, some with commands in the sockets of host and switch. Another one has to drive
//! within the heartbeat and two seconds, and what the stopped one had still to say is refused.

mod buffer;
mod commit;
mod late;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::rounds::{self, ROUND_BOUND};
use super::{Bound, Chance, Context, Figures};
use crate::stage::{Background, Pid, Project, Signal, Stage, kill, stopped, wait_until};
use buffer::Unread;
use late::{Line, Refusals};

const RATE: f64 = 50.0;

/// After so long without a beat an owner is stale (3 s), and so long a successor has.
const BOUND_S: f64 = 3.0 + 2.0;

/// Where the engine is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Point {
    /// While a thread of it waits for the disk.
    Commit,
    /// With a command of its own in the sockets of host and switch, which are stopped before it.
    Buffer,
    /// Anywhere.
    Random,
}

/// One canary, one line of `rounds.jsonl`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Round {
    version: String,
    wanted: Point,
    /// Where it was really stopped: a commit that was not caught is a random point, and so are
    /// sockets without a command in them.
    point: Point,
    /// What lay in the sockets of host and switch when it was stopped.
    unread: Unread,
    /// From the stop until host and switch have accepted the successor.
    successor_s: f64,
    refusals: Refusals,
    /// Lines of host.log and switch.log that speak of a refused fence, of the engine's own late
    /// commands.
    logged_own: usize,
    /// The same with those that the bar has sent in its name.
    logged: usize,
    right: bool,
    outcome: String,
}

pub(super) fn run(context: &Context, figures: &mut Figures) -> Result<()> {
    let stage = Stage::keeping(&context.binaries, &context.folder)?;
    stage.write_project(&Project::default())?;
    rounds::first(&stage, "v1")?;
    let load = stage.load(RATE, &context.folder.join("requests.log"))?;
    let mut chance = Chance::new(context.seed, 3);
    let mut plan = points(usize::try_from(context.count(100, 6))?);
    chance.shuffle(&mut plan);
    let (mut stable, mut rounds) = ("v1".to_owned(), Vec::new());
    for (wanted, number) in plan.into_iter().zip(2_u32..) {
        let version = format!("v{number}");
        let round = play(&stage, &version, &stable, wanted, &mut chance)?;
        context.note("rounds.jsonl", &round)?;
        if round.outcome == rounds::PROMOTED {
            stable = version;
        }
        rounds.push(round);
    }
    let report = load.stop()?;
    let lost = report.failures_not_answered_by(&[]).len();
    figures.note("requests", report.lines.len() as f64, "");
    report_on(&rounds, lost, figures);
    Ok(())
}

/// A third each; what is left over is random.
fn points(rounds: usize) -> Vec<Point> {
    let third = rounds.div_ceil(3);
    let of = |index: usize| match index / third {
        0 => Point::Commit,
        1 => Point::Buffer,
        _ => Point::Random,
    };
    (0..rounds).map(of).collect()
}

fn play(
    stage: &Stage,
    version: &str,
    before: &str,
    wanted: Point,
    chance: &mut Chance,
) -> Result<Round> {
    rounds::prepare(stage, version, true)?;
    rounds::accept(stage, version)?;
    let engine = stage.living("engine", None)?;
    let line = Line::open(stage)?;
    let old = line.epochs()?;
    let logged = late::logged(stage);
    pass(chance.up_to(Duration::from_millis(2000)))?;
    let Stopped { point, unread, verb, at } = stop_at(stage, engine, wanted)?;
    let successor_s = successor(stage, &line, &old, wanted, at, engine)?;
    let logged_own = late::logged(stage).saturating_sub(logged);
    let refusals = line.late(stage, &old)?;
    drop(verb);
    if wanted == Point::Commit {
        // Where the pause was recorded the rollout waits; where it was not this is a no-op.
        stage.tidegate(&["resume"])?;
    }
    let ended = stage.ended(version, ROUND_BOUND)?;
    Ok(Round {
        version: version.to_owned(),
        wanted,
        point,
        unread,
        successor_s,
        refusals,
        logged_own,
        logged: late::logged(stage).saturating_sub(logged),
        right: rounds::right(&ended, true, version, before),
        outcome: ended.outcome,
    })
}

/// Lets a random time pass: the moment of a fault, not a wait for something.
fn pass(time: Duration) -> Result<()> {
    let start = Instant::now();
    wait_until(time + Duration::from_secs(1), "a moment", || {
        (start.elapsed() >= time).then_some(())
    })
}

/// An engine that is stopped.
struct Stopped {
    point: Point,
    unread: Unread,
    /// The verb that made it work.
    verb: Option<Background>,
    at: Instant,
}

/// Stops the engine there.
fn stop_at(stage: &Stage, engine: Pid, wanted: Point) -> Result<Stopped> {
    let none = Unread::default();
    match wanted {
        Point::Random => Ok(Stopped { point: wanted, unread: none, verb: None, at: stop(engine)? }),
        Point::Commit => match commit::catch(stage, engine)? {
            Some(at) => Ok(Stopped { point: wanted, unread: none, verb: None, at }),
            None => {
                Ok(Stopped { point: Point::Random, unread: none, verb: None, at: stop(engine)? })
            }
        },
        Point::Buffer => {
            let others: Vec<Pid> = ["host", "switch"]
                .into_iter()
                .map(|role| stage.living(role, None))
                .collect::<Result<_>>()?;
            for other in &others {
                stop(*other)?;
            }
            let verb = Some(stage.background(&["promote"])?);
            // It says that it is alive once a second, so a command is on its way soon.
            for _ in 0..30 {
                pass(Duration::from_millis(100))?;
                let at = stop(engine)?;
                let unread = buffer::unread(stage, engine)?;
                if unread.any() {
                    return Ok(Stopped { point: wanted, unread, verb, at });
                }
                kill(engine, Signal::CONT);
            }
            Ok(Stopped { point: Point::Random, unread: none, verb, at: stop(engine)? })
        }
    }
}

fn stop(pid: Pid) -> Result<Instant> {
    kill(pid, Signal::STOP);
    let at = Instant::now();
    wait_until(Duration::from_secs(5), &format!("{pid} is stopped"), || {
        stopped(pid).then_some(())
    })?;
    Ok(at)
}

/// Waits until another engine is accepted everywhere; how long it took, in seconds.
fn successor(
    stage: &Stage,
    line: &Line,
    old: &late::Epochs,
    point: Point,
    stop: Instant,
    engine: Pid,
) -> Result<f64> {
    let mut watch = None;
    if point == Point::Buffer {
        // The host is stopped as well and can restart nobody: somebody types a verb. The host goes
        // on when the successor is there and has had the time to say so.
        watch = Some(stage.background(&["watch", "-o", "jsonl"])?);
        let there = stage.living("engine", Some(engine));
        let _ = pass(Duration::from_millis(200));
        for role in ["host", "switch"] {
            if let Some(pid) = stage.pid(role) {
                kill(pid, Signal::CONT);
            }
        }
        there?;
    }
    wait_until(Duration::from_secs(30), "a successor that host and switch accept", || {
        line.epochs().ok().filter(|now| now.host > old.host && now.switch > old.switch)
    })
    .with_context(|| format!("after engine {engine} was stopped"))?;
    let took = stop.elapsed().as_secs_f64();
    drop(watch);
    Ok(took)
}

fn report_on(rounds: &[Round], lost: usize, figures: &mut Figures) {
    let all = rounds.len();
    let count = |what: &dyn Fn(&Round) -> bool| rounds.iter().filter(|round| what(round)).count();
    figures.exactly("canaries that end right", count(&|round| round.right), all);
    let caught = count(&|round| round.point == Point::Commit);
    figures.at_least("stopped inside a commit", caught, all.div_ceil(3));
    let buffered = count(&|round| round.point == Point::Buffer);
    figures.at_least("stopped with commands in the sockets", buffered, all.div_ceil(3));
    let slowest = rounds.iter().map(|round| round.successor_s).fold(0.0, f64::max);
    figures.add("slowest successor", slowest, "s", Bound::AtMost(BOUND_S));
    figures.exactly("late capacity refused by the host", count(&|r| r.refusals.capacity), all);
    figures.exactly("late contact refused by the host", count(&|r| r.refusals.contact), all);
    figures.exactly("late table refused by the switch", count(&|r| r.refusals.table), all);
    let own: usize = rounds.iter().map(|round| round.logged_own).sum();
    figures.note("the stopped engines' own commands refused, by the logs", own as f64, "");
    let logged = count(&|round| round.logged > round.logged_own);
    figures.exactly("rounds whose logs show the refusals", logged, all);
    figures.exactly("failed requests", lost, 0);
}

#[cfg(test)]
mod tests {
    use super::{Point, points};

    #[test]
    fn at_least_a_third_of_the_rounds_is_of_each_hard_kind() {
        for rounds in [6, 7, 8, 100] {
            let plan = points(rounds);
            let count = |point| plan.iter().filter(|other| **other == point).count();
            assert_eq!(plan.len(), rounds);
            assert!(count(Point::Commit) * 3 >= rounds, "{rounds}");
            assert!(count(Point::Buffer) * 3 >= rounds, "{rounds}");
        }
    }
}
