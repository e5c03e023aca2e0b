//! The one thread that owns the engine: inputs in, one commit for as many as are waiting, outputs
//! out. Everything that leaves it is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tidegate_core::machine::{Rejected, RejectedKind, Watch};
use tidegate_core::{StreamId, Timestamp};
use tidegate_journal::{Envelope, Journal, ViewRow};
use tokio::sync::{mpsc, oneshot, watch};

use super::clock::Clock;
use super::feed::Feed;
use super::pulse::Pulse;
use crate::effects::Sending;
use crate::step::{Engine, Fatal, Input, Outputs, Request};

/// Inputs in one step at most.
const BATCH_MAX: usize = 256;
/// Collecting inputs for one step takes at most so long.
const COLLECT_MAX: Duration = Duration::from_millis(2);
/// Those who were answered together often ask again together: for them a turn waits so long.
const GATHER_MAX: Duration = Duration::from_millis(1);
/// A tick counts at most so much as observed.
const AWAKE_MAX_MS: u64 = 2_000;
/// Messages that wait for the committer; whoever has more to say waits.
pub(super) const QUEUE: usize = 1_024;

/// All watches with the streams behind each.
pub(super) type Watches = BTreeMap<Watch, BTreeSet<StreamId>>;

/// An answer to somebody who asked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answered {
    pub(super) result: Result<u64, Rejected>,
    /// The stream's revision now, also where the answer is no.
    pub(super) revision: u64,
    pub(super) seq: u64,
}

/// What others may look at between two steps.
pub(super) trait Glance {
    fn view(&self, stream: &StreamId) -> Result<Option<ViewRow>, Fatal>;
    fn views(&self, kind: &str, open_only: bool, limit: usize) -> Result<Vec<ViewRow>, Fatal>;
    fn events(&self, since: u64, limit: usize) -> Result<Vec<Envelope>, Fatal>;
    fn stream(&self, id: &StreamId, after: u64, limit: usize) -> Result<Vec<Envelope>, Fatal>;
}

impl<J: Journal> Glance for Engine<J> {
    fn view(&self, stream: &StreamId) -> Result<Option<ViewRow>, Fatal> {
        let Some(view) = Engine::view(self, stream)? else { return Ok(None) };
        let version = self.revision(stream)?;
        Ok(Some(ViewRow { stream: stream.clone(), version, view }))
    }

    fn views(&self, kind: &str, open_only: bool, limit: usize) -> Result<Vec<ViewRow>, Fatal> {
        let mut rows = self.journal().views(kind, open_only, limit)?;
        for row in &mut rows {
            // A stream in memory knows more than the stored row: what it has sensed since.
            if row.view.open
                && let Some(view) = Engine::view(self, &row.stream)?
            {
                row.view = view;
            }
        }
        Ok(rows)
    }

    fn events(&self, since: u64, limit: usize) -> Result<Vec<Envelope>, Fatal> {
        Ok(self.journal().read_all(since, limit)?)
    }

    fn stream(&self, id: &StreamId, after: u64, limit: usize) -> Result<Vec<Envelope>, Fatal> {
        Ok(self.journal().read_stream(id, after, limit)?)
    }
}

/// A look at the engine between two steps.
pub(super) type Look = Box<dyn FnOnce(&dyn Glance) + Send>;

/// What the committer is told.
pub(super) enum Message {
    /// For the next step.
    Input(Input),
    /// Somebody asks a machine; answered when it is durable.
    Ask {
        stream: StreamId,
        input: Value,
        if_revision: Option<u64>,
        reply: oneshot::Sender<Answered>,
    },
    /// After the next step.
    Look(Look),
    /// Time has passed.
    Tick,
    /// End, unless there is open work: answers whether it ends.
    Close(oneshot::Sender<bool>),
}

/// How the engine stands; changes after every step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Whether there is unfinished work.
    pub(super) open: bool,
    /// When the next timer is due.
    pub(super) next_due: Option<Timestamp>,
    /// How many streams watch something.
    pub(super) watching: usize,
}

/// For the dispatcher, in the order of commits.
#[derive(Debug)]
pub(super) enum Order {
    Send(Box<Sending>),
    Forget(u64),
}

/// Where outputs go.
pub(super) struct Outlets {
    pub(super) feed: Arc<Feed>,
    pub(super) orders: mpsc::UnboundedSender<Order>,
    pub(super) facts: watch::Sender<Facts>,
    pub(super) watches: watch::Sender<Arc<Watches>>,
    pub(super) pulse: Arc<Pulse>,
}

impl Outlets {
    /// Lets everything out that needs no reply.
    pub(super) fn publish(&self, mut outputs: Outputs) {
        for line in outputs.dropped {
            tracing::warn!("refused by its receiver: {line}");
        }
        self.feed.publish(std::mem::take(&mut outputs.events));
        // Whoever receives these is gone only when the process is about to end.
        for sending in outputs.send {
            drop(self.orders.send(Order::Send(Box::new(sending))));
        }
        for id in outputs.forget {
            drop(self.orders.send(Order::Forget(id)));
        }
        let mut facts = *self.facts.borrow();
        if let Some(watches) = outputs.watches {
            let streams: BTreeSet<_> = watches.values().flatten().collect();
            facts.watching = streams.len();
            self.watches.send_replace(watches);
        }
        facts.open = outputs.open;
        facts.next_due = outputs.next_due;
        // Always notifies: the ticker waits for this after every tick.
        self.facts.send_replace(facts);
    }
}

/// The thread's state.
pub(super) struct Committer<J> {
    pub(super) engine: Engine<J>,
    pub(super) clock: Clock,
    pub(super) outlets: Outlets,
    pub(super) inbox: mpsc::Receiver<Message>,
    /// Set when the process is about to end: nothing more is taken.
    pub(super) stop: Arc<AtomicBool>,
    pub(super) last_tick: Option<Instant>,
    pub(super) tokens: u64,
    /// How many were answered by the last turn.
    pub(super) answered: usize,
}

/// What one turn of the loop has collected.
#[derive(Default)]
struct Turn {
    inputs: Vec<Input>,
    asked: BTreeMap<u64, (StreamId, oneshot::Sender<Answered>)>,
    looks: Vec<Look>,
    ticked: bool,
    close: Option<oneshot::Sender<bool>>,
}

impl<J: Journal> Committer<J> {
    /// Runs until nobody can send any more or it was closed.
    ///
    /// # Errors
    /// [`Fatal`]: the process must end at once, without answering anybody.
    pub(super) fn run(mut self) -> Result<Engine<J>, Fatal> {
        // Only its timer is needed. Without one a turn takes what is there, which is as correct.
        let waits = tokio::runtime::Builder::new_current_thread().enable_time().build().ok();
        loop {
            self.outlets.pulse.idle();
            let Some(first) = self.inbox.blocking_recv() else { return Ok(self.engine) };
            if self.stop.load(Ordering::Acquire) {
                return Ok(self.engine);
            }
            self.outlets.pulse.busy();
            let turn = self.collect(first, waits.as_ref());
            if self.turn(turn)? {
                return Ok(self.engine);
            }
        }
    }

    fn collect(&mut self, first: Message, waits: Option<&tokio::runtime::Runtime>) -> Turn {
        let started = Instant::now();
        let mut turn = Turn::default();
        self.take(first, &mut turn);
        while turn.close.is_none()
            && turn.inputs.len() + turn.looks.len() < BATCH_MAX
            && started.elapsed() < COLLECT_MAX
            && let Some(next) = self.next(&turn, started, waits)
        {
            self.take(next, &mut turn);
        }
        self.answered = turn.asked.len();
        if turn.ticked {
            let now = Instant::now();
            let awake = self.last_tick.map_or(0, |last| now.duration_since(last).as_millis());
            self.last_tick = Some(now);
            let awake_ms = u64::try_from(awake).unwrap_or(AWAKE_MAX_MS).min(AWAKE_MAX_MS);
            turn.inputs.push(Input::Tick { awake_ms });
        }
        turn
    }

    /// The next message for this turn. One sync serves as many as there are, so a turn with fewer
    /// questions than the last one waits for a moment; a question that is asked alone never waits.
    fn next(
        &mut self,
        turn: &Turn,
        started: Instant,
        waits: Option<&tokio::runtime::Runtime>,
    ) -> Option<Message> {
        if let Ok(next) = self.inbox.try_recv() {
            return Some(next);
        }
        let more = !turn.asked.is_empty() && turn.asked.len() < self.answered;
        let left = GATHER_MAX.checked_sub(started.elapsed()).filter(|_| more)?;
        let inbox = &mut self.inbox;
        waits?.block_on(async { tokio::time::timeout(left, inbox.recv()).await.ok().flatten() })
    }

    fn take(&mut self, message: Message, turn: &mut Turn) {
        match message {
            Message::Input(input) => turn.inputs.push(input),
            Message::Ask { stream, input, if_revision, reply } => {
                self.tokens += 1;
                let token = self.tokens;
                turn.asked.insert(token, (stream.clone(), reply));
                turn.inputs.push(Input::Ask(Request { token, stream, input, if_revision }));
            }
            Message::Look(look) => turn.looks.push(look),
            Message::Tick => turn.ticked = true,
            Message::Close(answer) => turn.close = Some(answer),
        }
    }

    /// Whether this was the last turn.
    fn turn(&mut self, mut turn: Turn) -> Result<bool, Fatal> {
        if !turn.inputs.is_empty() {
            let inputs = std::mem::take(&mut turn.inputs);
            let result = self.engine.step(self.clock.now(), inputs);
            let mut outputs = match result {
                Ok(outputs) => outputs,
                Err(fatal) => {
                    // Whether these were committed is not known: they must not be answered, not
                    // even by an error. The connections break when the process ends.
                    std::mem::forget(turn.asked);
                    return Err(fatal);
                }
            };
            let replies = std::mem::take(&mut outputs.replies);
            self.outlets.publish(outputs);
            for reply in replies {
                let Some((stream, sender)) = turn.asked.remove(&reply.token) else { continue };
                let revision = match &reply.result {
                    Ok(revision) => *revision,
                    Err(rejected) if rejected.kind == RejectedKind::Input => 0,
                    // It is durable by now: an unreadable revision must not look like a refusal.
                    Err(_) => self.engine.revision(&stream).unwrap_or_default(),
                };
                // Somebody who has gone away meanwhile needs no answer.
                drop(sender.send(Answered { result: reply.result, revision, seq: reply.seq }));
            }
        }
        for look in turn.looks {
            look(&self.engine);
        }
        let Some(answer) = turn.close else { return Ok(false) };
        let ends = !self.outlets.facts.borrow().open;
        // Whoever asked and has gone away meanwhile gets what was asked for.
        let _gone = answer.send(ends);
        Ok(ends)
    }
}
