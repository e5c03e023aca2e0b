//! The instances of a host: one slot for each that shall run, one task for each slot.

pub(crate) mod adopt;
pub(crate) mod cgroup;
pub(crate) mod command;
mod health;
pub(crate) mod ports;
pub(crate) mod probe;
mod probe_command;
pub(crate) mod start;
mod stop;
mod supervise;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidegate_core::Digest;
use tidegate_core::capacity::{CapacityDoc, VersionCapacity};
use tidegate_wire::switch::{Endpoint, EndpointState};
use tokio::sync::watch;

use crate::host::{Host, Inner};

/// The place of one instance: `web-v2-1a2b3c4d-0` of a lane and version.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) lane: String,
    pub(crate) capacity: VersionCapacity,
    pub(crate) index: u32,
    /// Whether it shall run.
    pub(crate) wanted: watch::Sender<bool>,
    pub(crate) view: View,
}

/// What is seen of an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) life: Life,
    pub(crate) restarts: u32,
    /// How it last ended by itself, with its place in the order of all troubles.
    pub(crate) crash: Option<(u64, String)>,
    /// What a probe last found wrong while it is not ready.
    pub(crate) probe: Option<(u64, String)>,
}

/// Where an instance is in its life.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Life {
    /// No process.
    #[default]
    Down,
    /// A process that is not ready (yet, or any more).
    Unready(At),
    /// Ready.
    Ready(At),
    /// Told to stop, or about to be.
    Leaving(At),
    /// A process that has lost its place at the switch: it failed and is being ended.
    Failing,
}

/// Which start of the instance, and its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct At {
    pub(crate) generation: u64,
    pub(crate) port: u16,
}

impl View {
    /// Whether there is a process.
    pub(crate) fn runs(&self) -> bool {
        self.life != Life::Down
    }

    fn at(&self) -> Option<At> {
        match self.life {
            Life::Down | Life::Failing => None,
            Life::Unready(at) | Life::Ready(at) | Life::Leaving(at) => Some(at),
        }
    }

    /// `address:port` of the process.
    pub(crate) fn address(&self) -> Option<String> {
        self.at().map(|at| command::address(at.port))
    }

    /// The newest trouble.
    pub(crate) fn trouble(&self) -> Option<(u64, &str)> {
        let newest = self.crash.iter().chain(&self.probe).max_by_key(|(order, _)| *order);
        newest.map(|(order, text)| (*order, text.as_str()))
    }
}

impl Slot {
    /// What the switch has to know of it.
    pub(crate) fn endpoint(&self, name: &str) -> Option<Endpoint> {
        let state = match self.view.life {
            Life::Down | Life::Failing => return None,
            Life::Unready(_) => EndpointState::NotReady,
            Life::Ready(_) => EndpointState::Ready,
            Life::Leaving(_) => EndpointState::Draining,
        };
        let at = self.view.at()?;
        Some(Endpoint {
            instance: name.to_owned(),
            generation: at.generation,
            version: self.capacity.version.clone(),
            digest: self.capacity.digest.clone(),
            address: command::address(at.port),
            state,
        })
    }
}

/// What is kept of an instance in `host/instances/NAME/slot.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SlotFile {
    pub(crate) lane: String,
    pub(crate) index: u32,
    pub(crate) capacity: VersionCapacity,
    /// The last start, and the port that it got.
    pub(crate) at: At,
    /// Whether that start was ready when this was written.
    pub(crate) ready: bool,
    pub(crate) restarts: u32,
    /// How the last one ended by itself.
    pub(crate) crash: Option<String>,
}

/// The name of an instance: readable, safe as a file name, and unique on this host.
pub(crate) fn name(lane: &str, version: &str, digest: &Digest, index: u32) -> String {
    let service = lane.rsplit('/').next().unwrap_or(lane);
    let unique = Digest::of(format!("{lane}\n{version}\n{digest}").as_bytes());
    let unique = unique.hex().get(..8).unwrap_or_default().to_owned();
    format!("{}-{}-{unique}-{index}", plain(service), plain(version))
}

fn plain(text: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '_' { c } else { '_' };
    let text: String = text.chars().take(32).map(safe).collect();
    // No name starts with a point.
    text.trim_start_matches('.').to_owned()
}

/// The instances that a lane's document asks for.
fn wanted(doc: &CapacityDoc) -> BTreeMap<String, (u32, &VersionCapacity)> {
    let mut all = BTreeMap::new();
    for capacity in &doc.versions {
        for index in 0..capacity.instances {
            let name = name(&doc.lane, &capacity.version, &capacity.digest, index);
            all.insert(name, (index, capacity));
        }
    }
    all
}

/// Brings the slots in line with the documents. What runs is told to go on or to stop; what is
/// missing is started.
pub(crate) fn reconcile(host: &Arc<Host>) {
    let mut inner = host.inner();
    let Inner { state, slots, .. } = &mut *inner;
    let mut all = BTreeMap::new();
    for lane in state.lanes.values() {
        for (name, (index, capacity)) in wanted(&lane.doc) {
            all.insert(name, (lane.doc.lane.clone(), index, capacity));
        }
    }
    for (name, slot) in slots.iter_mut() {
        let goes_on = all.get(name);
        if let Some((_, _, capacity)) = goes_on {
            slot.capacity = (*capacity).clone();
        }
        set_wanted(slot, goes_on.is_some());
    }
    for (name, (lane, index, capacity)) in all {
        if slots.contains_key(&name) {
            continue;
        }
        let slot = Slot {
            lane,
            capacity: capacity.clone(),
            index,
            wanted: watch::Sender::new(true),
            view: View::default(),
        };
        spawn(host, &name, slot.wanted.subscribe(), None, 0);
        slots.insert(name, slot);
    }
    drop(inner);
    host.bump();
}

fn set_wanted(slot: &Slot, wanted: bool) {
    slot.wanted.send_if_modified(|now| std::mem::replace(now, wanted) != wanted);
}

/// Starts the task of a slot.
pub(crate) fn spawn(
    host: &Arc<Host>,
    name: &str,
    wanted: watch::Receiver<bool>,
    found: Option<start::Running>,
    generation: u64,
) {
    let task = supervise::supervise(Arc::clone(host), name.to_owned(), wanted, found, generation);
    tokio::spawn(task);
}
