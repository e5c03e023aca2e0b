//! `many-rollouts`: 1,000 rollouts in progress in the real engine process, on a platform that does
//! at once what it is told. What each of them takes of memory, how long a verb takes to become a
//! command, how long a killed engine is missed, and what an event costs beside 10 and beside 1,000
//! rollouts, and in the simulator beside 10,000.

mod engine;
mod requests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::measured::{build, cargo, lines, number};
use super::status_fast::{TICKS_PER_SECOND, kilobytes, ticks};
use super::{Bound, Chance, Context, Figures};
use crate::stage::{now_us, wait_until};
use engine::{Engine, last_by_stream, promote, runtime};
use requests::{first, long, paused, rollout, stream};

/// Rollouts in progress.
const MANY: usize = 1_000;
/// Rollouts in progress that the many are compared with; their steps are the measured events.
const FEW: usize = 10;
/// Releases that are asked for at a time.
const AT_ONCE: usize = 16;
/// Verbs on each of the few in one batch.
const BATCH: usize = 40;
/// Verbs a second while their way to the platform is measured.
const RATE: f64 = 50.0;
/// For everything that has to come to rest.
const BOUND: Duration = Duration::from_secs(30);

pub(super) fn run(context: &Context, figures: &mut Figures) -> Result<()> {
    let mut engine = Engine::start(&context.binaries.tidegate, &context.folder)?;
    let fresh = kilobytes(engine.pid()?, "status", "VmRSS:")?;
    engine.release((0..MANY).map(first).collect(), AT_ONCE)?;
    engine.until(MANY, |lane| lane.rests_at("v1"))?;
    let before = kilobytes(engine.pid()?, "status", "VmRSS:")?;

    engine.release((0..FEW).map(long).collect(), AT_ONCE)?;
    engine.until(FEW, |lane| lane.pauses_at("v2"))?;
    let beside_few = cost(&engine, context, FEW)?;
    engine.release((FEW..MANY).map(paused).collect(), AT_ONCE)?;
    engine.until(MANY, |lane| lane.pauses_at("v2"))?;
    let with = kilobytes(engine.pid()?, "status", "VmRSS:")?;
    figures.exactly("rollouts in progress", in_progress(&engine)?, MANY);
    let each = |kilobytes: f64| kilobytes * 1.024 / MANY as f64;
    figures.add(
        "memory per rollout: growth over 1,000 lanes at rest",
        each(with - before),
        "kB",
        Bound::AtMost(20.0),
    );
    figures.note("memory per rollout: all of the engine", each(with), "kB");
    figures.note("engine without rollouts, resident", fresh * 1.024, "kB");
    let beside_many = cost(&engine, context, MANY)?;
    figures.note("processor time per event beside 10", beside_few, "us");
    figures.note("processor time per event beside 1,000", beside_many, "us");
    let grown = beside_many / beside_few;
    figures.add("cost of an event, 1,000 by 10", grown, "x", Bound::AtMost(1.3));

    commands(&engine, context, figures)?;
    killed(&mut engine, context, figures)?;
    let again = kilobytes(engine.pid()?, "status", "VmRSS:")?;
    figures.note("memory per rollout: restarted, over an empty one", each(again - fresh), "kB");
    drop(engine);
    simulated(context, figures)
}

fn in_progress(engine: &Engine) -> Result<usize> {
    let status = engine.status()?;
    let open = status.environments.iter().filter_map(|lane| lane.rollout.as_ref());
    Ok(open.filter(|rollout| rollout.ended_at.is_none()).count())
}

/// Microseconds of processor time that an event costs: the few are led through their steps, all at
/// the same time, while the others wait. Everything that the engine does meanwhile is counted.
fn cost(engine: &Engine, context: &Context, beside: usize) -> Result<f64> {
    let (runtime, client, pid) = (runtime()?, engine.client(), engine.pid()?);
    let from = engine.last_seq()?;
    let (begun, start) = (ticks(pid)?, Instant::now());
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..FEW {
            let client = client.clone();
            tasks.spawn(async move {
                for _ in 0..BATCH {
                    promote(&client, &rollout(number)).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        anyhow::Ok(())
    })?;
    let used = (ticks(pid)? - begun) / TICKS_PER_SECOND;
    let events = engine.last_seq()? - from;
    let verbs = FEW * BATCH;
    if events < verbs as u64 {
        bail!("{verbs} verbs have made {events} events");
    }
    let took = start.elapsed().as_secs_f64();
    let line = serde_json::json!({
        "beside": beside, "verbs": verbs, "events": events, "cpuSeconds": used, "seconds": took,
    });
    context.note("cost.jsonl", &line)?;
    Ok(used / events as f64 * 1e6)
}

/// Every rollout is promoted once, in random order: from the moment at which the verb is sent to
/// the moment at which its command is at the platform.
fn commands(engine: &Engine, context: &Context, figures: &mut Figures) -> Result<()> {
    let mut order: Vec<usize> = (0..MANY).collect();
    Chance::new(context.seed, 7).shuffle(&mut order);
    let end = engine.log_end()?;
    let (runtime, client) = (runtime()?, engine.client());
    let sent = runtime.block_on(async {
        let start = tokio::time::Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for (place, number) in order.into_iter().enumerate() {
            tokio::time::sleep_until(start + Duration::from_secs_f64(place as f64 / RATE)).await;
            let client = client.clone();
            tasks.spawn(async move {
                let at = now_us();
                promote(&client, &rollout(number)).await?;
                anyhow::Ok((number, at))
            });
        }
        let mut sent = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            sent.push(ended??);
        }
        anyhow::Ok(sent)
    })?;
    let mut reached = BTreeMap::new();
    wait_until(BOUND, "a command for every verb", || {
        reached = last_by_stream(&engine.lines_after(end).ok()?, "traffic");
        (reached.len() >= MANY).then_some(())
    })?;
    let mut times = Vec::new();
    for (number, at) in sent {
        let arrived = reached.get(&stream(number)).context("a command of another rollout")?;
        let ms = arrived.saturating_sub(at) as f64 / 1_000.0;
        context.note("commands.jsonl", &serde_json::json!({"rollout": number, "ms": ms}))?;
        times.push(ms);
    }
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or(f64::NAN);
    figures.exactly("verbs whose command was measured", times.len(), MANY);
    figures.note("verb to command, median", at(50), "ms");
    figures.add("verb to command, 99th percentile", at(99), "ms", Bound::AtMost(100.0));
    Ok(())
}

/// The engine is killed with all of them in progress while somebody asks for one more step: from
/// the kill to the command for it.
fn killed(engine: &mut Engine, context: &Context, figures: &mut Figures) -> Result<()> {
    // The last step of the ordinary ones is taken once; the few have steps left for all rounds.
    let rounds = if context.short { 3 } else { FEW };
    let mut worst: f64 = 0.0;
    for round in 0..rounds {
        let end = engine.log_end()?;
        let killed = engine.kill_and_restart()?;
        runtime()?.block_on(promote(&engine.client(), &rollout(round)))?;
        let wanted = stream(round);
        let line = wait_until(BOUND, "the first command after a kill", || {
            let lines = engine.lines_after(end).ok()?;
            lines.into_iter().find(|line| line.stream == wanted)
        })?;
        let seconds = line.at_us.saturating_sub(killed) as f64 / 1e6;
        context.note("kills.jsonl", &serde_json::json!({"round": round, "seconds": seconds}))?;
        worst = worst.max(seconds);
    }
    figures.exactly("rollouts in progress after the kills", in_progress(engine)?, MANY);
    figures.add("kill -9 to the first due action, worst", worst, "s", Bound::AtMost(2.0));
    Ok(())
}

/// The pure engine over a journal in memory.
fn simulated(context: &Context, figures: &mut Figures) -> Result<()> {
    let program = ["--release", "--locked", "-q", "-p", "tidegate-sim", "--example", "many"];
    build(&[&["build"], &program[..]].concat())?;
    let (said, ended) = cargo(&[&["run"], &program[..]].concat())?;
    if !ended {
        bail!("the simulator failed: {said}");
    }
    let said = lines(&said)?;
    for line in &said {
        context.note("simulated.jsonl", line)?;
    }
    let cost = |rollouts: f64| {
        let found = said.iter().find(|line| number(line, "rollouts").is_ok_and(|n| n == rollouts));
        number(found.with_context(|| format!("nothing said of {rollouts}"))?, "microsPerEvent")
    };
    let few = cost(10.0)?;
    figures.note("simulator: an event beside 10", few, "us");
    for (rollouts, name) in [(1_000.0, "1,000"), (10_000.0, "10,000")] {
        let name = format!("simulator: cost of an event, {name} by 10");
        figures.add(&name, cost(rollouts)? / few, "x", Bound::AtMost(1.3));
    }
    Ok(())
}
