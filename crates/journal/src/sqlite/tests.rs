use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::Error;
use crate::conformance::Subject;

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

#[test]
fn all_files_are_private_to_their_owner() {
    let folder = tempfile::tempdir().unwrap();
    let _journal = SqliteJournal::open(&folder.path().join("journal.db"), "home").unwrap();
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
