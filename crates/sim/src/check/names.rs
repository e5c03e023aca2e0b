//! Facts as lines of a log.

use crate::fact::Fact;

/// One line; nothing for what happens all the time.
pub(super) fn line(fact: &Fact<'_>) -> Option<String> {
    Some(match fact {
        Fact::Event(event, _) => {
            let reason = event.reason.as_ref().map_or_else(String::new, |r| format!(" ({r})"));
            format!("{} {} {}{reason}", event.epoch.0, event.stream.id, event.event)
        }
        Fact::Capacity { after: (fence, doc), .. } => {
            let all = doc.versions.iter().map(|v| format!("{} x{}", v.version, v.instances));
            format!("host takes {fence}: {}", all.collect::<Vec<_>>().join(", "))
        }
        Fact::Traffic { after: (fence, doc), by_host, .. } => {
            let all = doc.weights.iter().map(|w| format!("{} {} bp", w.version, w.weight_bp));
            let who = if *by_host { "the host puts" } else { "switch takes" };
            format!("{who} {fence}: {}", all.collect::<Vec<_>>().join(", "))
        }
        Fact::Executed { effect, times, ok, .. } => {
            format!("one-shot {effect} is carried out for the {times}. time: {ok}")
        }
        Fact::Recovered(_) => "a process has recovered".to_owned(),
        Fact::Sent(sending) => {
            format!("{} sends {} ({})", sending.epoch.0, sending.effect.key, sending.id)
        }
        Fact::Told { seq } => format!("somebody is told up to {seq}"),
        Fact::Arrived { effect, .. } => format!("effect {effect} arrives"),
        Fact::Rest(_) => "rest".to_owned(),
        Fact::Read { .. } | Fact::Slot { .. } => return None,
    })
}
