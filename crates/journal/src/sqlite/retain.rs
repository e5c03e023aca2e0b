//! Dropping old history: archived first, durable there, then dropped.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use tidegate_core::StreamId;

use super::file::{self, storage};
use super::meta::{signed, unreadable, unsigned};
use super::rows;
use super::write::{SqliteJournal, Writing};
use crate::{Error, Reader as _, Retention, RetentionReport};

/// Streams in one round: archive, flush, drop.
const ROUND: usize = 64;

/// Events read at once.
const PAGE: usize = 500;

/// A stream that may go.
struct Candidate {
    number: i64,
    id: StreamId,
    base: u64,
    version: u64,
    last_at: u64,
}

/// See [`crate::Journal::retain`]. A crash between archive and drop archives a stream twice; its
/// lines are the same, and stream and version tell so.
pub(super) fn retain(
    journal: &mut SqliteJournal,
    policy: &Retention,
) -> Result<RetentionReport, Error> {
    let mut report = RetentionReport::default();
    if let Some(archive) = &policy.archive {
        let candidates = candidates(journal)?;
        let mut left = candidates.as_slice();
        loop {
            let used = used_bytes(journal)?;
            let over = used.saturating_sub(policy.max_bytes.unwrap_or(u64::MAX));
            let count = choose(journal, left, policy, over)?;
            let (chosen, rest) = left.split_at(count);
            if chosen.is_empty() {
                break;
            }
            write_archive(journal, archive, chosen)?;
            drop_events(journal, chosen)?;
            report.streams += chosen.len() as u64;
            left = rest;
        }
        if report.streams > 0 {
            let sql = journal.reader.failed("giving dropped space back");
            journal.reader.connection.execute_batch("PRAGMA incremental_vacuum").map_err(sql)?;
        }
    }
    report.bytes = used_bytes(journal)?;
    Ok(report)
}

/// Finished streams with events, the longest finished first.
fn candidates(journal: &SqliteJournal) -> Result<Vec<Candidate>, Error> {
    let sql = journal.reader.failed("looking for finished streams");
    let mut statement = journal
        .reader
        .connection
        .prepare(
            "SELECT s.id, s.project, s.kind, s.name, s.base_version, s.version, e.at \
             FROM streams s \
             JOIN views v ON v.stream = s.id AND v.open = 0 \
             JOIN snapshots n ON n.stream = s.id AND n.version = s.version \
             JOIN events e ON e.stream = s.id AND e.version = s.version \
             WHERE s.version > s.base_version \
             AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.stream = s.id) \
             AND NOT EXISTS (SELECT 1 FROM timers t WHERE t.stream = s.id) \
             ORDER BY e.at, s.id",
        )
        .map_err(sql)?;
    statement
        .query_map([], |row| {
            Ok(Candidate {
                number: row.get(0)?,
                id: rows::stream_id(row, 1)?,
                base: unsigned(row, 4)?,
                version: unsigned(row, 5)?,
                last_at: unsigned(row, 6)?,
            })
        })
        .and_then(Iterator::collect)
        .map_err(sql)
}

/// How many of them go next: those that are too old, and as many others as it takes to free `over`
/// bytes; at most [`ROUND`].
fn choose(
    journal: &SqliteJournal,
    left: &[Candidate],
    policy: &Retention,
    over: u64,
) -> Result<usize, Error> {
    let sql = journal.reader.failed("measuring a stream");
    let (mut freed, mut chosen) = (0, 0);
    for candidate in left.iter().take(ROUND) {
        let old = policy.older_than.is_some_and(|limit| candidate.last_at < limit.0);
        if !old && freed >= over {
            break;
        }
        freed += journal
            .reader
            .connection
            .prepare_cached(
                "SELECT sum(length(CAST(data AS BLOB)) + 100) FROM events WHERE stream = ?1",
            )
            .and_then(|mut statement| {
                statement.query_row([candidate.number], |row| unsigned(row, 0))
            })
            .map_err(sql)?;
        chosen += 1;
    }
    Ok(chosen)
}

/// Bytes in use: pages that hold something.
fn used_bytes(journal: &SqliteJournal) -> Result<u64, Error> {
    let sql = journal.reader.failed("measuring the journal");
    let number = |name: &str| {
        journal
            .reader
            .connection
            .pragma_query_value(None, name, |row| unsigned(row, 0))
            .map_err(sql)
    };
    let pages = number("page_count")?.saturating_sub(number("freelist_count")?);
    Ok(pages * number("page_size")?)
}

/// Appends the streams' events, each checked against its chain, one JSON line each; durable when
/// it returns.
fn write_archive(
    journal: &SqliteJournal,
    archive: &Path,
    streams: &[Candidate],
) -> Result<(), Error> {
    let io = |error: std::io::Error| {
        if error.kind() == std::io::ErrorKind::StorageFull {
            return Error::Full(file::folder_of(archive).display().to_string());
        }
        storage(archive, "archiving events", error)
    };
    let mut out = BufWriter::new(open_archive(archive).map_err(io)?);
    for stream in streams {
        let mut after = stream.base;
        while after < stream.version {
            for event in journal.read_stream(&stream.id, after, PAGE)? {
                serde_json::to_writer(&mut out, &event).map_err(|error| io(error.into()))?;
                out.write_all(b"\n").map_err(io)?;
                after = event.version;
            }
        }
    }
    let file = out.into_inner().map_err(|error| io(error.into_error()))?;
    file.sync_all().map_err(io)?;
    file::sync_folder(file::folder_of(archive)).map_err(io)
}

/// The archive, positioned at its end, which is the end of a line also after a crash.
fn open_archive(archive: &Path) -> std::io::Result<File> {
    let mut file =
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(archive)?;
    if file.seek(SeekFrom::End(0))? > 0 {
        let mut last = [0_u8];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}

/// One transaction: the events go, the head stays as the base of what may follow.
fn drop_events(journal: &mut SqliteJournal, streams: &[Candidate]) -> Result<(), Error> {
    let mine = journal.meta.position.epoch;
    journal.transact("dropping archived events", |writing: &mut Writing<'_>| {
        let actual = writing.meta.position.epoch;
        if actual != mine {
            return Err(Error::NotOwner { mine, actual }.into());
        }
        for stream in streams {
            let dropped = writing
                .sql
                .prepare_cached("DELETE FROM events WHERE stream = ?1 AND version <= ?2")?
                .execute((stream.number, signed(stream.version)))?;
            let moved = writing
                .sql
                .prepare_cached(
                    "UPDATE streams SET base_version = version, base_hash = hash \
                     WHERE id = ?1 AND version = ?2",
                )?
                .execute((stream.number, signed(stream.version)))?;
            if moved != 1 {
                return Err(unreadable("a finished stream has moved on while archived").into());
            }
            writing.meta.dropped += dropped as u64;
        }
        Ok(())
    })
}
