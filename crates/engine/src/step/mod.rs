//! `step(now, inputs) -> outputs`: the whole of the engine without clocks, threads and sockets.
//!
//! A step makes one or more transactions: first everything that the inputs caused, then the
//! messages between machines, until none is left. Nothing leaves a step before it is durable.

mod live;
mod round;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use tidegate_core::capacity::LaneCapacity;
use tidegate_core::counts::SecondRecord;
use tidegate_core::machine::{Outcome, Rejected, View, Watch};
use tidegate_core::traffic::LaneTraffic;
use tidegate_core::{Digest, Epoch, StreamId, Timestamp};
use tidegate_journal::{Envelope, Journal, Outgoing, Pending};

use crate::effects::Sending;
use crate::index::Index;
use crate::registry::Registry;
use table::Table;

/// What a step can be given.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Somebody asks a machine.
    Ask(Request),
    /// An effect is decided; an id that is no longer pending is ignored.
    Answer {
        /// The outbox row.
        id: u64,
        /// How it ended.
        outcome: Outcome,
    },
    /// A host's report on one lane, read after it accepted this epoch.
    Capacity(String, LaneCapacity),
    /// A switch's report on one lane, read after it accepted this epoch.
    Traffic(String, LaneTraffic),
    /// New closed seconds for one stream, durable in its sample segment.
    Samples {
        /// The stream that watches the lane.
        stream: StreamId,
        /// In the order of the switch.
        records: Vec<SecondRecord>,
        /// Digest of the segment up to the last of them.
        segment: Digest,
    },
    /// A target does not answer: target, milliseconds, why.
    Silence(String, u64, String),
    /// Time passed: timers that are due fire, and every watching stream may count so many
    /// milliseconds (monotonic, since the last tick, capped by the shell).
    Tick {
        /// Milliseconds.
        awake_ms: u64,
    },
}

/// A question to a machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Comes back with the reply.
    pub token: u64,
    /// Which machine.
    pub stream: StreamId,
    /// Its input.
    pub input: Value,
    /// Only if the stream is at this version.
    pub if_revision: Option<u64>,
}

/// The answer to a [`Request`], to be given when the step has returned.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The request's.
    pub token: u64,
    /// The stream's version after it, or why not.
    pub result: Result<u64, Rejected>,
    /// The journal's last sequence after it.
    pub seq: u64,
}

/// What a step wants of the shell. Everything in it is durable.
#[derive(Debug, Default)]
pub struct Outputs {
    /// To be given back.
    pub replies: Vec<Reply>,
    /// To be sent, in order.
    pub send: Vec<Sending>,
    /// Effects that have been overtaken: stop trying.
    pub forget: Vec<u64>,
    /// Appended events, in order.
    pub events: Vec<Envelope>,
    /// When the next timer is due.
    pub next_due: Option<Timestamp>,
    /// Set when the watches have changed: all of them now, with the streams behind each. Not for
    /// those who follow [`Outputs::watch_changes`]; see [`Engine::with_watch_changes_only`].
    pub watches: Option<BTreeMap<Watch, BTreeSet<StreamId>>>,
    /// What has changed of the watches, in order.
    pub watch_changes: Vec<WatchChange>,
    /// Messages that the receiver refused, for the log.
    pub dropped: Vec<String>,
    /// Whether there is unfinished work.
    pub open: bool,
}

/// A stream begins or ceases to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchChange {
    /// It wants to be told.
    Began(Watch, StreamId),
    /// It does not any more.
    Ceased(Watch, StreamId),
}

/// Why the process must end. Recovery is the normal path.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The journal failed.
    #[error("the journal failed: {0}")]
    Journal(#[from] tidegate_journal::Error),
    /// What is stored cannot be read by this version's machines.
    #[error("cannot read the journal: {0}")]
    Unreadable(String),
    /// Machines keep answering each other: a defect.
    #[error("machines do not come to rest: {0}")]
    Restless(String),
}

/// Machines, their timers and what is under way, over a journal.
pub struct Engine<J> {
    journal: J,
    registry: Registry,
    epoch: Epoch,
    now: Timestamp,
    live: Table,
    timers: BTreeSet<(Timestamp, StreamId, String)>,
    timer_due: Index<(StreamId, String), Timestamp>,
    pending: BTreeMap<u64, (StreamId, String)>,
    effect_ids: Index<(StreamId, String), u64>,
    sends: BTreeMap<u64, (StreamId, Value)>,
    watches: BTreeMap<Watch, BTreeSet<StreamId>>,
    watch_changes: Vec<WatchChange>,
    whole_watches: bool,
    lanes: Index<(String, String), Lane>,
    open: Index<StreamId, ()>,
}

/// A lane at a target, as somebody watches it: who does, and the last reports.
#[derive(Default)]
struct Lane {
    watchers: Vec<Arc<StreamId>>,
    capacity: Option<Arc<LaneCapacity>>,
    traffic: Option<Arc<LaneTraffic>>,
}

impl<J: Journal> Engine<J> {
    /// Takes the journal over and recovers: open streams are loaded, pending effects come back as
    /// outputs to be sent again under the new epoch.
    ///
    /// # Errors
    /// [`Fatal`].
    pub fn recover(
        mut journal: J,
        registry: Registry,
        at_least: Epoch,
    ) -> Result<(Self, Outputs), Fatal> {
        let epoch = journal.take_over(at_least)?;
        let now = journal.last_at()?;
        let mut engine = Self {
            journal,
            registry,
            epoch,
            now,
            live: Table::default(),
            timers: BTreeSet::new(),
            timer_due: Index::default(),
            pending: BTreeMap::new(),
            effect_ids: Index::default(),
            sends: BTreeMap::new(),
            watches: BTreeMap::new(),
            watch_changes: Vec::new(),
            whole_watches: true,
            lanes: Index::default(),
            open: Index::default(),
        };
        let mut outputs = Outputs::default();
        for timer in engine.journal.timers()? {
            engine.timer_due.insert((timer.stream.clone(), timer.key.clone()), timer.due);
            engine.timers.insert((timer.due, timer.stream, timer.key));
        }
        for row in engine.journal.pending()? {
            engine.remember(row, &mut outputs);
        }
        let kinds: Vec<_> = engine.registry.kinds().collect();
        for kind in kinds {
            for row in engine.journal.views(kind, true, usize::MAX)? {
                engine.load(&row.stream)?;
                engine.refresh(&row.stream);
                engine.evict(std::slice::from_ref(&row.stream));
            }
        }
        engine.finish(&mut outputs);
        outputs.watches = Some(engine.watches.clone());
        Ok((engine, outputs))
    }

    /// Handles inputs in order. `now` may stand still but the engine's time never goes backwards.
    ///
    /// # Errors
    /// [`Fatal`]: the process must end.
    pub fn step(&mut self, now: Timestamp, inputs: Vec<Input>) -> Result<Outputs, Fatal> {
        self.now = self.now.max(now);
        let mut outputs = Outputs::default();
        self.round(inputs, &mut outputs)?;
        self.finish(&mut outputs);
        Ok(outputs)
    }

    /// From now on only [`Outputs::watch_changes`] tells of watches: a copy of all of them for
    /// every stream that begins or ends costs too much when there are many.
    #[must_use]
    pub fn with_watch_changes_only(mut self) -> Self {
        self.whole_watches = false;
        self
    }

    /// All watches now, with the streams behind each.
    #[must_use]
    pub fn watches(&self) -> &BTreeMap<Watch, BTreeSet<StreamId>> {
        &self.watches
    }

    /// The owner's number.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The engine's time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The journal, for reading.
    #[must_use]
    pub fn journal(&self) -> &J {
        &self.journal
    }

    /// Ends the engine and gives the journal back.
    #[must_use]
    pub fn into_journal(self) -> J {
        self.journal
    }

    /// A stream's row as of now, which may be fresher than the stored one.
    ///
    /// # Errors
    /// If the stored one cannot be read.
    pub fn view(&self, stream: &StreamId) -> Result<Option<View>, Fatal> {
        match self.live.get(stream) {
            Some(live) => Ok(Some(live.slot.view(stream))),
            None => Ok(self.journal.view(stream)?.map(|row| row.view)),
        }
    }

    /// A stream's version.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub fn revision(&self, stream: &StreamId) -> Result<u64, Fatal> {
        match self.live.get(stream) {
            Some(live) => Ok(live.version),
            None => Ok(self.journal.head(stream)?.version),
        }
    }

    /// Streams in memory and effects under way: for tests and for `doctor`.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.live.len(), self.pending.len(), self.timers.len())
    }

    fn finish(&mut self, outputs: &mut Outputs) {
        outputs.next_due = self.timers.first().map(|(due, _, _)| *due);
        outputs.open = !self.open.is_empty() || !self.pending.is_empty() || !self.sends.is_empty();
        if !self.watch_changes.is_empty() && self.whole_watches {
            outputs.watches = Some(self.watches.clone());
        }
        outputs.watch_changes = std::mem::take(&mut self.watch_changes);
    }

    fn remember(&mut self, row: Pending, outputs: &mut Outputs) {
        match row.outgoing {
            Outgoing::Effect(effect) => {
                self.pending.insert(row.id, (row.stream.clone(), effect.key.clone()));
                self.effect_ids.insert((row.stream.clone(), effect.key.clone()), row.id);
                outputs.send.push(Sending {
                    id: row.id,
                    stream: row.stream,
                    epoch: self.epoch,
                    effect,
                });
            }
            Outgoing::Send { to, input } => {
                self.sends.insert(row.id, (to, input));
            }
        }
    }
}
