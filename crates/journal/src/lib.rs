//! Streams of events with an outbox, timers, views and snapshots, committed together.
//!
//! Knows envelopes, not domains. The trait is synchronous: one writer thread owns it. A failed
//! commit ends the process ([`Error`] is never retried in place); recovery is the normal path.
//!
//! Invariants: a batch is committed whole or not at all; `seq` has no holes; a stream's versions
//! count from 1 without holes; epochs in a stream never decrease; the hash chain is per stream,
//! over the stored bytes.

mod append;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod memory;
pub mod sqlite;

use serde::{Deserialize, Serialize};
use serde_json::Value;
pub use tidegate_core::machine::{Effect, View};
use tidegate_core::{Digest, Epoch, Reason, StreamId, Timestamp};

/// One event as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// Position in the journal, from 1, without holes.
    pub seq: u64,
    /// Whose event.
    pub stream: StreamId,
    /// Position in the stream, from 1, without holes.
    pub version: u64,
    /// When it was committed, by the engine's clock.
    pub at: Timestamp,
    /// Which owner wrote it.
    pub epoch: Epoch,
    /// Name of the event (`stepStarted`).
    pub event: String,
    /// Version of the event's form.
    pub form: u16,
    /// The event's JSON, byte for byte as it was hashed.
    pub data: String,
    /// Why.
    pub reason: Option<Reason>,
    /// SHA-256 over the previous hash of the stream and this event's fields; see [`chain`].
    pub hash: Digest,
}

/// Links of the chain.
pub mod chain {
    use super::Envelope;
    use sha2::{Digest as _, Sha256};
    use tidegate_core::Digest;

    /// The hash of an event: SHA-256 over length-prefixed previous hash (empty text for the first
    /// event), stream, version, at, epoch, event, form, data and reason (code, NUL, text; empty for
    /// none). `seq` is not in it, so that a stream can be moved between journals.
    #[must_use]
    pub fn link(previous: Option<&Digest>, envelope: &Envelope) -> Digest {
        let mut hasher = Sha256::new();
        let mut field = |parts: &[&str]| {
            let length: usize = parts.iter().map(|part| part.len()).sum();
            hasher.update((length as u64).to_be_bytes());
            for part in parts {
                hasher.update(part.as_bytes());
            }
        };
        let stream = &envelope.stream;
        field(&[previous.map_or("", Digest::as_str)]);
        field(&[&stream.project, "/", &stream.kind, "/", &stream.id]);
        field(&[&envelope.version.to_string()]);
        field(&[&envelope.at.0.to_string()]);
        field(&[&envelope.epoch.0.to_string()]);
        field(&[&envelope.event]);
        field(&[&envelope.form.to_string()]);
        field(&[&envelope.data]);
        match &envelope.reason {
            Some(reason) => field(&[&reason.code, "\u{0}", &reason.text]),
            None => field(&[]),
        }
        Digest::from_sha256(hasher.finalize().into())
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use tidegate_core::{Epoch, Reason, StreamId, Timestamp};

        /// The definition, written down as plainly as possible.
        fn defined(previous: Option<&Digest>, envelope: &Envelope) -> Digest {
            let reason = envelope.reason.as_ref();
            let fields = [
                previous.map_or(String::new(), ToString::to_string),
                envelope.stream.to_string(),
                envelope.version.to_string(),
                envelope.at.0.to_string(),
                envelope.epoch.0.to_string(),
                envelope.event.clone(),
                envelope.form.to_string(),
                envelope.data.clone(),
                reason.map_or(String::new(), |r| format!("{}\u{0}{}", r.code, r.text)),
            ];
            let mut bytes = Vec::new();
            for field in fields {
                bytes.extend_from_slice(&(field.len() as u64).to_be_bytes());
                bytes.extend_from_slice(field.as_bytes());
            }
            Digest::of(&bytes)
        }

        #[test]
        fn a_link_is_what_its_definition_says() {
            let mut envelope = Envelope {
                seq: 7,
                stream: StreamId::new("shop", "rollout", "r-1"),
                version: 3,
                at: Timestamp(1_700_000_000_123),
                epoch: Epoch(4),
                event: "stepStarted".to_owned(),
                form: 2,
                data: r#"{"step":1}"#.to_owned(),
                reason: None,
                hash: Digest::default(),
            };
            let first = link(None, &envelope);
            assert_eq!(first, defined(None, &envelope));
            envelope.reason = Some(Reason::new("soaked", "it has soaked"));
            let second = link(Some(&first), &envelope);
            assert_eq!(second, defined(Some(&first), &envelope));
            envelope.seq = 8;
            assert_eq!(second, link(Some(&first), &envelope), "the sequence is not in the hash");
            // Fixed for ever: another value here means that old journals no longer verify.
            assert_eq!(second.short(), "2d80f045676c");
        }
    }
}

/// An event to append.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// Its name.
    pub event: String,
    /// Version of its form.
    pub form: u16,
    /// Its JSON.
    pub data: String,
    /// Why.
    pub reason: Option<Reason>,
}

/// What goes out of a stream once the batch is durable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Outgoing {
    /// To a driver.
    Effect(Effect),
    /// To another machine.
    Send {
        /// The receiver.
        to: StreamId,
        /// Its input.
        input: Value,
    },
}

/// A pending row of the outbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Pending {
    /// Identity of the row, ascending in the order of commits.
    pub id: u64,
    /// Who asked.
    pub stream: StreamId,
    /// What.
    pub outgoing: Outgoing,
}

/// A timer that is set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer {
    /// When it is due.
    pub due: Timestamp,
    /// Whose.
    pub stream: StreamId,
    /// Its key in the stream.
    pub key: String,
}

/// All that one batch changes of one stream. Timers are dropped before others are set, so a timer
/// that has fired can be set again in the same change.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The stream.
    pub stream: StreamId,
    /// The stream's version before the batch; refused as [`Error::Conflict`] if it is another.
    pub expected_version: u64,
    /// In order; may be empty.
    pub events: Vec<NewEvent>,
    /// Rows to add to the outbox, in order.
    pub outgoing: Vec<Outgoing>,
    /// Outbox rows of *any* stream that are done with this change (the message that caused it). A
    /// row that is gone already is done.
    pub done: Vec<u64>,
    /// Timers to set or move: (key, due).
    pub set_timers: Vec<(String, Timestamp)>,
    /// Timers to drop: cancelled or fired.
    pub drop_timers: Vec<String>,
    /// The stream's row for readers, if it changed.
    pub view: Option<View>,
    /// The state to keep as a snapshot at the version after the events, if wanted.
    pub snapshot: Option<String>,
    /// The progress row to keep, if any; it is not an event and has no history.
    pub progress: Option<Value>,
}

impl Change {
    /// A change of nothing yet.
    #[must_use]
    pub fn new(stream: StreamId, expected_version: u64) -> Self {
        Self {
            stream,
            expected_version,
            events: Vec::new(),
            outgoing: Vec::new(),
            done: Vec::new(),
            set_timers: Vec::new(),
            drop_timers: Vec::new(),
            view: None,
            snapshot: None,
            progress: None,
        }
    }
}

/// One transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// By the engine's clock; never lower than an earlier batch's.
    pub at: Timestamp,
    /// The writer; refused as [`Error::NotOwner`] if the journal has another epoch by now.
    pub epoch: Epoch,
    /// In order. The same stream may occur several times.
    pub changes: Vec<Change>,
}

/// What a commit has made durable.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Committed {
    /// The journal's last sequence.
    pub last_seq: u64,
    /// The appended events, in order.
    pub events: Vec<Envelope>,
    /// The new outbox rows, in order.
    pub pending: Vec<Pending>,
}

/// A state kept to shorten recovery.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The stream's version that it holds.
    pub version: u64,
    /// The state's JSON.
    pub state: String,
}

/// Where a stream ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// The last version; 0 for a stream without events.
    pub version: u64,
    /// The hash of the last event.
    pub hash: Option<Digest>,
}

/// A row for readers.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewRow {
    /// The stream.
    pub stream: StreamId,
    /// Its version at that view.
    pub version: u64,
    /// The row.
    pub view: View,
}

/// What any reader may do, also beside a running engine.
pub trait Reader {
    /// Identity of the home, made when the journal was made.
    fn home(&self) -> &str;
    /// The epoch of the last owner; 0 before the first.
    ///
    /// # Errors
    /// As all reads: [`Error::Corrupt`], [`Error::Storage`].
    fn epoch(&self) -> Result<Epoch, Error>;
    /// The last sequence; 0 for an empty journal.
    ///
    /// # Errors
    /// As all reads.
    fn last_seq(&self) -> Result<u64, Error>;
    /// Time of the last commit.
    ///
    /// # Errors
    /// As all reads.
    fn last_at(&self) -> Result<Timestamp, Error>;
    /// Where a stream ends.
    ///
    /// # Errors
    /// As all reads.
    fn head(&self, stream: &StreamId) -> Result<Head, Error>;
    /// Events of a stream after a version, at most `limit`, each checked against the chain.
    ///
    /// # Errors
    /// As all reads.
    fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Envelope>, Error>;
    /// Events of all streams after a sequence, at most `limit`.
    ///
    /// # Errors
    /// As all reads.
    fn read_all(&self, after: u64, limit: usize) -> Result<Vec<Envelope>, Error>;
    /// The latest snapshot of a stream (written last, whatever its version).
    ///
    /// # Errors
    /// As all reads.
    fn snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, Error>;
    /// Rows of one kind in all projects: `open` ones only, or all, newest first (by the journal's
    /// last sequence when the row was written), at most `limit`.
    ///
    /// # Errors
    /// As all reads.
    fn views(&self, kind: &str, open_only: bool, limit: usize) -> Result<Vec<ViewRow>, Error>;
    /// One stream's row.
    ///
    /// # Errors
    /// As all reads.
    fn view(&self, stream: &StreamId) -> Result<Option<ViewRow>, Error>;
    /// The progress row of a stream.
    ///
    /// # Errors
    /// As all reads.
    fn progress(&self, stream: &StreamId) -> Result<Option<Value>, Error>;
    /// All pending rows of the outbox, oldest first.
    ///
    /// # Errors
    /// As all reads.
    fn pending(&self) -> Result<Vec<Pending>, Error>;
    /// All timers that are set, soonest first.
    ///
    /// # Errors
    /// As all reads.
    fn timers(&self) -> Result<Vec<Timer>, Error>;
    /// Walks all chains; says how many events it has checked.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the first place that does not hold.
    fn verify(&self) -> Result<u64, Error>;
}

/// What the one writer may do.
pub trait Journal: Reader {
    /// Takes the journal over: the epoch becomes the highest of (own + 1, `at_least`), durably.
    ///
    /// # Errors
    /// [`Error::Storage`].
    fn take_over(&mut self, at_least: Epoch) -> Result<Epoch, Error>;

    /// Commits a batch; when it returns `Ok` everything in it is durable.
    ///
    /// # Errors
    /// Any error leaves the journal as it was; the caller must end the process and recover, except
    /// after [`Error::Full`], where a smaller batch (an undo) may still fit into the reserve.
    fn commit(&mut self, batch: &Batch) -> Result<Committed, Error>;

    /// Drops old events of finished streams by age or size, after they were archived. Its place in
    /// the interface; a journal that cannot says how many bytes it holds and does nothing.
    ///
    /// # Errors
    /// As commits.
    fn retain(&mut self, policy: &Retention) -> Result<RetentionReport, Error>;
}

/// How much history to keep.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retention {
    /// Finished streams whose last event is older may go.
    pub older_than: Option<Timestamp>,
    /// The journal shall not be larger.
    pub max_bytes: Option<u64>,
    /// Where dropped streams are written first, one JSON line an event.
    pub archive: Option<std::path::PathBuf>,
}

/// What was dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetentionReport {
    /// Streams dropped.
    pub streams: u64,
    /// Bytes that the journal holds now.
    pub bytes: u64,
}

/// What can go wrong with a journal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else has written to the stream: two owners, or a defect.
    #[error("stream {stream} is at version {actual}, not {expected}")]
    Conflict {
        /// The stream.
        stream: StreamId,
        /// As the writer thought.
        expected: u64,
        /// As it is.
        actual: u64,
    },
    /// A newer owner has taken over.
    #[error("the journal belongs to epoch {actual} by now, not to {mine}")]
    NotOwner {
        /// The writer's.
        mine: u64,
        /// The journal's.
        actual: u64,
    },
    /// What is stored does not hold together.
    #[error("the journal is damaged at {place}: {why}")]
    Corrupt {
        /// Stream and version, or page.
        place: String,
        /// In what way.
        why: String,
    },
    /// Written by a newer version.
    #[error("the journal has form {found}; this version reads up to {known}")]
    Newer {
        /// The file's.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// No space left.
    #[error("no space left for the journal in {0}")]
    Full(String),
    /// The file cannot be opened or written.
    #[error("{context}: {source}")]
    Storage {
        /// What was done, on which path.
        context: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
