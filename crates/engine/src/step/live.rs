//! Streams in memory: loading, watching, letting go.

use std::sync::Arc;

use tidegate_core::StreamId;
use tidegate_core::machine::Watch;
use tidegate_journal::Journal;

use super::{Engine, Fatal, WatchChange};
use crate::registry::Slot;

/// A loaded stream.
pub(super) struct Live {
    pub(super) id: Arc<StreamId>,
    pub(super) slot: Box<dyn Slot>,
    pub(super) version: u64,
    pub(super) snapshot_version: u64,
    pub(super) watch: Option<Watch>,
    /// Whether it has been told of a tick yet: the first one counts nothing.
    pub(super) ticked: bool,
    /// Whether the progress row of an earlier process has been handed over.
    pub(super) resumed: bool,
}

/// Events that are read at once.
const PAGE: usize = 512;

impl<J: Journal> Engine<J> {
    /// Brings a stream into memory; one without events starts at its machine's default state.
    pub(super) fn load(&mut self, id: &StreamId) -> Result<(), Fatal> {
        if self.live.contains(id) {
            return Ok(());
        }
        let face = self
            .registry
            .face(&id.kind)
            .ok_or_else(|| Fatal::Unreadable(format!("{id}: no machine of kind {}", id.kind)))?;
        let snapshot = self.journal.snapshot(id)?;
        let from = snapshot.as_ref().map_or(0, |s| s.version);
        let mut events = Vec::new();
        let mut after = from;
        loop {
            let page = self.journal.read_stream(id, after, PAGE)?;
            let Some(last) = page.last() else { break };
            after = last.version;
            events.extend(page);
        }
        let slot = face.load(snapshot.as_ref(), &events).map_err(Fatal::Unreadable)?;
        self.live.insert(
            id.clone(),
            Live {
                id: Arc::new(id.clone()),
                slot,
                version: after,
                snapshot_version: from,
                watch: None,
                ticked: false,
                resumed: false,
            },
        );
        Ok(())
    }

    /// Keeps the tables of open and watching streams in step with a stream's state.
    pub(super) fn refresh(&mut self, id: &StreamId) {
        let Some(live) = self.live.get_mut(id) else { return };
        if live.slot.is_open() {
            if !self.open.contains(id) {
                self.open.insert(id.clone(), ());
            }
        } else {
            self.open.remove(id);
        }
        let watch = live.slot.watches();
        if watch == live.watch {
            return;
        }
        if let Some(old) = live.watch.take()
            && let Some(streams) = self.watches.get_mut(&old)
        {
            streams.remove(id);
            if streams.is_empty() {
                self.watches.remove(&old);
            }
            self.watch_lane(&old, id, false);
            self.watch_changes.push(WatchChange::Ceased(old, id.clone()));
        }
        if let Some(new) = watch {
            if let Some(live) = self.live.get_mut(id) {
                live.watch = Some(new.clone());
            }
            self.watch_lane(&new, id, true);
            self.watch_changes.push(WatchChange::Began(new.clone(), id.clone()));
            self.watches.entry(new).or_default().insert(id.clone());
        }
    }

    fn watch_lane(&mut self, watch: &Watch, id: &StreamId, begins: bool) {
        let key = (watch.target.clone(), watch.lane.clone());
        let lane = self.lanes.or_default(key);
        if begins {
            lane.watchers.push(Arc::new(id.clone()));
        } else {
            // The last reports stay: who comes next is shown them at once.
            lane.watchers.retain(|other| **other != *id);
        }
    }

    /// Lets go of streams that sense nothing: they are loaded again when they are asked.
    pub(super) fn evict(&mut self, touched: &[StreamId]) {
        for id in touched {
            if self.live.get(id).is_some_and(|live| live.watch.is_none()) {
                self.live.remove(id);
            }
        }
    }
}
