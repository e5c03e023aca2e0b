//! S11: what is not known of a one-shot is never told as failed or succeeded. S18: a rollout that
//! says "promoted" has all traffic and nothing of the old version is left.

use std::collections::BTreeMap;

use tidegate_core::rollout::{Event, Outcome, RunResult};

use super::Check;
use crate::fact::Fact;
use crate::world::World;

#[derive(Clone, Default)]
pub(super) struct UnknownIsExplicit {
    /// How one-shots ended in truth, by rollout.
    ended: BTreeMap<String, bool>,
}

impl Check for UnknownIsExplicit {
    fn name(&self) -> &'static str {
        "S11 unknown is explicit"
    }

    fn see(&mut self, fact: &Fact<'_>, _world: &World) -> Result<(), String> {
        if let Fact::Executed { intent: Some(intent), ok, .. } = fact {
            self.ended.insert(intent.stream.id.clone(), *ok);
        }
        if let Fact::Event(envelope, Some(Event::RunEnded { name, result, .. })) = fact {
            let truth = self.ended.get(&envelope.stream.id);
            let told = match result {
                RunResult::Succeeded => true,
                RunResult::Failed => false,
                RunResult::Unknown => return Ok(()),
            };
            if truth != Some(&told) {
                return Err(format!("{name} was told as {result:?}, in truth: {truth:?}"));
            }
        }
        Ok(())
    }

    fn copy(&self) -> Box<dyn Check> {
        Box::new(self.clone())
    }
}

#[derive(Clone, Default)]
pub(super) struct CompleteMeansComplete {
    versions: BTreeMap<String, String>,
}

impl Check for CompleteMeansComplete {
    fn name(&self) -> &'static str {
        "S18 complete means complete"
    }

    fn see(&mut self, fact: &Fact<'_>, world: &World) -> Result<(), String> {
        let Fact::Event(envelope, Some(event)) = fact else { return Ok(()) };
        if let Event::Started { start, .. } = event {
            let version = start.proposal.release.version.clone();
            self.versions.insert(envelope.stream.id.clone(), version);
        }
        let Some(version) = self.versions.get(&envelope.stream.id) else { return Ok(()) };
        let promoted = matches!(event, Event::Promoted);
        let ended = matches!(event, Event::Ended { outcome: Outcome::Promoted });
        if (promoted || ended) && world.switch.share(version) != 10_000 {
            // A host that was left alone may have put the old version back, and says so.
            if world.host.fallback.is_some() && promoted {
                return Ok(());
            }
            let shares = world.switch.shares();
            return Err(format!("{} with {shares:?}", envelope.event));
        }
        Ok(())
    }

    fn copy(&self) -> Box<dyn Check> {
        Box::new(self.clone())
    }
}
