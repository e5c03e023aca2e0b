//! Versions and instances as the data path sees them, and the guard of a request under way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use tidegate_wire::Digest;
use tidegate_wire::switch::EndpointState;
use tokio::sync::watch;

use super::pool::Pool;

/// A version of a lane, as long as anybody refers to it.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) lane: String,
    pub(crate) name: String,
    pub(crate) digest: Digest,
    /// Requests that this version is answering.
    pub(crate) in_flight: Arc<AtomicU32>,
    /// Basis points in force.
    pub(crate) weight_bp: AtomicU32,
    /// Where the search for the least busy instance starts.
    pub(crate) turn: AtomicUsize,
}

/// What may be sent to an instance, and whether a failure there is its own fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Standing {
    Ready,
    NotReady,
    Draining,
    /// Not among the endpoints any more, without having been told to stop.
    Gone,
    /// Not among the endpoints any more, after it was told to stop.
    Stopped,
}

/// One start of one instance.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) version: Arc<Version>,
    pub(crate) name: String,
    pub(crate) generation: u64,
    pub(crate) address: SocketAddr,
    pub(crate) in_flight: AtomicU32,
    pub(crate) pool: Pool,
    standing: AtomicU8,
    /// A connection was refused: others are preferred until then (milliseconds of the switch).
    pub(crate) suspect_until_ms: AtomicU64,
}

impl Instance {
    pub(crate) fn new(
        version: Arc<Version>,
        name: String,
        generation: u64,
        address: SocketAddr,
    ) -> Self {
        Self {
            version,
            name,
            generation,
            address,
            in_flight: AtomicU32::new(0),
            pool: Pool::new(),
            standing: AtomicU8::new(Standing::NotReady as u8),
            suspect_until_ms: AtomicU64::new(0),
        }
    }

    pub(crate) fn standing(&self) -> Standing {
        match self.standing.load(Ordering::SeqCst) {
            0 => Standing::Ready,
            1 => Standing::NotReady,
            2 => Standing::Draining,
            3 => Standing::Gone,
            _ => Standing::Stopped,
        }
    }

    /// The host's word; `None`: not among the endpoints any more. Idle connections to what is not
    /// ready are closed, so that they neither hold up its end nor are used again.
    pub(crate) fn set_standing(&self, said: Option<EndpointState>) {
        let standing = match said {
            Some(EndpointState::Ready) => Standing::Ready,
            Some(EndpointState::NotReady) => Standing::NotReady,
            Some(EndpointState::Draining) => Standing::Draining,
            None => match self.standing() {
                Standing::Draining | Standing::Stopped => Standing::Stopped,
                Standing::Ready | Standing::NotReady | Standing::Gone => Standing::Gone,
            },
        };
        self.standing.store(standing as u8, Ordering::SeqCst);
        if standing == Standing::Ready {
            self.pool.open();
        } else {
            self.pool.close();
        }
    }

    /// Whether a failure here is ours: we had told it to stop.
    pub(crate) fn is_cut_over(&self) -> bool {
        matches!(self.standing(), Standing::Draining | Standing::Stopped)
    }
}

/// A request under way on an instance, from before it is sent until its answer's body has ended.
#[derive(Debug)]
pub(crate) struct InFlight {
    instance: Arc<Instance>,
    revision: watch::Sender<u64>,
}

impl InFlight {
    /// Counted from now on. Whoever takes it has to check afterwards that the view has not changed
    /// since the instance was picked.
    pub(crate) fn take(instance: &Arc<Instance>, revision: &watch::Sender<u64>) -> Self {
        instance.version.in_flight.fetch_add(1, Ordering::SeqCst);
        instance.in_flight.fetch_add(1, Ordering::SeqCst);
        Self { instance: Arc::clone(instance), revision: revision.clone() }
    }

    pub(crate) fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let instance = self.instance.in_flight.fetch_sub(1, Ordering::SeqCst);
        let version = self.instance.version.in_flight.fetch_sub(1, Ordering::SeqCst);
        // Only the ends that somebody waits for are news; every request would be too many.
        let drained = instance == 1 && self.instance.standing() != Standing::Ready;
        let retired = version == 1 && self.instance.version.weight_bp.load(Ordering::SeqCst) == 0;
        if drained || retired {
            self.revision.send_modify(|revision| *revision += 1);
        }
    }
}
