//! Flipped bytes, lost rows, foreign and newer files.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::conformance::everything;

/// A closed journal with two streams, and what is in it.
fn closed() -> (tempfile::TempDir, PathBuf, Vec<StreamId>, String) {
    let (folder, path) = place();
    let mut journal = owned(&path);
    let ids = vec![stream("rollout", "a"), stream("lane", "b")];
    for n in 0..30 {
        let changes = ids.iter().map(|id| rich(id, n, n)).collect();
        journal.commit(&batch(n, changes)).unwrap();
    }
    let all = everything(&journal, &ids).unwrap();
    journal.close().unwrap();
    (folder, path, ids, all)
}

/// Everything that a reader finds, after a full verification.
fn read(path: &Path, ids: &[StreamId]) -> Result<String, Error> {
    let reader = SqliteReader::open(path)?;
    reader.verify()?;
    everything(&reader, ids)
}

#[test]
fn a_flipped_byte_of_an_event_is_named_by_stream_and_version() {
    let (_folder, path, ids, _) = closed();
    let bytes = std::fs::read(&path).unwrap();
    let mut tried = 0;
    let write = |at: usize, bit: u8| {
        let mut damaged = bytes.clone();
        damaged[at] ^= bit;
        std::fs::write(&path, &damaged).unwrap();
    };
    for n in [0_u64, 13, 29] {
        let needle = format!("{{\"n\":{n},\"text\"");
        // Pages also hold remains of rows that have moved to another page; those are not events.
        let events = bytes.windows(needle.len()).enumerate().filter(|(at, part)| {
            let found = *part == needle.as_bytes();
            found && {
                write(*at, 1);
                SqliteReader::open(&path).unwrap().verify().is_err()
            }
        });
        let events: Vec<usize> = events.map(|(at, _)| at).collect();
        assert_eq!(events.len(), 2, "one in each stream");
        for (at, offset) in events.iter().flat_map(|at| (0..300).step_by(23).map(move |o| (at, o)))
        {
            write(at + offset, if offset % 2 == 0 { 0x01 } else { 0x80 });
            let reader = SqliteReader::open(&path).unwrap();
            for found in [
                reader.verify().err(),
                reader.read_all(0, usize::MAX).err(),
                ids.iter().find_map(|id| reader.read_stream(id, n, 1).err()),
                ids.iter().find_map(|id| reader.read_stream(id, 0, usize::MAX).err()),
            ] {
                let Some(Error::Corrupt { place, .. }) = &found else { panic!("{found:?}") };
                let named = |id| *place == format!("stream {id}, version {}", n + 1);
                assert!(ids.iter().any(named), "{place}");
                tried += 1;
            }
        }
    }
    assert!(tried > 100);
}

#[test]
fn a_flipped_byte_anywhere_is_found_or_without_effect_and_never_a_panic() {
    let (_folder, path, ids, all) = closed();
    assert_eq!(read(&path, &ids).unwrap(), all);
    let bytes = std::fs::read(&path).unwrap();
    let (mut found, mut harmless) = (0, 0);
    for at in (0..bytes.len()).step_by(307).chain(0..100) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(file::beside(&path, suffix));
        }
        std::fs::write(&path, &damaged).unwrap();
        let looked = catch_unwind(AssertUnwindSafe(|| read(&path, &ids)));
        match looked.unwrap_or_else(|_| panic!("panic with byte {at} flipped")) {
            Ok(text) => {
                assert_eq!(text, all, "byte {at} was flipped, and nobody has noticed");
                harmless += 1;
            }
            Err(_) => found += 1,
        }
        // The owner must not panic either, whatever it does with it.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let mut journal = SqliteJournal::open(&path, "home")?;
            journal.take_over(Epoch(0))?;
            journal.verify()
        }));
        assert!(opened.is_ok(), "panic of the owner with byte {at} flipped");
    }
    assert!(found > 90 && harmless > 0, "{found} found, {harmless} without effect");
}

#[test]
fn lost_swapped_and_added_rows_are_found() {
    let cases = [
        "DELETE FROM events WHERE seq = 60",
        "DELETE FROM events WHERE seq = 17",
        "DELETE FROM events WHERE stream = 1 AND version > 20",
        "UPDATE events SET seq = 61 WHERE seq = 60",
        "UPDATE events SET seq = 0 WHERE seq = 1",
        "UPDATE events SET stream = 3 WHERE seq = 60",
        "UPDATE events SET data = (SELECT e.data FROM events e WHERE e.seq = 7) WHERE seq = 5",
        "INSERT INTO events SELECT 61, 1, 31, at, epoch, event, form, data, NULL, NULL, hash FROM events WHERE seq = 60",
        "UPDATE events SET at = at + 1 WHERE seq = 5",
        "UPDATE events SET epoch = 0 WHERE seq = 5",
        "UPDATE events SET reason_text = 'other' WHERE seq = 5",
        "UPDATE events SET reason_code = NULL WHERE seq = 5",
        "UPDATE events SET hash = x'00' WHERE seq = 5",
        "UPDATE events SET data = x'ff' WHERE seq = 5",
        "UPDATE streams SET version = 29 WHERE id = 1",
        "UPDATE streams SET hash = NULL WHERE id = 1",
        "UPDATE streams SET name = 'other' WHERE id = 1",
        "DELETE FROM streams WHERE id = 1",
        "UPDATE meta SET last_seq = 59",
        "UPDATE meta SET home = 'other'",
        "DELETE FROM meta",
        "UPDATE outbox SET body = replace(body, '5000', '5001')",
        "UPDATE outbox SET stream = 3 - stream WHERE id = 1",
        "UPDATE timers SET due = due - 1",
        "UPDATE views SET open = 1 - open",
        "UPDATE snapshots SET state = '{}'",
        "UPDATE progress SET doc = '{}'",
        "INSERT INTO progress (stream, doc, sum) VALUES (99, '{}', 0)",
    ];
    let (_folder, path, ids, _) = closed();
    let bytes = std::fs::read(&path).unwrap();
    for case in cases {
        std::fs::write(&path, &bytes).unwrap();
        let raw = rusqlite::Connection::open(&path).unwrap();
        raw.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        assert!(raw.execute(case, []).unwrap() > 0, "{case}");
        drop(raw);
        let result = read(&path, &ids);
        assert!(matches!(result, Err(Error::Corrupt { .. })), "{case}: {result:?}");
    }
}

#[test]
fn a_missing_event_is_told_from_a_changed_one() {
    let (_folder, path, ids, _) = closed();
    let raw = rusqlite::Connection::open(&path).unwrap();
    raw.execute("DELETE FROM events WHERE stream = 1 AND version = 9", []).unwrap();
    drop(raw);
    let reader = SqliteReader::open(&path).unwrap();
    let error = reader.read_stream(&ids[0], 0, 20).unwrap_err();
    assert!(error.to_string().contains("version 9: version 10 is in its place"), "{error}");
}

/// Changes the last event of stream 1 and everything that its chain says about it.
fn forge(path: &Path, id: &StreamId, change: impl Fn(&mut crate::Envelope)) {
    let events = SqliteReader::open(path).unwrap().read_stream(id, 28, 2).unwrap();
    let [before, last] = events.as_slice() else { panic!("{events:?}") };
    let mut forged = last.clone();
    change(&mut forged);
    let hash = rows::bytes(&crate::chain::link(Some(&before.hash), &forged)).unwrap();
    let (at, epoch) = (meta::signed(forged.at.0), meta::signed(forged.epoch.0));
    let raw = rusqlite::Connection::open(path).unwrap();
    let sql = "UPDATE events SET at = ?1, epoch = ?2, hash = ?3 WHERE stream = 1 AND version = 30";
    assert_eq!(raw.execute(sql, (at, epoch, hash)).unwrap(), 1);
    raw.execute("UPDATE streams SET hash = ?1 WHERE id = 1", [hash]).unwrap();
}

#[test]
fn times_and_epochs_that_cannot_be_are_found_behind_a_whole_chain() {
    let (_folder, path, ids, all) = closed();
    forge(&path, &ids[0], |_| ());
    assert_eq!(read(&path, &ids).unwrap(), all, "nothing was changed");
    let place = |path: &Path| match SqliteReader::open(path).unwrap().verify() {
        Err(Error::Corrupt { place, why }) => format!("{place}: {why}"),
        other => panic!("{other:?}"),
    };
    let bytes = std::fs::read(&path).unwrap();
    type Forgery = fn(&mut crate::Envelope);
    let cases: [(Forgery, &str); 4] = [
        (|event| event.at.0 -= 5, "event 59: it is older"),
        (|event| event.at.0 += 5, "event 60: it is older"),
        (|event| event.epoch.0 = 0, "event 59: epoch 0"),
        (|event| event.epoch.0 = 2, "event 59: epoch 2"),
    ];
    for (change, expected) in cases {
        std::fs::write(&path, &bytes).unwrap();
        forge(&path, &ids[0], change);
        assert!(place(&path).starts_with(expected), "{} and not {expected}", place(&path));
    }
}

#[test]
fn a_stream_that_is_gone_with_its_row_is_missed_also_after_retention() {
    let (folder, path) = place();
    let mut journal = owned(&path);
    for (id, at) in [("old", 1), ("gone", 50), ("kept", 60)] {
        let mut change = appends(&stream("rollout", id), 0, &["one", "two"]);
        change.view = Some(View { open: false, doc: serde_json::json!({}) });
        change.snapshot = Some("{}".to_owned());
        journal.commit(&batch(at, vec![change])).unwrap();
    }
    let archive = Some(folder.path().join("archive.jsonl"));
    let older_than = Some(Timestamp(40));
    let policy = crate::Retention { older_than, archive, ..Default::default() };
    assert_eq!(journal.retain(&policy).unwrap().streams, 1);
    assert_eq!(journal.verify().unwrap(), 4);
    journal.close().unwrap();
    let raw = rusqlite::Connection::open(&path).unwrap();
    raw.execute_batch(
        "PRAGMA foreign_keys = OFF; DELETE FROM events WHERE stream = 2; \
         DELETE FROM views WHERE stream = 2; DELETE FROM snapshots WHERE stream = 2; \
         DELETE FROM streams WHERE id = 2;",
    )
    .unwrap();
    drop(raw);
    let error = SqliteReader::open(&path).unwrap().verify().unwrap_err();
    assert!(error.to_string().contains("2 events were found and 2 were dropped, but 6"), "{error}");
}

#[test]
fn a_newer_form_is_refused_and_left_alone() {
    let (_folder, path, ..) = closed();
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 2).unwrap();
    let before = std::fs::read(&path).unwrap();
    let newer = |error| matches!(error, Error::Newer { found: 2, known: file::FORM });
    assert!(newer(SqliteJournal::open(&path, "home").unwrap_err()));
    assert!(newer(SqliteReader::open(&path).unwrap_err()));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_form_that_was_made_by_another_script_is_refused() {
    let (_folder, path, ..) = closed();
    let raw = rusqlite::Connection::open(&path).unwrap();
    raw.execute("UPDATE migrations SET sha256 = 'sha256:00'", []).unwrap();
    drop(raw);
    let error = SqliteJournal::open(&path, "home").unwrap_err();
    assert!(error.to_string().contains("another script"), "{error}");
}

#[test]
fn a_file_that_is_no_journal_is_refused_and_left_alone() {
    let (_folder, path) = place();
    let foreign = rusqlite::Connection::open(&path).unwrap();
    foreign.execute_batch("CREATE TABLE shopping (item TEXT)").unwrap();
    drop(foreign);
    let before = std::fs::read(&path).unwrap();
    let error = SqliteJournal::open(&path, "home").unwrap_err();
    assert!(error.to_string().contains("not a journal of Tidegate"), "{error}");
    assert!(matches!(SqliteReader::open(&path), Err(Error::Corrupt { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    std::fs::write(&path, "not a database at all, but quite a text").unwrap();
    assert!(matches!(SqliteJournal::open(&path, "home"), Err(Error::Corrupt { .. })));
}

#[test]
fn where_there_is_no_journal_a_reader_says_so_and_makes_none() {
    let (folder, path) = place();
    let error = SqliteReader::open(&path).unwrap_err();
    assert!(error.to_string().contains("journal.db"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    std::fs::write(&path, "").unwrap();
    let error = SqliteReader::open(&path).unwrap_err();
    assert!(matches!(error, Error::Storage { .. }), "{error}");
}
