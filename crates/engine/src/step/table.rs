//! Streams in memory by number: what is done for all of them at every tick walks through one array,
//! and looking one up costs the same however many there are.

use tidegate_core::StreamId;

use super::live::Live;
use crate::index::Index;

/// The loaded streams.
#[derive(Default)]
pub(super) struct Table {
    index: Index<StreamId, usize>,
    slots: Vec<Option<Live>>,
    free: Vec<usize>,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Numbers that are in use lie below this.
    pub(super) fn end(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn contains(&self, id: &StreamId) -> bool {
        self.index.contains(id)
    }

    pub(super) fn get(&self, id: &StreamId) -> Option<&Live> {
        self.slots.get(*self.index.get(id)?)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: &StreamId) -> Option<&mut Live> {
        self.at(*self.index.get(id)?)
    }

    pub(super) fn at(&mut self, number: usize) -> Option<&mut Live> {
        self.slots.get_mut(number)?.as_mut()
    }

    pub(super) fn insert(&mut self, id: StreamId, live: Live) {
        let number = self.free.pop().unwrap_or(self.slots.len());
        if number == self.slots.len() {
            self.slots.push(None);
        }
        self.index.insert(id, number);
        if let Some(slot) = self.slots.get_mut(number) {
            *slot = Some(live);
        }
    }

    pub(super) fn remove(&mut self, id: &StreamId) {
        if let Some(number) = self.index.remove(id) {
            if let Some(slot) = self.slots.get_mut(number) {
                *slot = None;
            }
            self.free.push(number);
        }
    }
}
