//! S1 and S2: what anybody was shown or told is in the journal that is recovered, event for event.

use tidegate_core::Digest;
use tidegate_journal::Reader;

use super::Check;
use crate::fact::Fact;
use crate::world::World;

#[derive(Clone, Default)]
pub(super) struct Durable {
    shown: Option<(u64, Digest)>,
    told: u64,
}

impl Check for Durable {
    fn name(&self) -> &'static str {
        "S1 durable before visible"
    }

    fn see(&mut self, fact: &Fact<'_>, _world: &World) -> Result<(), String> {
        match fact {
            Fact::Event(event, _) => {
                if self.shown.as_ref().is_some_and(|(seq, _)| event.seq != seq + 1) {
                    return Err(format!("event {} was shown out of order", event.seq));
                }
                self.shown = Some((event.seq, event.hash.clone()));
            }
            Fact::Told { seq } => self.told = self.told.max(*seq),
            Fact::Recovered(disk) => {
                let last = disk.last_seq().map_err(|e| e.to_string())?;
                if last < self.told {
                    return Err(format!("{} was told, {last} is the last one there", self.told));
                }
                if let Some((seq, hash)) = &self.shown {
                    let there = disk.read_all(seq - 1, 1).map_err(|e| e.to_string())?;
                    if there.first().is_none_or(|e| e.hash != *hash) {
                        return Err(format!("event {seq} was shown and is another one now"));
                    }
                }
            }
            Fact::Rest(disk) => {
                disk.verify().map_err(|e| e.to_string())?;
            }
            Fact::Capacity { .. }
            | Fact::Traffic { .. }
            | Fact::Arrived { .. }
            | Fact::Executed { .. }
            | Fact::Read { .. }
            | Fact::Sent(_)
            | Fact::Slot { .. } => {}
        }
        Ok(())
    }

    fn copy(&self) -> Box<dyn Check> {
        Box::new(self.clone())
    }
}
