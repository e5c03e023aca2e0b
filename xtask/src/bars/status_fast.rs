//! `status-fast`: `tidegate status` from start to exit over a long history, with the engine running
//! and stopped; and what an idle home costs.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::{Bound, Context, Figures};
use crate::stage::{Binaries, Pid, Project, Signal, Stage, alive, kill, wait_until};
use tidegate_example_service::Behaviour;

/// A rollout that is over as soon as it can be.
const QUICK: &str = "
      steps:
        - setWeight: 100
      scaleDownDelay: 0s";

/// How often each command is measured.
const RUNS: usize = 60;

/// Linux counts processor time in these for every program, whatever its own clock does.
pub(super) const TICKS_PER_SECOND: f64 = 100.0;

const ROLES: [&str; 3] = ["engine", "host", "switch"];

pub(super) fn run(context: &Context, figures: &mut Figures) -> Result<()> {
    let stage = Stage::keeping(&context.binaries, &context.folder)?;
    stage.write_project(&Project { canary: QUICK.into(), bake: "0s".into() })?;
    let rollouts = history(&stage, context)?;
    let wanted = usize::try_from(context.count(1000, 20))?;
    figures.at_least("finished rollouts in the journal", rollouts, wanted);
    idle(&stage, context, figures)?;
    let running = measure(&stage, context, "running")?;
    let engine = stage.living("engine", None)?;
    stop_engine(&stage, engine)?;
    let stopped = measure(&stage, context, "stopped")?;
    if stage.pid("engine").is_some_and(alive) {
        bail!("looking at a stopped home has started an engine");
    }
    for (name, (status, control)) in [("running", running), ("stopped", stopped)] {
        let what = format!("`status`, engine {name}, median");
        figures.add(&what, status.median, "ms", Bound::AtMost(20.0));
        figures.note(&format!("`status`, engine {name}, 95th percentile"), status.p95, "ms");
        figures.note("  `true` beside it, median (control)", control.median, "ms");
        figures.note("  `true` beside it, 95th percentile", control.p95, "ms");
    }
    Ok(())
}

/// Releases one version after the other until there are enough or, in a short run, its time is up.
fn history(stage: &Stage, context: &Context) -> Result<usize> {
    let (start, bound) = (std::time::Instant::now(), Duration::from_secs(45));
    let mut finished = 0;
    for number in 1..=1000 {
        if context.short && start.elapsed() > bound {
            break;
        }
        let version = format!("v{number}");
        stage.artifact(&version, &Behaviour::default())?;
        let arguments = ["release", &version, "--to", "production", "--until", "ended", "--quiet"];
        let ran = stage.tidegate(&arguments)?;
        if ran.code != 0 {
            bail!("{ran}");
        }
        finished += 1;
    }
    Ok(finished)
}

/// The journal has to be looked at without an engine: it is ended as a person would end it, and
/// with no open work nobody starts another.
fn stop_engine(stage: &Stage, engine: Pid) -> Result<()> {
    kill(engine, Signal::TERM);
    wait_until(Duration::from_secs(10), "the engine has ended", || {
        (!stage.pid("engine").is_some_and(alive)).then_some(())
    })
}

/// Processor time and memory of the three over some seconds in which nothing is asked.
fn idle(stage: &Stage, context: &Context, figures: &mut Figures) -> Result<()> {
    let mut pids = Vec::new();
    for role in ROLES {
        pids.push(stage.living(role, None)?);
    }
    let seconds = if context.short { 30 } else { 60 };
    let before = total(&pids, ticks)?;
    let start = std::time::Instant::now();
    wait_until(Duration::from_secs(seconds + 1), "the measured time", || {
        (start.elapsed() >= Duration::from_secs(seconds)).then_some(())
    })?;
    let used = total(&pids, ticks)? - before;
    let percent = used / TICKS_PER_SECOND / start.elapsed().as_secs_f64() * 100.0;
    figures.add("idle: engine, host and switch", percent, "% of a core", Bound::AtMost(0.3));
    let megabytes = |file: &'static str, key: &'static str| {
        total(&pids, |pid| kilobytes(pid, file, key)).map(|kilobytes| kilobytes * 1024.0 / 1e6)
    };
    let resident = megabytes("status", "VmRSS:")?;
    figures.add("idle: resident, all three summed", resident, "MB", Bound::AtMost(60.0));
    figures.note("idle: resident, shared pages once", megabytes("smaps_rollup", "Pss:")?, "MB");
    for (role, pid) in ROLES.iter().zip(&pids) {
        let one = kilobytes(*pid, "status", "VmRSS:")? * 1024.0 / 1e6;
        figures.note(&format!("  of it the {role}"), one, "MB");
    }
    Ok(())
}

fn total(pids: &[Pid], measure: impl Fn(Pid) -> Result<f64>) -> Result<f64> {
    pids.iter().map(|pid| measure(*pid)).sum()
}

fn read(pid: Pid, file: &str) -> Result<String> {
    std::fs::read_to_string(format!("/proc/{pid}/{file}"))
        .with_context(|| format!("process {pid} is gone"))
}

/// User and system time of a process, in clock ticks.
pub(super) fn ticks(pid: Pid) -> Result<f64> {
    let stat = read(pid, "stat")?;
    let after = stat.rsplit_once(')').context("no command in stat")?.1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    // Fields 14 and 15, counted from 1 and from before the command.
    let field = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok());
    field(11).zip(field(12)).map(|(user, system)| user + system).context("stat is too short")
}

pub(super) fn kilobytes(pid: Pid, file: &str, key: &str) -> Result<f64> {
    let text = read(pid, file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok())
        .with_context(|| format!("no {key} of process {pid}"))
}

#[derive(Debug, Clone, Copy)]
struct Times {
    median: f64,
    p95: f64,
}

/// `status` and, in turn with it, a process that does nothing.
fn measure(stage: &Stage, context: &Context, name: &str) -> Result<(Times, Times)> {
    let nothing = Binaries { tidegate: "/bin/true".into(), ..stage.binaries().clone() };
    let nothing = Stage::new(&nothing)?;
    let (mut status, mut control) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let sides = [
            (stage, &["status"][..], "status", &mut status),
            (&nothing, &[][..], "control", &mut control),
        ];
        for (stage, arguments, what, times) in sides {
            let ran = stage.tidegate(arguments)?;
            if ran.code != 0 {
                bail!("{ran}");
            }
            let ms = ran.took.as_secs_f64() * 1000.0;
            let line = serde_json::json!({"engine": name, "what": what, "ms": ms});
            context.note("times.jsonl", &line)?;
            times.push(ms);
        }
    }
    Ok((Times::of(&mut status), Times::of(&mut control)))
}

impl Times {
    fn of(times: &mut [f64]) -> Self {
        times.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100).max(1);
            times.get(rank - 1).copied().unwrap_or(f64::NAN)
        };
        Self { median: at(50), p95: at(95) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Times, kilobytes, ticks};

    #[test]
    fn times_are_sorted_before_they_are_ranked() {
        let times = Times::of(&mut [5.0, 1.0, 3.0, 2.0, 4.0]);
        assert!((times.median - 3.0).abs() < 1e-9 && (times.p95 - 5.0).abs() < 1e-9);
        assert!(Times::of(&mut []).median.is_nan());
    }

    #[test]
    fn this_process_uses_time_and_memory() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(ticks(own).unwrap() >= 0.0);
        assert!(kilobytes(own, "status", "VmRSS:").unwrap() > 100.0);
        assert!(kilobytes(own, "smaps_rollup", "Pss:").unwrap() > 100.0);
    }
}
