//! S8: nothing that was read of a target is used unless it had accepted the epoch of the reader
//! before it was read.

use super::Check;
use crate::fact::Fact;
use crate::world::World;

#[derive(Clone)]
pub(super) struct FenceFirst;

impl Check for FenceFirst {
    fn name(&self) -> &'static str {
        "S8 fence first"
    }

    fn see(&mut self, fact: &Fact<'_>, _world: &World) -> Result<(), String> {
        match fact {
            Fact::Read { accepted, process } if accepted < process => {
                Err(format!("epoch {process} used a report of a target that knew {accepted}"))
            }
            _ => Ok(()),
        }
    }

    fn copy(&self) -> Box<dyn Check> {
        Box::new(self.clone())
    }
}
