//! The journal in memory: for the simulator and for tests.
//!
//! A clone shares everything with its origin until one of the two commits, so a crash point costs
//! next to nothing. Nothing depends on addresses, hashing order, clocks or threads.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tidegate_core::{Epoch, StreamId, Timestamp};

use crate::append::{self, Position, Prepared, kept_due, next_epoch, refused};
use crate::{
    Batch, Committed, Envelope, Error, Head, Journal, Pending, Reader, Retention, RetentionReport,
    Snapshot, Timer, ViewRow, chain,
};

/// How an ordered failure ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// [`Error::Storage`]; nothing of the batch is in the journal.
    BeforeDurable,
    /// [`Error::Storage`]; all of the batch is in the journal, but its writer is not told so.
    AfterDurable,
    /// [`Error::Full`]; nothing of the batch is in the journal.
    Full,
}

/// Orders one failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailAt {
    /// Which commit: the one that would make [`MemoryJournal::commits`] this number.
    pub commit: u64,
    /// How.
    pub fault: Fault,
}

/// A journal in memory. `Clone` is a snapshot of it.
#[derive(Debug, Clone)]
pub struct MemoryJournal {
    home: Arc<str>,
    fail_at: Option<FailAt>,
    kept: Arc<Kept>,
}

/// What would be on the disk.
#[derive(Debug, Clone, Default)]
struct Kept {
    position: Position,
    commits: u64,
    bytes: u64,
    events: Vec<Arc<Envelope>>,
    streams: BTreeMap<StreamId, Stream>,
    outbox: BTreeMap<u64, Arc<Pending>>,
    timers: BTreeMap<(StreamId, String), Timestamp>,
}

#[derive(Debug, Clone, Default)]
struct Stream {
    /// In the order of first mention; breaks ties between views.
    number: usize,
    head: Head,
    events: Vec<Arc<Envelope>>,
    /// With the journal's last sequence when it was written.
    view: Option<(u64, Arc<ViewRow>)>,
    snapshot: Option<Arc<Snapshot>>,
    progress: Option<Arc<Value>>,
}

impl MemoryJournal {
    /// An empty journal of this home.
    #[must_use]
    pub fn new(home: &str) -> Self {
        Self { home: home.into(), fail_at: None, kept: Arc::default() }
    }

    /// How many batches have been made durable.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.kept.commits
    }

    /// Orders a failure, or takes the order back. It happens once; clones inherit it.
    pub fn fail_at(&mut self, fail_at: Option<FailAt>) {
        self.fail_at = fail_at;
    }

    /// The fault of the commit that comes next, if one was ordered for it.
    fn due_fault(&mut self) -> Option<Fault> {
        let due = self.fail_at.filter(|at| at.commit == self.kept.commits + 1)?;
        self.fail_at = None;
        Some(due.fault)
    }
}

impl Kept {
    fn store(&mut self, batch: &Batch, prepared: &Prepared) {
        self.commits += 1;
        self.position = prepared.position;
        for change in &batch.changes {
            self.stream(&change.stream);
        }
        for event in &prepared.committed.events {
            let event = Arc::new(event.clone());
            self.bytes += (event.data.len() + event.event.len() + 100) as u64;
            self.events.push(Arc::clone(&event));
            self.stream(&event.stream).events.push(event);
        }
        // Before the new rows: a batch cannot know their numbers, so it cannot mean them.
        for id in batch.changes.iter().flat_map(|change| &change.done) {
            self.outbox.remove(id);
        }
        for pending in &prepared.committed.pending {
            self.outbox.insert(pending.id, Arc::new(pending.clone()));
        }
        for (change, &version) in batch.changes.iter().zip(&prepared.versions) {
            for key in &change.drop_timers {
                self.timers.remove(&(change.stream.clone(), key.clone()));
            }
            for (key, due) in &change.set_timers {
                self.timers.insert((change.stream.clone(), key.clone()), kept_due(*due));
            }
            let last_seq = self.position.last_seq;
            let stream = self.stream(&change.stream);
            if let Some(view) = &change.view {
                let row = ViewRow { stream: change.stream.clone(), version, view: view.clone() };
                stream.view = Some((last_seq, Arc::new(row)));
            }
            if let Some(state) = &change.snapshot {
                let snapshot = Snapshot { version, state: state.clone() };
                stream.snapshot = Some(Arc::new(snapshot));
            }
            if let Some(progress) = &change.progress {
                stream.progress = Some(Arc::new(progress.clone()));
            }
        }
        for (stream, head) in &prepared.heads {
            self.stream(stream).head = head.clone();
        }
    }

    fn stream(&mut self, id: &StreamId) -> &mut Stream {
        let number = self.streams.len();
        self.streams.entry(id.clone()).or_insert_with(|| Stream { number, ..Stream::default() })
    }
}

impl Reader for MemoryJournal {
    fn home(&self) -> &str {
        &self.home
    }

    fn epoch(&self) -> Result<Epoch, Error> {
        Ok(Epoch(self.kept.position.epoch))
    }

    fn last_seq(&self) -> Result<u64, Error> {
        Ok(self.kept.position.last_seq)
    }

    fn last_at(&self) -> Result<Timestamp, Error> {
        Ok(Timestamp(self.kept.position.last_at))
    }

    fn head(&self, stream: &StreamId) -> Result<Head, Error> {
        Ok(self.kept.streams.get(stream).map(|found| found.head.clone()).unwrap_or_default())
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Envelope>, Error> {
        let Some(found) = self.kept.streams.get(stream) else { return Ok(Vec::new()) };
        let after = usize::try_from(after).unwrap_or(usize::MAX);
        Ok(found.events.iter().skip(after).take(limit).map(|event| (**event).clone()).collect())
    }

    fn read_all(&self, after: u64, limit: usize) -> Result<Vec<Envelope>, Error> {
        let after = usize::try_from(after).unwrap_or(usize::MAX);
        Ok(self.kept.events.iter().skip(after).take(limit).map(|event| (**event).clone()).collect())
    }

    fn snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, Error> {
        let found = self.kept.streams.get(stream).and_then(|found| found.snapshot.as_deref());
        Ok(found.cloned())
    }

    fn views(&self, kind: &str, open_only: bool, limit: usize) -> Result<Vec<ViewRow>, Error> {
        let mut rows: Vec<(u64, usize, &ViewRow)> = Vec::new();
        for (id, stream) in &self.kept.streams {
            if let Some((touched, row)) = &stream.view
                && id.kind == kind
                && (row.view.open || !open_only)
            {
                rows.push((*touched, stream.number, row));
            }
        }
        rows.sort_by_key(|(touched, number, _)| std::cmp::Reverse((*touched, *number)));
        Ok(rows.into_iter().take(limit).map(|(_, _, row)| row.clone()).collect())
    }

    fn view(&self, stream: &StreamId) -> Result<Option<ViewRow>, Error> {
        let found = self.kept.streams.get(stream).and_then(|found| found.view.as_ref());
        Ok(found.map(|(_, row)| (**row).clone()))
    }

    fn progress(&self, stream: &StreamId) -> Result<Option<Value>, Error> {
        let found = self.kept.streams.get(stream).and_then(|found| found.progress.as_deref());
        Ok(found.cloned())
    }

    fn pending(&self) -> Result<Vec<Pending>, Error> {
        Ok(self.kept.outbox.values().map(|row| (**row).clone()).collect())
    }

    fn timers(&self) -> Result<Vec<Timer>, Error> {
        let timer = |((stream, key), due): (&(StreamId, String), &Timestamp)| Timer {
            due: *due,
            stream: stream.clone(),
            key: key.clone(),
        };
        let mut timers: Vec<Timer> = self.kept.timers.iter().map(timer).collect();
        timers.sort();
        Ok(timers)
    }

    fn verify(&self) -> Result<u64, Error> {
        for (id, stream) in &self.kept.streams {
            let mut head = Head::default();
            for event in &stream.events {
                head.version += 1;
                if event.version != head.version
                    || event.hash != chain::link(head.hash.as_ref(), event)
                {
                    return Err(Error::Corrupt {
                        place: format!("stream {id}, version {}", head.version),
                        why: "the event does not follow from the one before".to_owned(),
                    });
                }
                head.hash = Some(event.hash.clone());
            }
        }
        Ok(self.kept.events.len() as u64)
    }
}

impl Journal for MemoryJournal {
    fn take_over(&mut self, at_least: Epoch) -> Result<Epoch, Error> {
        let epoch = next_epoch(self.kept.position.epoch, at_least)?;
        Arc::make_mut(&mut self.kept).position.epoch = epoch.0;
        Ok(epoch)
    }

    fn commit(&mut self, batch: &Batch) -> Result<Committed, Error> {
        let prepared = append::prepare(batch, self.kept.position, |stream| self.head(stream))?;
        let fault = self.due_fault();
        let failure = |when: &str| {
            refused(format!("committing to the journal in memory of {}", self.home), when)
        };
        let answer = match fault {
            Some(Fault::Full) => return Err(Error::Full(self.home.to_string())),
            Some(Fault::BeforeDurable) => return Err(failure("ordered to fail before it")),
            Some(Fault::AfterDurable) => Err(failure("ordered to fail after it")),
            None => Ok(()),
        };
        Arc::make_mut(&mut self.kept).store(batch, &prepared);
        answer.map(|()| prepared.committed)
    }

    /// Keeps everything: a journal in memory has no archive.
    fn retain(&mut self, _policy: &Retention) -> Result<RetentionReport, Error> {
        Ok(RetentionReport { bytes: self.kept.bytes, ..RetentionReport::default() })
    }
}

#[cfg(test)]
mod tests;
