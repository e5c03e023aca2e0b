//! S10: a one-shot is carried out at most once.

use super::Check;
use crate::fact::Fact;
use crate::world::World;

#[derive(Clone)]
pub(super) struct AtMostOnce;

impl Check for AtMostOnce {
    fn name(&self) -> &'static str {
        "S10 at most once"
    }

    fn see(&mut self, fact: &Fact<'_>, _world: &World) -> Result<(), String> {
        if let Fact::Executed { effect, times, .. } = fact
            && *times > 1
        {
            return Err(format!("one-shot {effect} was carried out {times} times"));
        }
        Ok(())
    }

    fn copy(&self) -> Box<dyn Check> {
        Box::new(self.clone())
    }
}
