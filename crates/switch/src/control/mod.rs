//! What the switch is told and what it says.

pub(crate) mod api;
mod fence;
mod leaving;
pub(crate) mod listeners;
mod owner;
pub(crate) mod store;
mod table;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidegate_wire::error::ErrorBody;
use tidegate_wire::host::{Accepted, Claim, Claimed};
use tidegate_wire::switch::{Endpoints, SwitchReport, Table};
use tidegate_wire::{Digest, PROTOCOL};
use tokio::sync::Mutex;

use self::fence::Passes;
use self::leaving::Leaving;
use self::listeners::{Listeners, Sockets};
use self::store::{Durable, Store, StoreError};
use self::table::Wanted;
use crate::counts::HistoryFiles;
use crate::proxy::Proxy;
use crate::proxy::view::Registry;

/// Lives of hosts that are over and whose late words are not heard.
const OLD_LIVES: usize = 16;

/// A call that is not carried out.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// 409.
    Fence(Box<ErrorBody>),
    /// 422.
    Impossible(Box<ErrorBody>),
    /// 503: our own disk.
    Store(Box<ErrorBody>),
}

#[derive(Debug, Default)]
struct State {
    durable: Durable,
    endpoints: BTreeMap<String, Endpoints>,
    old_lives: VecDeque<String>,
    registry: Registry,
    generation: u64,
    trouble: Vec<String>,
}

/// The switch as its neighbours see it.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) listeners: Arc<Listeners>,
    pub(crate) history: HistoryFiles,
    leaving: Leaving,
    store: Store,
    state: Mutex<State>,
}

impl Control {
    pub(crate) fn new(proxy: Arc<Proxy>, listeners: Arc<Listeners>, store: Store) -> Self {
        let history = HistoryFiles::new(store.folder());
        let leaving = Leaving::new(store.folder());
        Self { proxy, listeners, history, leaving, store, state: Mutex::default() }
    }

    /// Puts the durable table in force, with the endpoints that were last known.
    ///
    /// # Errors
    /// [`StoreError`] if there was a table and it cannot be read.
    pub(crate) async fn start(&self, holder: PathBuf) -> Result<(), StoreError> {
        let mut state = self.state.lock().await;
        let (durable, trouble) = self.store.load()?;
        state.durable = durable;
        state.trouble.extend(trouble);
        for message in self.store.load_endpoints() {
            state.endpoints.insert(message.lane.clone(), message);
        }
        self.listeners.take(&holder).await;
        self.publish(&mut state);
        match self.listen(&state.durable, None, "") {
            Ok((wanted, prepared, trouble)) => {
                self.listeners.apply(wanted, prepared);
                state.trouble.extend(trouble);
            }
            Err(error) => state.trouble.push(error.message),
        }
        for why in &state.trouble {
            tracing::error!(why, "not all is as the table wants it");
        }
        self.listeners.forget_found();
        Ok(())
    }

    /// # Errors
    /// [`Refusal::Fence`], [`Refusal::Store`].
    pub(crate) async fn claim(&self, claim: &Claim) -> Result<Claimed, Refusal> {
        let mut state = self.state.lock().await;
        fence::claim(&state.durable, claim).map_err(Refusal::Fence)?;
        let mut next = state.durable.clone();
        next.home = Some(claim.home.clone());
        next.epoch = claim.epoch;
        if next != state.durable {
            self.save(&next)?;
            state.durable = next;
            self.proxy.revision.send_modify(|revision| *revision += 1);
        }
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Claimed { epoch: claim.epoch, protocol: PROTOCOL, version })
    }

    /// In force for the next request and durable when this returns.
    ///
    /// # Errors
    /// All of [`Refusal`]; nothing has changed then.
    pub(crate) async fn table(&self, message: &Table) -> Result<Accepted, Refusal> {
        let accepted = Accepted { fence: message.fence };
        let mut state = self.state.lock().await;
        table::check(message).map_err(Refusal::Impossible)?;
        let digest = Digest::of_json(&message.doc).map_err(|error| {
            Refusal::Impossible(table::impossible(error.to_string(), &message.doc.lane))
        })?;
        let lane = match fence::table(&state.durable, message, &digest).map_err(Refusal::Fence)? {
            Passes::Again => return Ok(accepted),
            Passes::New(lane) => lane,
        };
        let mut next = state.durable.clone();
        next.home = Some(message.home.clone());
        next.epoch = message.fence.epoch;
        next.lanes.insert(message.doc.lane.clone(), *lane);
        let before = state.durable.lanes.get(&message.doc.lane).map(|lane| &lane.doc);
        let must = table::must_open(before, &message.doc);
        let (wanted, prepared, trouble) =
            self.listen(&next, must, &message.doc.lane).map_err(Refusal::Impossible)?;
        self.save(&next)?;
        state.durable = next;
        // First the routes, then the listeners: nobody who connects finds no route.
        self.publish(&mut state);
        self.listeners.apply(wanted, prepared);
        state.trouble = trouble;
        tracing::info!(lane = message.doc.lane, fence = %message.fence, "table in force");
        Ok(accepted)
    }

    /// The newest word of the host that lives wins.
    ///
    /// # Errors
    /// [`Refusal::Impossible`] for an address that is none.
    pub(crate) async fn endpoints(&self, message: Endpoints) -> Result<(), Refusal> {
        table::check_endpoints(&message).map_err(Refusal::Impossible)?;
        let mut state = self.state.lock().await;
        if state.old_lives.contains(&message.life) {
            return Ok(());
        }
        if let Some(before) = state.endpoints.get(&message.lane) {
            if before.life == message.life && before.seq >= message.seq {
                return Ok(());
            }
            if before.life != message.life {
                let old = before.life.clone();
                state.old_lives.push_back(old);
                if state.old_lives.len() > OLD_LIVES {
                    state.old_lives.pop_front();
                }
            }
        }
        state.endpoints.insert(message.lane.clone(), message);
        self.publish(&mut state);
        self.keep_endpoints(&state);
        Ok(())
    }

    fn keep_endpoints(&self, state: &State) {
        let all: Vec<_> = state.endpoints.values().cloned().collect();
        if let Err(error) = self.store.save_endpoints(&all) {
            tracing::warn!(%error, "a restarted switch will have to wait for the host");
        }
    }

    /// What is in force and under way, when its revision is above `after` or `wait` is over.
    pub(crate) async fn observe(&self, after: u64, wait: Duration) -> SwitchReport {
        let mut revision = self.proxy.revision.subscribe();
        // One that is lower is of another life: its reader must learn that at once.
        let grown = revision.wait_for(|revision| *revision != after);
        // Both ends lead to the same answer.
        let _ = tokio::time::timeout(wait, grown).await;
        let state = self.state.lock().await;
        // Read before the rest: what changes meanwhile is reported again.
        let revision = *self.proxy.revision.borrow();
        let mut report = SwitchReport {
            revision,
            switch_epoch: self.proxy.counts.switch_epoch(),
            epoch: state.durable.epoch,
            lanes: state.registry.lanes(&self.proxy.view.load()),
            instances: state.registry.instances(),
            trouble: state.trouble.clone(),
            refused: self.proxy.refused.total(),
        };
        drop(state);
        self.leaving.add(&mut report);
        report
    }

    /// What is to be listened on, opened as far as it is new.
    fn listen(
        &self,
        durable: &Durable,
        must: Option<SocketAddr>,
        on: &str,
    ) -> Result<(Wanted, Sockets, Vec<String>), Box<ErrorBody>> {
        let (wanted, mut trouble) = table::wanted(durable, must, on)?;
        let (prepared, more) = self.listeners.prepare(&wanted, must).map_err(|why| {
            let fix = "stop what listens there, or give the environment another address";
            Box::new(table::impossible(why, on).fix(fix))
        })?;
        trouble.extend(more);
        Ok((wanted, prepared, trouble))
    }

    fn publish(&self, state: &mut State) {
        state.generation += 1;
        let generation = state.generation;
        let State { durable, endpoints, registry, .. } = state;
        let view = registry.view(durable, endpoints, generation);
        self.proxy.publish(view);
    }

    fn save(&self, next: &Durable) -> Result<(), Refusal> {
        self.store.save(next).map_err(|error| {
            let text = format!("the table cannot be made durable: {error}");
            Refusal::Store(
                ErrorBody::new("storeFailed", text, "switch")
                    .fix("free space or repair the disk; the table before is still in force")
                    .into(),
            )
        })
    }
}
