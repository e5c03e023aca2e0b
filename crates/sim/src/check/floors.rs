//! S13: who has traffic has instances, unless the world took them away. S14: no weight is raised
//! before there is the capacity for it.

use std::collections::BTreeMap;

use super::Check;
use crate::fact::Fact;
use crate::world::World;

#[derive(Clone, Default)]
pub(super) struct TrafficFloor {
    last_ready: BTreeMap<String, u64>,
}

impl Check for TrafficFloor {
    fn name(&self) -> &'static str {
        "S13 traffic floor"
    }

    fn see(&mut self, fact: &Fact<'_>, world: &World) -> Result<(), String> {
        if !matches!(fact, Fact::Slot { .. }) {
            return Ok(());
        }
        for (version, share) in world.switch.shares() {
            if world.host.ready(&version) > 0 {
                self.last_ready.insert(version, world.now);
                continue;
            }
            let last = self.last_ready.get(&version).copied();
            let disturbed = world.host.disturbed.get(&version).copied();
            if disturbed.is_none() || disturbed < last {
                return Err(format!("{version} has {share} bp and nothing that is ready"));
            }
        }
        Ok(())
    }

    fn copy(&self) -> Box<dyn Check> {
        Box::new(self.clone())
    }
}

#[derive(Clone)]
pub(super) struct CapacityFloor;

/// The world is not ours: after it took an instance away nothing is said for so long.
const DISTURBED_MS: u64 = 5_000;

impl Check for CapacityFloor {
    fn name(&self) -> &'static str {
        "S14 capacity floor"
    }

    fn see(&mut self, fact: &Fact<'_>, world: &World) -> Result<(), String> {
        let Fact::Traffic { before, after: (_, doc), by_host: false } = fact else { return Ok(()) };
        let Some(new) = doc.weights.first() else { return Ok(()) };
        let had = before.map_or(0, |(_, doc)| {
            doc.weights.iter().find(|w| w.version == new.version).map_or(0, |w| w.weight_bp)
        });
        let disturbed = world.host.disturbed.get(&new.version);
        if new.weight_bp <= had || disturbed.is_some_and(|at| world.now < at + DISTURBED_MS) {
            return Ok(());
        }
        let full = world.host.lane.as_ref().and_then(|lane| {
            let version = lane.doc.versions.iter().find(|v| v.version == new.version)?;
            Some(version.service.instances)
        });
        let needed = (full.unwrap_or(1) * new.weight_bp).div_ceil(10_000).max(1);
        let ready = world.host.ready(&new.version);
        if ready < needed {
            let text = format!("{} bp for {}", new.weight_bp, new.version);
            return Err(format!("{text}: {ready} of {needed} instances are ready"));
        }
        Ok(())
    }

    fn copy(&self) -> Box<dyn Check> {
        Box::new(self.clone())
    }
}
