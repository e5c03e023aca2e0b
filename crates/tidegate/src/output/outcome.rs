//! How a rollout ended, in sentences.

use tidegate_wire::api::Rollout;

use crate::clock;
use crate::exit::Exit;
use crate::output::numbers::{count, share};
use crate::output::{GREEN, RED, YELLOW, printable};

/// The sentence, and the lines behind it.
pub(crate) fn lines(rollout: &Rollout, exit: Exit) -> Vec<String> {
    let mut lines = vec![first(rollout, exit)];
    if let Some(second) = second(rollout, exit) {
        lines.push(format!("  {second}"));
    }
    lines
}

fn first(rollout: &Rollout, exit: Exit) -> String {
    let outcome = rollout.outcome.as_deref().unwrap_or_default();
    let (style, word) = match (exit, outcome) {
        (Exit::Held, _) => (YELLOW, "held"),
        (_, "promoted") => (GREEN, "promoted"),
        (_, "rolledBack") => (RED, "rolled back"),
        (_, "superseded") => (YELLOW, "superseded"),
        (_, "refused") => (RED, "refused"),
        (_, _) => (YELLOW, "not ended"),
    };
    let place = format!("{} {}", rollout.environment, rollout.services.join(", "));
    let held = rollout.waiting.as_ref().filter(|_| exit == Exit::Held);
    let why = held
        .map(|waiting| waiting.text.clone())
        .or_else(|| rollout.reason.as_ref().map(|reason| reason.text.clone()));
    let version = printable(&rollout.version);
    let mut text = match outcome {
        "promoted" => format!("{style}{word}{style:#}: {place} is on {version}"),
        _ => format!("{style}{word}{style:#}: {version} in {place}"),
    };
    if let Some(why) = why {
        text.push_str(&format!(": {}", printable(&why)));
    }
    text
}

fn second(rollout: &Rollout, exit: Exit) -> Option<String> {
    let version = printable(&rollout.version);
    let counts = &rollout.counts;
    let numbers = (counts.canary.requests > 0).then(|| {
        let mut text = format!(
            "{version} answered {}, {} of them failed ({})",
            count(counts.canary.requests, "request", "requests"),
            counts.canary.errors,
            share(counts.canary.errors, counts.canary.requests),
        );
        if counts.stable.requests > 0
            && let Some(previous) = &rollout.previous
        {
            text.push_str(&format!(
                "; {} {}, {} ({})",
                printable(&previous.version),
                count(counts.stable.requests, "request", "requests"),
                counts.stable.errors,
                share(counts.stable.errors, counts.stable.requests),
            ));
        }
        text.push('.');
        text
    });
    let back = (exit == Exit::Undone && rollout.outcome.as_deref() == Some("rolledBack"))
        .then_some(rollout.previous.as_ref())
        .flatten()
        .map(|previous| {
            let since = rollout
                .ended_at
                .as_deref()
                .and_then(clock::parse)
                .map(|ms| format!(" since {}", clock::local_hms(ms)))
                .unwrap_or_default();
            format!("100 % is on {}{since}.", printable(&previous.version))
        });
    let both: Vec<String> = [numbers, back].into_iter().flatten().collect();
    (!both.is_empty()).then(|| both.join(" "))
}

/// What to do next.
pub(crate) fn next(rollout: &Rollout, exit: Exit) -> Option<String> {
    let id = &rollout.id;
    let service = rollout.services.first().map_or("", String::as_str);
    let version = &rollout.version;
    match exit {
        Exit::Undone | Exit::Refused => Some(format!(
            "next: tidegate explain {id}  ·  tidegate logs {service} --version {version}  ·  \
             tidegate retry"
        )),
        Exit::Held => Some(format!(
            "next: tidegate explain {id}  ·  tidegate retry {id}  ·  tidegate abort {id}"
        )),
        Exit::Done if rollout.phase == "Baking" => Some(format!(
            "{} stays warm while {version} is watched on: tidegate watch {id} --until baked  ·  \
             tidegate undo",
            rollout.previous.as_ref().map_or("nothing before it", |p| p.version.as_str())
        )),
        Exit::Done
        | Exit::Input
        | Exit::Unreachable
        | Exit::Timeout
        | Exit::Journal
        | Exit::Defect
        | Exit::Detached => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::Reason;
    use tidegate_wire::api::{Count, Counts, VersionRef};

    #[test]
    fn a_rollback_says_why_how_many_failed_and_where_the_traffic_is() {
        let rollout = Rollout {
            environment: "production".to_owned(),
            services: vec!["web".to_owned()],
            version: "v2".to_owned(),
            previous: Some(VersionRef { version: "v1".to_owned(), ..VersionRef::default() }),
            outcome: Some("rolledBack".to_owned()),
            reason: Some(Reason::new("check", "errors: 2.2 % is above 1 %")),
            counts: Counts {
                stable: Count { requests: 2070, errors: 2 },
                canary: Count { requests: 232, errors: 5 },
            },
            ..Rollout::default()
        };
        let text = lines(&rollout, Exit::Undone).join("\n");
        for part in [
            "rolled back",
            "v2",
            "2.2 % is above 1 %",
            "5 of them failed (2.2 %)",
            "100 % is on v1",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
