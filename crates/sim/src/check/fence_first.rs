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
        if let Fact::Read { accepted, process } = fact
            && accepted < process
        {
            return Err(format!("epoch {process} used a report of a target that knew {accepted}"));
        }
        Ok(())
    }

    fn copy(&self) -> Box<dyn Check> {
        Box::new(self.clone())
    }
}
