//! What has been committed lately, for everybody who follows: a ring of the last events.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidegate_journal::Envelope;
use tokio::sync::watch;

/// Bytes of events kept in memory; older ones are read from the journal.
const BYTES_MAX: usize = 4 << 20;

/// Events by sequence, newest last, without holes.
#[derive(Debug)]
pub(super) struct Feed {
    ring: Mutex<Ring>,
    last: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Envelope>,
    bytes: usize,
}

impl Feed {
    pub(super) fn new(last_seq: u64) -> Self {
        Self { ring: Mutex::default(), last: watch::Sender::new(last_seq) }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // A ring is whole between any two operations, also where one of them panicked.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds durable events and wakes everybody who follows.
    pub(super) fn publish(&self, events: Vec<Envelope>) {
        let Some(seq) = events.last().map(|event| event.seq) else { return };
        {
            let mut ring = self.ring();
            for event in events {
                ring.bytes += size(&event);
                ring.events.push_back(event);
            }
            while ring.bytes > BYTES_MAX
                && let Some(old) = ring.events.pop_front()
            {
                ring.bytes -= size(&old);
            }
        }
        self.last.send_replace(seq);
    }

    /// The last sequence, and a way to wait for the next.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// The last sequence.
    pub(super) fn last_seq(&self) -> u64 {
        *self.last.borrow()
    }

    /// Events after a sequence, at most `limit`; none where the ring does not reach back so far.
    pub(super) fn after(&self, since: u64, limit: usize) -> Option<Vec<Envelope>> {
        if since >= self.last_seq() {
            return Some(Vec::new());
        }
        let ring = self.ring();
        let first = ring.events.front()?.seq;
        let skip = (since + 1).checked_sub(first)?;
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        Some(ring.events.iter().skip(skip).take(limit).cloned().collect())
    }
}

fn size(event: &Envelope) -> usize {
    event.data.len() + 256
}
