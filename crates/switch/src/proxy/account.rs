//! One client request, one count: whoever drops it without an outcome has lost the client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::upstream::Instance;
use crate::counts::{CellKey, Counts, Outcome};

/// The open account of a request for which a version was chosen.
#[derive(Debug)]
pub(crate) struct Account {
    counts: Arc<Counts>,
    cell: Arc<CellKey>,
    forced: bool,
    /// Attempts beyond the first.
    pub(crate) retries: u32,
    settled: bool,
}

impl Account {
    pub(crate) fn new(counts: &Arc<Counts>, cell: &Arc<CellKey>, forced: bool) -> Self {
        let (counts, cell) = (Arc::clone(counts), Arc::clone(cell));
        Self { counts, cell, forced, retries: 0, settled: false }
    }

    /// Counts the outcome; the first one stands.
    pub(crate) fn settle(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.settled, true) {
            let outcome = if self.forced { Outcome::Forced } else { outcome };
            self.counts.record(&self.cell, outcome, self.retries);
        }
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.settled
    }

    /// It turned out that the client is at fault: no version's count.
    pub(crate) fn void(&mut self) {
        self.settled = true;
    }

    /// For the body of a good head.
    pub(crate) fn broken(&self, good: bool) -> Broken {
        let counted = good && !self.forced;
        Broken { counts: counted.then(|| (Arc::clone(&self.counts), Arc::clone(&self.cell))) }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.settle(Outcome::ClientGone);
    }
}

/// Where a body that is cut is counted.
#[derive(Debug)]
pub(crate) struct Broken {
    counts: Option<(Arc<Counts>, Arc<CellKey>)>,
}

impl Broken {
    /// Of an answer whose request is counted elsewhere already.
    pub(crate) fn nowhere() -> Self {
        Self { counts: None }
    }

    pub(crate) fn count(&self, instance: &Instance) {
        if let Some((counts, cell)) = &self.counts {
            let ours = instance.is_cut_over();
            counts.record(cell, if ours { Outcome::Cutover } else { Outcome::Broken }, 0);
        }
    }
}

/// Requests that were no version's, in this life of the switch.
#[derive(Debug, Default)]
pub(crate) struct Refused(AtomicU64);

impl Refused {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
