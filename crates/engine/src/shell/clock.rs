//! The engine's clock: the wall clock is read once, then only monotonic time counts.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tidegate_core::Timestamp;

/// Never goes backwards, not within a process and not from one to the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    base: Timestamp,
    started: Instant,
}

impl Clock {
    /// Starts at the wall clock's time, or at the journal's last one if that is later.
    pub(super) fn start(last_at: Timestamp) -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = Timestamp(u64::try_from(wall.as_millis()).unwrap_or(0));
        Self { base: wall.max(last_at), started: Instant::now() }
    }

    /// The engine's time.
    pub(super) fn now(&self) -> Timestamp {
        self.base.plus(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The monotonic moment at which the engine's time will be `at`.
    pub(super) fn instant(&self, at: Timestamp) -> Instant {
        let millis = at.since(self.base);
        self.started
            .checked_add(std::time::Duration::from_millis(millis))
            // Far beyond the life of any process.
            .unwrap_or_else(|| self.started + std::time::Duration::from_secs(86_400))
    }
}
