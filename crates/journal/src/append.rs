//! What a batch becomes, decided without storage: the rules that every journal shares.

use std::collections::BTreeMap;

use crate::{Batch, Change, Committed, Envelope, Error, Head, Pending, chain};
use tidegate_core::{Digest, Epoch, StreamId, Timestamp};

/// The highest number that every storage can hold (SQLite's integers are signed).
pub(crate) const MAX_NUMBER: u64 = i64::MAX as u64;

/// Where the journal stands before the batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// The owner's epoch.
    pub(crate) epoch: u64,
    /// The last sequence.
    pub(crate) last_seq: u64,
    /// The last commit's time.
    pub(crate) last_at: u64,
    /// The last identity given to an outbox row.
    pub(crate) last_outbox: u64,
}

/// A batch that may be stored as it is.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// What the caller is told once it is durable.
    pub(crate) committed: Committed,
    /// The stream's version after each of the batch's changes.
    pub(crate) versions: Vec<u64>,
    /// New heads of the streams that got events.
    pub(crate) heads: BTreeMap<StreamId, Head>,
    /// Where the journal stands after the batch.
    pub(crate) position: Position,
}

/// Checks a batch against the journal and numbers and hashes what is in it. `head` looks a stream
/// up; it is asked once for each stream.
///
/// # Errors
/// [`Error::NotOwner`], [`Error::Conflict`]; [`Error::Storage`] when time would go backwards or a
/// number is too large; what `head` answers.
pub(crate) fn prepare(
    batch: &Batch,
    before: Position,
    mut head: impl FnMut(&StreamId) -> Result<Head, Error>,
) -> Result<Prepared, Error> {
    if batch.epoch.0 != before.epoch {
        return Err(Error::NotOwner { mine: batch.epoch.0, actual: before.epoch });
    }
    if batch.at.0 < before.last_at || batch.at.0 > MAX_NUMBER {
        let why = format!("the last commit was at {} ms; time must not go back", before.last_at);
        return Err(refused(format!("committing at {} ms", batch.at.0), why));
    }
    let mut position = Position { last_at: batch.at.0, ..before };
    let mut committed = Committed::default();
    let mut versions = Vec::with_capacity(batch.changes.len());
    let mut heads: BTreeMap<StreamId, Head> = BTreeMap::new();
    for change in &batch.changes {
        let at = match heads.get_mut(&change.stream) {
            Some(at) => at,
            None => heads.entry(change.stream.clone()).or_insert(head(&change.stream)?),
        };
        if change.expected_version != at.version {
            return Err(Error::Conflict {
                stream: change.stream.clone(),
                expected: change.expected_version,
                actual: at.version,
            });
        }
        append(batch, change, at, &mut position, &mut committed);
        versions.push(at.version);
    }
    committed.last_seq = position.last_seq;
    Ok(Prepared { committed, versions, heads, position })
}

/// Numbers one change's events and outgoing rows.
fn append(
    batch: &Batch,
    change: &Change,
    head: &mut Head,
    position: &mut Position,
    committed: &mut Committed,
) {
    for event in &change.events {
        position.last_seq += 1;
        head.version += 1;
        let mut envelope = Envelope {
            seq: position.last_seq,
            stream: change.stream.clone(),
            version: head.version,
            at: batch.at,
            epoch: batch.epoch,
            event: event.event.clone(),
            form: event.form,
            data: event.data.clone(),
            reason: event.reason.clone(),
            hash: Digest::default(),
        };
        envelope.hash = chain::link(head.hash.as_ref(), &envelope);
        head.hash = Some(envelope.hash.clone());
        committed.events.push(envelope);
    }
    for outgoing in &change.outgoing {
        position.last_outbox += 1;
        committed.pending.push(Pending {
            id: position.last_outbox,
            stream: change.stream.clone(),
            outgoing: outgoing.clone(),
        });
    }
}

/// A timer's time as it is kept: what lies beyond the storable range is as good as never.
pub(crate) fn kept_due(due: Timestamp) -> Timestamp {
    Timestamp(due.0.min(MAX_NUMBER))
}

/// An error of our own making, as a storage error.
pub(crate) fn refused(context: String, why: impl Into<String>) -> Error {
    Error::Storage { context, source: why.into().into() }
}

/// The epoch of a new owner.
pub(crate) fn next_epoch(own: u64, at_least: Epoch) -> Result<Epoch, Error> {
    let next = own.saturating_add(1).max(at_least.0);
    if next > MAX_NUMBER {
        let context = format!("taking the journal over with an epoch of at least {}", at_least.0);
        return Err(refused(context, "there is no such epoch; a target has lost its mind"));
    }
    Ok(Epoch(next))
}
