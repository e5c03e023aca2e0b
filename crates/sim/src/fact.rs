//! What checkers are told.

use tidegate_core::capacity::CapacityDoc;
use tidegate_core::rollout;
use tidegate_core::traffic::TrafficDoc;
use tidegate_core::{Digest, Fence};
use tidegate_engine::effects::Sending;
use tidegate_journal::Envelope;

use crate::disk::{Disk, Intent};

/// Something that has happened, before anybody acts on it.
#[derive(Clone, Copy)]
pub enum Fact<'a> {
    /// A durable event was shown to the outside.
    Event(&'a Envelope, Option<&'a rollout::Event>),
    /// The host has taken a new capacity document.
    Capacity {
        /// The one before.
        before: Option<(Fence, &'a CapacityDoc)>,
        /// The new one.
        after: (Fence, &'a CapacityDoc),
    },
    /// The switch has taken a new traffic document.
    Traffic {
        /// The one before.
        before: Option<(Fence, &'a TrafficDoc)>,
        /// The new one.
        after: (Fence, &'a TrafficDoc),
        /// By the host, as a fallback.
        by_host: bool,
    },
    /// A request for an effect has reached a target.
    Arrived {
        /// The effect.
        effect: u64,
        /// Its sequence and the digest of its document, where it has one.
        document: Option<(u64, &'a Digest)>,
        /// Its durable intent.
        intent: Option<&'a Intent>,
    },
    /// A one-shot was carried out.
    Executed {
        /// The effect.
        effect: u64,
        /// So many times by now.
        times: u32,
        /// Whether it has succeeded.
        ok: bool,
        /// Its durable intent.
        intent: Option<&'a Intent>,
    },
    /// A process uses what it has read of a target.
    Read {
        /// The epoch that the target had accepted when it was read.
        accepted: u64,
        /// The process's.
        process: u64,
    },
    /// A process that drives sends an effect.
    Sent(&'a Sending),
    /// An answer to a user names this sequence.
    Told {
        /// The journal's.
        seq: u64,
    },
    /// A process has recovered from this disk.
    Recovered(&'a Disk),
    /// A slot has passed.
    Slot {
        /// Whether a process runs and has both targets under watch.
        driving: bool,
    },
    /// Everything has come to rest.
    Rest(&'a Disk),
}
