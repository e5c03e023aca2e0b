//! S9: every request for an effect that reaches a target has a durable intent with the same
//! sequence and the same document.

use super::Check;
use crate::fact::Fact;
use crate::world::World;

#[derive(Clone)]
pub(super) struct IntentFirst;

impl Check for IntentFirst {
    fn name(&self) -> &'static str {
        "S9 intent first"
    }

    fn see(&mut self, fact: &Fact<'_>, _world: &World) -> Result<(), String> {
        let Fact::Arrived { effect, document, intent } = fact else { return Ok(()) };
        let Some(intent) = intent else {
            return Err(format!("effect {effect} arrived without a durable intent"));
        };
        match document {
            Some((seq, payload)) if *seq != intent.seq || **payload != intent.payload => {
                Err(format!("effect {effect} ({}) is not what was intended", intent.key))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn copy(&self) -> Box<dyn Check> {
        Box::new(self.clone())
    }
}
