//! The whole truth of the data path at one moment, replaced as a whole: routes, weights, instances.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use tidegate_wire::switch::{EndpointState, Endpoints, InstanceTraffic};
use tidegate_wire::traffic::{LaneTraffic, VersionTraffic, VersionWeight};
use tidegate_wire::{Digest, Fence};

use super::body::RetryBudget;
use super::route::{RouteTable, listen_address};
use super::split::{Split, owner};
use super::upstream::{Instance, Standing, Version};
use crate::control::store::{Durable, DurableLane};
use crate::counts::CellKey;

/// One moment.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) generation: u64,
    pub(crate) listeners: HashMap<SocketAddr, RouteTable>,
    pub(crate) lanes: BTreeMap<String, Arc<LaneView>>,
}

/// One lane at one moment.
#[derive(Debug)]
pub(crate) struct LaneView {
    pub(crate) lane: String,
    pub(crate) fence: Fence,
    pub(crate) weights: Vec<VersionWeight>,
    /// As in `weights`, then those that only the host knows.
    pub(crate) versions: Vec<VersionView>,
    pub(crate) split: Arc<Split>,
    pub(crate) budget: Arc<RetryBudget>,
    pub(crate) sticky_cookie: Option<String>,
    pub(crate) faults: Vec<(u16, u16)>,
    pub(crate) timeout: Duration,
}

/// One version at one moment.
#[derive(Debug)]
pub(crate) struct VersionView {
    pub(crate) version: Arc<Version>,
    pub(crate) weight_bp: u32,
    pub(crate) cell: Arc<CellKey>,
    /// Those that new requests may be sent to.
    pub(crate) ready: Vec<Arc<Instance>>,
    /// Some of its instances have been told to stop.
    pub(crate) leaving: bool,
}

impl LaneView {
    /// The version that owns `point`; `None` where nothing shall be served.
    pub(crate) fn by_point(&self, point: u16) -> Option<&VersionView> {
        owner(self.weights.iter(), point).and_then(|index| self.versions.get(index))
    }

    /// The version of this name.
    pub(crate) fn by_name(&self, name: &str) -> Option<&VersionView> {
        self.versions.iter().find(|version| version.version.name == name)
    }

    /// The same version in this view.
    pub(crate) fn again(&self, version: &Arc<Version>) -> Option<&VersionView> {
        self.versions.iter().find(|other| Arc::ptr_eq(&other.version, version))
    }

    /// Who spares a user the failure of `not`: of the versions in the table that can serve, the one
    /// with the highest weight.
    pub(crate) fn stand_in(&self, not: &Arc<Version>) -> Option<&VersionView> {
        let named = self.versions.iter().take(self.weights.len());
        named
            .filter(|other| !Arc::ptr_eq(&other.version, not) && !other.ready.is_empty())
            .max_by_key(|other| other.weight_bp)
    }

    /// Whether this status is the service's fault.
    pub(crate) fn is_fault(&self, status: u16) -> bool {
        self.faults.iter().any(|(from, to)| (*from..=*to).contains(&status))
    }
}

type VersionId = (String, String, Digest);
type InstanceId = (String, String, u64, SocketAddr);

/// What lives longer than one view: counters, pools, positions in blocks.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    versions: HashMap<VersionId, Arc<Version>>,
    instances: HashMap<InstanceId, Arc<Instance>>,
    cells: HashMap<(VersionId, u32), Arc<CellKey>>,
    splits: HashMap<String, (Fence, Vec<VersionWeight>, Arc<Split>)>,
    budgets: HashMap<String, Arc<RetryBudget>>,
}

impl Registry {
    /// The view of this state; counters and pools of what was there before go on.
    pub(crate) fn view(
        &mut self,
        durable: &Durable,
        endpoints: &BTreeMap<String, Endpoints>,
        generation: u64,
    ) -> View {
        self.forget();
        let ready = self.stand(endpoints);
        let mut view = View { generation, ..View::default() };
        for (name, lane) in &durable.lanes {
            let lane = Arc::new(self.lane(name, lane, &ready));
            view.lanes.insert(name.clone(), lane);
        }
        for (name, lane) in &durable.lanes {
            if let (Ok(address), Some(seen)) =
                (listen_address(&lane.doc.listen), view.lanes.get(name))
            {
                view.listeners.entry(address).or_default().add(&lane.doc.routes, seen);
            }
        }
        for routes in view.listeners.values_mut() {
            routes.sort();
        }
        self.weigh(&view);
        view
    }

    /// Drops what nobody refers to any more.
    fn forget(&mut self) {
        self.instances.retain(|_, instance| Arc::strong_count(instance) > 1);
        self.cells.retain(|_, cell| Arc::strong_count(cell) > 1);
        self.versions.retain(|_, version| Arc::strong_count(version) > 1);
    }

    /// Gives every instance the host's word; returns those that are ready.
    fn stand(&mut self, endpoints: &BTreeMap<String, Endpoints>) -> Vec<Arc<Instance>> {
        let mut named = HashMap::new();
        let mut ready = Vec::new();
        for message in endpoints.values() {
            for endpoint in &message.endpoints {
                // Checked when the message came.
                let Ok(address) = endpoint.address.parse() else { continue };
                let version = self.version(&message.lane, &endpoint.version, &endpoint.digest);
                let name = endpoint.instance.clone();
                let id = (message.lane.clone(), name.clone(), endpoint.generation, address);
                let instance = self.instances.entry(id.clone()).or_insert_with(|| {
                    Arc::new(Instance::new(version, name, endpoint.generation, address))
                });
                if endpoint.state == EndpointState::Ready {
                    ready.push(Arc::clone(instance));
                }
                named.insert(id, endpoint.state);
            }
        }
        for (id, instance) in &self.instances {
            instance.set_standing(named.get(id).copied());
        }
        ready
    }

    fn version(&mut self, lane: &str, name: &str, digest: &Digest) -> Arc<Version> {
        let id = (lane.to_owned(), name.to_owned(), digest.clone());
        let version = self.versions.entry(id).or_insert_with(|| {
            Arc::new(Version {
                lane: lane.to_owned(),
                name: name.to_owned(),
                digest: digest.clone(),
                in_flight: Arc::new(AtomicU32::new(0)),
                weight_bp: AtomicU32::new(0),
                turn: AtomicUsize::new(0),
            })
        });
        Arc::clone(version)
    }

    fn lane(&mut self, name: &str, lane: &DurableLane, ready: &[Arc<Instance>]) -> LaneView {
        let doc = &lane.doc;
        let mut versions: Vec<VersionView> = Vec::new();
        for weight in &doc.weights {
            let version = self.version(name, &weight.version, &weight.digest);
            versions.push(self.version_view(version, weight.weight_bp));
        }
        for instance in ready.iter().filter(|instance| instance.version.lane == name) {
            let at = versions.iter().position(|v| Arc::ptr_eq(&v.version, &instance.version));
            let at = at.unwrap_or_else(|| {
                versions.push(self.version_view(Arc::clone(&instance.version), 0));
                versions.len() - 1
            });
            if let Some(version) = versions.get_mut(at) {
                version.ready.push(Arc::clone(instance));
            }
        }
        LaneView {
            lane: name.to_owned(),
            fence: lane.fence,
            weights: doc.weights.clone(),
            versions,
            split: self.split(name, lane),
            budget: Arc::clone(
                self.budgets.entry(name.to_owned()).or_insert_with(|| Arc::new(RetryBudget::new())),
            ),
            sticky_cookie: doc.sticky_cookie.clone(),
            faults: doc.errors.status.clone(),
            timeout: Duration::from_millis(doc.errors.timeout_ms),
        }
    }

    /// A change of weights begins a new block; a table that leaves them goes on in the old one.
    fn split(&mut self, name: &str, lane: &DurableLane) -> Arc<Split> {
        if let Some((_, weights, split)) = self.splits.get(name)
            && *weights == lane.doc.weights
        {
            return Arc::clone(split);
        }
        let split = Arc::new(Split::new(lane.doc.seed, lane.fence));
        let entry = (lane.fence, lane.doc.weights.clone(), Arc::clone(&split));
        self.splits.insert(name.to_owned(), entry);
        split
    }

    fn version_view(&mut self, version: Arc<Version>, weight_bp: u32) -> VersionView {
        let id = (version.lane.clone(), version.name.clone(), version.digest.clone());
        let cell = self.cells.entry((id, weight_bp)).or_insert_with(|| {
            Arc::new(CellKey {
                lane: version.lane.clone(),
                version: version.name.clone(),
                digest: version.digest.clone(),
                weight_bp,
                in_flight: Arc::clone(&version.in_flight),
            })
        });
        let leaving = self
            .instances
            .values()
            .any(|one| Arc::ptr_eq(&one.version, &version) && one.standing() == Standing::Draining);
        VersionView { cell: Arc::clone(cell), version, weight_bp, ready: Vec::new(), leaving }
    }

    /// Tells every version its weight, those that lost it first of all.
    fn weigh(&self, view: &View) {
        for version in self.versions.values() {
            let lane = view.lanes.get(&version.lane);
            let seen = lane.and_then(|lane| lane.again(version));
            let weight_bp = seen.map_or(0, |seen| seen.weight_bp);
            version.weight_bp.store(weight_bp, Ordering::SeqCst);
        }
    }

    /// What is to be said of the lanes: those in the view, and versions that still answer.
    pub(crate) fn lanes(&self, view: &View) -> Vec<LaneTraffic> {
        let lanes = view.lanes.values().map(|lane| {
            let mut versions: Vec<VersionTraffic> =
                lane.versions.iter().map(|seen| traffic(&seen.version, seen.ready.len())).collect();
            for version in self.versions.values().filter(|version| version.lane == lane.lane) {
                let busy = version.in_flight.load(Ordering::SeqCst) > 0;
                if busy && lane.again(version).is_none() {
                    versions.push(traffic(version, 0));
                }
            }
            LaneTraffic { lane: lane.lane.clone(), fence: Some(lane.fence), versions }
        });
        lanes.collect()
    }

    /// What is to be said of the instances: those that are endpoints or still answer.
    pub(crate) fn instances(&self) -> Vec<InstanceTraffic> {
        let mut all: Vec<_> = self
            .instances
            .values()
            .map(|instance| InstanceTraffic {
                lane: instance.version.lane.clone(),
                instance: instance.name.clone(),
                generation: instance.generation,
                in_flight: instance.in_flight.load(Ordering::SeqCst),
            })
            .collect();
        all.sort_by(|a, b| {
            (&a.lane, &a.instance, a.generation).cmp(&(&b.lane, &b.instance, b.generation))
        });
        all
    }
}

fn traffic(version: &Version, usable: usize) -> VersionTraffic {
    VersionTraffic {
        version: version.name.clone(),
        digest: version.digest.clone(),
        weight_bp: version.weight_bp.load(Ordering::SeqCst),
        in_flight: version.in_flight.load(Ordering::SeqCst),
        usable: u32::try_from(usable).unwrap_or(u32::MAX),
    }
}
