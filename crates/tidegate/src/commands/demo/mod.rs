//! `demo`: three acts on a temporary home, played with the verbs that everybody has, while a client
//! sends numbered requests and counts what becomes of each.

mod cleanup;
mod stage;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_example_service::load::{Load, LoadOptions, LoadReport, Tally};
use tidegate_wire::api::{Rollout, Status};

use super::{Context, block_on};
use crate::cli::{DemoArgs, Output};
use crate::clock::{self, Deadline};
use crate::exit::{Exit, Failure, with_chain};
use crate::follow::Interrupts;
use crate::home::living;
use crate::output::numbers::{count, thousands};
use crate::output::{BOLD, DIM, GREEN, Printer};
use stage::{BAD, Stage};

/// Requests a second.
const RATE: f64 = 60.0;
/// The longest that one act may take.
const ACT_MAX: Duration = Duration::from_secs(50);
/// Between two acts the client goes on, so that its log shows what an act has come to.
const BETWEEN: Duration = Duration::from_secs(1);
/// Between two looks at the status.
const LOOK: Duration = Duration::from_millis(250);

/// Plays it.
pub(super) fn run(context: &Context, args: &DemoArgs) -> Result<Exit, Failure> {
    let folder = args.keep.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("tidegate-demo-{}", std::process::id()))
    });
    let on = folder.display().to_string();
    let stage = Stage::build(&folder).map_err(|error| {
        Failure::input("demoFolder", "the demo's folder cannot be made", &on)
            .cause(error.to_string())
            .fix("name a folder that does not exist yet with --keep")
    })?;
    let printer = &context.printer;
    block_on(async {
        let mut interrupts = Interrupts::new().map_err(|error| {
            Failure::unreachable("noSignals", "signals cannot be taken", "")
                .cause(error.to_string())
        })?;
        let begun = clock::now_ms();
        let play = Play { printer, stage: &stage };
        let played = tokio::select! {
            played = play.all() => played.map(Some),
            () = interrupts.next() => Ok(None),
        };
        let clean = cleanup::end_all(&stage.home(), &stage.binary).await;
        if !clean {
            printer.warning(&format!("some processes of {on} could not be ended"));
        }
        if args.keep.is_none() {
            leave_only_the_log(&stage, matches!(played, Ok(Some(_))), printer);
        }
        match played? {
            Some(report) => judge(printer, &stage, &report, clock::now_ms().saturating_sub(begun)),
            None => Ok(Exit::Detached),
        }
    })
}

/// Removes what nobody needs any more; after a failure everything stays.
fn leave_only_the_log(stage: &Stage, good: bool, printer: &Printer) {
    if !good {
        printer.hint(&format!("everything is left in {}", stage.folder.display()));
        return;
    }
    let entries = std::fs::read_dir(&stage.folder).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()).filter(|path| *path != stage.log()) {
        let removed = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        if let Err(error) = removed {
            printer.warning(&format!("cannot remove {}: {error}", path.display()));
        }
    }
}

struct Play<'a> {
    printer: &'a Printer,
    stage: &'a Stage,
}

impl Play<'_> {
    /// All acts; what the client saw.
    async fn all(&self) -> Result<LoadReport, Failure> {
        self.say("before: v1 is released to an empty place");
        self.verb(&["release", "v1"], 0).await?;
        let log = self.stage.log();
        let load =
            Load::start(LoadOptions { rate: RATE, ..LoadOptions::new(self.stage.listen, &log) })
                .map_err(|error| failed("the client cannot be started", &error))?;
        self.say(&format!(
            "a client sends {RATE} requests a second to {} from now on",
            self.stage.listen
        ));
        self.say("act one: v2 is good");
        self.verb(&["release", "v2"], 0).await?;
        tokio::time::sleep(BETWEEN).await;
        self.say("act two: v3 answers half of its requests with 500");
        self.verb(&["release", BAD], 1).await?;
        tokio::time::sleep(BETWEEN).await;
        self.say("act three: v4 is good, and the engine is killed with -9 in the middle of it");
        self.verb(&["release", "v4", "--no-wait"], 0).await?;
        self.killed().await?;
        self.verb(&["status"], 0).await?;
        load.stop().map_err(|error| failed("the client's log cannot be counted", &error))
    }

    /// Kills the engine in mid-canary and waits, without a verb that starts anything, for the end.
    async fn killed(&self) -> Result<(), Failure> {
        let is_canary = |rollout: &Rollout| {
            rollout.version == "v4" && rollout.weight.observed > 0.0 && rollout.outcome.is_none()
        };
        self.until("v4 has a part of the requests", is_canary).await?;
        let Some(pid) = living(&self.stage.home(), "engine") else {
            return Err(Failure::defect("there is no engine to be killed", "demo"));
        };
        let process = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(process) = process {
            let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
        }
        self.say(&format!(
            "$ kill -9 {pid}        (the engine; nobody types anything from here on)"
        ));
        let is_over = |rollout: &Rollout| rollout.version == "v4" && rollout.outcome.is_some();
        let end = self.until("v4 has ended", is_over).await?;
        if end.outcome.as_deref() != Some("promoted") {
            return Err(Failure::defect(
                format!("v4 ended {}", end.outcome.unwrap_or_default()),
                "demo",
            ));
        }
        if let Some(new) = living(&self.stage.home(), "engine") {
            self.say(&format!(
                "the host has started another engine, process {new}; v4 is promoted"
            ));
        }
        let has_baked = |rollout: &Rollout| rollout.version == "v4" && rollout.ended_at.is_some();
        self.until("v4 has been watched to its end", has_baked).await?;
        Ok(())
    }

    /// Looks at `tidegate status` until its rollout is as wanted.
    async fn until(
        &self,
        what: &str,
        wanted: impl Fn(&Rollout) -> bool,
    ) -> Result<Rollout, Failure> {
        let deadline = Deadline::after(ACT_MAX);
        let mut last = String::new();
        loop {
            if let Some(rollout) = self.status().await? {
                let now = format!(
                    "  {} {} step {}/{}, {} % to {}",
                    rollout.id,
                    rollout.phase,
                    rollout.step.index,
                    rollout.step.count,
                    rollout.weight.observed,
                    rollout.version
                );
                if now != last {
                    self.printer.progress(&now);
                    last = now;
                }
                if wanted(&rollout) {
                    return Ok(rollout);
                }
            }
            if deadline.passed() {
                return Err(Failure::defect(
                    format!("waited {} s and it is not so: {what}", ACT_MAX.as_secs()),
                    "demo",
                )
                .cause(last));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn status(&self) -> Result<Option<Rollout>, Failure> {
        let output = self
            .command(&["status", "-o", "json"])
            .stderr(Stdio::null())
            .output()
            .await
            .map_err(|error| failed("a verb cannot be started", &error))?;
        let status: Status = serde_json::from_slice(&output.stdout)
            .map_err(|error| failed("`tidegate status` answered no document", &error))?;
        Ok(status.environments.into_iter().find_map(|lane| lane.rollout))
    }

    /// Runs a verb as anybody would; its exit code has to be this one.
    async fn verb(&self, arguments: &[&str], wanted: i32) -> Result<(), Failure> {
        let shown = arguments.join(" ");
        self.printer.progress(&format!("{BOLD}$ tidegate {shown}{BOLD:#}"));
        let mut command = self.command(arguments);
        if self.printer.output != Output::Text || self.printer.is_quiet() {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        let running = command.status();
        let status = tokio::time::timeout(ACT_MAX, running)
            .await
            .map_err(|_| {
                Failure::defect(
                    format!("`tidegate {shown}` takes over {} s", ACT_MAX.as_secs()),
                    "demo",
                )
            })?
            .map_err(|error| failed("a verb cannot be started", &error))?;
        if status.code() == Some(wanted) {
            return Ok(());
        }
        Err(Failure::defect(
            format!("`tidegate {shown}` ended with {status}, not with {wanted}"),
            "demo",
        )
        .cause(last_lines(&self.stage.home().log("engine"))))
    }

    fn command(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.stage.binary);
        command
            .args(arguments)
            .arg("--file")
            .arg(self.stage.file())
            .arg("--home")
            .arg(self.stage.home().root())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    fn say(&self, text: &str) {
        self.printer.progress(&format!("\n{GREEN}{text}{GREEN:#}"));
    }
}

fn failed(what: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    with_chain(Failure::defect(what, "demo"), error)
}

fn last_lines(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(5)).copied().collect::<Vec<_>>().join("\n")
}

/// Counts what the client saw, and says whether it is what was promised.
fn judge(
    printer: &Printer,
    stage: &Stage,
    report: &LoadReport,
    took_ms: u64,
) -> Result<Exit, Failure> {
    let tally = report.tally();
    let others = report.failures_not_answered_by(&[BAD]).len() as u64;
    let log: PathBuf = stage.log();
    match printer.output {
        Output::Text => text(printer, &tally, others, &log, took_ms),
        Output::Json | Output::Jsonl => printer.document(&document(&tally, others, &log, took_ms)),
    }
    if others > 0 {
        return Err(Failure::defect(
            format!(
                "{} failed that the bad version did not answer",
                count(others, "request", "requests")
            ),
            log.display().to_string(),
        ));
    }
    if tally.requests == 0 || !tally.by_version.contains_key("v4") {
        return Err(Failure::defect("the client has not seen v4", log.display().to_string()));
    }
    Ok(Exit::Done)
}

fn text(printer: &Printer, tally: &Tally, others: u64, log: &Path, took_ms: u64) {
    printer.answer(&format!(
        "\n{BOLD}the client{BOLD:#} sent {}, {} failed",
        count(tally.requests, "numbered request", "numbered requests"),
        thousands(tally.failed),
    ));
    for (version, requests) in &tally.by_version {
        let failed = tally.failed_by_version.get(version).copied().unwrap_or(0);
        printer.answer(&format!(
            "  {version:<3} {:>18}, {} failed",
            count(*requests, "request", "requests"),
            thousands(failed)
        ));
    }
    printer.answer(&match (tally.failed, others) {
        (0, _) => "no request failed".to_owned(),
        (failed, 0) => format!(
            "all {} were answered by {BAD}, the bad version, itself; nothing else failed",
            count(failed, "failed request", "failed requests")
        ),
        (_, others) => format!("{others} failed that {BAD} did not answer"),
    });
    printer.answer(&format!("{DIM}raw log{DIM:#} {}  ({} s)", log.display(), took_ms / 1000));
}

fn document(tally: &Tally, others: u64, log: &Path, took_ms: u64) -> Value {
    #[expect(clippy::cast_precision_loss, reason = "a minute in milliseconds")]
    let seconds = took_ms as f64 / 1000.0;
    json!({
        "apiVersion": tidegate_wire::API_VERSION,
        "kind": "Demo",
        "client": tally,
        "badVersion": BAD,
        "failedNotByBadVersion": others,
        "log": log.display().to_string(),
        "seconds": seconds,
    })
}
