//! What the parts of a host share, and the report that is made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_core::capacity::{LaneCapacity, VersionObserved};
use tidegate_wire::host::HostReport;
use tidegate_wire::switch::{Endpoint, EndpointState};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::artifact::Store;
use crate::config::HostConfig;
use crate::instance::Slot;
use crate::instance::cgroup::Cgroups;
use crate::run::Runs;
use crate::state::files;
use crate::state::{HostState, Refusal};

/// One host process.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) config: HostConfig,
    /// Identity of this life of the process.
    pub(crate) life: String,
    /// Identity of this run of the machine.
    pub(crate) boot: String,
    pub(crate) store: Store,
    pub(crate) cgroups: Cgroups,
    pub(crate) runs: Runs,
    /// Held while the state is changed and written; readers use the copy in `inner`.
    writer: tokio::sync::Mutex<()>,
    inner: Mutex<Inner>,
    revision: watch::Sender<u64>,
    /// When something of the accepted owner was last heard.
    pub(crate) contact: watch::Sender<Instant>,
    /// There are endpoints that the switch has not been told.
    pub(crate) link: Notify,
    /// Work was opened or closed, or fallbacks were changed.
    pub(crate) state_changed: Notify,
    /// The switch should be looked at now.
    pub(crate) switch_started: Notify,
}

/// What is behind the lock. It is never held across an `await`.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) state: HostState,
    pub(crate) slots: BTreeMap<String, Slot>,
    /// Ports by instance.
    pub(crate) ports: BTreeMap<String, u16>,
    /// By lane: what the switch has said that it knows.
    pub(crate) told: BTreeMap<String, Vec<Endpoint>>,
    /// Lanes that the switch has to be told about.
    pub(crate) untold: BTreeSet<String>,
    /// Why the switch does not answer.
    pub(crate) switch_trouble: Option<String>,
    /// Limits that are not enforced, by instance.
    pub(crate) unenforced: BTreeMap<String, Vec<String>>,
    /// By lane: that nobody was heard for too long and everything stays as it is.
    pub(crate) stayed: BTreeMap<String, String>,
}

impl Host {
    pub(crate) fn new(config: HostConfig, store: Store, state: HostState) -> Self {
        let cgroups = Cgroups::detect(config.home.root());
        let runs = Runs::new(config.home.host().join("runs"));
        Self {
            life: crate::process::random_id(),
            boot: crate::process::boot_id(),
            store,
            cgroups,
            runs,
            writer: tokio::sync::Mutex::new(()),
            inner: Mutex::new(Inner {
                state,
                slots: BTreeMap::new(),
                ports: BTreeMap::new(),
                told: BTreeMap::new(),
                untold: BTreeSet::new(),
                switch_trouble: Some("the switch has not answered yet".to_owned()),
                unenforced: BTreeMap::new(),
                stayed: BTreeMap::new(),
            }),
            // Above those of earlier lives: a reader that asks for what follows theirs is answered.
            revision: watch::Sender::new(crate::process::now_ms().saturating_mul(1_000)),
            contact: watch::Sender::new(Instant::now()),
            link: Notify::new(),
            state_changed: Notify::new(),
            switch_started: Notify::new(),
            config,
        }
    }

    /// A look at the shared part.
    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next report differs from the last one.
    pub(crate) fn bump(&self) {
        self.revision.send_modify(|revision| *revision += 1);
    }

    /// Wakes when the report changes.
    pub(crate) fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Changes one slot; tells the switch and the watchers if that is to be seen.
    pub(crate) fn with_slot<R>(
        &self,
        name: &str,
        change: impl FnOnce(&mut Slot) -> R,
    ) -> Option<R> {
        let mut inner = self.inner();
        let slot = inner.slots.get_mut(name)?;
        let before = (slot.endpoint(name), slot.view.clone());
        let result = change(slot);
        let lane = slot.lane.clone();
        let (moved, seen) = (slot.endpoint(name) != before.0, slot.view != before.1);
        if moved {
            inner.untold.insert(lane);
        }
        drop(inner);
        if moved {
            self.link.notify_one();
        }
        if moved || seen {
            self.bump();
        }
        Some(result)
    }

    /// Changes the state: checked and computed by `change` on a copy, in force only when it is
    /// durable. `change` says whether there is anything to write.
    pub(crate) async fn change_state<R: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut HostState) -> Result<(bool, R), Refusal>,
    ) -> Result<R, Refusal> {
        let _writer = self.writer.lock().await;
        let mut state = self.inner().state.clone();
        let (changed, result) = change(&mut state)?;
        if !changed {
            return Ok(result);
        }
        let path = self.config.home.host().join("state.json");
        let shown = path.display().to_string();
        let bytes = serde_json::to_vec(&state)
            .map_err(|e| Refusal::io("cannot write the host's state", &shown, &e.into()))?;
        tokio::task::spawn_blocking(move || files::replace(&path, &bytes, true))
            .await
            .unwrap_or_else(|e| Err(io::Error::other(e)))
            .map_err(|e| Refusal::io("cannot write the host's state", shown, &e))?;
        self.inner().state = state;
        self.bump();
        self.state_changed.notify_waiters();
        Ok(result)
    }

    /// Somebody of the accepted owner was heard.
    pub(crate) fn heard(&self) {
        self.contact.send_replace(Instant::now());
        let mut inner = self.inner();
        if !inner.stayed.is_empty() {
            inner.stayed.clear();
            drop(inner);
            self.bump();
        }
    }

    /// What is seen now.
    pub(crate) fn report(&self) -> HostReport {
        let revision = *self.revision.borrow();
        let inner = self.inner();
        let lanes = inner.state.lanes.iter().map(|(lane, known)| LaneCapacity {
            lane: lane.clone(),
            fence: Some(known.fence),
            versions: inner.versions(lane),
            fallback_applied: known.fallback_applied.clone(),
        });
        let unenforced: BTreeSet<&String> = inner.unenforced.values().flatten().collect();
        HostReport {
            revision,
            life: self.life.clone(),
            epoch: inner.state.epoch,
            lanes: lanes.collect(),
            switch: inner.switch_trouble.clone(),
            unenforced: unenforced.into_iter().cloned().collect(),
        }
    }
}

impl Inner {
    /// Whether the switch has said that it knows this instance as ready.
    fn known_ready(&self, lane: &str, name: &str, slot: &Slot) -> bool {
        let Some(endpoint) = slot.endpoint(name) else { return false };
        endpoint.state == EndpointState::Ready
            && self.told.get(lane).is_some_and(|told| told.contains(&endpoint))
    }

    fn refused_fallback(&self, lane: &str) -> Option<String> {
        let why = self.state.lanes.get(lane)?.fallback_refused.as_ref()?;
        Some(format!("no engine was heard and the switch refused the fallback: {why}"))
    }

    fn versions(&self, lane: &str) -> Vec<VersionObserved> {
        let mut versions: Vec<VersionObserved> = Vec::new();
        let wanted = self.state.lanes.get(lane).map(|l| l.doc.versions.as_slice());
        for capacity in wanted.unwrap_or_default() {
            versions.push(VersionObserved {
                version: capacity.version.clone(),
                digest: capacity.digest.clone(),
                wanted: capacity.instances,
                trouble: self.stayed.get(lane).cloned().or_else(|| self.refused_fallback(lane)),
                ..VersionObserved::default()
            });
        }
        let mut newest = BTreeMap::new();
        for (name, slot) in self.slots.iter().filter(|(_, slot)| slot.lane == lane) {
            let is = |v: &VersionObserved| {
                v.version == slot.capacity.version && v.digest == slot.capacity.digest
            };
            let at = versions.iter().position(is).unwrap_or_else(|| {
                versions.push(VersionObserved {
                    version: slot.capacity.version.clone(),
                    digest: slot.capacity.digest.clone(),
                    ..VersionObserved::default()
                });
                versions.len() - 1
            });
            let Some(version) = versions.get_mut(at) else { continue };
            version.running += u32::from(slot.view.runs());
            version.restarts += slot.view.restarts;
            if self.known_ready(lane, name, slot) {
                version.ready += 1;
                version.addresses.extend(slot.view.address().map(|a| format!("http://{a}")));
            }
            if let Some((order, text)) = slot.view.trouble()
                && newest.get(&at).is_none_or(|last| *last < order)
            {
                newest.insert(at, order);
                version.trouble = Some(format!("{name}: {text}"));
            }
        }
        versions
    }

    /// All endpoints of a lane, as the switch has to know them.
    pub(crate) fn endpoints(&self, lane: &str) -> Vec<Endpoint> {
        let of_lane = self.slots.iter().filter(|(_, slot)| slot.lane == lane);
        of_lane.filter_map(|(name, slot)| slot.endpoint(name)).collect()
    }
}
