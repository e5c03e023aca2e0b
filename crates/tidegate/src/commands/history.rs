//! `history`: rollouts so far, newest first.

use tidegate_journal::Reader;
use tidegate_wire::api::Rollout;

use super::status::words;
use super::watch::is_meant;
use super::{Context, Place, block_on};
use crate::cli::{HistoryArgs, Output};
use crate::client::Engine;
use crate::exit::{Exit, Failure};
use crate::follow::{Feed, Interrupts};
use crate::output::numbers::{count, thousands};
use crate::output::table::layout;
use crate::output::{is_ci, line, live, printable};
use crate::{clock, documents, source};

/// Rows that are looked at, so that a filter finds something behind the newest ones.
const LOOK: usize = 10_000;

/// Prints them.
pub(super) fn run(context: &Context, args: &HistoryArgs) -> Result<Exit, Failure> {
    let place = context.place()?;
    if args.follow {
        return block_on(follow(context, &place, args));
    }
    let rollouts = match source::journal(&place.home)? {
        Some(reader) => rollouts(context, &reader, args.limit)?,
        None => Vec::new(),
    };
    match context.printer.output {
        Output::Text => text(context, &rollouts),
        Output::Json => context.printer.document(&serde_json::json!({
            "apiVersion": tidegate_wire::API_VERSION,
            "kind": "History",
            "rollouts": rollouts,
        })),
        Output::Jsonl => {
            for rollout in &rollouts {
                context.printer.document(&documents::with_kind("Rollout", rollout));
            }
        }
    }
    Ok(Exit::Done)
}

fn rollouts(context: &Context, reader: &dyn Reader, limit: usize) -> Result<Vec<Rollout>, Failure> {
    let filtered = context.common.environment.is_some() || context.common.service.is_some();
    let mut rollouts = Vec::new();
    for row in reader.views("rollout", false, if filtered { LOOK } else { limit })? {
        // One row that cannot be read does not hide the others.
        match documents::rollout(&row) {
            Ok(rollout) if is_meant(&rollout, &context.common) => rollouts.push(rollout),
            Ok(_) => {}
            Err(error) => context.printer.warning(&error.to_string()),
        }
    }
    rollouts.sort_by(|a, b| b.started_at.cmp(&a.started_at));
    rollouts.truncate(limit);
    Ok(rollouts)
}

fn text(context: &Context, rollouts: &[Rollout]) {
    if rollouts.is_empty() {
        context.printer.answer("no rollouts yet");
        return;
    }
    let rows: Vec<Vec<String>> = rollouts
        .iter()
        .map(|rollout| {
            let canary = &rollout.counts.canary;
            let numbers = if canary.requests > 0 {
                format!(
                    "{}, {} failed",
                    count(canary.requests, "request", "requests"),
                    thousands(canary.errors)
                )
            } else {
                String::new()
            };
            let why = rollout.reason.as_ref().map(|r| printable(&r.text)).unwrap_or_default();
            let notes = [numbers, why].into_iter().filter(|w| !w.is_empty()).collect::<Vec<_>>();
            vec![
                clock::parse(&rollout.started_at).map(clock::local_minute).unwrap_or_default(),
                rollout.id.clone(),
                rollout.environment.clone(),
                format!("{} {}", rollout.services.join(", "), printable(&rollout.version)),
                rollout.outcome.as_deref().map_or_else(|| rollout.phase.clone(), words),
                notes.join("; "),
            ]
        })
        .collect();
    for line in layout(&rows, 1, live::columns()) {
        context.printer.answer(&line);
    }
}

/// Every event that happens, until somebody interrupts.
async fn follow(context: &Context, place: &Place, args: &HistoryArgs) -> Result<Exit, Failure> {
    let mut interrupts = Interrupts::new().map_err(|error| {
        Failure::unreachable("noSignals", "signals cannot be taken", "").cause(error.to_string())
    })?;
    let since = match (args.since, source::journal(&place.home)?) {
        (Some(since), _) => since,
        (None, Some(reader)) => reader.last_seq()?,
        (None, None) => 0,
    };
    let engine = Engine::find(&place.home).await.map(|(engine, _)| engine);
    let mut feed = Feed::new(&place.home, engine, since);
    loop {
        tokio::select! {
            events = feed.next(std::time::Duration::from_secs(5)) => {
                for event in events? {
                    match context.printer.output {
                        Output::Text => {
                            context.printer.answer(&line::event_line(&event, is_ci()));
                        }
                        Output::Json | Output::Jsonl => {
                            context.printer.raw(
                                format!("{}\n", serde_json::to_string(&event).unwrap_or_default())
                                    .as_bytes(),
                            );
                        }
                    }
                }
            }
            () = interrupts.next() => return Ok(Exit::Detached),
        }
        if context.printer.is_closed() {
            return Ok(Exit::Done);
        }
    }
}
