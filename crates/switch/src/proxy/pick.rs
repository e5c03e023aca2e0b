//! Which version a request is for, and which of its instances gets it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::HeaderMap;

use super::Proxy;
use super::headers::{FORCE, cookie_point};
use super::upstream::{Instance, Version};
use super::view::{LaneView, VersionView};
use crate::counts::CellKey;

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
}
