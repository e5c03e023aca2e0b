//! One round: inputs to changes to a commit, then the messages that it caused, until it is quiet.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tidegate_core::machine::{Command, Sensed, Stimulus};
use tidegate_core::{Rejected, StreamId};
use tidegate_journal::{Batch, Change, Journal, Outgoing};

use super::{Engine, Fatal, Input, Outputs, Reply, Request};
use crate::registry::Occurred;

/// Rounds of messages in one step; more means that machines talk in circles.
const ROUNDS_MAX: usize = 64;
/// Senses of one stream in a row that each made events.
const SENSES_MAX: usize = 32;
/// Events between two snapshots of a stream.
const SNAPSHOT_EVERY: u64 = 64;
/// The same for streams that are let go of after every step and read again when they are asked.
const SNAPSHOT_EVERY_UNWATCHED: u64 = 16;

/// What one transaction is going to change, by stream, in the order of first touch.
#[derive(Default)]
struct Draft {
    changes: Vec<Change>,
    index: BTreeMap<StreamId, usize>,
    replies: Vec<(u64, Result<StreamId, Rejected>)>,
    dirty: Vec<StreamId>,
}

impl<J: Journal> Engine<J> {
    pub(super) fn round(&mut self, inputs: Vec<Input>, outputs: &mut Outputs) -> Result<(), Fatal> {
        // Messages that an earlier process has left come first, as they would have.
        self.deliver_all(outputs)?;
        let mut draft = Draft::default();
        for input in inputs {
            self.handle(input, &mut draft, outputs)?;
        }
        self.commit(draft, outputs)?;
        self.deliver_all(outputs)
    }

    fn deliver_all(&mut self, outputs: &mut Outputs) -> Result<(), Fatal> {
        for _ in 0..ROUNDS_MAX {
            let sends = std::mem::take(&mut self.sends);
            if sends.is_empty() {
                return Ok(());
            }
            let mut draft = Draft::default();
            for (id, (to, input)) in sends {
                self.deliver(id, &to, input, &mut draft, outputs)?;
            }
            self.commit(draft, outputs)?;
        }
        Err(Fatal::Restless(format!("{:?}", self.sends.values().next())))
    }

    fn handle(
        &mut self,
        input: Input,
        draft: &mut Draft,
        outputs: &mut Outputs,
    ) -> Result<(), Fatal> {
        match input {
            Input::Ask(request) => self.ask(request, draft),
            Input::Answer { id, outcome } => {
                let Some((stream, key)) = self.pending.remove(&id) else { return Ok(()) };
                self.effect_ids.remove(&(stream.clone(), key.clone()));
                self.load(&stream)?;
                self.change(draft, &stream).done.push(id);
                draft.dirty.push(stream.clone());
                let stimulus = Stimulus::Answer { key, outcome };
                if let Err(rejected) = self.put(&stream, stimulus, draft, outputs)? {
                    outputs.dropped.push(format!("{stream}: answer of effect {id}: {rejected}"));
                }
                Ok(())
            }
            Input::Capacity(target, report) => {
                let lane = self.lanes.or_default((target, report.lane.clone()));
                let report = Arc::new(report);
                lane.capacity = Some(Arc::clone(&report));
                let streams = lane.watchers.clone();
                self.sense_all(&streams, &Sensed::Capacity(&report), draft, outputs)
            }
            Input::Traffic(target, report) => {
                let lane = self.lanes.or_default((target, report.lane.clone()));
                let report = Arc::new(report);
                lane.traffic = Some(Arc::clone(&report));
                let streams = lane.watchers.clone();
                self.sense_all(&streams, &Sensed::Traffic(&report), draft, outputs)
            }
            Input::Samples { stream, records, segment } => {
                let sensed = Sensed::Samples { records: &records, segment: &segment };
                self.sense_all(&[Arc::new(stream)], &sensed, draft, outputs)
            }
            Input::Silence(target, for_ms, why) => {
                let streams: Vec<_> = self
                    .watches
                    .iter()
                    .filter(|(watch, _)| watch.target == target)
                    .flat_map(|(_, streams)| streams.iter().cloned().map(Arc::new))
                    .collect();
                let sensed = Sensed::Silence { target: &target, for_ms, why: &why };
                self.sense_all(&streams, &sensed, draft, outputs)
            }
            Input::Tick { awake_ms } => self.tick(awake_ms, draft, outputs),
        }
    }

    fn ask(&mut self, request: Request, draft: &mut Draft) -> Result<(), Fatal> {
        let Request { token, stream, input, if_revision } = request;
        if self.registry.face(&stream.kind).is_none() {
            let rejected = Rejected::input("unknownKind", format!("{stream}: no such machine"));
            draft.replies.push((token, Err(rejected)));
            return Ok(());
        }
        self.load(&stream)?;
        draft.dirty.push(stream.clone());
        let version = self.live.get(&stream).map_or(0, |live| live.version);
        if let Some(wanted) = if_revision
            && wanted != version
        {
            let text = format!("revision is {version} by now, not {wanted}");
            let rejected = Rejected::refused("revisionChanged", text)
                .hint("look at it again with `tidegate status`, then repeat with the new revision");
            draft.replies.push((token, Err(rejected)));
            return Ok(());
        }
        let mut unused = Outputs::default();
        let result = self.put(&stream, Stimulus::Ask(input), draft, &mut unused)?;
        draft.replies.push((token, result.map(|()| stream)));
        Ok(())
    }

    fn deliver(
        &mut self,
        id: u64,
        to: &StreamId,
        input: Value,
        draft: &mut Draft,
        outputs: &mut Outputs,
    ) -> Result<(), Fatal> {
        self.load(to)?;
        self.change(draft, to).done.push(id);
        draft.dirty.push(to.clone());
        if let Err(rejected) = self.put(to, Stimulus::Ask(input), draft, outputs)? {
            outputs.dropped.push(format!("{to}: message {id}: {rejected}"));
        }
        Ok(())
    }

    fn tick(
        &mut self,
        awake_ms: u64,
        draft: &mut Draft,
        outputs: &mut Outputs,
    ) -> Result<(), Fatal> {
        let due: Vec<_> =
            self.timers.iter().take_while(|(due, _, _)| *due <= self.now).cloned().collect();
        for (due, stream, key) in due {
            self.timers.remove(&(due, stream.clone(), key.clone()));
            self.timer_due.remove(&(stream.clone(), key.clone()));
            self.load(&stream)?;
            self.change(draft, &stream).drop_timers.push(key.clone());
            draft.dirty.push(stream.clone());
            if let Err(rejected) = self.put(&stream, Stimulus::Timer(key), draft, outputs)? {
                outputs.dropped.push(format!("{stream}: timer: {rejected}"));
            }
        }
        for number in 0..self.live.end() {
            self.tick_one(number, awake_ms, draft, outputs)?;
        }
        Ok(())
    }

    /// Nearly always nothing comes of it: then nothing but the stream itself is touched.
    fn tick_one(
        &mut self,
        number: usize,
        awake_ms: u64,
        draft: &mut Draft,
        outputs: &mut Outputs,
    ) -> Result<(), Fatal> {
        let now = self.now;
        let Some(live) = self.live.at(number).filter(|live| live.watch.is_some()) else {
            return Ok(());
        };
        let stream = Arc::clone(&live.id);
        if !std::mem::replace(&mut live.ticked, true) {
            let sensed = Sensed::Tick { awake_ms: 0 };
            return self.sense_all(&[stream], &sensed, draft, outputs);
        }
        let (occurred, progress) = live.slot.sense(&stream, &Sensed::Tick { awake_ms }, now);
        if occurred.is_empty() && progress.is_none() {
            return Ok(());
        }
        if self.sensed(&stream, occurred, progress, draft) {
            self.settle(&stream, draft, outputs)?;
        }
        Ok(())
    }

    /// Asks a machine and records what it lets happen.
    fn put(
        &mut self,
        stream: &StreamId,
        stimulus: Stimulus<Value>,
        draft: &mut Draft,
        outputs: &mut Outputs,
    ) -> Result<Result<(), Rejected>, Fatal> {
        let now = self.now;
        let Some(live) = self.live.get_mut(stream) else { return Ok(Ok(())) };
        match live.slot.ask(stream, stimulus, now) {
            Ok(occurred) => {
                self.record(stream, occurred, draft);
                self.settle(stream, draft, outputs)?;
                Ok(Ok(()))
            }
            Err(rejected) => Ok(Err(rejected)),
        }
    }

    fn sense_all(
        &mut self,
        streams: &[Arc<StreamId>],
        sensed: &Sensed<'_>,
        draft: &mut Draft,
        outputs: &mut Outputs,
    ) -> Result<(), Fatal> {
        for stream in streams {
            if self.sense(stream, sensed, draft)? {
                self.settle(stream, draft, outputs)?;
            }
        }
        Ok(())
    }

    /// Whether the stream had events because of it.
    fn sense(
        &mut self,
        stream: &StreamId,
        sensed: &Sensed<'_>,
        draft: &mut Draft,
    ) -> Result<bool, Fatal> {
        let now = self.now;
        let Some(live) = self.live.get_mut(stream) else { return Ok(false) };
        if !std::mem::replace(&mut live.resumed, true)
            && let Some(progress) = self.journal.progress(stream)?
        {
            live.slot.sense(stream, &Sensed::Progress(&progress), now);
        }
        let (occurred, progress) = live.slot.sense(stream, sensed, now);
        Ok(self.sensed(stream, occurred, progress, draft))
    }

    /// Records what came of something sensed; whether there were events.
    fn sensed(
        &mut self,
        stream: &StreamId,
        occurred: Vec<Occurred>,
        progress: Option<Value>,
        draft: &mut Draft,
    ) -> bool {
        if let Some(progress) = progress {
            let change = self.change(draft, stream);
            change.progress = Some(progress);
            draft.dirty.push(stream.clone());
        }
        let changed = !occurred.is_empty();
        self.record(stream, occurred, draft);
        changed
    }

    /// A state that has changed is shown the last reports again: what it waits for may have been
    /// there already, and reports only come when something changes.
    fn settle(
        &mut self,
        stream: &StreamId,
        draft: &mut Draft,
        outputs: &mut Outputs,
    ) -> Result<(), Fatal> {
        self.refresh(stream);
        for _ in 0..SENSES_MAX {
            let Some(watch) = self.live.get(stream).and_then(|live| live.watch.clone()) else {
                return Ok(());
            };
            let lane = self.lanes.get(&(watch.target, watch.lane));
            let (capacity, traffic) =
                lane.map(|lane| (lane.capacity.clone(), lane.traffic.clone())).unwrap_or_default();
            let mut changed = false;
            if let Some(report) = capacity {
                changed |= self.sense(stream, &Sensed::Capacity(&report), draft)?;
            }
            if let Some(report) = traffic {
                changed |= self.sense(stream, &Sensed::Traffic(&report), draft)?;
            }
            self.refresh(stream);
            if !changed {
                return Ok(());
            }
        }
        outputs.dropped.push(format!("{stream}: still moving after {SENSES_MAX} reports"));
        Ok(())
    }

    fn change<'a>(&self, draft: &'a mut Draft, stream: &StreamId) -> &'a mut Change {
        let index = if let Some(index) = draft.index.get(stream) {
            *index
        } else {
            let version = self.live.get(stream).map_or(0, |live| live.version);
            draft.changes.push(Change::new(stream.clone(), version));
            draft.index.insert(stream.clone(), draft.changes.len() - 1);
            draft.changes.len() - 1
        };
        &mut draft.changes[index]
    }

    fn record(&mut self, stream: &StreamId, occurred: Vec<Occurred>, draft: &mut Draft) {
        if occurred.is_empty() {
            return;
        }
        draft.dirty.push(stream.clone());
        let count = occurred.len() as u64;
        let mut forgotten = Vec::new();
        {
            let change = self.change(draft, stream);
            for Occurred { event, commands } in occurred {
                change.events.push(event);
                for command in commands {
                    match command {
                        Command::Effect(effect) => change.outgoing.push(Outgoing::Effect(effect)),
                        Command::Send { to, input } => {
                            change.outgoing.push(Outgoing::Send { to, input });
                        }
                        Command::SetTimer { key, due } => {
                            change.drop_timers.retain(|k| *k != key);
                            change.set_timers.retain(|(k, _)| *k != key);
                            change.set_timers.push((key, due));
                        }
                        Command::CancelTimer { key } => {
                            change.set_timers.retain(|(k, _)| *k != key);
                            change.drop_timers.push(key);
                        }
                        Command::Forget { key } => {
                            change
                                .outgoing
                                .retain(|o| !matches!(o, Outgoing::Effect(e) if e.key == key));
                            forgotten.push(key);
                        }
                    }
                }
            }
        }
        for key in forgotten {
            if let Some(id) = self.effect_ids.remove(&(stream.clone(), key)) {
                self.pending.remove(&id);
                self.change(draft, stream).done.push(id);
            }
        }
        if let Some(live) = self.live.get_mut(stream) {
            live.version += count;
        }
    }

    fn commit(&mut self, mut draft: Draft, outputs: &mut Outputs) -> Result<(), Fatal> {
        draft.dirty.sort();
        draft.dirty.dedup();
        for stream in &draft.dirty {
            self.refresh(stream);
        }
        for change in &mut draft.changes {
            let Some(live) = self.live.get_mut(&change.stream) else { continue };
            if !change.events.is_empty() || change.progress.is_some() {
                change.view = Some(live.slot.view(&change.stream));
            }
            // A stream that is at rest keeps its state beside its events, so that those may be
            // archived one day.
            let rests = change.view.as_ref().is_some_and(|view| !view.open);
            let every =
                if live.watch.is_some() { SNAPSHOT_EVERY } else { SNAPSHOT_EVERY_UNWATCHED };
            if rests || live.version >= live.snapshot_version + every {
                live.snapshot_version = live.version;
                change.snapshot = Some(live.slot.snapshot());
            }
            for key in &change.drop_timers {
                if let Some(due) = self.timer_due.remove(&(change.stream.clone(), key.clone())) {
                    self.timers.remove(&(due, change.stream.clone(), key.clone()));
                }
            }
            for (key, due) in &change.set_timers {
                let name = (change.stream.clone(), key.clone());
                if let Some(old) = self.timer_due.insert(name, *due) {
                    self.timers.remove(&(old, change.stream.clone(), key.clone()));
                }
                self.timers.insert((*due, change.stream.clone(), key.clone()));
            }
            outputs.forget.extend(&change.done);
        }
        let mut last_seq = None;
        if !draft.changes.is_empty() {
            let batch = Batch { at: self.now, epoch: self.epoch, changes: draft.changes };
            let committed = self.journal.commit(&batch)?;
            last_seq = Some(committed.last_seq);
            outputs.events.extend(committed.events);
            for row in committed.pending {
                self.remember(row, outputs);
            }
        }
        for (token, result) in draft.replies {
            let seq = match last_seq {
                Some(seq) => seq,
                None => self.journal.last_seq()?,
            };
            let result = result.map(|stream| self.live.get(&stream).map_or(0, |live| live.version));
            outputs.replies.push(Reply { token, result, seq });
        }
        self.evict(&draft.dirty);
        Ok(())
    }
}
