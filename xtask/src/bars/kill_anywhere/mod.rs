//! `kill-anywhere`: engine, host and switch are killed with -9 at random moments of canaries good
//! and bad, under load. Each round has to end as an undisturbed twin of its kind did, with its
//! one-shot carried out once and no request lost but those that were in flight in a killed switch.

mod judge;
mod plan;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use super::rounds::{self, ROUND_BOUND};
use super::{Bound, Context, Figures};
use crate::load::LoadReport;
use crate::stage::{Background, Pid, Project, Signal, Stage, alive, kill, now_us, wait_until};
use plan::{Plan, Round, Target};

/// Requests per second throughout.
const RATE: f64 = 100.0;

/// The switch closes seconds: two undisturbed rounds of a kind may differ by one.
const A_SECOND: Duration = Duration::from_secs(1);

/// A process that was killed.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Killed {
    target: Target,
    /// Just before the signal.
    at_us: u64,
    /// When the processes were seen to be gone.
    gone_us: u64,
    /// Whether the rollout was still in progress: only those count.
    inside: bool,
    /// Whether all of them came back by themselves (an engine without open work need not).
    back: bool,
    /// How long that took from the moment when they were seen to be gone, in milliseconds.
    back_ms: u64,
}

/// A round that was played, one line of `rounds.jsonl`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Played {
    version: String,
    good: bool,
    twin: bool,
    kills: Vec<Killed>,
    start_us: u64,
    end_us: u64,
    outcome: String,
    stable: String,
    /// As its kind has to end.
    right: bool,
    /// How often its one-shot left an effect.
    effects: usize,
}

pub(super) fn run(context: &Context, figures: &mut Figures) -> Result<()> {
    let stage = Stage::keeping(&context.binaries, &context.folder)?;
    stage.write_project(&Project::default())?;
    rounds::first(&stage, "v1")?;
    let load = stage.load(RATE, &context.folder.join("requests.log"))?;
    let mut theatre = Theatre { stage: &stage, context, stable: "v1".into(), played: Vec::new() };
    let spans = theatre.twins(context.count(3, 1))?;
    let before = rounds::settled(&stage);
    let mut plan = Plan::new(context.seed, context.short, &spans);
    while let Some(round) = plan.next() {
        let killed = theatre.round(&round)?;
        // A kill that came too late, when the rollout was over, is planned again.
        plan.landed(&killed);
    }
    let after = rounds::settled(&stage);
    let report = load.stop()?;
    report_on(&theatre.played, &plan, &report, figures);
    times(&theatre.played, &spans, figures);
    context.note("processes.jsonl", &before)?;
    context.note("processes.jsonl", &after)?;
    rounds::compare(&before, &after, figures);
    Ok(())
}

struct Theatre<'a> {
    stage: &'a Stage,
    context: &'a Context,
    stable: String,
    played: Vec<Played>,
}

impl Theatre<'_> {
    /// Plays `times` undisturbed rounds of each kind; how long each kind may take.
    fn twins(&mut self, times: u32) -> Result<BTreeMap<bool, Duration>> {
        let mut spans = BTreeMap::new();
        for good in [true, false] {
            let mut longest = Duration::ZERO;
            for _ in 0..times {
                let start = Instant::now();
                let round = Round { good, kills: Vec::new() };
                self.play(&round, true)?;
                longest = longest.max(start.elapsed());
            }
            spans.insert(good, longest + A_SECOND);
        }
        if let Some(wrong) = self.played.iter().find(|played| !played.right) {
            bail!("an undisturbed twin ends wrong: {}", serde_json::to_string(wrong)?);
        }
        Ok(spans)
    }

    fn round(&mut self, round: &Round) -> Result<Vec<(Target, bool)>> {
        let killed = self.play(round, false)?;
        Ok(killed.iter().map(|killed| (killed.target, killed.inside)).collect())
    }

    fn play(&mut self, round: &Round, twin: bool) -> Result<Vec<Killed>> {
        let version = format!("v{}", self.played.len() + 2);
        rounds::prepare(self.stage, &version, round.good)?;
        let start_us = now_us();
        rounds::accept(self.stage, &version)?;
        let start = Instant::now();
        let mut kills = Vec::new();
        for planned in &round.kills {
            wait_until(ROUND_BOUND, "the moment of a kill", || {
                (start.elapsed() >= planned.at).then_some(())
            })?;
            // Too late for a second one: an engine that dies with nothing open stays dead.
            if !kills.is_empty() && self.stage.ended(&version, Duration::ZERO).is_ok() {
                break;
            }
            kills.push(self.strike(planned.target, &version)?);
        }
        let ended = self.stage.ended(&version, ROUND_BOUND)?;
        let right = rounds::right(&ended, round.good, &version, &self.stable);
        let played = Played {
            right,
            good: round.good,
            twin,
            kills: kills.clone(),
            start_us,
            end_us: now_us(),
            effects: self.stage.effects_of(&version),
            outcome: ended.outcome,
            stable: ended.stable.clone(),
            version,
        };
        self.context.note("rounds.jsonl", &played)?;
        self.stable = ended.stable;
        self.played.push(played);
        Ok(kills)
    }

    /// Kills at this very moment; what has to be there again is waited for afterwards.
    fn strike(&self, target: Target, version: &str) -> Result<Killed> {
        let roles: &[&str] = match target {
            Target::Engine => &["engine"],
            Target::Host => &["host"],
            Target::Switch => &["switch"],
            Target::All => &["engine", "host", "switch"],
        };
        let mut pids: Vec<Pid> = Vec::new();
        for role in roles {
            pids.push(self.stage.living(role, None)?);
        }
        let before = self.stage.ended(version, Duration::ZERO).ok();
        let at_us = now_us();
        for pid in &pids {
            kill(*pid, Signal::KILL);
        }
        wait_until(Duration::from_secs(5), "the killed are gone", || {
            pids.iter().all(|pid| !alive(*pid)).then_some(())
        })?;
        let gone_us = now_us();
        let (mut back, gone) = (true, Instant::now());
        if target == Target::All {
            self.boot()?;
        }
        for (role, pid) in roles.iter().zip(&pids) {
            back &= self.back(role, *pid, version).is_ok();
        }
        let back_ms = u64::try_from(gone.elapsed().as_millis()).unwrap_or(u64::MAX);
        if !back {
            // It is counted; the next round needs all three, so they are brought back as after a
            // reboot.
            if let Some(engine) = self.stage.pid("engine") {
                kill(engine, Signal::KILL);
            }
            self.boot()?;
        }
        Ok(Killed { target, at_us, gone_us, inside: before.is_none(), back, back_ms })
    }

    /// Somebody else in the role; for an engine, or its work is done.
    fn back(&self, role: &str, was: Pid, version: &str) -> Result<()> {
        wait_until(Duration::from_secs(20), &format!("another {role} during {version}"), || {
            let other = self.stage.pid(role).is_some_and(|pid| pid != was && alive(pid));
            let over = || role == "engine" && self.stage.ended(version, Duration::ZERO).is_ok();
            (other || over()).then_some(())
        })
    }

    /// `watch`, as a unit would type it at boot; it need not stay.
    fn boot(&self) -> Result<()> {
        let mut watch: Background = self.stage.background(&["watch", "-o", "jsonl"])?;
        let back = wait_until(Duration::from_secs(30), "all three again", || {
            let living = |role| self.stage.pid(role).is_some_and(alive);
            ["engine", "host", "switch"].into_iter().all(living).then_some(())
        });
        watch.kill();
        back.context("after all three were killed and `watch` was typed")
    }
}

/// How long restarts took, and rounds beyond their twins.
fn times(played: &[Played], spans: &BTreeMap<bool, Duration>, figures: &mut Figures) {
    for target in [Target::Engine, Target::Host, Target::Switch, Target::All] {
        let kills = played.iter().flat_map(|played| &played.kills);
        let longest = kills.filter(|kill| kill.target == target).map(|kill| kill.back_ms).max();
        let seconds = longest.unwrap_or(0) as f64 / 1000.0;
        figures.note(&format!("longest restart of {}", target.word()), seconds, "s");
    }
    for (good, span) in spans {
        let of_kind = played.iter().filter(|played| played.good == *good && !played.twin);
        let took = of_kind.map(|played| Duration::from_micros(played.end_us - played.start_us));
        let longest = took.max().unwrap_or_default().as_secs_f64();
        let kind = if *good { "good" } else { "bad" };
        let undisturbed = span.saturating_sub(A_SECOND).as_secs_f64();
        figures.note(&format!("longest undisturbed round, {kind}"), undisturbed, "s");
        // Each death costs a restart; nothing may wait for more than that.
        let most = Bound::AtMost(span.as_secs_f64() + 15.0);
        figures.add(&format!("longest round with a kill, {kind}"), longest, "s", most);
    }
}

fn report_on(played: &[Played], plan: &Plan, report: &LoadReport, figures: &mut Figures) {
    let rounds: Vec<&Played> = played.iter().filter(|played| !played.twin).collect();
    figures.note("twins", (played.len() - rounds.len()) as f64, "");
    figures.exactly(
        "rounds that end as their twin",
        rounds.iter().filter(|p| p.right).count(),
        rounds.len(),
    );
    for (target, wanted) in plan.wanted() {
        let hit = rounds.iter().flat_map(|played| &played.kills);
        let hit = hit.filter(|kill| kill.target == target && kill.inside).count();
        figures.at_least(&format!("kills of {} in mid-canary", target.word()), hit, wanted);
    }
    let kills = || rounds.iter().flat_map(|played| &played.kills);
    let back = kills().filter(|kill| kill.back).count();
    figures.exactly("kills after which all came back by themselves", back, kills().count());
    figures.exactly("held", played.iter().filter(|p| p.outcome == "held").count(), 0);
    figures.exactly("effects twice", played.iter().filter(|p| p.effects > 1).count(), 0);
    let lost = played.iter().filter(|p| p.effects == 0).count();
    figures.exactly("effects left out", lost, 0);
    let judged = judge::judge(played, report);
    figures.note("requests", report.lines.len() as f64, "");
    figures.note("failed, answered by a bad version itself", judged.own as f64, "");
    figures.note("failed, in flight in a killed switch", judged.in_flight as f64, "");
    figures.note("failed, while all three were dead", judged.dead as f64, "");
    figures.add("longest outage by all three dead", judged.outage_s, "s", Bound::AtMost(15.0));
    figures.exactly("failed for any other reason", judged.other, 0);
}
