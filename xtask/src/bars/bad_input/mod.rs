//! `bad-input`: a table of bad files, arguments and circumstances. Each has to be met with its exit
//! code and its words, and to leave everything as it was; never with a panic.

mod circumstances;
mod files;
mod homes;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tidegate_journal::Reader;
use tidegate_journal::sqlite::SqliteReader;

use super::{Bound, Context, Figures};
use crate::stage::{Binaries, Pid, Project, Ran, Stage};
use tidegate_example_service::Behaviour;

/// Cases that there have to be.
const CASES_MIN: usize = 40;

/// Longest that anybody may be kept waiting for a refusal.
const SLOWEST_S: f64 = 15.0;

/// What has to come of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expected {
    /// The exit code.
    code: i32,
    /// Words of the diagnostic, any case; `a|b` is either of them.
    words: &'static [&'static str],
}

/// A case: what is made bad, what is typed, what has to come of it.
struct Case {
    name: &'static str,
    make: fn(&Stage) -> Result<()>,
    type_: fn(&Stage) -> Result<Ran>,
    expected: Expected,
}

/// How a case went, one line of `cases.jsonl`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Tried {
    case: String,
    typed: String,
    code: i32,
    wanted: i32,
    missing_words: Vec<String>,
    panicked: bool,
    changed: Vec<String>,
    seconds: f64,
    stderr: String,
    holds: bool,
}

pub(super) fn run(context: &Context, figures: &mut Figures) -> Result<()> {
    let mut tried = Vec::new();
    for file in files::FILES {
        let one = try_file(&context.binaries, file);
        let one = one.unwrap_or_else(|error| Tried::broke(file.name, file.expected, &error));
        context.note("cases.jsonl", &one)?;
        tried.push(one);
    }
    for case in circumstances::CASES.iter().chain(homes::CASES) {
        let one = try_case(&context.binaries, case);
        let one = one.unwrap_or_else(|error| Tried::broke(case.name, case.expected, &error));
        context.note("cases.jsonl", &one)?;
        tried.push(one);
    }
    let all = tried.len();
    figures.at_least("cases", all, CASES_MIN);
    let count = |what: fn(&Tried) -> bool| tried.iter().filter(|one| what(one)).count();
    figures.exactly("with the right exit code", count(|one| one.code == one.wanted), all);
    figures.exactly("with the right words", count(|one| one.missing_words.is_empty()), all);
    figures.exactly("that changed something", count(|one| !one.changed.is_empty()), 0);
    figures.exactly("that panicked", count(|one| one.panicked), 0);
    let slowest = tried.iter().map(|one| one.seconds).fold(0.0, f64::max);
    figures.add("slowest", slowest, "s", Bound::AtMost(SLOWEST_S));
    for one in tried.iter().filter(|one| !one.holds) {
        figures.exactly(&format!("holds: {}", one.case), 0, 1);
    }
    Ok(())
}

impl Tried {
    /// A case that could not be tried does not hold; the others are tried all the same.
    fn broke(name: &str, expected: Expected, error: &anyhow::Error) -> Self {
        Self {
            case: name.to_owned(),
            typed: String::new(),
            code: -1,
            wanted: expected.code,
            missing_words: expected.words.iter().map(|word| (*word).to_owned()).collect(),
            panicked: false,
            changed: Vec::new(),
            seconds: f64::NAN,
            stderr: format!("{error:#}"),
            holds: false,
        }
    }
}

/// A bad `tidegate.yaml`: `validate` has to say so.
fn try_file(binaries: &Binaries, file: &files::File) -> Result<Tried> {
    let stage = Stage::new(binaries)?;
    stage.artifact("v1", &Behaviour::default())?;
    let good = Project::default().text(&stage);
    let bad = file.bad(&good).with_context(|| "the good file has changed: mend this case")?;
    std::fs::write(stage.folder().join("tidegate.yaml"), bad)?;
    judge(&stage, file.name, file.expected, |stage| stage.tidegate(&["validate"]))
}

fn try_case(binaries: &Binaries, case: &Case) -> Result<Tried> {
    let stage = Stage::new(binaries)?;
    stage.write_project(&Project::default())?;
    stage.artifact("v1", &Behaviour::default())?;
    (case.make)(&stage)?;
    judge(&stage, case.name, case.expected, case.type_)
}

fn judge(
    stage: &Stage,
    name: &str,
    expected: Expected,
    type_: impl FnOnce(&Stage) -> Result<Ran>,
) -> Result<Tried> {
    let before = Seen::of(stage)?;
    let ran = type_(stage)?;
    let after = Seen::of(stage)?;
    let text = format!("{}{}", ran.stdout, ran.stderr);
    let missing: Vec<String> = missing(&text, expected.words);
    let changed = after.differs_from(&before);
    let spoken = format!("{text}{}", logs(stage.folder())?);
    let panicked = ["panicked at", "RUST_BACKTRACE"].iter().any(|word| spoken.contains(word));
    let holds = ran.code == expected.code && missing.is_empty() && changed.is_empty() && !panicked;
    Ok(Tried {
        case: name.to_owned(),
        typed: ran.typed,
        code: ran.code,
        wanted: expected.code,
        missing_words: missing,
        panicked,
        changed,
        seconds: ran.took.as_secs_f64(),
        stderr: ran.stderr.chars().take(2000).collect(),
        holds,
    })
}

/// What must not change: files, what runs, and the journal.
struct Seen {
    files: BTreeMap<String, String>,
    stable: String,
    /// The last sequence of the journal; none where there is none or it cannot be read.
    events: Option<u64>,
    instances: usize,
}

impl Seen {
    fn of(stage: &Stage) -> Result<Self> {
        let journal = SqliteReader::open(&stage.home().join("journal.db"));
        Ok(Self {
            files: contents(stage.folder())?,
            stable: stable(stage),
            events: journal.ok().and_then(|journal| journal.last_seq().ok()),
            instances: stage.processes().into_iter().filter(|pid| is_instance(*pid)).count(),
        })
    }

    fn differs_from(&self, before: &Self) -> Vec<String> {
        let mut changed = differences(&before.files, &self.files);
        if before.stable != self.stable {
            changed.push(format!("stable: {} -> {}", before.stable, self.stable));
        }
        if before.instances != self.instances {
            changed.push(format!("instances: {} -> {}", before.instances, self.instances));
        }
        if let (Some(before), Some(now)) = (before.events, self.events)
            && before != now
        {
            changed.push(format!("events: {before} -> {now}"));
        }
        changed
    }
}

/// Whether it is the example service.
fn is_instance(pid: Pid) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0);
    words.next().is_some_and(|word| word.ends_with(b"tidegate-example"))
}

/// All logs of all homes.
fn logs(folder: &Path) -> Result<String> {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder)?.flatten().filter(|entry| entry.path().is_dir()) {
        for log in ["engine.log", "host.log", "switch.log"] {
            let bytes = std::fs::read(entry.path().join(log)).unwrap_or_default();
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    Ok(text)
}

/// The words that a text does not have.
fn missing(text: &str, words: &[&str]) -> Vec<String> {
    let text = text.to_lowercase();
    let absent = |word: &&&str| !word.split('|').any(|one| text.contains(&one.to_lowercase()));
    words.iter().filter(absent).map(|word| (*word).to_owned()).collect()
}

/// The versions that `status` calls stable, and nothing where it cannot say.
fn stable(stage: &Stage) -> String {
    let status = stage.status().unwrap_or_default();
    let list = status["environments"].as_array().cloned().unwrap_or_default();
    let versions = list.iter().filter_map(|environment| environment["stable"]["version"].as_str());
    versions.collect::<Vec<_>>().join(" ")
}

/// In a home logs, sockets and beats may change. What runs, what `status` says and the events of its
/// journal may not.
const HOMES: [&str; 2] = ["home/", "second/"];

/// What commands of the stage itself leave.
const OURS: [&str; 2] = [".out", ".err"];

/// Every file below a folder, outside of its home, with the digest of its content.
fn contents(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&next) else { continue };
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let name = path.strip_prefix(folder)?.to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(path);
            } else if !HOMES.iter().any(|home| name.starts_with(home))
                && !OURS.iter().any(|end| name.ends_with(end))
            {
                let digest = if kind.is_file() {
                    let digest = Sha256::digest(std::fs::read(&path).unwrap_or_default());
                    digest.iter().map(|byte| format!("{byte:02x}")).collect()
                } else {
                    String::new()
                };
                files.insert(name, digest);
            }
        }
    }
    Ok(files)
}

fn differences(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| before.get(*name) != after.get(*name));
    names.into_iter().take(20).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::{CASES_MIN, circumstances, contents, differences, files, homes, missing};
    use crate::stage::{Binaries, Project, Stage};

    #[test]
    fn there_are_enough_cases_and_each_has_a_name_of_its_own() {
        let mut names: Vec<&str> = files::FILES.iter().map(|file| file.name).collect();
        names.extend(circumstances::CASES.iter().chain(homes::CASES).map(|case| case.name));
        assert!(names.len() >= CASES_MIN, "{}", names.len());
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn every_bad_file_differs_from_the_good_one() {
        let program: std::path::PathBuf = "/bin/true".into();
        let stage = Stage::new(&Binaries { tidegate: program.clone(), example: program }).unwrap();
        let good = Project::default().text(&stage);
        for file in files::FILES {
            let bad = file.bad(&good);
            assert!(bad.is_some_and(|bad| bad != good.as_bytes()), "{}", file.name);
        }
    }

    #[test]
    fn words_are_looked_for_in_any_case_and_with_alternatives() {
        assert!(missing("Unknown KEY `x`", &["unknown key", "y|x"]).is_empty());
        assert_eq!(missing("fine", &["a|b", "fine"]), ["a|b"]);
    }

    #[test]
    fn what_was_made_changed_or_removed_is_a_difference() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("a", "1");
        write("b", "1");
        std::fs::create_dir(folder.path().join("home")).unwrap();
        write("home/x", "1");
        let before = contents(folder.path()).unwrap();
        assert!(differences(&before, &contents(folder.path()).unwrap()).is_empty());
        write("a", "2");
        write("c", "1");
        write("home/x", "2");
        std::fs::remove_file(folder.path().join("b")).unwrap();
        assert_eq!(differences(&before, &contents(folder.path()).unwrap()), ["a", "b", "c"]);
    }
}
