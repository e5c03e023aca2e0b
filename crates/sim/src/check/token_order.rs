//! S7: fences accepted by a target are strictly increasing.

use super::Check;
use crate::fact::Fact;
use crate::world::World;

#[derive(Clone)]
pub(super) struct TokenOrder;

impl Check for TokenOrder {
    fn name(&self) -> &'static str {
        "S7 token order"
    }

    fn see(&mut self, fact: &Fact<'_>, _world: &World) -> Result<(), String> {
        let (before, after) = if let Fact::Capacity { before: Some((before, _)), after } = fact {
            (*before, after.0)
        } else if let Fact::Traffic { before: Some((before, _)), after, .. } = fact {
            (*before, after.0)
        } else {
            return Ok(());
        };
        if after > before { Ok(()) } else { Err(format!("{after} was taken after {before}")) }
    }

    fn copy(&self) -> Box<dyn Check> {
        Box::new(self.clone())
    }
}
