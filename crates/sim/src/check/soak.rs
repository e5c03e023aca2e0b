//! S22: a pause or bake window that nobody has skipped is over after as much time in which the
//! new version really was healthy and somebody was looking.

use std::collections::BTreeMap;

use tidegate_core::rollout::{Event, RolloutKind};
use tidegate_core::spec::Step;

use super::Check;
use crate::fact::Fact;
use crate::world::SLOT_MS;
use crate::world::World;

#[derive(Clone, Default)]
pub(super) struct Soak {
    rollouts: BTreeMap<String, Soaking>,
}

#[derive(Clone)]
struct Soaking {
    version: String,
    steps: Vec<Step>,
    bake_ms: u64,
    healthy_ms: u64,
    paused: bool,
}

impl Soak {
    fn event(&mut self, id: &str, event: &Event) -> Result<(), String> {
        if let Event::Started { start, moves, .. } = event {
            let environment = &start.proposal.environment;
            let undo = start.proposal.kind == RolloutKind::Undo;
            let soaking = Soaking {
                version: start.proposal.release.version.clone(),
                steps: moves.clone(),
                bake_ms: if undo { 0 } else { environment.bake_ms },
                healthy_ms: 0,
                paused: false,
            };
            self.rollouts.insert(id.to_owned(), soaking);
        }
        let Some(soaking) = self.rollouts.get_mut(id) else { return Ok(()) };
        let mut needed = 0;
        if matches!(event, Event::StepStarted { .. } | Event::Promoted) {
            soaking.healthy_ms = 0;
        } else if matches!(event, Event::Paused { .. }) {
            soaking.paused = true;
        } else if matches!(event, Event::Resumed { .. }) {
            soaking.paused = false;
        } else if let Event::StepEnded { index, skipped_by: None } = event {
            if let Some(Step::Pause { duration_ms: Some(ms) }) = soaking.steps.get(*index) {
                needed = *ms;
            }
        } else if matches!(event, Event::Baked { early: None }) {
            needed = soaking.bake_ms;
        }
        if soaking.healthy_ms + SLOT_MS < needed {
            return Err(format!("{id} soaked {} of {needed} ms", soaking.healthy_ms));
        }
        Ok(())
    }
}

impl Check for Soak {
    fn name(&self) -> &'static str {
        "S22 soak"
    }

    fn see(&mut self, fact: &Fact<'_>, world: &World) -> Result<(), String> {
        if let Fact::Event(envelope, Some(event)) = fact {
            return self.event(&envelope.stream.id, event);
        }
        if let Fact::Slot { driving: true } = fact {
            for soaking in self.rollouts.values_mut() {
                let runs = world.host.ready(&soaking.version) > 0;
                // A pause before the first weight is one without an instance.
                let runs = runs || world.host.wanted(&soaking.version) == 0;
                // What comes and goes while the host cannot be asked is seen by nobody.
                let runs = runs || world.now < world.host.down_until;
                if !soaking.paused && runs {
                    soaking.healthy_ms += SLOT_MS;
                }
            }
        }
        Ok(())
    }

    fn copy(&self) -> Box<dyn Check> {
        Box::new(self.clone())
    }
}
