//! S15: instances are only taken away when the switch sends nothing to them any more and their
//! requests are answered, or the drain time is over.

use super::Check;
use crate::fact::Fact;
use crate::world::World;

#[derive(Clone)]
pub(super) struct RemoveLast;

/// The clock of whoever waits is read once in a while only.
const TOLERANCE_MS: u64 = 500;

impl Check for RemoveLast {
    fn name(&self) -> &'static str {
        "S15 remove last"
    }

    fn see(&mut self, fact: &Fact<'_>, world: &World) -> Result<(), String> {
        let Fact::Capacity { before: Some((_, before)), after: (_, after) } = fact else {
            return Ok(());
        };
        for old in &before.versions {
            let version = &old.version;
            let left = after.versions.iter().find(|v| v.version == *version);
            if left.is_some_and(|v| v.instances >= old.instances) {
                continue;
            }
            let share = world.switch.share(version);
            if share > 0 {
                return Err(format!("{version} is taken away with {share} bp"));
            }
            let grace = old.service.stop.grace_ms.saturating_sub(TOLERANCE_MS);
            let since = world.switch.zero_since.get(version).copied().unwrap_or(0);
            let in_flight = world.switch.in_flight(version);
            if in_flight > 0 && world.now < since + grace {
                let text = format!("{version} is taken away with {in_flight} requests under way");
                return Err(format!("{text}, {} ms after its last one", world.now - since));
            }
        }
        Ok(())
    }

    fn copy(&self) -> Box<dyn Check> {
        Box::new(self.clone())
    }
}
