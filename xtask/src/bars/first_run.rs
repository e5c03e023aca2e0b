//! `first-run`: the README's commands on this machine. `tidegate demo` plays its three acts within
//! a minute; what came of them is not taken from its words but counted from the raw log of its
//! client, which it leaves where `--keep` says.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::{Bound, Context, Figures};
use crate::load::{Line, LoadReport};
use crate::stage::{Stage, processes_naming};
use crate::tidy;

/// What is served before the acts, in them, and which of them is bad.
const VERSIONS: [&str; 4] = ["v1", "v2", "v3", "v4"];
const BAD: &str = "v3";

/// Answers in a row that have to come from one version before it counts as serving alone.
const ALONE: usize = 20;

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
    let acts = acts(&report.lines);
    for (name, holds) in ["act 1: the good version is promoted", ACT_2, ACT_3].iter().zip(acts) {
        figures.exactly(name, usize::from(holds), 1);
    }
    let owners = owners(&kept);
    figures.at_least("engines of the home, one after the other", owners, 2);
    figures.exactly("processes left behind", processes_naming(&kept).len(), 0);
    if !context.short {
        let passed = tests_pass(&context.folder)?;
        figures.exactly("the README's second command passes", usize::from(passed), 1);
    }
    Ok(())
}

const ACT_2: &str = "act 2: the bad version comes and goes by itself";
const ACT_3: &str = "act 3: the engine is killed and the release ends right";

/// Which acts ended right, from who answered when: after a version has appeared for the last time
/// in an act, the one that should serve answers alone.
fn acts(lines: &[Line]) -> [bool; 3] {
    let mut whole: Vec<&Line> = lines.iter().filter(|line| line.error.is_none()).collect();
    whole.sort_by_key(|line| line.answered_us);
    let first = |version: &str| whole.iter().position(|line| line.version == version);
    let [Some(_), Some(second), Some(third), Some(fourth)] = VERSIONS.map(first) else {
        return [false; 3];
    };
    if !(second < third && third < fourth) {
        return [false; 3];
    }
    [
        alone(&whole[second..third]) == Some(VERSIONS[1]),
        alone(&whole[third..fourth]) == Some(VERSIONS[1]),
        alone(&whole[fourth..]) == Some(VERSIONS[3]),
    ]
}

/// The one version of the last answers.
fn alone<'a>(lines: &[&'a Line]) -> Option<&'a str> {
    let last = lines.get(lines.len().checked_sub(ALONE)?..)?;
    let versions: BTreeSet<&str> = last.iter().map(|line| line.version.as_str()).collect();
    if versions.len() == 1 { versions.into_iter().next() } else { None }
}

/// How many engines have owned the demo's home: its last epoch, as the heartbeat says.
fn owners(kept: &Path) -> usize {
    let text = std::fs::read_to_string(kept.join("home/engine.heartbeat")).unwrap_or_default();
    text.split_whitespace().next().and_then(|epoch| epoch.parse().ok()).unwrap_or(0)
}

fn tests_pass(folder: &Path) -> Result<bool> {
    let log = std::fs::File::create(folder.join("tests.log"))?;
    let status = Command::new("cargo")
        .args(["test", "--workspace", "--locked"])
        .current_dir(tidy::root())
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()
        .context("cannot start cargo")?;
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use super::acts;
    use crate::load::Line;

    /// Answers in turn: `("v1", 30)` is thirty by v1; `"v1/v2"` alternates.
    fn lines(parts: &[(&str, usize)]) -> Vec<Line> {
        let mut lines = Vec::new();
        for (versions, number) in parts {
            let versions: Vec<&str> = versions.split('/').collect();
            for index in 0..*number {
                let n = u64::try_from(lines.len()).unwrap();
                lines.push(Line {
                    n,
                    sent_us: n,
                    answered_us: n + 1,
                    status: 200,
                    version: versions[index % versions.len()].into(),
                    method: "GET",
                    error: None,
                    due_us: n,
                });
            }
        }
        lines
    }

    #[test]
    fn three_good_acts_are_seen_in_who_answered() {
        let good = [
            ("v1", 30),
            ("v1/v2", 30),
            ("v2", 30),
            ("v2/v3", 20),
            ("v2", 30),
            ("v2/v4", 9),
            ("v4", 20),
        ];
        assert_eq!(acts(&lines(&good)), [true; 3]);
    }

    #[test]
    fn an_act_that_ended_wrong_is_seen() {
        let not_back =
            [("v1", 30), ("v1/v2", 30), ("v2", 30), ("v2/v3", 20), ("v3", 30), ("v4", 20)];
        assert_eq!(acts(&lines(&not_back)), [true, false, true]);
        let not_promoted = [("v1", 30), ("v1/v2", 30), ("v2/v3", 20), ("v2", 30), ("v2/v4", 40)];
        assert_eq!(acts(&lines(&not_promoted)), [false, true, false]);
        assert_eq!(acts(&lines(&[("v1", 30), ("v2", 30)])), [false; 3]);
    }
}
