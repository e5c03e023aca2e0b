//! S24: a check on counts fails for errors that were made under this rollout.

use std::collections::BTreeMap;

use tidegate_core::rollout::{CheckVerdict, Event};

use super::Check;
use crate::fact::Fact;
use crate::world::World;

#[derive(Clone, Default)]
pub(super) struct FreshData {
    /// The version, and its errors before the rollout.
    rollouts: BTreeMap<String, (String, u64)>,
}

impl Check for FreshData {
    fn name(&self) -> &'static str {
        "S24 fresh data"
    }

    fn see(&mut self, fact: &Fact<'_>, world: &World) -> Result<(), String> {
        let Fact::Event(envelope, Some(event)) = fact else { return Ok(()) };
        let errors = |version: &str| world.switch.errors.get(version).copied().unwrap_or(0);
        let id = &envelope.stream.id;
        if let Event::Started { start, .. } = event {
            let version = start.proposal.release.version.clone();
            let before = errors(&version);
            self.rollouts.insert(id.clone(), (version, before));
        }
        if let Event::CheckDecided { check, verdict: CheckVerdict::Fail, .. } = event
            && check == "errors"
            && let Some((version, before)) = self.rollouts.get(id)
            && errors(version) == *before
        {
            return Err(format!("{id} failed for errors that {version} had made before"));
        }
        Ok(())
    }

    fn copy(&self) -> Box<dyn Check> {
        Box::new(self.clone())
    }
}
