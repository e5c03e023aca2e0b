//! Reading: the same code for the writer and for readers beside it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _, Transaction};
use serde_json::Value;
use tidegate_core::{Epoch, StreamId, Timestamp};

use super::file::{self, corrupt, failed, storage};
use super::meta::{Meta, signed, sum, unreadable, unsigned};
use super::rows::{self, EVENT_COLUMNS, STREAM_COLUMNS, StreamRow};
use crate::{Envelope, Error, Head, Pending, Reader, Snapshot, Timer, View, ViewRow};

/// Reads a journal: beside a running engine, of a stopped home, also in a folder that cannot be
/// written.
#[derive(Debug)]
pub struct SqliteReader {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    pub(super) home: String,
}

impl SqliteReader {
    /// Opens a journal for reading.
    ///
    /// # Errors
    /// [`Error::Newer`]; [`Error::Corrupt`] if it is no journal; [`Error::Storage`] if there is
    /// none, or if it cannot be read from where we stand.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::over(file::open_reader(path)?, path)
    }

    pub(super) fn over(connection: Connection, path: &Path) -> Result<Self, Error> {
        let mut reader = Self { connection, path: path.to_owned(), home: String::new() };
        reader.home = reader.meta(&reader.connection)?.home;
        Ok(reader)
    }

    pub(super) fn failed<'a>(
        &'a self,
        doing: &'a str,
    ) -> impl Fn(rusqlite::Error) -> Error + Copy + 'a {
        failed(&self.path, doing)
    }

    pub(super) fn meta(&self, connection: &Connection) -> Result<Meta, Error> {
        let meta = Meta::load(connection).map_err(self.failed("reading the journal's own row"))?;
        let missing = || corrupt(self.path.display().to_string(), "the journal's row is missing");
        meta.ok_or_else(missing)
    }

    /// One state of the journal for several queries.
    pub(super) fn still(&self) -> Result<Transaction<'_>, Error> {
        self.connection.unchecked_transaction().map_err(self.failed("beginning to read"))
    }

    pub(super) fn stream_row(&self, stream: &StreamId) -> Result<Option<StreamRow>, Error> {
        stream_row(&self.connection, stream).map_err(self.failed("looking a stream up"))
    }

    /// The head after which the events of a stream are to be read.
    fn head_at(&self, stream: &StreamId, row: &StreamRow, version: u64) -> Result<Head, Error> {
        if version < row.base.version {
            let why = format!(
                "the events up to version {} were archived and dropped; read them from the \
                 archive, or begin at the snapshot",
                row.base.version
            );
            return Err(storage(&self.path, &format!("reading stream {stream}"), why));
        }
        if version == row.base.version {
            return Ok(row.base.clone());
        }
        let hash = self.stored_hash(row.number, version)?;
        let hash = hash.ok_or_else(|| rows::corrupt_event(stream, version, "it is missing"))?;
        Ok(Head { version, hash: Some(hash) })
    }

    fn stored_hash(
        &self,
        stream: i64,
        version: u64,
    ) -> Result<Option<tidegate_core::Digest>, Error> {
        let found: Option<[u8; 32]> = self
            .connection
            .prepare_cached("SELECT hash FROM events WHERE stream = ?1 AND version = ?2")
            .and_then(|mut statement| {
                statement.query_row((stream, signed(version)), |row| row.get(0)).optional()
            })
            .map_err(self.failed("reading an event's hash"))?;
        Ok(found.map(tidegate_core::Digest::from_sha256))
    }

    /// The one row about a stream that `sql` selects, with what `read` makes of it.
    fn row_of<T>(
        &self,
        stream: &StreamId,
        sql: &str,
        read: impl Fn(&rusqlite::Row<'_>, i64) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Error> {
        // No transaction around both: a stream's number never changes.
        let Some(found) = self.stream_row(stream)? else { return Ok(None) };
        self.connection
            .prepare_cached(sql)
            .and_then(|mut statement| {
                statement.query_row([found.number], |row| read(row, found.number)).optional()
            })
            .map_err(self.failed("reading a stream's row"))
    }

    /// All that `sql` selects, with what `read` makes of it.
    fn all<T>(
        &self,
        sql: &str,
        parameters: impl rusqlite::Params,
        read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Error> {
        self.connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_map(parameters, read)?.collect())
            .map_err(self.failed("reading rows"))
    }
}

/// The row of a stream.
pub(super) fn stream_row(
    connection: &Connection,
    stream: &StreamId,
) -> rusqlite::Result<Option<StreamRow>> {
    connection
        .prepare_cached(&format!(
            "SELECT {STREAM_COLUMNS} FROM streams WHERE project = ?1 AND kind = ?2 AND name = ?3"
        ))?
        .query_row((&stream.project, &stream.kind, &stream.id), rows::stream)
        .optional()
}

/// A checked text column that holds JSON.
fn json<T: serde::de::DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))
}

/// Checks the checksum in this column.
fn check(row: &rusqlite::Row<'_>, column: usize, actual: i64) -> rusqlite::Result<()> {
    let stored: i64 = row.get(column)?;
    if stored == actual { Ok(()) } else { Err(unreadable("the row's checksum is wrong")) }
}

/// The checksum of a row of `views`.
pub(super) fn view_sum(stream: i64, version: u64, touched: u64, open: bool, doc: &str) -> i64 {
    sum(&[stream, signed(version), signed(touched), i64::from(open)], &[doc])
}

/// Reads stream, version, open, touched, doc, sum from this column on.
fn view(row: &rusqlite::Row<'_>, id: StreamId, column: usize) -> rusqlite::Result<ViewRow> {
    let stream: i64 = row.get(column)?;
    let version = unsigned(row, column + 1)?;
    let open: bool = row.get(column + 2)?;
    let doc: String = row.get(column + 4)?;
    let actual = view_sum(stream, version, unsigned(row, column + 3)?, open, &doc);
    check(row, column + 5, actual)?;
    Ok(ViewRow { stream: id, version, view: View { open, doc: json(&doc)? } })
}

impl Reader for SqliteReader {
    fn home(&self) -> &str {
        &self.home
    }

    fn epoch(&self) -> Result<Epoch, Error> {
        Ok(Epoch(self.meta(&self.connection)?.position.epoch))
    }

    fn last_seq(&self) -> Result<u64, Error> {
        Ok(self.meta(&self.connection)?.position.last_seq)
    }

    fn last_at(&self) -> Result<Timestamp, Error> {
        Ok(Timestamp(self.meta(&self.connection)?.position.last_at))
    }

    fn head(&self, stream: &StreamId) -> Result<Head, Error> {
        Ok(self.stream_row(stream)?.map(|found| found.head).unwrap_or_default())
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Envelope>, Error> {
        let _still = self.still()?;
        let Some(found) = self.stream_row(stream)? else { return Ok(Vec::new()) };
        if after > found.head.version {
            return Ok(Vec::new());
        }
        let mut head = self.head_at(stream, &found, after)?;
        let failed = self.failed("reading a stream's events");
        let mut statement = self
            .connection
            .prepare_cached(&format!(
                "SELECT {EVENT_COLUMNS} FROM events e \
                 WHERE e.stream = ?1 AND e.version > ?2 ORDER BY e.version LIMIT ?3"
            ))
            .map_err(failed)?;
        let wanted = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut found_rows =
            statement.query((found.number, signed(after), wanted)).map_err(failed)?;
        let mut events = Vec::new();
        while let Some(row) = found_rows.next().map_err(failed)? {
            let event = rows::event(row, stream, head.version + 1, failed)?;
            rows::follow(&mut head, &event)?;
            events.push(event);
        }
        if events.len() < limit {
            rows::ends_at(stream, &head, &found.head)?;
        }
        Ok(events)
    }

    fn read_all(&self, after: u64, limit: usize) -> Result<Vec<Envelope>, Error> {
        let _still = self.still()?;
        let failed = self.failed("reading events");
        let mut statement = self
            .connection
            .prepare_cached(&format!(
                "SELECT {EVENT_COLUMNS}, e.stream, s.project, s.kind, s.name, s.base_version \
                 FROM events e LEFT JOIN streams s ON s.id = e.stream \
                 WHERE e.seq > ?1 ORDER BY e.seq LIMIT ?2"
            ))
            .map_err(failed)?;
        let wanted = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut found = statement.query((signed(after), wanted)).map_err(failed)?;
        let mut heads: HashMap<i64, Head> = HashMap::new();
        let mut events = Vec::new();
        while let Some(row) = found.next().map_err(failed)? {
            let number: i64 = row.get(10).map_err(failed)?;
            let id = rows::stream_id(row, 11).map_err(|error| {
                let seq = row.get::<_, i64>(0).unwrap_or_default();
                corrupt(format!("event {seq}"), format!("its stream cannot be read: {error}"))
            })?;
            let version = unsigned(row, 1).map_err(failed)?;
            let event = rows::event(row, &id, version, failed)?;
            let head = match heads.entry(number) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => {
                    let row = self.stream_row(&id)?;
                    let missing = || corrupt(format!("stream {id}"), "it has no row");
                    let before = version.saturating_sub(1);
                    unknown.insert(self.head_at(&id, &row.ok_or_else(missing)?, before)?)
                }
            };
            rows::follow(head, &event)?;
            events.push(event);
        }
        Ok(events)
    }

    fn snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, Error> {
        let sql = "SELECT version, state, sum FROM snapshots WHERE stream = ?1";
        self.row_of(stream, sql, |row, number| {
            let version = unsigned(row, 0)?;
            let state: String = row.get(1)?;
            check(row, 2, sum(&[number, signed(version)], &[&state]))?;
            Ok(Snapshot { version, state })
        })
    }

    fn views(&self, kind: &str, open_only: bool, limit: usize) -> Result<Vec<ViewRow>, Error> {
        // `open = 1` has to stand there as it does in the partial index.
        let open = if open_only { "AND v.open = 1" } else { "" };
        let sql = format!(
            "SELECT s.project, s.kind, s.name, v.stream, v.version, v.open, v.touched, v.doc, v.sum \
             FROM views v LEFT JOIN streams s ON s.id = v.stream \
             WHERE v.kind = ?1 {open} ORDER BY v.touched DESC, v.stream DESC LIMIT ?2"
        );
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.all(&sql, (kind, limit), |row| view(row, rows::stream_id(row, 0)?, 3))
    }

    fn view(&self, stream: &StreamId) -> Result<Option<ViewRow>, Error> {
        let sql = "SELECT stream, version, open, touched, doc, sum FROM views WHERE stream = ?1";
        self.row_of(stream, sql, |row, _| view(row, stream.clone(), 0))
    }

    fn progress(&self, stream: &StreamId) -> Result<Option<Value>, Error> {
        let sql = "SELECT doc, sum FROM progress WHERE stream = ?1";
        self.row_of(stream, sql, |row, number| {
            let doc: String = row.get(0)?;
            check(row, 1, sum(&[number], &[&doc]))?;
            json(&doc)
        })
    }

    fn pending(&self) -> Result<Vec<Pending>, Error> {
        let sql = "SELECT s.project, s.kind, s.name, o.stream, o.id, o.body, o.sum \
                   FROM outbox o LEFT JOIN streams s ON s.id = o.stream ORDER BY o.id";
        self.all(sql, [], |row| {
            let (number, id): (i64, u64) = (row.get(3)?, unsigned(row, 4)?);
            let body: String = row.get(5)?;
            check(row, 6, sum(&[number, signed(id)], &[&body]))?;
            Ok(Pending { id, stream: rows::stream_id(row, 0)?, outgoing: json(&body)? })
        })
    }

    fn timers(&self) -> Result<Vec<Timer>, Error> {
        let sql = "SELECT s.project, s.kind, s.name, t.stream, t.key, t.due, t.sum \
                   FROM timers t LEFT JOIN streams s ON s.id = t.stream";
        let mut timers = self.all(sql, [], |row| {
            let number: i64 = row.get(3)?;
            let (key, due): (String, u64) = (row.get(4)?, unsigned(row, 5)?);
            check(row, 6, sum(&[number, signed(due)], &[&key]))?;
            Ok(Timer { due: Timestamp(due), stream: rows::stream_id(row, 0)?, key })
        })?;
        timers.sort();
        Ok(timers)
    }

    fn verify(&self) -> Result<u64, Error> {
        super::verify::verify(self)
    }
}
