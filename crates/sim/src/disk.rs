//! The disk: the journal in memory, shared by a process and its successor, with ordered failures.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tidegate_core::{Digest, Epoch, StreamId, Timestamp};
use tidegate_journal::memory::{FailAt, Fault, MemoryJournal};
use tidegate_journal::{
    Batch, Committed, Envelope, Error, Head, Journal, Outgoing, Pending, Reader, Retention,
    RetentionReport, Snapshot, Timer, ViewRow,
};

/// An effect that was durable before it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// Who asked for it.
    pub stream: StreamId,
    /// Its key.
    pub key: String,
    /// The sequence of its fence.
    pub seq: u64,
    /// Digest of its payload.
    pub payload: Digest,
}

/// What is on the disk, and what was asked of it.
struct Platter {
    journal: MemoryJournal,
    intents: BTreeMap<u64, Intent>,
    /// The journal before every commit of the current step, when somebody wants to stop there.
    before: Option<Vec<MemoryJournal>>,
}

/// A handle on the disk. Clones share it; see [`Disk::fork`].
#[derive(Clone)]
pub struct Disk {
    home: Arc<str>,
    platter: Arc<Mutex<Platter>>,
}

impl Disk {
    /// A disk with this journal on it.
    #[must_use]
    pub fn new(journal: MemoryJournal) -> Self {
        let home = Arc::from(journal.home());
        let platter = Platter { journal, intents: BTreeMap::new(), before: None };
        let disk = Self { home, platter: Arc::new(Mutex::new(platter)) };
        disk.note_pending();
        disk
    }

    /// Another disk with the same content, or with that of an earlier moment.
    #[must_use]
    pub fn fork(&self, at: Option<&MemoryJournal>) -> Self {
        let platter = self.platter();
        let journal = at.unwrap_or(&platter.journal).clone();
        let intents = platter.intents.clone();
        let platter = Platter { journal, intents, before: None };
        Self { home: Arc::clone(&self.home), platter: Arc::new(Mutex::new(platter)) }
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.platter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A look at the journal.
    pub fn read<T>(&self, look: impl FnOnce(&MemoryJournal) -> T) -> T {
        look(&self.platter().journal)
    }

    /// The commit after so many others fails.
    pub fn fail_after(&self, commits: u64, fault: Fault) {
        let mut platter = self.platter();
        let commit = platter.journal.commits() + 1 + commits;
        platter.journal.fail_at(Some(FailAt { commit, fault }));
    }

    /// No failure is ordered any more.
    pub fn heal(&self) {
        self.platter().journal.fail_at(None);
    }

    /// Keeps the journal as it was before every commit, until [`Disk::recorded`].
    pub fn record(&self) {
        self.platter().before = Some(Vec::new());
    }

    /// The journals before every commit since [`Disk::record`].
    #[must_use]
    pub fn recorded(&self) -> Vec<MemoryJournal> {
        self.platter().before.take().unwrap_or_default()
    }

    /// The durable intent of an effect.
    #[must_use]
    pub fn intent(&self, id: u64) -> Option<Intent> {
        self.platter().intents.get(&id).cloned()
    }

    /// Notes what a process finds pending when it starts.
    pub fn note_pending(&self) {
        let mut platter = self.platter();
        let pending = platter.journal.pending().unwrap_or_default();
        platter.note(&pending);
    }
}

impl Platter {
    fn note(&mut self, rows: &[Pending]) {
        for row in rows {
            if let Outgoing::Effect(effect) = &row.outgoing {
                let intent = Intent {
                    stream: row.stream.clone(),
                    key: effect.key.clone(),
                    seq: effect.seq,
                    payload: Digest::of_json(&effect.payload).unwrap_or_default(),
                };
                self.intents.insert(row.id, intent);
            }
        }
    }
}

impl Reader for Disk {
    fn home(&self) -> &str {
        &self.home
    }
    fn epoch(&self) -> Result<Epoch, Error> {
        self.platter().journal.epoch()
    }
    fn last_seq(&self) -> Result<u64, Error> {
        self.platter().journal.last_seq()
    }
    fn last_at(&self) -> Result<Timestamp, Error> {
        self.platter().journal.last_at()
    }
    fn head(&self, stream: &StreamId) -> Result<Head, Error> {
        self.platter().journal.head(stream)
    }
    fn read_stream(&self, id: &StreamId, after: u64, limit: usize) -> Result<Vec<Envelope>, Error> {
        self.platter().journal.read_stream(id, after, limit)
    }
    fn read_all(&self, after: u64, limit: usize) -> Result<Vec<Envelope>, Error> {
        self.platter().journal.read_all(after, limit)
    }
    fn snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, Error> {
        self.platter().journal.snapshot(stream)
    }
    fn views(&self, kind: &str, open_only: bool, limit: usize) -> Result<Vec<ViewRow>, Error> {
        self.platter().journal.views(kind, open_only, limit)
    }
    fn view(&self, stream: &StreamId) -> Result<Option<ViewRow>, Error> {
        self.platter().journal.view(stream)
    }
    fn progress(&self, stream: &StreamId) -> Result<Option<Value>, Error> {
        self.platter().journal.progress(stream)
    }
    fn pending(&self) -> Result<Vec<Pending>, Error> {
        self.platter().journal.pending()
    }
    fn timers(&self) -> Result<Vec<Timer>, Error> {
        self.platter().journal.timers()
    }
    fn verify(&self) -> Result<u64, Error> {
        self.platter().journal.verify()
    }
}

impl Journal for Disk {
    fn take_over(&mut self, at_least: Epoch) -> Result<Epoch, Error> {
        self.platter().journal.take_over(at_least)
    }

    fn commit(&mut self, batch: &Batch) -> Result<Committed, Error> {
        let mut platter = self.platter();
        if platter.before.is_some() {
            let now = platter.journal.clone();
            platter.before.get_or_insert_default().push(now);
        }
        let committed = platter.journal.commit(batch)?;
        platter.note(&committed.pending);
        Ok(committed)
    }

    fn retain(&mut self, policy: &Retention) -> Result<RetentionReport, Error> {
        self.platter().journal.retain(policy)
    }
}
