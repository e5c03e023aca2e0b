//! Streams in memory: loading, watching, letting go.

use std::sync::Arc;

use tidegate_core::StreamId;
use tidegate_core::machine::Watch;
use tidegate_journal::Journal;

use super::{Engine, Fatal};
use crate::registry::Slot;

/// A loaded stream.
pub(super) struct Live {
    pub(super) slot: Box<dyn Slot>,
    pub(super) version: u64,
    pub(super) snapshot_version: u64,
    pub(super) watch: Option<Watch>,
    pub(super) open: bool,
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
        if self.live.contains_key(id) {
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
                slot,
                version: after,
                snapshot_version: from,
                watch: None,
                open: false,
                ticked: false,
                resumed: false,
            },
        );
        Ok(())
    }

    /// Keeps the tables of open and watching streams in step with a stream's state.
    pub(super) fn refresh(&mut self, id: &StreamId) {
        let Some(live) = self.live.get_mut(id) else { return };
        let open = live.slot.view(id).open;
        if open != live.open {
            live.open = open;
            if open {
                self.open += 1;
            } else {
                self.open -= 1;
            }
        }
        let watch = live.slot.watches();
        if watch == live.watch {
            return;
        }
        self.watches_changed = true;
        let watches = Arc::make_mut(&mut self.watches);
        if let Some(old) = live.watch.take()
            && let Some(streams) = watches.get_mut(&old)
        {
            streams.remove(id);
            if streams.is_empty() {
                watches.remove(&old);
            }
        }
        if let Some(new) = watch {
            live.watch = Some(new.clone());
            watches.entry(new).or_default().insert(id.clone());
        }
    }

    /// Lets go of streams that are finished and were only loaded to be asked.
    pub(super) fn evict(&mut self, touched: &[StreamId]) {
        for id in touched {
            if self.live.get(id).is_some_and(|live| !live.open && live.watch.is_none()) {
                self.live.remove(id);
            }
        }
    }
}
