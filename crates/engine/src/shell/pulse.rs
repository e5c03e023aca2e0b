//! Whether the committer makes progress, for the heartbeat.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// A commit may take so long before the heartbeat stops. A waiter then needs another
/// [`super::ownership::STALE`], so a sync of the disk that takes less than three seconds is never
/// mistaken for a death.
const BUSY_MAX_MS: u64 = 1_000;
/// Opening and recovering a large home may take so long.
const OPENING_MAX_MS: u64 = 60_000;

/// Nothing to do.
const IDLE: u64 = 0;

/// Shared by the committer, which turns, and the heartbeat, which looks.
#[derive(Debug)]
pub struct Pulse {
    started: Instant,
    /// [`IDLE`], or one more than the milliseconds at which the current work began.
    busy_since: AtomicU64,
    /// How long the current work may take.
    allowed: AtomicU64,
    epoch: AtomicU64,
}

impl Pulse {
    /// Begins in the state "opening".
    #[must_use]
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            busy_since: AtomicU64::new(1),
            allowed: AtomicU64::new(OPENING_MAX_MS),
            epoch: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }

    /// A turn of the committer begins.
    pub fn busy(&self) {
        self.allowed.store(BUSY_MAX_MS, Ordering::Relaxed);
        self.busy_since.store(self.now() + 1, Ordering::Release);
    }

    /// The committer waits for work.
    pub fn idle(&self) {
        self.busy_since.store(IDLE, Ordering::Release);
    }

    /// Whether the heartbeat may beat.
    #[must_use]
    pub fn alive(&self) -> bool {
        match self.busy_since.load(Ordering::Acquire) {
            IDLE => true,
            since => (self.now() + 1).saturating_sub(since) <= self.allowed.load(Ordering::Relaxed),
        }
    }

    /// The epoch to show.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Shows another epoch from now on.
    pub fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Relaxed);
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn turns(pulse: &Pulse, wanted: bool) -> Duration {
        let started = Instant::now();
        while pulse.alive() != wanted {
            assert!(started.elapsed() < Duration::from_secs(10), "it never turns {wanted}");
            std::thread::sleep(Duration::from_millis(5));
        }
        started.elapsed()
    }

    #[test]
    fn a_turn_that_does_not_end_stops_the_heartbeat_after_a_second() {
        let pulse = Pulse::new();
        assert!(pulse.alive(), "opening a home takes its time");
        pulse.idle();
        assert!(pulse.alive());
        pulse.busy();
        let took = turns(&pulse, false);
        assert!(took >= Duration::from_millis(900), "{took:?}");
        pulse.busy();
        assert!(pulse.alive(), "the next turn begins anew");
        turns(&pulse, false);
        pulse.idle();
        assert!(pulse.alive());
    }
}
