//! `first-run`: the README's first command on this machine. `tidegate demo` plays its three acts
//! within a minute; what came of them is not taken from its words but read in the journal of the
//! home that it leaves where `--keep` says, and counted in the raw log of its client.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tidegate_journal::sqlite::SqliteReader;
use tidegate_journal::{Envelope, Reader};

use super::{Bound, Context, Figures};
use crate::load::{Line, LoadReport};
use crate::stage::{Stage, processes_naming};

/// The version that fails.
const BAD: &str = "v3";

/// Answers that there have to be after an act.
const ANSWERS_MIN: usize = 20;

pub(super) fn run(context: &Context, figures: &mut Figures) -> Result<()> {
    let kept = context.folder.join("demo");
    let stage = Stage::new(&context.binaries)?;
    let kept_text = kept.to_string_lossy().into_owned();
    let start = Instant::now();
    let ran = stage.background(&["demo", "--keep", &kept_text])?.end(Duration::from_secs(120))?;
    let took = start.elapsed();
    std::fs::write(context.folder.join("demo.stdout"), &ran.stdout)?;
    std::fs::write(context.folder.join("demo.stderr"), &ran.stderr)?;
    figures.add("demo exits with", f64::from(ran.code), "", Bound::Exactly(0.0));
    figures.add("demo takes", took.as_secs_f64(), "s", Bound::AtMost(60.0));
    let log = kept.join("requests.log");
    std::fs::copy(&log, context.folder.join("requests.log"))
        .with_context(|| format!("the demo's raw log {} is not there; {ran}", log.display()))?;
    let report = LoadReport::read(&log)?;
    figures.at_least("requests", report.lines.len(), 500);
    let lost = report.failures_not_answered_by(&[BAD]).len();
    figures.exactly("failed, not answered by the bad version itself", lost, 0);
    let own = report.tally().failed_by_version.get(BAD).copied().unwrap_or(0);
    figures.add("failed, answered by the bad version itself", own as f64, "", Bound::AtLeast(1.0));
    let reader = SqliteReader::open(&kept.join("home/journal.db"))?;
    let events = reader.read_all(0, usize::MAX)?;
    for event in &events {
        context.note("events.jsonl", event)?;
    }
    for act in &ACTS {
        act.report_on(&events, &report.lines, figures);
    }
    figures.exactly("processes left behind", processes_naming(&kept).len(), 0);
    figures.note("README command two, the tests: times run (CI does it, no bar)", 0.0, "");
    Ok(())
}

/// An act: a release, and what it has to come to.
struct Act {
    name: &'static str,
    version: &'static str,
    /// The rollout's outcome.
    outcome: &'static str,
    /// Who answers alone afterwards, and at which weight of the act's version that begins.
    serves: &'static str,
    weight_bp: u64,
    /// Engines that have driven it.
    engines: usize,
}

const ACTS: [Act; 3] = [
    Act {
        name: "act 1, good",
        version: "v2",
        outcome: "promoted",
        serves: "v2",
        weight_bp: 10_000,
        engines: 1,
    },
    Act {
        name: "act 2, bad",
        version: BAD,
        outcome: "rolledBack",
        serves: "v2",
        weight_bp: 0,
        engines: 1,
    },
    Act {
        name: "act 3, engine killed",
        version: "v4",
        outcome: "promoted",
        serves: "v4",
        weight_bp: 10_000,
        engines: 2,
    },
];

impl Act {
    fn report_on(&self, events: &[Envelope], lines: &[Line], figures: &mut Figures) {
        let story = Story::of(self.version, events);
        let ended = usize::from(story.outcome.as_deref() == Some(self.outcome));
        let Self { name, serves, .. } = self;
        figures.exactly(&format!("{name}: ended {}, by the journal", self.outcome), ended, 1);
        figures.exactly(&format!("{name}: engines that drove it"), story.engines, self.engines);
        let (alone, others) = story.after(self.weight_bp, serves, lines);
        figures.at_least(&format!("{name}: answers by {serves} afterwards"), alone, ANSWERS_MIN);
        figures.exactly(&format!("{name}: answers by others afterwards"), others, 0);
    }
}

/// What the journal says of the release of one version.
#[derive(Debug, Default, PartialEq)]
struct Story {
    outcome: Option<String>,
    engines: usize,
    /// (milliseconds of Unix time, weight in basis points) as it was observed at the switch.
    observed: Vec<(u64, u64)>,
    /// When the next rollout wanted a part of the traffic.
    next: Option<u64>,
}

impl Story {
    fn of(version: &str, events: &[Envelope]) -> Self {
        let data = |event: &Envelope| {
            serde_json::from_str::<serde_json::Value>(&event.data).unwrap_or_default()
        };
        let at = |event: &Envelope| event.at.0;
        let release = format!("@{version}");
        let of_release = |event: &&Envelope| {
            event.stream.kind == "release" && event.stream.id.ends_with(&release)
        };
        let ended = |event: &&Envelope| event.event == "environmentEnded" && of_release(event);
        let Some(end) = events.iter().find(ended).map(data) else { return Self::default() };
        let rollout = end["rollout"].as_str().unwrap_or_default();
        let of_rollout =
            |event: &&Envelope| event.stream.kind == "rollout" && event.stream.id == rollout;
        let observed = events.iter().filter(of_rollout).filter(|e| e.event == "trafficObserved");
        let last = events.iter().rfind(of_rollout).map_or(0, |event| event.seq);
        let next = events.iter().find(|event| {
            let later = event.seq > last && event.event == "trafficWanted";
            later && event.stream.kind == "rollout"
        });
        let epochs: BTreeSet<u64> =
            events.iter().filter(of_rollout).map(|event| event.epoch.0).collect();
        Self {
            outcome: end["outcome"].as_str().map(str::to_owned),
            engines: epochs.len(),
            observed: observed
                .map(|event| (at(event), data(event)["weightBp"].as_u64().unwrap_or(u64::MAX)))
                .collect(),
            next: next.map(at),
        }
    }

    /// Whole answers to requests that were sent after this weight was observed, up to when the next
    /// rollout wants something: by `serves`, and by others.
    fn after(&self, weight_bp: u64, serves: &str, lines: &[Line]) -> (usize, usize) {
        let reached = self.observed.iter().rfind(|(_, weight)| *weight == weight_bp);
        let Some((from_ms, _)) = reached else { return (0, 0) };
        let (from, to) = (from_ms * 1000, self.next.map_or(u64::MAX, |ms| ms * 1000));
        let inside = lines.iter().filter(|line| {
            // The journal's milliseconds are cut off.
            line.sent_us >= from + 1000 && line.answered_us <= to && line.error.is_none()
        });
        let (alone, others): (Vec<&Line>, Vec<&Line>) =
            inside.partition(|line| line.answered_by(serves));
        (alone.len(), others.len())
    }
}

#[cfg(test)]
mod tests {
    use super::{Envelope, Line, Story};
    use serde_json::{Value, json};
    use tidegate_core::{Digest, Epoch, StreamId, Timestamp};

    fn events(list: &[(u64, u64, &str, &str, &str, Value)]) -> Vec<Envelope> {
        let envelope = |(seq, (at, epoch, kind, id, event, data)): (
            u64,
            &(u64, u64, &str, &str, &str, Value),
        )| Envelope {
            seq,
            stream: StreamId::new("demo", kind, id),
            version: 1,
            at: Timestamp(*at),
            epoch: Epoch(*epoch),
            event: (*event).to_owned(),
            form: 1,
            data: data.to_string(),
            reason: None,
            hash: Digest::default(),
        };
        (1..).zip(list).map(envelope).collect()
    }

    fn line(sent_ms: u64, version: &str) -> Line {
        Line {
            n: sent_ms,
            sent_us: sent_ms * 1000,
            answered_us: sent_ms * 1000 + 500,
            status: 200,
            version: version.into(),
            method: "GET",
            error: None,
            due_us: sent_ms * 1000,
        }
    }

    #[test]
    fn an_act_is_read_in_the_journal_and_counted_at_the_client() {
        let ended = |outcome: &str, rollout: &str| json!({"outcome": outcome, "rollout": rollout});
        let events = events(&[
            (10, 1, "rollout", "r-1", "trafficObserved", json!({"weightBp": 2000})),
            (20, 2, "rollout", "r-1", "trafficObserved", json!({"weightBp": 10000})),
            (21, 2, "release", "web@v2", "environmentEnded", ended("promoted", "r-1")),
            (22, 2, "rollout", "r-1", "ended", json!({})),
            (40, 2, "rollout", "r-2", "trafficWanted", json!({})),
            (50, 2, "rollout", "r-2", "trafficObserved", json!({"weightBp": 0})),
            (51, 2, "release", "web@v3", "environmentEnded", ended("rolledBack", "r-2")),
        ]);
        let story = Story::of("v2", &events);
        assert_eq!(story.outcome.as_deref(), Some("promoted"));
        assert_eq!((story.engines, story.next), (2, Some(40)));
        let lines = [line(15, "v1"), line(25, "v2"), line(30, "v1"), line(45, "v3")];
        assert_eq!(story.after(10_000, "v2", &lines), (1, 1));
        let story = Story::of("v3", &events);
        assert_eq!(story.outcome.as_deref(), Some("rolledBack"));
        assert_eq!(story.after(0, "v2", &[line(45, "v3"), line(60, "v2")]), (1, 0));
    }

    #[test]
    fn a_release_that_never_was_has_no_story() {
        assert_eq!(Story::of("v2", &[]), Story::default());
        assert_eq!(Story::default().after(0, "v1", &[line(1, "v1")]), (0, 0));
    }
}
