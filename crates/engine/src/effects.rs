//! What the dispatcher asks of a driver. Drivers live in the crate `drivers`; `wiring.rs` of the
//! binary puts them behind the names in [`tidegate_core::machine::Effect::target`].

use std::pin::Pin;

use tidegate_core::capacity::LaneCapacity;
use tidegate_core::counts::SecondRecord;
use tidegate_core::machine::{Effect, Outcome};
use tidegate_core::traffic::LaneTraffic;
use tidegate_core::{Epoch, StreamId};

/// A future that a driver returns.
pub type Job<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One effect on its way to a target.
#[derive(Debug, Clone, PartialEq)]
pub struct Sending {
    /// The outbox row; together with the home it is the effect's identity at the target.
    pub id: u64,
    /// Who asked.
    pub stream: StreamId,
    /// The owner that sends.
    pub epoch: Epoch,
    /// What.
    pub effect: Effect,
}

/// How one attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Attempt {
    /// The effect is decided.
    Done(Outcome),
    /// Not in force as far as is known; worth another try. Why.
    Again(String),
    /// As [`Attempt::Again`], and it is certain that this attempt has sent nothing (nobody listens):
    /// a one-shot that ends its deadline like this was never carried out.
    NotSent(String),
    /// The target has accepted a newer owner or has shut this epoch: this process must end, so
    /// that the next one takes a higher epoch than the one named.
    Superseded(Epoch),
}

/// A part of the world: everything behind one prefix of target names (`process`, `check`).
pub trait Driver: Send + Sync + 'static {
    /// One attempt. Has to claim the target for `epoch` first, and to be safe to repeat.
    fn attempt<'a>(&'a self, sending: &'a Sending) -> Job<'a, Attempt>;

    /// Watches a target for as long as the future is kept: claims it for `epoch`, then reports
    /// whatever changes, level-triggered, and silences. Never returns while the target can come
    /// back; returns an epoch when a newer owner is there.
    fn watch<'a>(
        &'a self,
        target: &'a str,
        epoch: Epoch,
        reports: tokio::sync::mpsc::Sender<Report>,
    ) -> Job<'a, Epoch> {
        let _ = (target, epoch, reports);
        Box::pin(std::future::pending())
    }

    /// Keeps the processes alive that carry what runs at this driver's targets, for as long as the
    /// future is kept, also while no work is open and nobody watches. Never returns.
    fn keep_alive<'a>(&'a self) -> Job<'a, ()> {
        Box::pin(std::future::pending())
    }

    /// Whether the engine has unfinished work, on every change and once more before it ends: a
    /// target that restarts dead engines has to know. Returns when the target has been told, or
    /// when it cannot be (the shell waits for a bounded time only).
    fn set_open<'a>(&'a self, open: bool) -> Job<'a, ()> {
        let _ = open;
        Box::pin(std::future::ready(()))
    }
}

/// What a driver sees at a target without being asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The target.
    pub target: String,
    /// What was seen.
    pub seen: Seen,
}

/// What can be seen.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// A lane's capacity.
    Capacity(LaneCapacity),
    /// A lane's traffic.
    Traffic(LaneTraffic),
    /// New closed seconds, each one once per life of this process and in order; the sample store
    /// drops what it has already.
    Samples(Vec<SecondRecord>),
    /// No answer; for how many milliseconds, and why.
    Silence(u64, String),
}
