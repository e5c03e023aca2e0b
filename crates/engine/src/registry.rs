//! Machines behind one dynamic face, so that the engine knows none of them.

use std::collections::BTreeMap;

use serde_json::Value;
use tidegate_core::machine::{Command, Rejected, Sensed, Stimulus, View, Watch};
use tidegate_core::{Machine, StreamId, Timestamp};
use tidegate_journal::{Envelope, NewEvent, Snapshot};

/// One event that a machine has let happen, already folded, with what it asks of the world.
#[derive(Debug, Clone, PartialEq)]
pub struct Occurred {
    /// The event as it will be stored.
    pub event: NewEvent,
    /// What to do because of it.
    pub commands: Vec<Command>,
}

/// One machine's state in memory.
pub trait Slot: Send {
    /// Asks the machine and folds what it lets happen.
    ///
    /// # Errors
    /// The machine's refusal; nothing has changed.
    fn ask(
        &mut self,
        id: &StreamId,
        stimulus: Stimulus<Value>,
        now: Timestamp,
    ) -> Result<Vec<Occurred>, Rejected>;

    /// Lets the machine sense something and folds the events that come of it.
    fn sense(
        &mut self,
        id: &StreamId,
        sensed: &Sensed<'_>,
        now: Timestamp,
    ) -> (Vec<Occurred>, Option<Value>);

    /// The row for readers, now.
    fn view(&self, id: &StreamId) -> View;

    /// Whether there is unfinished work.
    fn is_open(&self) -> bool;

    /// What the stream wants to be told about.
    fn watches(&self) -> Option<Watch>;

    /// The state as JSON, for a snapshot.
    fn snapshot(&self) -> String;
}

/// Makes slots of one kind of machine.
pub trait Face: Send + Sync {
    /// The state after a snapshot and the events behind it.
    ///
    /// # Errors
    /// A sentence saying which event cannot be read.
    fn load(
        &self,
        snapshot: Option<&Snapshot>,
        events: &[Envelope],
    ) -> Result<Box<dyn Slot>, String>;
}

/// All kinds of machines that an engine runs.
#[derive(Default)]
pub struct Registry {
    faces: BTreeMap<&'static str, Box<dyn Face>>,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more kind of machine.
    #[must_use]
    pub fn with<M>(mut self) -> Self
    where
        M: Machine + Send + Sync + 'static,
        M::State: Send + 'static,
        M::Volatile: Send + 'static,
    {
        self.faces.insert(M::KIND, Box::new(TypedFace::<M>(std::marker::PhantomData)));
        self
    }

    /// The face of a kind.
    #[must_use]
    pub fn face(&self, kind: &str) -> Option<&dyn Face> {
        self.faces.get(kind).map(AsRef::as_ref)
    }

    /// All kinds, in order of their names.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.faces.keys().copied()
    }
}

struct TypedFace<M>(std::marker::PhantomData<M>);

struct TypedSlot<M: Machine> {
    state: M::State,
    volatile: M::Volatile,
}

impl<M> Face for TypedFace<M>
where
    M: Machine + Send + Sync + 'static,
    M::State: Send + 'static,
    M::Volatile: Send + 'static,
{
    fn load(
        &self,
        snapshot: Option<&Snapshot>,
        events: &[Envelope],
    ) -> Result<Box<dyn Slot>, String> {
        let mut state: M::State = match snapshot {
            Some(snapshot) => serde_json::from_str(&snapshot.state)
                .map_err(|e| format!("snapshot at version {}: {e}", snapshot.version))?,
            None => M::State::default(),
        };
        for envelope in events {
            let place =
                |why: String| format!("{} version {}: {why}", envelope.stream, envelope.version);
            let event: M::Event = if envelope.form == M::FORM {
                serde_json::from_str(&envelope.data).map_err(|e| place(e.to_string()))?
            } else {
                let old = serde_json::from_str(&envelope.data).map_err(|e| place(e.to_string()))?;
                let today = M::upcast(envelope.form, old).map_err(place)?;
                serde_json::from_value(today).map_err(|e| place(e.to_string()))?
            };
            M::apply(&mut state, &event, envelope.at);
        }
        Ok(Box::new(TypedSlot::<M> { state, volatile: M::Volatile::default() }))
    }
}

impl<M> TypedSlot<M>
where
    M: Machine,
{
    fn fold(&mut self, id: &StreamId, events: Vec<M::Event>, now: Timestamp) -> Vec<Occurred> {
        events
            .into_iter()
            .filter_map(|event| {
                // Events are plain data of our own; one that cannot be written would be a defect
                // that tests of each machine's events catch.
                let data = serde_json::to_string(&event).ok()?;
                M::apply(&mut self.state, &event, now);
                let commands = M::decide(id, &self.state, &event, now);
                let (name, reason) = M::describe(&event);
                let event = NewEvent { event: name.to_owned(), form: M::FORM, data, reason };
                Some(Occurred { event, commands })
            })
            .collect()
    }
}

impl<M> Slot for TypedSlot<M>
where
    M: Machine,
    M::State: Send,
    M::Volatile: Send,
{
    fn ask(
        &mut self,
        id: &StreamId,
        stimulus: Stimulus<Value>,
        now: Timestamp,
    ) -> Result<Vec<Occurred>, Rejected> {
        let stimulus = match stimulus {
            Stimulus::Ask(value) => Stimulus::Ask(
                serde_json::from_value(value)
                    .map_err(|e| Rejected::input("notUnderstood", format!("{}: {e}", M::KIND)))?,
            ),
            Stimulus::Timer(key) => Stimulus::Timer(key),
            Stimulus::Answer { key, outcome } => Stimulus::Answer { key, outcome },
        };
        let events = M::accept(id, &self.state, stimulus, now)?;
        Ok(self.fold(id, events, now))
    }

    fn sense(
        &mut self,
        id: &StreamId,
        sensed: &Sensed<'_>,
        now: Timestamp,
    ) -> (Vec<Occurred>, Option<Value>) {
        let reaction = M::sense(id, &self.state, &mut self.volatile, sensed, now);
        (self.fold(id, reaction.events, now), reaction.progress)
    }

    fn view(&self, id: &StreamId) -> View {
        M::view(id, &self.state, &self.volatile)
    }

    fn is_open(&self) -> bool {
        M::is_open(&self.state)
    }

    fn watches(&self) -> Option<Watch> {
        M::watches(&self.state)
    }

    fn snapshot(&self) -> String {
        serde_json::to_string(&self.state).unwrap_or_default()
    }
}
