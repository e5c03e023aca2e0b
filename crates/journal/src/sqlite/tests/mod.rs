//! What only a file can get wrong: death, damage, other processes, space.

mod damage;
mod death;
mod likeness;
mod owners;
mod space;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::conformance::{Subject, appends, batch, effect, stream};
use crate::{Change, Epoch, Error, Journal, NewEvent, Reader, StreamId, Timestamp, View};

struct InSqlite(tempfile::TempDir);

impl Subject for InSqlite {
    type Journal = SqliteJournal;

    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        Ok(Self(tempfile::tempdir()?))
    }

    fn open(&self, home: &str, before: Option<SqliteJournal>) -> Result<SqliteJournal, Error> {
        drop(before);
        SqliteJournal::open(&self.0.path().join("journal.db"), home)
    }
}

crate::journal_conformance!(InSqlite);

/// A folder with room for a journal, and the journal's path in it.
fn place() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    (folder, path)
}

/// A journal of epoch 1.
fn owned(path: &Path) -> SqliteJournal {
    let mut journal = SqliteJournal::open(path, "home").unwrap();
    journal.take_over(Epoch(0)).unwrap();
    journal
}

/// The n-th change of a stream: an event of some hundred bytes and a row in every table.
fn rich(id: &StreamId, version: u64, n: u64) -> Change {
    let text = char::from(b'a' + u8::try_from(n % 26).unwrap()).to_string().repeat(300);
    let mut change = appends(id, version, &[]);
    change.events = vec![NewEvent {
        event: "counted".to_owned(),
        form: 1,
        data: format!("{{\"n\":{n},\"text\":\"{text}\"}}"),
        reason: Some(crate::Reason::new("counted", format!("number {n}"))),
    }];
    change.outgoing = vec![effect(&format!("e-{n}"))];
    change.set_timers = vec![(format!("t-{}", n % 3), Timestamp(n + 1000))];
    change.view = Some(View { open: n.is_multiple_of(2), doc: serde_json::json!({"n": n}) });
    change.snapshot = Some(format!("{{\"folded\":{n}}}"));
    change.progress = Some(serde_json::json!({"healthyMs": n}));
    change
}

/// Runs one test of this binary in a process of its own, told so by this variable.
fn as_child(binary: &Path, test: &str, variable: &str, value: &Path) -> Command {
    let mut command = Command::new(binary);
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(variable, value);
    command
}

/// A line to the parent, past the harness' capture.
fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

#[test]
fn all_files_are_private_to_their_owner() {
    let (folder, path) = place();
    let _journal = owned(&path);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        names.push(entry.file_name().into_string().unwrap());
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.path());
    }
    names.sort();
    assert_eq!(names, ["journal.db", "journal.db-shm", "journal.db-wal", "journal.reserve"]);
}

#[test]
fn every_commit_is_flushed_and_the_wal_is_bounded() {
    let (_folder, path) = place();
    let journal = owned(&path);
    let pragma = |name: &str| -> String {
        let read = |row: &rusqlite::Row<'_>| Ok(format!("{:?}", row.get_ref(0)?));
        journal.reader.connection.pragma_query_value(None, name, read).unwrap()
    };
    assert_eq!(pragma("synchronous"), "Integer(2)", "FULL");
    assert_eq!(pragma("wal_autocheckpoint"), "Integer(1000)");
    assert_eq!(pragma("foreign_keys"), "Integer(1)");
    assert_eq!(pragma("auto_vacuum"), "Integer(2)", "INCREMENTAL");
    assert!(pragma("journal_mode").starts_with("Text([119, 97, 108])"), "wal");
}

#[test]
fn a_closed_journal_is_one_file() {
    let (_folder, path) = place();
    let mut journal = owned(&path);
    journal.commit(&batch(1, vec![rich(&stream("rollout", "a"), 0, 1)])).unwrap();
    let reader = SqliteReader::open(&path).unwrap();
    journal.close().unwrap();
    let wal = std::fs::metadata(file::beside(&path, "-wal")).unwrap();
    assert_eq!(wal.len(), 0, "also while somebody is still reading");
    assert_eq!(reader.last_seq().unwrap(), 1);
}

#[test]
fn views_are_found_by_index() {
    let (_folder, path) = place();
    let journal = owned(&path);
    let plan = |open: &str| -> String {
        let sql = format!(
            "EXPLAIN QUERY PLAN SELECT v.doc FROM views v LEFT JOIN streams s ON s.id = v.stream \
             WHERE v.kind = 'x' {open} ORDER BY v.touched DESC, v.stream DESC LIMIT 9"
        );
        let mut statement = journal.reader.connection.prepare(&sql).unwrap();
        let rows = statement.query_map([], |row| row.get::<_, String>(3)).unwrap();
        rows.map(Result::unwrap).collect::<Vec<_>>().join("; ")
    };
    assert!(plan("AND v.open = 1").contains("views_open (kind=?)"), "{}", plan("AND v.open = 1"));
    assert!(plan("").contains("views_newest (kind=?)"), "{}", plan(""));
    assert!(!plan("").contains("TEMP B-TREE"), "no sorting: {}", plan(""));
}
