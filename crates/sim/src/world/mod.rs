//! The ground truth: one host, one switch, what versions do, and the network between them and the
//! engine. Knows nothing of machines.

mod host;
mod net;
mod switch;

use std::collections::BTreeMap;

use tidegate_core::{Digest, Fence};

pub use host::{Host, Instance, Life};
pub use net::{Body, Dest, Message, Net, Reply, Request, Weather};
pub use switch::{Shares, Switch};

use crate::sabotage::Sabotage;

/// Milliseconds of one slot of simulated time.
pub const SLOT_MS: u64 = 100;

/// What a version does when it runs.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// From its start until it is ready.
    pub ready_after_ms: u64,
    /// It never gets ready.
    pub never_ready: bool,
    /// Errors in a thousand requests.
    pub errors: u32,
    /// They begin so long after its first request.
    pub errors_after_ms: u64,
    /// How long a request takes.
    pub request_ms: u64,
    /// What its run steps do.
    pub run_ok: bool,
    /// What its checks say.
    pub check_ok: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            ready_after_ms: 300,
            never_ready: false,
            errors: 0,
            errors_after_ms: 0,
            request_ms: 200,
            run_ok: true,
            check_ok: true,
        }
    }
}

/// What a target has accepted for a lane.
#[derive(Debug, Clone)]
pub struct Accepted<D> {
    /// Under which fence.
    pub fence: Fence,
    /// Digest of the document.
    pub digest: Digest,
    /// It.
    pub doc: D,
}

/// Why a target does not take a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A newer owner is known, or this epoch is shut; the epoch that has to be passed.
    Superseded(u64),
    /// Overtaken within the epoch.
    Stale,
    /// The same fence with another document.
    OtherDocument,
}

/// The rule of the fence at one target.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    /// The highest epoch.
    pub epoch: u64,
    /// The epoch that a fallback has shut.
    pub shut: u64,
}

impl Gate {
    /// A claim of an epoch.
    ///
    /// # Errors
    /// [`Refusal::Superseded`].
    pub fn claim(&mut self, epoch: u64) -> Result<(), Refusal> {
        if epoch < self.epoch || epoch <= self.shut {
            return Err(Refusal::Superseded(self.epoch.max(self.shut)));
        }
        self.epoch = epoch;
        Ok(())
    }

    /// Whether a document passes: `Ok(true)` if it is new, `Ok(false)` if it is the last one again.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn admit<D>(
        &mut self,
        last: Option<&Accepted<D>>,
        fence: Fence,
        digest: &Digest,
        sabotage: Sabotage,
    ) -> Result<bool, Refusal> {
        if sabotage.no_fences {
            return Ok(true);
        }
        self.claim(fence.epoch.0)?;
        let Some(last) = last else { return Ok(true) };
        if sabotage.epoch_only_fence {
            return Ok(last.fence != fence);
        }
        match fence.cmp(&last.fence) {
            std::cmp::Ordering::Less => Err(Refusal::Stale),
            std::cmp::Ordering::Equal if *digest == last.digest => Ok(false),
            std::cmp::Ordering::Equal => Err(Refusal::OtherDocument),
            std::cmp::Ordering::Greater => Ok(true),
        }
    }
}

/// Host, switch and versions.
#[derive(Clone)]
pub struct World {
    /// Milliseconds since the simulation began; nobody inside sees it.
    pub now: u64,
    /// How far the wall clock is ahead of that.
    pub clock_ahead: u64,
    /// The host.
    pub host: Host,
    /// The switch.
    pub switch: Switch,
    /// By version; the default for others.
    pub behaviours: BTreeMap<String, Behaviour>,
    /// Checks cannot be measured.
    pub checks_down: bool,
    /// The switch's counts cannot be read.
    pub counts_down: bool,
    /// Which rules are broken.
    pub sabotage: Sabotage,
}

impl World {
    /// A world in which nothing has happened.
    #[must_use]
    pub fn new(sabotage: Sabotage) -> Self {
        Self {
            now: 0,
            clock_ahead: 1_700_000_000_000,
            host: Host::default(),
            switch: Switch::default(),
            behaviours: BTreeMap::new(),
            checks_down: false,
            counts_down: false,
            sabotage,
        }
    }

    /// The wall clock in milliseconds.
    #[must_use]
    pub fn wall(&self) -> u64 {
        self.now + self.clock_ahead
    }

    /// What a version does.
    #[must_use]
    pub fn behaviour(&self, version: &str) -> Behaviour {
        self.behaviours.get(version).cloned().unwrap_or_default()
    }

    /// One slot passes: instances, requests, the fallback.
    pub fn pass(&mut self) {
        self.now += SLOT_MS;
        self.converge();
        self.serve();
        self.fall_back();
    }
}
