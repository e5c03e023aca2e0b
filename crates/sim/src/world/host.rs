//! The host: instances, one-shots, the fallback.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::capacity::{
    CapacityDoc, FallbackAction, FallbackReport, LaneCapacity, VersionObserved,
};
use tidegate_core::{Digest, Fence};

use super::{Accepted, Gate, Refusal, World};

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Ready at that time, if its version ever is.
    Starting(u64),
    /// It can be sent to.
    Ready,
    /// It was told to stop at that time.
    Stopping(u64),
}

/// One process.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Its version.
    pub version: String,
    /// Its version's digest.
    pub digest: Digest,
    /// Where it is.
    pub life: Life,
}

/// A one-shot that has ended.
#[derive(Debug, Clone)]
pub struct Run {
    /// Whether it succeeded.
    pub ok: bool,
    /// Nobody has seen its end.
    pub lost: bool,
}

/// The host of the simulation: one lane.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// Epochs.
    pub gate: Gate,
    /// It does not answer until then.
    pub down_until: u64,
    /// The capacity document in force.
    pub lane: Option<Accepted<CapacityDoc>>,
    /// Processes.
    pub instances: Vec<Instance>,
    /// Artifacts that are here.
    pub staged: BTreeSet<Digest>,
    /// One-shots by effect.
    pub runs: BTreeMap<u64, Run>,
    /// How often each was really carried out.
    pub executed: BTreeMap<u64, u32>,
    /// When it heard of its engine last.
    pub last_contact: u64,
    /// Whether the last contact said that work is open.
    pub work_open: bool,
    /// What it did by itself since the document in force.
    pub fallback: Option<FallbackReport>,
    /// Grows with everything that a report would show.
    pub revision: u64,
    /// When the world last took an instance of a version away.
    pub disturbed: BTreeMap<String, u64>,
    /// How often an instance of a version was started anew.
    pub restarts: BTreeMap<String, u32>,
}

impl Host {
    /// Processes of a version that can be sent to.
    #[must_use]
    pub fn ready(&self, version: &str) -> u32 {
        self.count(version, |life| life == Life::Ready)
    }

    /// Processes of a version in any state.
    #[must_use]
    pub fn running(&self, version: &str) -> u32 {
        self.count(version, |_| true)
    }

    fn count(&self, version: &str, is: impl Fn(Life) -> bool) -> u32 {
        let found = self.instances.iter().filter(|i| i.version == version && is(i.life)).count();
        u32::try_from(found).unwrap_or(u32::MAX)
    }

    /// Carries a one-shot out.
    pub fn run(&mut self, effect: u64, ok: bool) {
        self.runs.insert(effect, Run { ok, lost: false });
        *self.executed.entry(effect).or_default() += 1;
    }

    /// How many of a version shall run.
    #[must_use]
    pub fn wanted(&self, version: &str) -> u32 {
        self.lane
            .as_ref()
            .and_then(|lane| lane.doc.versions.iter().find(|v| v.version == version))
            .map_or(0, |v| v.instances)
    }

    /// Versions and how many of each shall run, in order.
    #[must_use]
    pub fn shape(&self) -> BTreeMap<String, u32> {
        let Some(lane) = &self.lane else { return BTreeMap::new() };
        lane.doc.versions.iter().map(|v| (v.version.clone(), v.instances)).collect()
    }
}

impl World {
    /// A capacity document arrives: `Ok(true)` if it is new.
    ///
    /// # Errors
    /// Why the host does not take it.
    pub fn take_capacity(&mut self, fence: Fence, doc: CapacityDoc) -> Result<bool, Refusal> {
        let digest = Digest::of_json(&doc).unwrap_or_default();
        let host = &mut self.host;
        let new = host.gate.admit(host.lane.as_ref(), fence, &digest, self.sabotage)?;
        host.last_contact = self.now;
        if new {
            host.lane = Some(Accepted { fence, digest, doc });
            host.fallback = None;
            host.revision += 1;
            self.converge();
        }
        Ok(new)
    }

    /// Starts what is missing, stops what is too much, lets time pass for what is in between.
    pub(super) fn converge(&mut self) {
        let now = self.now;
        let wanted = self.host.shape();
        let mut changed = false;
        for (version, count) in &wanted {
            let alive = self.host.count(version, |l| !matches!(l, Life::Stopping(_)));
            let behaviour = self.behaviour(version);
            for _ in alive..*count {
                let digest = Digest::of(version.as_bytes());
                let life = Life::Starting(now + behaviour.ready_after_ms);
                self.host.instances.push(Instance { version: version.clone(), digest, life });
                changed = true;
            }
        }
        for index in 0..self.host.instances.len() {
            let Some(instance) = self.host.instances.get(index).cloned() else { continue };
            let behaviour = self.behaviour(&instance.version);
            let alive = self.host.count(&instance.version, |l| !matches!(l, Life::Stopping(_)));
            let keep = wanted.get(&instance.version).copied().unwrap_or(0);
            let next = match instance.life {
                Life::Starting(_) | Life::Ready if alive > keep => Life::Stopping(now),
                Life::Starting(at) if at <= now && !behaviour.never_ready => Life::Ready,
                life @ (Life::Starting(_) | Life::Ready | Life::Stopping(_)) => life,
            };
            if next != instance.life {
                changed = true;
                if let Some(instance) = self.host.instances.get_mut(index) {
                    instance.life = next;
                }
            }
        }
        let grace = self.grace_ms();
        let idle: Vec<String> =
            wanted.keys().cloned().chain(self.switch.idle_versions(&self.host)).collect();
        let before = self.host.instances.len();
        self.host.instances.retain(|i| match i.life {
            Life::Stopping(since) => {
                let idle = idle.contains(&i.version);
                !(idle && now > since) && now < since + grace
            }
            Life::Starting(_) | Life::Ready => true,
        });
        if changed || self.host.instances.len() != before {
            self.host.revision += 1;
        }
    }

    fn grace_ms(&self) -> u64 {
        self.host
            .lane
            .as_ref()
            .and_then(|lane| lane.doc.versions.first())
            .map_or(1_000, |v| v.service.stop.grace_ms)
    }

    /// The host's report on the lane; none before the first document.
    #[must_use]
    pub fn capacity_report(&self) -> Option<LaneCapacity> {
        let lane = self.host.lane.as_ref()?;
        let mut versions: BTreeMap<&str, VersionObserved> = BTreeMap::new();
        for wanted in &lane.doc.versions {
            versions.entry(&wanted.version).or_default().wanted = wanted.instances;
        }
        for instance in &self.host.instances {
            versions.entry(&instance.version).or_default();
        }
        let versions = versions
            .into_iter()
            .map(|(version, mut seen)| {
                seen.version = version.to_owned();
                seen.digest = Digest::of(version.as_bytes());
                seen.running = self.host.running(version);
                seen.restarts = self.host.restarts.get(version).copied().unwrap_or(0);
                seen.ready = self.host.ready(version);
                if self.sabotage.wanted_is_ready {
                    seen.ready = seen.wanted;
                }
                if seen.ready < seen.wanted {
                    seen.trouble = Some("not ready yet".to_owned());
                } else {
                    seen.addresses = vec![format!("http://127.0.0.1/{version}")];
                }
                seen
            })
            .collect();
        Some(LaneCapacity {
            lane: lane.doc.lane.clone(),
            fence: Some(lane.fence),
            versions,
            fallback_applied: self.host.fallback.clone(),
        })
    }

    /// After a silence the host puts the fallback in force and shuts the epoch.
    pub(super) fn fall_back(&mut self) {
        let Some(lane) = &self.host.lane else { return };
        let silence = self.now.saturating_sub(self.host.last_contact);
        let FallbackAction::Restore { rollout, seq, traffic } = &lane.doc.fallback.action else {
            return;
        };
        if silence < lane.doc.fallback.after_ms
            || self.host.fallback.is_some()
            || self.now < self.host.down_until
            || self.now < self.switch.down_until
        {
            return;
        }
        let fence = Fence { epoch: lane.fence.epoch, seq: *seq };
        let report = FallbackReport { rollout: rollout.clone(), fence, silence_ms: silence };
        let traffic = traffic.clone();
        let epoch = self.host.gate.epoch.max(fence.epoch.0);
        if self.put_traffic(fence, traffic).is_ok() {
            self.host.gate.shut = epoch;
            self.switch.gate.shut = epoch;
            self.host.fallback = Some(report);
            self.host.revision += 1;
        }
    }

    /// The host's process dies and another one takes its place: instances stay, the end of a
    /// one-shot that ran is not seen.
    pub fn restart_host(&mut self) {
        self.host.last_contact = self.now;
        self.host.revision += 1;
    }

    /// The world takes an instance of a version away.
    pub fn crash_instance(&mut self, version: &str) {
        let found =
            self.host.instances.iter().position(|i| i.version == version && i.life == Life::Ready);
        if let Some(index) = found {
            self.host.instances.remove(index);
            self.host.disturbed.insert(version.to_owned(), self.now);
            *self.host.restarts.entry(version.to_owned()).or_default() += 1;
            self.host.revision += 1;
        }
    }
}
