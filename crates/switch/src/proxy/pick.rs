//! Which version a request is for, and which of its instances gets it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::HeaderMap;

use super::Proxy;
use super::headers::{FORCE, cookie_point};
use super::upstream::{InFlight, Instance, Version};
use super::view::{LaneView, VersionView};
use crate::counts::{CellKey, Outcome};

/// A lane as it was seen, and in which generation of the view.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) generation: u64,
    pub(crate) lane: Arc<LaneView>,
}

/// What decides about the version; the same for the whole life of a request.
#[derive(Debug)]
pub(crate) enum Ticket {
    /// A tester named it.
    Forced(String),
    /// A point in the weights. `fresh`: the user had none yet and is to keep this one.
    Point { point: u16, fresh: bool },
}

/// The version of a request.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) version: Arc<Version>,
    pub(crate) cell: Arc<CellKey>,
    pub(crate) forced: bool,
}

/// An instance for a request, or why there is none.
#[derive(Debug)]
pub(crate) enum Acquired {
    Taken(InFlight),
    /// The weights have moved away from the version before anything was tried.
    Moved,
    Nobody(Failure),
}

/// How a version has failed a request.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) outcome: Outcome,
    pub(crate) why: String,
}

impl Ticket {
    pub(crate) fn draw(lane: &LaneView, headers: &HeaderMap) -> Self {
        if let Some(name) = headers.get(FORCE) {
            return Self::Forced(String::from_utf8_lossy(name.as_bytes()).into_owned());
        }
        let Some(cookie) = &lane.sticky_cookie else {
            return Self::Point { point: lane.split.point(), fresh: false };
        };
        match cookie_point(headers, cookie) {
            Some(point) => Self::Point { point, fresh: false },
            None => Self::Point { point: lane.split.point(), fresh: true },
        }
    }

    /// `None`: nothing shall be served, or there is no such version.
    pub(crate) fn choose(&self, lane: &LaneView) -> Option<Choice> {
        let seen = match self {
            Self::Forced(name) => lane.by_name(name),
            Self::Point { point, .. } => lane.by_point(*point),
        }?;
        Some(Choice {
            version: Arc::clone(&seen.version),
            cell: Arc::clone(&seen.cell),
            forced: matches!(self, Self::Forced(_)),
        })
    }
}

impl Proxy {
    /// The ready instance with the fewest requests under way that has not been tried; one that has
    /// just refused a connection only if there is no other.
    pub(crate) fn least_busy(
        &self,
        seen: &VersionView,
        tried: &[Arc<Instance>],
    ) -> Option<Arc<Instance>> {
        let count = seen.ready.len();
        let from = if count < 2 { 0 } else { seen.version.turn.fetch_add(1, Ordering::Relaxed) };
        let now = if count < 2 { 0 } else { self.clock.now_ms() };
        (0..count)
            .filter_map(|step| seen.ready.get((from % count + step) % count))
            .filter(|one| !tried.iter().any(|other| Arc::ptr_eq(one, other)))
            .min_by_key(|one| {
                let suspect = one.suspect_until_ms.load(Ordering::Relaxed) > now;
                (suspect, one.in_flight.load(Ordering::Relaxed))
            })
            .cloned()
    }

    /// Looks again if the view has changed since; false where the lane is gone.
    pub(crate) fn refresh(&self, seen: &mut Seen) -> bool {
        let view = self.view.load();
        let Some(lane) = view.lanes.get(&seen.lane.lane) else { return false };
        *seen = Seen { generation: view.generation, lane: Arc::clone(lane) };
        true
    }

    /// Counts the request as under way on an instance of this version, in a view that still holds
    /// after it was counted: whoever has seen 0 under way after a change can rely on it.
    pub(crate) fn acquire(
        &self,
        seen: &mut Seen,
        version: &Arc<Version>,
        tried: &[Arc<Instance>],
        must_weigh: bool,
    ) -> Acquired {
        loop {
            let now = seen.lane.again(version);
            let Some(instance) = now.and_then(|now| self.least_busy(now, tried)) else {
                let outcome = match now {
                    Some(now) if now.leaving => Outcome::Cutover,
                    Some(_) | None => Outcome::Connect,
                };
                let why = "no instance of the version is ready".to_owned();
                return Acquired::Nobody(Failure { outcome, why });
            };
            let under_way = InFlight::take(&instance, &self.revision);
            if self.generation() == seen.generation {
                return Acquired::Taken(under_way);
            }
            drop(under_way);
            if !self.refresh(seen) {
                let why = "the lane has no table any more".to_owned();
                return Acquired::Nobody(Failure { outcome: Outcome::Connect, why });
            }
            let again = seen.lane.again(version);
            if must_weigh && again.is_none_or(|again| again.weight_bp == 0) {
                return Acquired::Moved;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    use tidegate_wire::spec::ErrorSpec;
    use tidegate_wire::switch::{Endpoint, EndpointState, Endpoints};
    use tidegate_wire::traffic::{TrafficDoc, VersionWeight};
    use tidegate_wire::{Digest, Fence};

    use crate::control::store::{Durable, DurableLane};
    use crate::counts::Counts;
    use crate::proxy::view::Registry;
    use crate::run::Limits;

    const LANE: &str = "prod/web";

    struct World {
        proxy: Proxy,
        registry: Registry,
        generation: u64,
    }

    impl World {
        fn new() -> Self {
            let counts = Arc::new(Counts::new(1));
            let proxy = Proxy::new(counts, Limits::default(), Duration::ZERO);
            Self { proxy, registry: Registry::default(), generation: 0 }
        }

        fn publish(&mut self, weights: &[(&str, u32)], instances: &[(&str, EndpointState)]) {
            let weight = |(name, bp): &(&str, u32)| VersionWeight {
                version: (*name).into(),
                digest: Digest::default(),
                weight_bp: *bp,
            };
            let doc = TrafficDoc {
                lane: LANE.into(),
                listen: "127.0.0.1:1".into(),
                routes: Vec::new(),
                weights: weights.iter().map(weight).collect(),
                sticky_cookie: None,
                errors: ErrorSpec { status: Vec::new(), timeout_ms: 1 },
                seed: 0,
            };
            let fence = Fence::new(1, 1);
            let digest = Digest::default();
            let lane = DurableLane { fence, floor: fence, digest, doc };
            let lanes = BTreeMap::from([(LANE.to_owned(), lane)]);
            let durable = Durable { lanes, ..Durable::default() };
            let endpoint = |(version, state): &(&str, EndpointState)| Endpoint {
                instance: format!("of-{version}"),
                generation: 1,
                version: (*version).into(),
                digest: Digest::default(),
                address: "127.0.0.1:2".into(),
                state: *state,
            };
            let endpoints = instances.iter().map(endpoint).collect();
            let message = Endpoints { life: "l".into(), seq: 1, lane: LANE.into(), endpoints };
            let endpoints = BTreeMap::from([(LANE.to_owned(), message)]);
            self.generation += 1;
            let view = self.registry.view(&durable, &endpoints, self.generation);
            self.proxy.publish(view);
        }

        fn seen(&self) -> Seen {
            let view = self.proxy.view.load();
            Seen { generation: view.generation, lane: Arc::clone(&view.lanes[LANE]) }
        }

        fn under_way(&self) -> u32 {
            let lanes = self.registry.lanes(&self.proxy.view.load());
            lanes.iter().flat_map(|lane| &lane.versions).map(|version| version.in_flight).sum()
        }
    }

    const BOTH: [(&str, EndpointState); 2] =
        [("v1", EndpointState::Ready), ("v2", EndpointState::Ready)];

    #[test]
    fn a_request_that_chose_before_the_weights_moved_away_is_not_sent_there() {
        let mut world = World::new();
        world.publish(&[("v1", 10_000)], &BOTH);
        let mut seen = world.seen();
        let old = Arc::clone(&seen.lane.by_point(7).unwrap().version);
        world.publish(&[("v2", 10_000), ("v1", 0)], &BOTH);
        let acquired = world.proxy.acquire(&mut seen, &old, &[], true);
        assert!(matches!(acquired, Acquired::Moved), "{acquired:?}");
        assert_eq!(world.under_way(), 0);
        assert_eq!(seen.lane.by_point(7).unwrap().version.name, "v2");
        // A tester named it: then the weights do not matter.
        let mut seen = Seen { generation: 0, ..world.seen() };
        let acquired = world.proxy.acquire(&mut seen, &old, &[], false);
        assert!(matches!(acquired, Acquired::Taken(_)), "{acquired:?}");
        assert_eq!(world.under_way(), 1);
        drop(acquired);
        assert_eq!(world.under_way(), 0);
    }

    #[test]
    fn a_request_that_picked_an_instance_before_it_was_told_to_stop_is_not_sent_there() {
        let mut world = World::new();
        world.publish(&[("v1", 10_000)], &BOTH);
        let mut seen = world.seen();
        let version = Arc::clone(&seen.lane.by_point(7).unwrap().version);
        world.publish(&[("v1", 10_000)], &[("v1", EndpointState::Draining)]);
        let acquired = world.proxy.acquire(&mut seen, &version, &[], true);
        let Acquired::Nobody(failure) = acquired else { panic!("{acquired:?}") };
        assert_eq!(failure.outcome, Outcome::Cutover);
        assert_eq!(world.under_way(), 0);
    }

    #[test]
    fn the_end_of_what_somebody_waits_for_is_news_and_every_other_end_is_not() {
        let mut world = World::new();
        world.publish(&[("v1", 10_000)], &BOTH);
        let mut seen = world.seen();
        let version = Arc::clone(&seen.lane.by_point(7).unwrap().version);
        let take =
            |world: &World, seen: &mut Seen| match world.proxy.acquire(seen, &version, &[], true) {
                Acquired::Taken(under_way) => under_way,
                other @ (Acquired::Moved | Acquired::Nobody(_)) => panic!("{other:?}"),
            };
        let revision = |world: &World| *world.proxy.revision.borrow();
        let before = revision(&world);
        drop(take(&world, &mut seen));
        assert_eq!(revision(&world), before);
        let (one, two) = (take(&world, &mut seen), take(&world, &mut seen));
        world.publish(&[("v2", 10_000), ("v1", 0)], &BOTH);
        let before = revision(&world);
        drop(one);
        assert_eq!(revision(&world), before);
        drop(two);
        assert_eq!(revision(&world), before + 1);
    }
}
