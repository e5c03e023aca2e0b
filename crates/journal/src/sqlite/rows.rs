//! From rows to values.

use rusqlite::Row;
use tidegate_core::{Digest, Epoch, Reason, StreamId, Timestamp};

use super::file::{corrupt, is_unreadable_value};
use super::meta::unsigned;
use crate::{Envelope, Error, Head};

/// The columns of an event that [`event`] wants, in its order.
pub(crate) const EVENT_COLUMNS: &str = "e.seq, e.version, e.at, e.epoch, e.event, e.form, e.data, e.reason_code, e.reason_text, e.hash";

/// A row of `streams`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamRow {
    pub(crate) number: i64,
    pub(crate) head: Head,
    /// The last event that retention has dropped; version 0 if none.
    pub(crate) base: Head,
}

/// The columns of a stream that [`stream`] wants, in its order.
pub(crate) const STREAM_COLUMNS: &str = "id, version, hash, base_version, base_hash";

/// Reads [`STREAM_COLUMNS`] from column 0 on.
pub(crate) fn stream(row: &Row<'_>) -> rusqlite::Result<StreamRow> {
    Ok(StreamRow {
        number: row.get(0)?,
        head: Head { version: unsigned(row, 1)?, hash: hash(row, 2)? },
        base: Head { version: unsigned(row, 3)?, hash: hash(row, 4)? },
    })
}

/// Reads project, kind and name from this column on.
pub(crate) fn stream_id(row: &Row<'_>, column: usize) -> rusqlite::Result<StreamId> {
    Ok(StreamId { project: row.get(column)?, kind: row.get(column + 1)?, id: row.get(column + 2)? })
}

fn hash(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Digest>> {
    Ok(row.get::<_, Option<[u8; 32]>>(column)?.map(Digest::from_sha256))
}

/// An event from [`EVENT_COLUMNS`] from column 0 on; its chain is not checked here.
///
/// # Errors
/// [`Error::Corrupt`] naming stream and version (or `expected`, where not even that can be read).
pub(crate) fn event(
    row: &Row<'_>,
    of: &StreamId,
    expected: u64,
    failed: impl Fn(rusqlite::Error) -> Error,
) -> Result<Envelope, Error> {
    let read = || -> rusqlite::Result<Envelope> {
        let code: Option<String> = row.get(7)?;
        let text: Option<String> = row.get(8)?;
        let reason = match (code, text) {
            (Some(code), Some(text)) => Some(Reason { code, text }),
            (None, None) => None,
            _ => return Err(super::meta::unreadable("half a reason")),
        };
        Ok(Envelope {
            seq: unsigned(row, 0)?,
            stream: of.clone(),
            version: unsigned(row, 1)?,
            at: Timestamp(unsigned(row, 2)?),
            epoch: Epoch(unsigned(row, 3)?),
            event: row.get(4)?,
            form: row.get(5)?,
            data: row.get(6)?,
            reason,
            hash: hash(row, 9)?.ok_or_else(|| super::meta::unreadable("no hash"))?,
        })
    };
    read().map_err(|error| match is_unreadable_value(&error) {
        true => corrupt_event(of, unsigned(row, 1).unwrap_or(expected), &error.to_string()),
        false => failed(error),
    })
}

/// [`Error::Corrupt`] at an event.
pub(crate) fn corrupt_event(stream: &StreamId, version: u64, why: &str) -> Error {
    corrupt(format!("stream {stream}, version {version}"), why)
}

/// Checks that an event follows from the head and moves the head on.
///
/// # Errors
/// [`Error::Corrupt`] naming the version that should have been here.
pub(crate) fn follow(head: &mut Head, event: &Envelope) -> Result<(), Error> {
    let expected = head.version + 1;
    if event.version != expected {
        let why = format!("version {} is in its place", event.version);
        return Err(corrupt_event(&event.stream, expected, &why));
    }
    if crate::chain::link(head.hash.as_ref(), event) != event.hash {
        let why = "its content does not have the hash that was stored with it";
        return Err(corrupt_event(&event.stream, expected, why));
    }
    *head = Head { version: expected, hash: Some(event.hash.clone()) };
    Ok(())
}

/// Checks that the events end where the stream's row says.
///
/// # Errors
/// [`Error::Corrupt`] naming the first version that is missing or too much.
pub(crate) fn ends_at(stream: &StreamId, found: &Head, stored: &Head) -> Result<(), Error> {
    if found.version < stored.version {
        let why = format!("it is missing; the stream ends at version {}", stored.version);
        return Err(corrupt_event(stream, found.version + 1, &why));
    }
    if found != stored {
        let why = "the stream's end is another event than the one stored last";
        return Err(corrupt_event(stream, found.version, why));
    }
    Ok(())
}

/// The 32 bytes of a digest; none only for a digest that we have not made.
pub(crate) fn bytes(digest: &Digest) -> Option<[u8; 32]> {
    let hex = digest.hex().as_bytes();
    let mut out = [0_u8; 32];
    if hex.len() != 64 {
        return None;
    }
    for (to, pair) in out.iter_mut().zip(hex.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *to = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(out)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}
