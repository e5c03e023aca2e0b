//! Rules that can be switched off, to see that somebody notices.

/// Which rules of the world or of the process around the engine are broken. All off: as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sabotage {
    /// Targets take every document, whatever its fence.
    pub no_fences: bool,
    /// Targets compare epochs only.
    pub epoch_only_fence: bool,
    /// The dispatcher answers "applied" as soon as it has sent.
    pub sent_is_done: bool,
    /// Ticks count wall time, downtime and jumps of the clock included.
    pub wall_clock_soak: bool,
    /// The host says that what it shall run is ready.
    pub wanted_is_ready: bool,
    /// The switch says that no request is under way.
    pub drained_at_once: bool,
    /// The host runs a one-shot as often as it is sent.
    pub no_dedupe: bool,
    /// Counts of an earlier try are handed over as if they were new.
    pub old_samples: bool,
    /// The process reads without having claimed the targets.
    pub read_before_claim: bool,
    /// The process shows and sends before the commit.
    pub visible_before_durable: bool,
    /// After a restart nothing pending is sent again.
    pub pending_is_forgotten: bool,
    /// A one-shot whose answer is missing is called failed.
    pub unknown_is_failed: bool,
}

impl Sabotage {
    /// All of them by name, one at a time.
    #[must_use]
    pub fn all() -> Vec<(&'static str, Self)> {
        let off = Self::default();
        vec![
            ("targets ignore fences", Self { no_fences: true, ..off }),
            ("epoch-only fence", Self { epoch_only_fence: true, ..off }),
            ("intent counts as done", Self { sent_is_done: true, ..off }),
            ("soak by wall clock", Self { wall_clock_soak: true, ..off }),
            ("traffic before capacity", Self { wanted_is_ready: true, ..off }),
            ("scale down before drain", Self { drained_at_once: true, ..off }),
            ("one-shots not deduplicated", Self { no_dedupe: true, ..off }),
            ("samples of an earlier try", Self { old_samples: true, ..off }),
            ("read before claim", Self { read_before_claim: true, ..off }),
            ("visible before durable", Self { visible_before_durable: true, ..off }),
            ("pending effects not sent again", Self { pending_is_forgotten: true, ..off }),
            ("unknown called failed", Self { unknown_is_failed: true, ..off }),
        ]
    }
}
