//! S20: one active rollout in a lane.

use tidegate_core::rollout::Event;

use super::Check;
use crate::fact::Fact;
use crate::world::World;

#[derive(Clone, Default)]
pub(super) struct OneActive {
    active: Option<String>,
}

impl Check for OneActive {
    fn name(&self) -> &'static str {
        "S20 one active rollout"
    }

    fn see(&mut self, fact: &Fact<'_>, _world: &World) -> Result<(), String> {
        let Fact::Event(envelope, Some(event)) = fact else { return Ok(()) };
        let id = &envelope.stream.id;
        if matches!(event, Event::Started { .. })
            && let Some(other) = self.active.replace(id.clone())
        {
            return Err(format!("{id} has started beside {other}"));
        }
        if matches!(event, Event::Ended { .. }) && self.active.as_ref() == Some(id) {
            self.active = None;
        }
        Ok(())
    }

    fn copy(&self) -> Box<dyn Check> {
        Box::new(self.clone())
    }
}
