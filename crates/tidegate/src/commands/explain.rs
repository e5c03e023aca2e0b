//! `explain`: the story of a rollout in sentences, from the journal.

use serde_json::{Value, json};
use tidegate_journal::{Envelope, Reader};
use tidegate_wire::api::{Event, Rollout};

use super::status::words;
use super::watch::is_meant;
use super::{Context, block_on};
use crate::cli::{NameArgs, Output};
use crate::exit::{Exit, Failure};
use crate::output::table::wrap;
use crate::output::{BOLD, DIM, live, outcome, printable};
use crate::source::{self, Source};
use crate::{clock, documents, follow};

/// Tells it.
pub(super) fn run(context: &Context, args: &NameArgs) -> Result<Exit, Failure> {
    let place = context.place()?;
    let rollout = block_on(async {
        // A running engine has fresher counts; the story itself is in the journal.
        let source = Source::open(&place.home).await?;
        if let Some(id) = &args.id {
            return source.rollout(id).await;
        }
        let status = source.status(&place.home, &place.order).await?;
        let mut all: Vec<Rollout> = status
            .environments
            .into_iter()
            .filter_map(|lane| lane.rollout)
            .filter(|rollout| is_meant(rollout, &context.common))
            .collect();
        // The one in progress, else the youngest.
        all.sort_by_key(|rollout| (!documents::is_over(rollout), rollout.started_at.clone()));
        all.pop().ok_or_else(|| {
            Failure::input("nothingReleased", "nothing has been released here", "")
                .fix("`tidegate release VERSION` starts a rollout")
        })
    })?;
    let reader = source::journal(&place.home)?.ok_or_else(|| {
        Failure::input(
            "noJournal",
            "this home has no journal",
            place.home.root().display().to_string(),
        )
    })?;
    let events = match source::find_stream(&reader, "rollout", &rollout.id)? {
        Some((stream, _)) => reader.read_stream(&stream, 0, usize::MAX)?,
        None => Vec::new(),
    };
    match context.printer.output {
        Output::Text => text(context, &rollout, &events),
        Output::Json | Output::Jsonl => {
            let events: Vec<Event> = events.iter().map(documents::event).collect();
            let mut document = documents::with_kind("Explanation", &json!({}));
            if let Some(object) = document.as_object_mut() {
                object.insert("rollout".to_owned(), json!(rollout));
                object.insert("events".to_owned(), json!(events));
            }
            context.printer.document(&document);
        }
    }
    Ok(Exit::Done)
}

fn text(context: &Context, rollout: &Rollout, events: &[Envelope]) {
    let printer = &context.printer;
    printer.answer(&format!(
        "{BOLD}{}{BOLD:#}: {} {} in {}{}",
        rollout.id,
        rollout.services.join(", "),
        printable(&rollout.version),
        rollout.environment,
        rollout
            .previous
            .as_ref()
            .map(|previous| format!(", instead of {}", printable(&previous.version)))
            .unwrap_or_default(),
    ));
    let columns = live::columns();
    for envelope in events {
        let Some(sentence) = sentence(envelope) else { continue };
        let time = clock::local_hms(envelope.at.0);
        for (index, line) in wrap(&sentence, columns.saturating_sub(11)).iter().enumerate() {
            if index == 0 {
                printer.answer(&format!(" {DIM}{time}{DIM:#}  {line}"));
            } else {
                printer.answer(&format!("           {line}"));
            }
        }
    }
    match follow::reached(rollout, crate::cli::Until::Promoted) {
        Some(exit) => {
            for line in outcome::lines(rollout, exit) {
                printer.answer(&line);
            }
        }
        None => printer.answer(&format!(
            "now {}: step {} of {} ({})",
            words(&rollout.phase),
            rollout.step.index,
            rollout.step.count,
            rollout.step.kind
        )),
    }
    if let Some(waiting) = &rollout.waiting {
        let since = clock::parse(&waiting.since).map(clock::local_hms).unwrap_or_default();
        let until = waiting
            .until
            .as_deref()
            .and_then(clock::parse)
            .map(|ms| format!(", until {}", clock::local_hms(ms)))
            .unwrap_or_default();
        let needs = waiting
            .needs
            .as_ref()
            .map(|needs| format!("; needs {}", printable(needs)))
            .unwrap_or_default();
        let text = format!("waiting since {since}{until}: {}{needs}", printable(&waiting.text));
        for line in wrap(&text, columns) {
            printer.answer(&line);
        }
    }
}

/// What an event means to a person; none for what only machines care about.
fn sentence(envelope: &Envelope) -> Option<String> {
    let data: Value = serde_json::from_str(&envelope.data).unwrap_or_default();
    let text = |key: &str| data.get(key).and_then(Value::as_str).map(printable);
    let number = |key: &str| data.get(key).and_then(Value::as_u64);
    let percent = || number("weightBp").map(|bp| format!("{} %", bp / 100)).unwrap_or_default();
    let plain = match envelope.event.as_str() {
        "started" => match data.get("moves").and_then(Value::as_array).map_or(0, Vec::len) {
            0 => "started, to take all traffic at once".to_owned(),
            1 => "started, one step and then all traffic".to_owned(),
            steps => format!("started, {steps} steps and then all traffic"),
        },
        "staged" => "the files are on the host".to_owned(),
        "stepStarted" => format!("step {} begins", number("index").unwrap_or(0) + 1),
        "stepEnded" => format!("step {} is done", number("index").unwrap_or(0) + 1),
        "capacityReady" => match number("ready").unwrap_or(0) {
            1 => "one instance is ready".to_owned(),
            ready => format!("{ready} instances are ready"),
        },
        "trafficObserved" => format!("the switch gives it {}", percent()),
        "promoted" => "all traffic is on it; the version before stays warm".to_owned(),
        "baked" => "the bake window is over".to_owned(),
        "trafficReturned" => "no request goes to it any more".to_owned(),
        "drained" => "its last requests are answered".to_owned(),
        "held" => "held".to_owned(),
        "unheld" => "not held any more".to_owned(),
        "aborting" => "going back".to_owned(),
        "ended" => format!("ended: {}", words(&text("outcome").unwrap_or_default())),
        "capacityWanted" | "trafficWanted" | "trafficApplied" | "previewMoved"
        | "measureRequested" => {
            return envelope.reason.as_ref().map(|reason| printable(&reason.text));
        }
        other => other.to_owned(),
    };
    Some(match &envelope.reason {
        Some(reason) if envelope.event != "ended" => {
            format!("{plain}: {}", printable(&reason.text))
        }
        Some(_) | None => plain,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::{Digest, Epoch, Reason, StreamId, Timestamp};

    fn envelope(event: &str, data: &str, reason: Option<Reason>) -> Envelope {
        Envelope {
            seq: 1,
            stream: StreamId::new("shop", "rollout", "r-1"),
            version: 1,
            at: Timestamp(0),
            epoch: Epoch(1),
            event: event.to_owned(),
            form: 1,
            data: data.to_owned(),
            reason,
            hash: Digest::default(),
        }
    }

    #[test]
    fn events_are_sentences_with_their_reason_and_machinery_is_left_out() {
        let check = Some(Reason::new("check", "errors: 2.2 % is above 1 %"));
        let cases = [
            ("trafficObserved", r#"{"weightBp":1000}"#, None, Some("the switch gives it 10 %")),
            ("aborting", "{}", check, Some("going back: errors: 2.2 % is above 1 %")),
            ("capacityWanted", r#"{"seq":3}"#, None, None),
            ("ended", r#"{"outcome":"rolledBack"}"#, None, Some("ended: rolled back")),
            ("somethingNew", "{}", None, Some("somethingNew")),
        ];
        for (event, data, reason, wanted) in cases {
            assert_eq!(sentence(&envelope(event, data, reason)).as_deref(), wanted, "{event}");
        }
    }
}
