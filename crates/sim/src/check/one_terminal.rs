//! S21: exactly one terminal event, and nothing after it.

use std::collections::BTreeSet;

use tidegate_core::rollout::Event;

use super::Check;
use crate::fact::Fact;
use crate::world::World;

#[derive(Clone, Default)]
pub(super) struct OneTerminal {
    ended: BTreeSet<String>,
}

impl Check for OneTerminal {
    fn name(&self) -> &'static str {
        "S21 one terminal"
    }

    fn see(&mut self, fact: &Fact<'_>, _world: &World) -> Result<(), String> {
        let Fact::Event(envelope, Some(event)) = fact else { return Ok(()) };
        let id = &envelope.stream.id;
        if self.ended.contains(id) {
            return Err(format!("{id} had ended, and then: {}", envelope.event));
        }
        if matches!(event, Event::Ended { .. }) {
            self.ended.insert(id.clone());
        }
        Ok(())
    }

    fn copy(&self) -> Box<dyn Check> {
        Box::new(self.clone())
    }
}
