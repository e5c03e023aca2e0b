//! `status`: what runs where, and what is under way.

use tidegate_wire::api::{Environment, Rollout, Status};

use super::{Context, block_on};
use crate::cli::Output;
use crate::clock;
use crate::exit::{Exit, Failure};
use crate::output::numbers::{count, thousands, weight};
use crate::output::table::wrap;
use crate::output::{BOLD, DIM, GREEN, Printer, RED, YELLOW, live, printable};
use crate::source::Source;

/// Prints it.
pub(super) fn run(context: &Context) -> Result<Exit, Failure> {
    let place = context.place()?;
    let mut status = block_on(async {
        Source::open(&place.home).await?.status(&place.home, &place.order).await
    })?;
    let common = &context.common;
    status.environments.retain(|lane| {
        common.environment.as_ref().is_none_or(|name| *name == lane.name)
            && common.service.as_ref().is_none_or(|name| *name == lane.service)
    });
    match context.printer.output {
        Output::Text => text(&context.printer, &status),
        Output::Json | Output::Jsonl => context.printer.document(&status),
    }
    Ok(Exit::Done)
}

fn text(printer: &Printer, status: &Status) {
    let columns = live::columns();
    for warning in &status.warnings {
        for (index, line) in wrap(&printable(warning), columns.saturating_sub(4)).iter().enumerate()
        {
            let mark = if index == 0 { format!("{YELLOW}!{YELLOW:#}") } else { " ".to_owned() };
            printer.answer(&format!("{mark} {line}"));
        }
    }
    let engine = &status.engine;
    let since = engine.since.as_deref().and_then(clock::parse).map(clock::local_minute);
    let mut head = format!("home {}  engine {}", status.home, engine.state);
    if let Some(pid) = engine.pid {
        head.push_str(&format!(" (process {pid}"));
        if let Some(since) = since {
            head.push_str(&format!(", since {since}"));
        }
        head.push(')');
    }
    printer.answer(&format!("{DIM}{head}{DIM:#}"));
    if status.environments.is_empty() {
        printer.answer("nothing has been released here");
    }
    for lane in &status.environments {
        environment(printer, lane, columns);
    }
}

fn environment(printer: &Printer, lane: &Environment, columns: usize) {
    let stable = lane.stable.as_ref().map_or_else(
        || "nothing runs yet".to_owned(),
        |stable| format!("{} ({})", printable(&stable.version), stable.digest.short()),
    );
    let frozen = if lane.frozen.is_some() { "  frozen" } else { "" };
    printer.answer(&format!("{BOLD}{}{BOLD:#} {}  {stable}{frozen}", lane.name, lane.service));
    let Some(rollout) = &lane.rollout else { return };
    let style = match rollout.phase.as_str() {
        "Healthy" | "Baking" => GREEN,
        "Degraded" | "RollingBack" => RED,
        "Held" => YELLOW,
        _ => BOLD,
    };
    let word = rollout.outcome.as_deref().filter(|_| rollout.ended_at.is_some());
    let mut line = format!(
        "  {} {}  {style}{}{style:#}",
        rollout.id,
        printable(&rollout.version),
        word.map_or_else(|| rollout.phase.clone(), words),
    );
    if rollout.ended_at.is_none() {
        line.push_str(&format!(
            "  step {}/{} {}  {}",
            rollout.step.index,
            rollout.step.count,
            rollout.step.kind,
            weight(rollout.weight.observed)
        ));
    } else if let Some(at) = rollout.ended_at.as_deref().and_then(clock::parse) {
        line.push_str(&format!("  {}", clock::local_minute(at)));
    }
    printer.answer(&line);
    let indent = "    ";
    let room = columns.saturating_sub(indent.len());
    for text in [counts(rollout), waiting(rollout), why(rollout)].into_iter().flatten() {
        for line in wrap(&text, room) {
            printer.answer(&format!("{indent}{line}"));
        }
    }
}

/// An outcome as words.
pub(super) fn words(outcome: &str) -> String {
    match outcome {
        "rolledBack" => "rolled back".to_owned(),
        other => other.to_owned(),
    }
}

fn counts(rollout: &Rollout) -> Option<String> {
    let canary = &rollout.counts.canary;
    (canary.requests > 0).then(|| {
        format!(
            "{} {}, {} failed; before {}, {} failed",
            printable(&rollout.version),
            count(canary.requests, "request", "requests"),
            thousands(canary.errors),
            count(rollout.counts.stable.requests, "request", "requests"),
            thousands(rollout.counts.stable.errors),
        )
    })
}

fn waiting(rollout: &Rollout) -> Option<String> {
    let waiting = rollout.waiting.as_ref()?;
    let mut text = format!("waiting: {}", printable(&waiting.text));
    if let Some(until) = waiting.until.as_deref().and_then(clock::parse) {
        text.push_str(&format!(", until {}", clock::local_hms(until)));
    }
    if let Some(needs) = &waiting.needs {
        text.push_str(&format!(", needs {}", printable(needs)));
    }
    Some(text)
}

fn why(rollout: &Rollout) -> Option<String> {
    rollout.reason.as_ref().map(|reason| format!("because: {}", printable(&reason.text)))
}
