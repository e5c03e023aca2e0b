//! `logs`: what the instances of this machine wrote.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tidegate_wire::home::Home;

use super::{Context, block_on};
use crate::cli::{LogsArgs, Output};
use crate::exit::{Exit, Failure};
use crate::follow::Interrupts;
use crate::output::{DIM, Printer, printable};
use crate::project;

/// Bytes that are read from the end of a log to find its last lines.
const TAIL_BYTES: u64 = 4 << 20;
/// Longest line that is shown whole.
const LINE_MAX: usize = 16 << 10;
/// Between two looks with `--follow`.
const LOOK: Duration = Duration::from_millis(250);

/// Prints them.
pub(super) fn run(context: &Context, args: &LogsArgs) -> Result<Exit, Failure> {
    let place = context.place()?;
    let service = args.name.as_deref().or(context.common.service.as_deref());
    let wanted = Wanted {
        service,
        version: args.version.as_deref(),
        environment: context.common.environment.as_deref(),
    };
    let logs = find(&place.home, &wanted)?;
    if logs.is_empty() && !args.follow {
        let named = project::list([wanted.service, wanted.version].into_iter().flatten());
        context.printer.progress(format!("no logs of {named}").trim_end_matches(" of "));
        return Ok(Exit::Done);
    }
    let mut readers: BTreeMap<PathBuf, Tail> = BTreeMap::new();
    for log in logs {
        let mut tail = Tail::new(log);
        tail.last(args.tail, &context.printer);
        readers.insert(tail.log.path.clone(), tail);
    }
    if !args.follow {
        return Ok(Exit::Done);
    }
    block_on(follow(context, &place.home, &wanted, readers))
}

async fn follow(
    context: &Context,
    home: &Home,
    wanted: &Wanted<'_>,
    mut readers: BTreeMap<PathBuf, Tail>,
) -> Result<Exit, Failure> {
    let mut interrupts = Interrupts::new().map_err(|error| {
        Failure::unreachable("noSignals", "signals cannot be taken", "").cause(error.to_string())
    })?;
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = interrupts.next() => return Ok(Exit::Detached),
        }
        // Instances come and go meanwhile.
        for log in find(home, wanted)? {
            readers
                .entry(log.path.clone())
                .or_insert_with(|| Tail::new(log))
                .more(&context.printer);
        }
        if context.printer.is_closed() {
            return Ok(Exit::Done);
        }
    }
}

struct Wanted<'a> {
    service: Option<&'a str>,
    version: Option<&'a str>,
    environment: Option<&'a str>,
}

/// One log file of one instance.
#[derive(Debug, Clone)]
struct Log {
    path: PathBuf,
    instance: String,
    version: Option<String>,
    stream: &'static str,
}

/// What the host keeps of an instance, as far as it is read here.
#[derive(Debug, Deserialize)]
struct SlotFile {
    lane: String,
    capacity: SlotCapacity,
}

#[derive(Debug, Deserialize)]
struct SlotCapacity {
    version: String,
}

/// Logs of instances that run, and of those that have gone.
fn find(home: &Home, wanted: &Wanted<'_>) -> Result<Vec<Log>, Failure> {
    let mut logs = Vec::new();
    for (folder, gone) in [("instances", false), ("old-logs", true)] {
        let folder = home.host().join(folder);
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(Failure::unreachable(
                    "logsUnreadable",
                    "the logs cannot be read",
                    folder.display().to_string(),
                )
                .cause(error.to_string()));
            }
        };
        let mut names: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        names.sort();
        for path in names {
            let instance =
                path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let slot = slot(&path);
            if !matches(wanted, &instance, slot.as_ref(), gone) {
                continue;
            }
            for stream in ["stdout", "stderr"] {
                logs.push(Log {
                    path: path.join(format!("{stream}.log")),
                    instance: instance.clone(),
                    version: slot.as_ref().map(|slot| slot.capacity.version.clone()),
                    stream,
                });
            }
        }
    }
    Ok(logs)
}

fn slot(folder: &Path) -> Option<SlotFile> {
    serde_json::from_slice(&std::fs::read(folder.join("slot.json")).ok()?).ok()
}

/// Of an instance that has gone only the name is left: `SERVICE-VERSION-DIGEST-N`.
fn matches(wanted: &Wanted<'_>, instance: &str, slot: Option<&SlotFile>, gone: bool) -> bool {
    match slot {
        Some(slot) => {
            let (environment, service) = slot.lane.split_once('/').unwrap_or(("", &slot.lane));
            wanted.service.is_none_or(|name| name == service)
                && wanted.environment.is_none_or(|name| name == environment)
                && wanted.version.is_none_or(|name| name == slot.capacity.version)
        }
        None => {
            let front = match (wanted.service, wanted.version) {
                (Some(service), Some(version)) => {
                    return instance.starts_with(&format!(
                        "{}-{}-",
                        plain(service),
                        plain(version)
                    ));
                }
                (Some(service), None) => format!("{}-", plain(service)),
                (None, Some(version)) => {
                    return instance.contains(&format!("-{}-", plain(version)));
                }
                (None, None) => String::new(),
            };
            gone && instance.starts_with(&front)
        }
    }
}

/// A name as the host writes it into names of folders.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' })
        .collect()
}

/// How far a log has been read.
struct Tail {
    log: Log,
    file: u64,
    offset: u64,
    rest: Vec<u8>,
}

impl Tail {
    fn new(log: Log) -> Self {
        Self { log, file: 0, offset: 0, rest: Vec::new() }
    }

    /// Its last lines.
    fn last(&mut self, lines: usize, printer: &Printer) {
        let Ok(mut file) = std::fs::File::open(&self.log.path) else { return };
        let Ok(meta) = file.metadata() else { return };
        let from = meta.len().saturating_sub(TAIL_BYTES);
        let mut bytes = Vec::new();
        if file.seek(SeekFrom::Start(from)).is_err() || file.read_to_end(&mut bytes).is_err() {
            return;
        }
        self.file = meta.ino();
        self.offset = from + bytes.len() as u64;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.rest = bytes.split_off(whole);
        let mut all: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        all.pop();
        let skip = all.len().saturating_sub(lines);
        for line in all.into_iter().skip(skip) {
            self.print(line, printer);
        }
        // The last line of an instance that has ended may have no end.
        if !self.rest.is_empty() && lines > 0 && !self.log.path.with_file_name("slot.json").exists()
        {
            let rest = std::mem::take(&mut self.rest);
            self.print(&rest, printer);
        }
    }

    /// What has been written since.
    fn more(&mut self, printer: &Printer) {
        let Ok(mut file) = std::fs::File::open(&self.log.path) else { return };
        let Ok(meta) = file.metadata() else { return };
        if meta.ino() != self.file {
            // Rotated: what was left of the old file is read first.
            self.drain_rotated(printer);
            self.file = meta.ino();
            self.offset = 0;
        } else if meta.len() < self.offset {
            self.offset = 0;
        }
        self.read(&mut file, printer);
    }

    fn drain_rotated(&mut self, printer: &Printer) {
        let old = PathBuf::from(format!("{}.1", self.log.path.display()));
        let Ok(mut file) = std::fs::File::open(&old) else { return };
        if file.metadata().is_ok_and(|meta| meta.ino() == self.file) {
            self.read(&mut file, printer);
        }
    }

    fn read(&mut self, file: &mut std::fs::File, printer: &Printer) {
        let mut bytes = Vec::new();
        if file.seek(SeekFrom::Start(self.offset)).is_err()
            || file.take(TAIL_BYTES).read_to_end(&mut bytes).is_err()
        {
            return;
        }
        self.offset += bytes.len() as u64;
        let mut all = std::mem::take(&mut self.rest);
        all.extend_from_slice(&bytes);
        while let Some(end) = all.iter().position(|byte| *byte == b'\n') {
            let rest = all.split_off(end + 1);
            all.pop();
            self.print(&all, printer);
            all = rest;
        }
        self.rest = all;
    }

    fn print(&self, line: &[u8], printer: &Printer) {
        let cut = line.get(..LINE_MAX).unwrap_or(line);
        let text = String::from_utf8_lossy(cut);
        let text = printable(text.trim_end_matches('\r'));
        match printer.output {
            Output::Text => {
                let mark = if self.log.stream == "stderr" { "!" } else { " " };
                printer.answer(&format!("{DIM}{}{mark}{DIM:#}{text}", self.log.instance));
            }
            Output::Json | Output::Jsonl => {
                let document = serde_json::json!({
                    "apiVersion": tidegate_wire::API_VERSION,
                    "kind": "LogLine",
                    "instance": self.log.instance,
                    "version": self.log.version,
                    "stream": self.log.stream,
                    "text": text,
                });
                printer.raw(format!("{document}\n").as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_found_by_service_and_version_also_of_instances_that_have_gone() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path());
        let make = |path: &str, slot: Option<&str>| {
            let folder = home.host().join(path);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("stdout.log"), "hello\n").unwrap();
            if let Some(slot) = slot {
                std::fs::write(folder.join("slot.json"), slot).unwrap();
            }
        };
        let slot = r#"{"lane":"production/web","index":0,"capacity":{"version":"v2"},"at":{}}"#;
        make("instances/web-v2-1a2b3c4d-0", Some(slot));
        make("old-logs/web-v1-5e6f7a8b-0", None);
        make("old-logs/api-v1-00000000-0", None);
        let count = |service, version, environment| {
            find(&home, &Wanted { service, version, environment }).unwrap().len() / 2
        };
        assert_eq!(count(None, None, None), 3);
        assert_eq!(count(Some("web"), None, None), 2);
        assert_eq!(count(Some("web"), Some("v1"), None), 1);
        assert_eq!(count(Some("web"), Some("v2"), Some("production")), 1);
        assert_eq!(count(Some("web"), Some("v2"), Some("staging")), 0);
        assert_eq!(count(None, Some("v1"), None), 2);
    }
}
