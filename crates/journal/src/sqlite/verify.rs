//! Walks everything: every chain, every checksum, every page.

use std::collections::HashMap;

use tidegate_core::StreamId;

use super::file::corrupt;
use super::meta::unsigned;
use super::read::SqliteReader;
use super::rows::{self, EVENT_COLUMNS, STREAM_COLUMNS, StreamRow};
use crate::{Envelope, Error, Head, Reader as _};

/// A stream on the walk.
struct Walk {
    id: StreamId,
    row: StreamRow,
    at: Head,
    epoch: u64,
}

/// The number of events checked.
///
/// # Errors
/// [`Error::Corrupt`] with the first place that does not hold.
pub(super) fn verify(reader: &SqliteReader) -> Result<u64, Error> {
    // One state for all that follows.
    let _still = reader.still()?;
    let mut walks = streams(reader)?;
    let checked = events(reader, &mut walks)?;
    for walk in walks.values() {
        rows::ends_at(&walk.id, &walk.at, &walk.row.head)?;
    }
    rows_without_chain(reader, &walks)?;
    pages(reader)?;
    Ok(checked)
}

fn streams(reader: &SqliteReader) -> Result<HashMap<i64, Walk>, Error> {
    let failed = reader.failed("reading the streams");
    let mut statement = reader
        .connection
        .prepare(&format!("SELECT {STREAM_COLUMNS}, project, kind, name FROM streams"))
        .map_err(failed)?;
    let mut found = statement.query([]).map_err(failed)?;
    let mut walks = HashMap::new();
    while let Some(row) = found.next().map_err(failed)? {
        let stream = rows::stream(row).map_err(failed)?;
        let id = rows::stream_id(row, 5).map_err(failed)?;
        let at = stream.base.clone();
        walks.insert(stream.number, Walk { id, row: stream, at, epoch: 0 });
    }
    Ok(walks)
}

/// Walks all events in the order of the journal.
fn events(reader: &SqliteReader, walks: &mut HashMap<i64, Walk>) -> Result<u64, Error> {
    let meta = reader.meta(&reader.connection)?;
    let failed = reader.failed("walking the events");
    let mut statement = reader
        .connection
        .prepare(&format!("SELECT {EVENT_COLUMNS}, e.stream FROM events e ORDER BY e.seq"))
        .map_err(failed)?;
    let mut found = statement.query([]).map_err(failed)?;
    let (mut checked, mut last_seq, mut last_at) = (0_u64, 0_u64, 0_u64);
    while let Some(row) = found.next().map_err(failed)? {
        let number: i64 = row.get(10).map_err(failed)?;
        let seq = unsigned(row, 0).map_err(failed)?;
        let place = || format!("event {seq}");
        let Some(walk) = walks.get_mut(&number) else {
            return Err(corrupt(place(), format!("there is no stream {number}")));
        };
        let event: Envelope = rows::event(row, &walk.id, walk.at.version + 1, failed)?;
        rows::follow(&mut walk.at, &event)?;
        if event.at.0 < last_at {
            return Err(corrupt(place(), "it is older than the event before it"));
        }
        if event.epoch.0 < walk.epoch || event.epoch.0 > meta.position.epoch {
            return Err(corrupt(place(), format!("epoch {} cannot be here", event.epoch.0)));
        }
        walk.epoch = event.epoch.0;
        if meta.dropped == 0 && seq != last_seq + 1 {
            return Err(corrupt(format!("event {}", last_seq + 1), "it is missing"));
        }
        (last_seq, last_at, checked) = (seq, event.at.0, checked + 1);
    }
    let expected = meta.position.last_seq.checked_sub(meta.dropped);
    if expected != Some(checked) || last_seq > meta.position.last_seq {
        let why = format!(
            "{checked} events were found and {} were dropped, but {} were appended",
            meta.dropped, meta.position.last_seq
        );
        return Err(corrupt(format!("event {}", last_seq + 1), why));
    }
    if last_at > meta.position.last_at {
        return Err(corrupt(format!("event {last_seq}"), "it is younger than the journal"));
    }
    Ok(checked)
}

/// Outbox, timers, views, snapshots and progress: each row's checksum.
fn rows_without_chain(reader: &SqliteReader, walks: &HashMap<i64, Walk>) -> Result<(), Error> {
    reader.pending()?;
    reader.timers()?;
    for walk in walks.values() {
        reader.view(&walk.id)?;
        reader.progress(&walk.id)?;
        if let Some(snapshot) = reader.snapshot(&walk.id)?
            && snapshot.version > reader.head(&walk.id)?.version
        {
            let why = format!("the snapshot is of version {}", snapshot.version);
            return Err(corrupt(format!("stream {}", walk.id), why));
        }
    }
    Ok(())
}

/// SQLite's own walk over its pages, indexes included.
fn pages(reader: &SqliteReader) -> Result<(), Error> {
    let failed = reader.failed("checking the pages");
    let first: String = reader
        .connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(failed)?;
    if first != "ok" {
        return Err(corrupt(reader.path.display().to_string(), first));
    }
    let strays: Option<String> = {
        let mut statement =
            reader.connection.prepare("PRAGMA foreign_key_check").map_err(failed)?;
        let mut found = statement.query([]).map_err(failed)?;
        match found.next().map_err(failed)? {
            Some(row) => Some(row.get(0).map_err(failed)?),
            None => None,
        }
    };
    match strays {
        Some(table) => Err(corrupt(format!("table {table}"), "a row belongs to no stream")),
        None => Ok(()),
    }
}
