//! The one shape of every machine, and what machines and engine say to each other.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::reason::Reason;
use crate::time::Timestamp;

/// A stream of events: one machine's life.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamId {
    /// The project, as in `tidegate.yaml`.
    pub project: String,
    /// The machine's kind: `lane`, `release`, `rollout`, …
    pub kind: String,
    /// Which one; unique within project and kind.
    pub id: String,
}

impl StreamId {
    /// A stream's identity from its three parts.
    pub fn new(project: &str, kind: &str, id: &str) -> Self {
        Self { project: project.to_owned(), kind: kind.to_owned(), id: id.to_owned() }
    }
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.project, self.kind, self.id)
    }
}

/// A machine of the core. All functions are total and deterministic.
pub trait Machine {
    /// The `kind` of its streams.
    const KIND: &'static str;
    /// The version of its events' form, written into envelopes; see [`Machine::upcast`].
    const FORM: u16;
    /// Folded from events; also what a snapshot holds.
    type State: Clone + Default + Serialize + DeserializeOwned;
    /// What others ask of it (people by the API, other machines by [`Command::Send`]).
    type Input: Serialize + DeserializeOwned;
    /// What happened.
    type Event: Serialize + DeserializeOwned;
    /// Lives in memory only and is lost with the process: sums over samples, the last observation.
    type Volatile: Default;

    /// May this happen? The events to append (none: it is a no-op, already so), or why not.
    ///
    /// # Errors
    /// [`Rejected`] when the input is not possible in this state; nothing changes then.
    fn accept(
        id: &StreamId,
        state: &Self::State,
        stimulus: Stimulus<Self::Input>,
        now: Timestamp,
    ) -> Result<Vec<Self::Event>, Rejected>;

    /// Folds one event. Never fails: what cannot be was refused by `accept`.
    fn apply(state: &mut Self::State, event: &Self::Event, at: Timestamp);

    /// What to ask of the world because of this event (`state` is the state after it).
    fn decide(
        id: &StreamId,
        state: &Self::State,
        event: &Self::Event,
        at: Timestamp,
    ) -> Vec<Command>;

    /// What is seen from outside and is not an event: targets' reports, samples, the passing of
    /// time. Returns what should be journalled because of it; called often, so it is cheap.
    fn sense(
        id: &StreamId,
        state: &Self::State,
        volatile: &mut Self::Volatile,
        sensed: &Sensed<'_>,
        now: Timestamp,
    ) -> Reaction<Self::Event> {
        let _ = (id, state, volatile, sensed, now);
        Reaction::default()
    }

    /// The name of an event for people and for JSON (`stepStarted`), and why it happened.
    fn describe(event: &Self::Event) -> (&'static str, Option<Reason>);

    /// The row that others read: the stream's document in `status`, with whether work is open.
    fn view(id: &StreamId, state: &Self::State, volatile: &Self::Volatile) -> View;

    /// [`View::open`] alone; asked after every event.
    fn is_open(state: &Self::State) -> bool {
        Self::view(&StreamId::new("", "", ""), state, &Self::Volatile::default()).open
    }

    /// The lane whose reports and samples this stream wants to sense, and from which targets.
    fn watches(state: &Self::State) -> Option<Watch> {
        let _ = state;
        None
    }

    /// Turns an event of an older form into today's JSON. `form` is older than [`Machine::FORM`].
    ///
    /// # Errors
    /// A sentence saying what cannot be read.
    fn upcast(form: u16, event: Value) -> Result<Value, String> {
        let _ = event;
        Err(format!("events of form {form} are not known to this version"))
    }
}

/// Why a machine is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Stimulus<I> {
    /// Somebody asks.
    Ask(I),
    /// A timer that this stream set is due.
    Timer(String),
    /// The world's answer to an effect that this stream asked for, by its key.
    Answer {
        /// The effect's key.
        key: String,
        /// How it ended.
        outcome: Outcome,
    },
}

/// How an effect ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind", content = "data")]
pub enum Outcome {
    /// It is in force; the target's answer.
    Applied(Value),
    /// The target says no for good: a newer fence (`staleFence`), another owner, a wrong document.
    Refused(Reason),
    /// It was carried out and failed (a command's exit status, a check's answer).
    Failed(Reason),
    /// It may have happened; nobody can tell. Only one-shot effects end like this.
    Unknown(Reason),
    /// The deadline passed without an answer that can be trusted; it is not in force as far as is
    /// known. State-setting effects may be asked for again.
    Unreachable(Reason),
}

/// What a machine asks of the world. Written to the outbox in the transaction of the event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "do")]
pub enum Command {
    /// Carry out an effect; the answer comes as [`Stimulus::Answer`].
    Effect(Effect),
    /// Forget an effect that has been overtaken; its answer will not be delivered.
    Forget {
        /// The effect's key.
        key: String,
    },
    /// Wake this stream with [`Stimulus::Timer`]; setting the same key again moves it.
    SetTimer {
        /// The timer's key within the stream.
        key: String,
        /// When; late is allowed, early never.
        due: Timestamp,
    },
    /// Drop a timer.
    CancelTimer {
        /// The timer's key within the stream.
        key: String,
    },
    /// Ask another machine. Delivered exactly once, in order per receiver; a rejection is dropped
    /// with a log line (machines phrase messages so that they cannot be rejected for good).
    Send {
        /// The receiver.
        to: StreamId,
        /// Its `Input` as JSON.
        input: Value,
    },
}

/// One thing to be done outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Effect {
    /// Identity within the stream; never used twice.
    pub key: String,
    /// Which driver and which of its targets: `process:local`, `check:command`, …
    pub target: String,
    /// What to do there: `stage`, `capacity`, `traffic`, `run`, `check`.
    pub action: String,
    /// What a repeat does.
    pub class: EffectClass,
    /// The sequence of its fence; the engine adds its epoch when it sends. 0: not fenced.
    pub seq: u64,
    /// The document for the driver.
    pub payload: Value,
    /// How long the dispatcher tries before it answers [`Outcome::Unreachable`] (state-setting) or
    /// [`Outcome::Unknown`] (one-shot that was sent).
    pub deadline_ms: u64,
}

/// What happens when an effect is sent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EffectClass {
    /// Sending twice is sending once: a whole desired state under a fence.
    StateSetting,
    /// At most once; the receiver knows the effect's id and repeats the answer.
    OneShot,
    /// Changes nothing.
    Read,
}

/// What a stream senses without an event.
#[derive(Debug, Clone)]
pub enum Sensed<'a> {
    /// Time passed. `awake_ms`: monotonic milliseconds since the last tick of this process for
    /// this stream, capped, 0 on the first: downtime and clock jumps never count.
    Tick {
        /// Milliseconds that may be counted as observed.
        awake_ms: u64,
    },
    /// A host's report on the lane, read after it accepted this owner's epoch.
    Capacity(&'a crate::capacity::LaneCapacity),
    /// A switch's report on the lane, read after it accepted this owner's epoch.
    Traffic(&'a crate::traffic::LaneTraffic),
    /// Closed seconds of the lane, new ones only, durable in the sample segment already.
    Samples {
        /// In the order of the switch.
        records: &'a [crate::counts::SecondRecord],
        /// Digest of the segment that holds them, up to its last line.
        segment: &'a crate::digest::Digest,
    },
    /// A progress row of this stream that an earlier process left; comes first after a start.
    Progress(&'a Value),
    /// A target does not answer; for how long, and why.
    Silence {
        /// The target.
        target: &'a str,
        /// Milliseconds.
        for_ms: u64,
        /// The driver's words.
        why: &'a str,
    },
}

/// What a machine wants because of what it sensed.
#[derive(Debug, Clone, PartialEq)]
pub struct Reaction<E> {
    /// Events to append (they go through `apply` and `decide` as all do).
    pub events: Vec<E>,
    /// A row to keep for the next process (not an event; the last one wins). At most every 5 s.
    pub progress: Option<Value>,
}

impl<E> Default for Reaction<E> {
    fn default() -> Self {
        Self { events: Vec::new(), progress: None }
    }
}

/// What a stream wants to be told about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Watch {
    /// The target to watch, as in [`Effect::target`].
    pub target: String,
    /// The lane there.
    pub lane: String,
    /// Whether samples are wanted (they are written to the stream's sample segments).
    pub samples: bool,
}

/// A stream's row for readers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// Whether there is unfinished work: the engine stays and the host restarts it.
    pub open: bool,
    /// The document, as `status` and the API show it.
    pub doc: Value,
}

/// Why an input was not accepted. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
#[serde(rename_all = "camelCase")]
pub struct Rejected {
    /// What kind of refusal this is; decides the exit code.
    pub kind: RejectedKind,
    /// A stable word, such as `digestChanged`.
    pub code: String,
    /// One sentence.
    pub text: String,
    /// What to do next.
    pub hint: Option<String>,
}

/// Kinds of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RejectedKind {
    /// The input is wrong (exit code 2).
    Input,
    /// Not now, not by you, not like this (exit code 3).
    Refused,
    /// It is so already: nothing to do (exit code 0, with the sentence).
    Already,
}

impl Rejected {
    /// A refusal: exit code 3.
    pub fn refused(code: &str, text: impl Into<String>) -> Self {
        Self { kind: RejectedKind::Refused, code: code.to_owned(), text: text.into(), hint: None }
    }

    /// A wrong input: exit code 2.
    pub fn input(code: &str, text: impl Into<String>) -> Self {
        Self { kind: RejectedKind::Input, ..Self::refused(code, text) }
    }

    /// It is so already.
    pub fn already(code: &str, text: impl Into<String>) -> Self {
        Self { kind: RejectedKind::Already, ..Self::refused(code, text) }
    }

    /// With what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
