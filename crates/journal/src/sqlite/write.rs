//! Writing: one transaction a batch, one flush a transaction.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};
use serde_json::Value;
use tidegate_core::{Digest, Epoch, StreamId, Timestamp};

use super::file::{self, failed, storage};
use super::meta::{Meta, signed, sum, unreadable};
use super::read::{SqliteReader, stream_row, view_sum};
use super::reserve::Reserve;
use super::rows;
use crate::append::{self, Prepared, kept_due, next_epoch};
use crate::{
    Batch, Change, Committed, Envelope, Error, Head, Journal, Pending, Reader, Retention,
    RetentionReport, Snapshot, Timer, ViewRow,
};

/// How many heads are kept in memory before all of them are forgotten.
const KEPT_HEADS: usize = 100_000;

/// The one writer of a journal.
///
/// A failed flush cannot be repeated (the kernel may have dropped the pages), so after a failure
/// inside a transaction nothing more is written: the process has to end and to recover.
#[derive(Debug)]
pub struct SqliteJournal {
    pub(super) reader: SqliteReader,
    /// The journal's own row after our last transaction.
    pub(super) meta: Meta,
    /// Numbers and heads of streams as of `meta`.
    pub(super) heads: HashMap<StreamId, Known>,
    pub(super) reserve: Reserve,
    broken: bool,
}

/// A stream that was looked up.
#[derive(Debug, Clone)]
pub(super) struct Known {
    number: i64,
    head: Head,
}

impl SqliteJournal {
    /// Opens the journal in this file for writing; makes it (mode 0600) where there is none, with
    /// `home_hint` as the identity of its home. An existing journal keeps its own identity. On a
    /// full disk the reserve is given up if that is what it takes to open.
    ///
    /// # Errors
    /// [`Error::Newer`] for a file of a newer version; [`Error::Corrupt`] for one that is damaged
    /// or is no journal; [`Error::Full`]; [`Error::Storage`].
    pub fn open(path: &Path, home_hint: &str) -> Result<Self, Error> {
        let mut reserve = Reserve::beside(path);
        match Self::try_open(path, home_hint, &reserve) {
            Err(Error::Full(_)) if reserve.release()? => Self::try_open(path, home_hint, &reserve),
            opened => {
                // Not worth refusing to start for: an undo may still fit without it.
                let mut opened = opened?;
                let _ = opened.reserve.hold();
                Ok(opened)
            }
        }
    }

    fn try_open(path: &Path, home_hint: &str, reserve: &Reserve) -> Result<Self, Error> {
        let mut connection = file::open_writer(path)?;
        let sql = failed(path, "reading the journal's own row");
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
        let new = Meta::load(&transaction).map_err(sql)?.is_none();
        if new {
            let strays: bool = transaction
                .query_row("SELECT EXISTS (SELECT 1 FROM streams)", [], |row| row.get(0))
                .map_err(sql)?;
            if strays {
                return Err(sql(unreadable("the journal's own row is missing")));
            }
            Meta::new(home_hint).store(&transaction).map_err(sql)?;
        }
        transaction.commit().map_err(sql)?;
        if new {
            // Into the database itself: whatever happens to the WAL, it stays this home's journal.
            file::checkpoint(&connection).map_err(sql)?;
        }
        let reader = SqliteReader::over(connection, path)?;
        let meta = reader.meta(&reader.connection)?;
        let reserve = reserve.clone();
        Ok(Self { reader, meta, heads: HashMap::new(), reserve, broken: false })
    }

    /// Whether the reserve is in place: space that an undo can have on a full disk.
    #[must_use]
    pub fn reserve_held(&self) -> bool {
        self.reserve.held()
    }

    /// Gives the reserve up, so that a small batch (an undo) fits after [`Error::Full`]. It is
    /// taken again when the journal is opened and there is room. `false`: there was none.
    ///
    /// # Errors
    /// [`Error::Storage`] if the file cannot be removed.
    pub fn release_reserve(&mut self) -> Result<bool, Error> {
        self.reserve.release()
    }

    /// Copies the WAL into the database and empties it, so that the file alone is the journal.
    ///
    /// # Errors
    /// [`Error::Storage`] and [`Error::Full`]; nothing is lost then, the WAL is still there.
    pub fn close(self) -> Result<(), Error> {
        let path = self.reader.path;
        let sql = failed(&path, "closing the journal");
        file::checkpoint(&self.reader.connection).map_err(sql)?;
        self.reader.connection.close().map_err(|(_, error)| sql(error))
    }

    /// Runs `work` in one transaction over the journal as it is now, and keeps what it made of the
    /// journal's own row.
    pub(super) fn transact<T>(
        &mut self,
        doing: &str,
        work: impl FnOnce(&mut Writing<'_>) -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let path = &self.reader.path;
        let sql = failed(path, doing);
        if self.broken {
            let why = "an earlier write failed; end the process and open the journal anew";
            return Err(storage(path, doing, why));
        }
        let transaction = self
            .reader
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(sql)?;
        let meta = Meta::load(&transaction)
            .and_then(|meta| meta.ok_or_else(|| unreadable("the journal's own row is missing")))
            .map_err(sql)?;
        if meta.commits != self.meta.commits || self.heads.len() > KEPT_HEADS {
            self.heads.clear();
        }
        let mut writing =
            Writing { sql: &transaction, meta, kept: &self.heads, fresh: HashMap::new() };
        let worked = work(&mut writing).and_then(|made| {
            writing.meta.commits += 1;
            writing.meta.store(&transaction)?;
            Ok(made)
        });
        let (mut meta, fresh) = (writing.meta, writing.fresh);
        let error = match worked {
            Ok(made) => match transaction.commit() {
                Ok(()) => {
                    std::mem::swap(&mut self.meta, &mut meta);
                    self.heads.extend(fresh);
                    return Ok(made);
                }
                Err(error) => sql(error),
            },
            Err(Failure::Refused(error)) => return Err(error),
            Err(Failure::Sql(error)) => sql(error),
        };
        self.broken = !matches!(error, Error::Full(_));
        Err(error)
    }
}

/// Why a transaction is given up.
#[derive(Debug)]
pub(super) enum Failure {
    /// By our rules; the journal is as good as before.
    Refused(Error),
    /// By SQLite.
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// An open transaction.
pub(super) struct Writing<'a> {
    pub(super) sql: &'a Connection,
    pub(super) meta: Meta,
    kept: &'a HashMap<StreamId, Known>,
    /// What has been looked up or changed in this transaction.
    fresh: HashMap<StreamId, Known>,
}

impl Writing<'_> {
    /// Looks a stream up, once in a transaction.
    fn known(&mut self, stream: &StreamId) -> rusqlite::Result<Option<&Known>> {
        if !self.fresh.contains_key(stream) {
            let found = match self.kept.get(stream) {
                Some(known) => Some(known.clone()),
                None => stream_row(self.sql, stream)?
                    .map(|row| Known { number: row.number, head: row.head }),
            };
            let Some(found) = found else { return Ok(None) };
            self.fresh.insert(stream.clone(), found);
        }
        Ok(self.fresh.get(stream))
    }

    /// The stream's number; it gets one with its first mention.
    fn number(&mut self, stream: &StreamId) -> rusqlite::Result<i64> {
        if let Some(known) = self.known(stream)? {
            return Ok(known.number);
        }
        self.sql
            .prepare_cached("INSERT INTO streams (project, kind, name) VALUES (?1, ?2, ?3)")?
            .execute((&stream.project, &stream.kind, &stream.id))?;
        let number = self.sql.last_insert_rowid();
        self.fresh.insert(stream.clone(), Known { number, head: Head::default() });
        Ok(number)
    }

    fn batch(&mut self, batch: &Batch) -> Result<Committed, Failure> {
        let mut broken = None;
        let prepared = append::prepare(batch, self.meta.position, |stream| {
            let head = self.known(stream).map(|known| known.map(|known| known.head.clone()));
            head.map(Option::unwrap_or_default).map_err(|error| {
                let text = error.to_string();
                broken = Some(error);
                append::refused("looking a stream up".to_owned(), text)
            })
        });
        if let Some(error) = broken {
            return Err(Failure::Sql(error));
        }
        let prepared = prepared?;
        self.meta.position = prepared.position;
        let mut numbers = Vec::with_capacity(batch.changes.len());
        for change in &batch.changes {
            numbers.push(self.number(&change.stream)?);
        }
        self.outbox(batch, &prepared, &numbers)?;
        self.events(batch, &prepared, &numbers)?;
        for ((change, number), version) in batch.changes.iter().zip(numbers).zip(prepared.versions)
        {
            self.change(change, number, version)?;
        }
        Ok(prepared.committed)
    }

    fn outbox(&self, batch: &Batch, made: &Prepared, numbers: &[i64]) -> rusqlite::Result<()> {
        // Before the new rows: a batch cannot know their numbers, so it cannot mean them.
        for id in batch.changes.iter().flat_map(|change| &change.done) {
            self.sql.prepare_cached("DELETE FROM outbox WHERE id = ?1")?.execute([signed(*id)])?;
        }
        let mut pending = made.committed.pending.iter();
        for (change, &number) in batch.changes.iter().zip(numbers) {
            for row in pending.by_ref().take(change.outgoing.len()) {
                let body = to_json(&row.outgoing)?;
                let id = signed(row.id);
                self.sql
                    .prepare_cached(
                        "INSERT INTO outbox (id, stream, body, sum) VALUES (?1, ?2, ?3, ?4)",
                    )?
                    .execute((id, number, &body, sum(&[number, id], &[&body])))?;
            }
        }
        Ok(())
    }

    /// Events and the heads that they make. Every waiter's event passes here, so the statement is
    /// looked up once.
    fn events(&mut self, batch: &Batch, made: &Prepared, numbers: &[i64]) -> rusqlite::Result<()> {
        let mut insert = self.sql.prepare_cached(
            "INSERT INTO events (seq, stream, version, at, epoch, event, form, data, \
             reason_code, reason_text, hash) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?;
        let mut events = made.committed.events.iter();
        for (change, number) in batch.changes.iter().zip(numbers) {
            for event in events.by_ref().take(change.events.len()) {
                let reason = event.reason.as_ref();
                insert.execute((
                    signed(event.seq),
                    number,
                    signed(event.version),
                    signed(event.at.0),
                    signed(event.epoch.0),
                    &event.event,
                    event.form,
                    &event.data,
                    reason.map(|reason| &reason.code),
                    reason.map(|reason| &reason.text),
                    stored_hash(&event.hash)?,
                ))?;
            }
        }
        for (stream, head) in &made.heads {
            let number = self.number(stream)?;
            if let Some(hash) = &head.hash {
                self.sql
                    .prepare_cached("UPDATE streams SET version = ?2, hash = ?3 WHERE id = ?1")?
                    .execute((number, signed(head.version), stored_hash(hash)?))?;
            }
            self.fresh.insert(stream.clone(), Known { number, head: head.clone() });
        }
        Ok(())
    }

    /// All of a change that is neither an event nor in the outbox.
    fn change(&self, change: &Change, number: i64, version: u64) -> rusqlite::Result<()> {
        for key in &change.drop_timers {
            self.sql
                .prepare_cached("DELETE FROM timers WHERE stream = ?1 AND key = ?2")?
                .execute((number, key))?;
        }
        for (key, due) in &change.set_timers {
            let due = signed(kept_due(*due).0);
            self.sql
                .prepare_cached(
                    "INSERT OR REPLACE INTO timers (stream, key, due, sum) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute((number, key, due, sum(&[number, due], &[key])))?;
        }
        if let Some(view) = &change.view {
            let doc = to_json(&view.doc)?;
            let touched = self.meta.position.last_seq;
            self.sql
                .prepare_cached(
                    "INSERT OR REPLACE INTO views (stream, kind, version, open, touched, doc, sum) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?
                .execute((
                    number,
                    &change.stream.kind,
                    signed(version),
                    view.open,
                    signed(touched),
                    &doc,
                    view_sum(number, version, touched, view.open, &doc),
                ))?;
        }
        if let Some(state) = &change.snapshot {
            let version = signed(version);
            self.sql
                .prepare_cached(
                    "INSERT OR REPLACE INTO snapshots (stream, version, state, sum) \
                     VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute((number, version, state, sum(&[number, version], &[state])))?;
        }
        if let Some(progress) = &change.progress {
            let doc = to_json(progress)?;
            self.sql
                .prepare_cached(
                    "INSERT OR REPLACE INTO progress (stream, doc, sum) VALUES (?1, ?2, ?3)",
                )?
                .execute((number, &doc, sum(&[number], &[&doc])))?;
        }
        Ok(())
    }
}

fn stored_hash(hash: &Digest) -> rusqlite::Result<[u8; 32]> {
    rows::bytes(hash).ok_or_else(|| unreadable("a hash that is none"))
}

fn to_json<T: serde::Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

impl Journal for SqliteJournal {
    /// On a full disk the reserve is given up: without an owner nothing can be undone at all.
    fn take_over(&mut self, at_least: Epoch) -> Result<Epoch, Error> {
        let take = |writing: &mut Writing<'_>| {
            let epoch = next_epoch(writing.meta.position.epoch, at_least)?;
            writing.meta.position.epoch = epoch.0;
            Ok(epoch)
        };
        let doing = "taking the journal over";
        match self.transact(doing, take) {
            Err(Error::Full(_)) if self.release_reserve()? => self.transact(doing, take),
            taken => taken,
        }
    }

    fn commit(&mut self, batch: &Batch) -> Result<Committed, Error> {
        self.transact("committing to the journal", |writing| writing.batch(batch))
    }

    /// Drops events of streams that are finished (their view is not open), have nothing in the
    /// outbox and no timer, and have a snapshot at their end, so that the state stays known. Head,
    /// view and snapshot stay. Without an archive nothing is dropped.
    fn retain(&mut self, policy: &Retention) -> Result<RetentionReport, Error> {
        super::retain::retain(self, policy)
    }
}

impl Reader for SqliteJournal {
    fn home(&self) -> &str {
        self.reader.home()
    }

    fn epoch(&self) -> Result<Epoch, Error> {
        self.reader.epoch()
    }

    fn last_seq(&self) -> Result<u64, Error> {
        self.reader.last_seq()
    }

    fn last_at(&self) -> Result<Timestamp, Error> {
        self.reader.last_at()
    }

    fn head(&self, stream: &StreamId) -> Result<Head, Error> {
        self.reader.head(stream)
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Envelope>, Error> {
        self.reader.read_stream(stream, after, limit)
    }

    fn read_all(&self, after: u64, limit: usize) -> Result<Vec<Envelope>, Error> {
        self.reader.read_all(after, limit)
    }

    fn snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, Error> {
        self.reader.snapshot(stream)
    }

    fn views(&self, kind: &str, open_only: bool, limit: usize) -> Result<Vec<ViewRow>, Error> {
        self.reader.views(kind, open_only, limit)
    }

    fn view(&self, stream: &StreamId) -> Result<Option<ViewRow>, Error> {
        self.reader.view(stream)
    }

    fn progress(&self, stream: &StreamId) -> Result<Option<Value>, Error> {
        self.reader.progress(stream)
    }

    fn pending(&self) -> Result<Vec<Pending>, Error> {
        self.reader.pending()
    }

    fn timers(&self) -> Result<Vec<Timer>, Error> {
        self.reader.timers()
    }

    fn verify(&self) -> Result<u64, Error> {
        self.reader.verify()
    }
}
