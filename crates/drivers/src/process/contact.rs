//! The sign of life to the host: it resets the fallback's timer and says whether a dead engine has
//! to be started again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tidegate_core::Epoch;
use tidegate_wire::host;
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use super::Inner;
use crate::traits::TargetError;

/// Between two signs of life.
const EVERY: Duration = Duration::from_secs(1);
/// One of them is answered within this, or the host is called silent.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Whether and what is to be said.
pub(super) struct Contact {
    open: watch::Sender<bool>,
    watchers: AtomicUsize,
    running: AtomicBool,
    /// Orders the messages: a late "open" must not follow a "closed".
    turn: Mutex<()>,
    superseded: watch::Sender<Option<Epoch>>,
}

impl Contact {
    pub(super) fn new() -> Self {
        Self {
            open: watch::Sender::new(false),
            watchers: AtomicUsize::new(0),
            running: AtomicBool::new(false),
            turn: Mutex::new(()),
            superseded: watch::Sender::new(None),
        }
    }

    /// The epoch above which the next owner has to be, if the host has said so.
    pub(super) fn superseded(&self) -> Option<Epoch> {
        *self.superseded.borrow()
    }

    /// Returns when the host has said so.
    pub(super) async fn wait_superseded(&self) -> Epoch {
        let mut seen = self.superseded.subscribe();
        match seen.wait_for(Option::is_some).await.map(|epoch| *epoch) {
            Ok(Some(epoch)) => epoch,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    fn wanted(&self) -> bool {
        *self.open.borrow() || self.watchers.load(Ordering::Acquire) > 0
    }
}

/// Keeps the host in touch as long as the answer is kept.
pub(super) fn keep(inner: &Arc<Inner>) -> Kept {
    inner.contact.watchers.fetch_add(1, Ordering::AcqRel);
    start(inner);
    Kept(Arc::clone(inner))
}

/// Somebody watches.
pub(super) struct Kept(Arc<Inner>);

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.contact.watchers.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Tells the host whether work is open; for open work it is started if need be.
pub(super) async fn set_open(inner: &Arc<Inner>, open: bool) {
    inner.contact.open.send_replace(open);
    if open {
        start(inner);
    }
    if let Err(error) = say(inner).await {
        tracing::debug!(%error, open, "the host was not told");
    }
}

/// One sign of life, with what is true when its turn comes.
async fn say(inner: &Inner) -> Result<(), TargetError> {
    let _turn = inner.contact.turn.lock().await;
    let work_open = *inner.contact.open.borrow();
    let (home, epoch) = (inner.identity.clone(), inner.epoch);
    let message = host::Contact { home, epoch, work_open };
    let result = inner.host.post::<_, Value>("/v1/contact", &message, ANSWER_MAX).await;
    // Nobody starts a host in order to tell it that there is nothing to do.
    let result = if inner.contact.wanted() { inner.mend(result).await } else { result };
    match result {
        Ok(_) => Ok(()),
        Err(TargetError::Superseded(epoch)) => {
            inner.contact.superseded.send_replace(Some(epoch));
            Err(TargetError::Superseded(epoch))
        }
        Err(error) => Err(error),
    }
}

/// The task that says it every second while it is wanted.
fn start(inner: &Arc<Inner>) {
    if inner.contact.running.swap(true, Ordering::AcqRel) {
        return;
    }
    let inner = Arc::clone(inner);
    tokio::spawn(async move {
        let mut open = inner.contact.open.subscribe();
        while inner.contact.wanted() {
            if let Err(error) = say(&inner).await {
                tracing::debug!(%error, "the host was not reached");
                if matches!(error, TargetError::Superseded(_)) {
                    // The process is about to end; it has no more to say.
                    return;
                }
            }
            // A change is said by whoever makes it; here it only wakes the loop.
            drop(timeout(EVERY, open.changed()).await);
        }
        inner.contact.running.store(false, Ordering::Release);
        // Somebody may have wanted it in between.
        if inner.contact.wanted() {
            start(&inner);
        }
    });
}
