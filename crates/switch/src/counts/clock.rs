//! The switch's clock: unix time that never goes back within one life.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A jump of the wall clock to later that is followed at once.
const FOLLOW_MS: u64 = 500;

/// Follows the wall clock when it is set to later; when it is set back, goes on from where it was
/// (the reader measures and corrects offsets).
#[derive(Debug)]
pub(crate) struct Clock {
    started: Instant,
    /// Unix milliseconds at `started`, raised when the wall clock jumps to later.
    base_ms: AtomicU64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), base_ms: AtomicU64::new(wall_ms()) }
    }

    /// Unix milliseconds; never less than before.
    pub(crate) fn now_ms(&self) -> u64 {
        let passed = millis(self.started.elapsed());
        let now = self.base_ms.load(Ordering::Relaxed) + passed;
        let wall = wall_ms();
        if wall > now + FOLLOW_MS {
            self.base_ms.fetch_max(wall - passed, Ordering::Relaxed);
            return wall;
        }
        now
    }
}

/// Whole milliseconds.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whole microseconds.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}
