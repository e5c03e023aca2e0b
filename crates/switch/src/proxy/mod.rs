//! The data path: from an accepted connection to an instance and back.

pub(crate) mod account;
pub(crate) mod attempt;
pub(crate) mod body;
pub(crate) mod client;
pub(crate) mod forward;
pub(crate) mod headers;
pub(crate) mod pick;
pub(crate) mod pool;
pub(crate) mod route;
pub(crate) mod split;
pub(crate) mod tls;
pub(crate) mod upstream;
pub(crate) mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use self::account::Refused;
use self::view::View;
use crate::counts::{Clock, Counts};
use crate::run::Limits;

/// What every request looks at.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) view: ArcSwap<View>,
    /// Of the view in force; written after it, so that whoever has counted himself and then reads
    /// this number knows whether the view that he chose from still holds.
    generation: AtomicU64,
    pub(crate) counts: Arc<Counts>,
    pub(crate) refused: Refused,
    /// Of the report.
    pub(crate) revision: watch::Sender<u64>,
    /// Set once, when this process is on its way out.
    pub(crate) leaving: watch::Sender<bool>,
    pub(crate) clock: Clock,
    pub(crate) limits: Limits,
    /// When this process leaves, idle clients get so long to ask once more and be told to go.
    pub(crate) linger: Duration,
}

impl Proxy {
    pub(crate) fn new(counts: Arc<Counts>, limits: Limits, linger: Duration) -> Self {
        // Above those of earlier lives: a reader that asks for what follows theirs is answered.
        let revision = counts.switch_epoch().saturating_mul(1_000).max(1);
        Self {
            view: ArcSwap::from_pointee(View::default()),
            generation: AtomicU64::new(0),
            counts,
            refused: Refused::default(),
            revision: watch::Sender::new(revision),
            leaving: watch::Sender::new(false),
            clock: Clock::new(),
            limits,
            linger,
        }
    }

    /// Puts a view in force for the next request.
    pub(crate) fn publish(&self, view: View) {
        let generation = view.generation;
        self.view.store(Arc::new(view));
        self.generation.store(generation, Ordering::SeqCst);
        self.revision.send_modify(|revision| *revision += 1);
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    pub(crate) fn is_leaving(&self) -> bool {
        *self.leaving.borrow()
    }
}
