//! S16: accepted weights of a new version follow the plan without skipping, and never rise after
//! an abort.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::lane::FENCE_BLOCK;
use tidegate_core::rollout::Event;
use tidegate_core::spec::Step;

use super::Check;
use crate::fact::Fact;
use crate::world::World;

#[derive(Clone, Default)]
pub(super) struct Monotone {
    /// Weights of each rollout's plan in order, by its number in the lane.
    plans: BTreeMap<u64, Vec<u32>>,
    last: BTreeMap<u64, u32>,
    aborted: BTreeSet<u64>,
    returned: BTreeSet<u64>,
    skipped: BTreeSet<u64>,
}

impl Monotone {
    fn event(&mut self, id: &str, event: &Event) {
        let Some(number) = id.rsplit('-').next().and_then(|n| n.parse().ok()) else { return };
        if let Event::Started { moves, .. } = event {
            let mut plan: Vec<u32> = moves
                .iter()
                .filter_map(|step| match step {
                    Step::SetWeight { weight_bp } => Some(*weight_bp),
                    Step::Pause { .. } | Step::Analysis { .. } | Step::Run { .. } => None,
                })
                .collect();
            plan.push(10_000);
            self.plans.insert(number, plan);
        }
        if matches!(event, Event::Aborting { .. }) {
            self.aborted.insert(number);
        }
        if matches!(event, Event::FullPromotion { .. }) {
            self.skipped.insert(number);
        }
    }

    fn weight(&mut self, number: u64, weight: u32) -> Result<(), String> {
        let last = self.last.insert(number, weight).unwrap_or(0);
        if weight == 0 {
            if self.aborted.contains(&number) {
                self.returned.insert(number);
            }
            return Ok(());
        }
        if self.returned.contains(&number) {
            return Err(format!("rollout {number} got {weight} bp after it was taken back"));
        }
        let Some(plan) = self.plans.get(&number) else { return Ok(()) };
        if weight < last {
            return Err(format!("rollout {number} fell from {last} to {weight} bp"));
        }
        let next = plan.iter().find(|w| **w > last);
        let allowed = weight == last || Some(&weight) == next;
        if allowed || self.skipped.contains(&number) {
            return Ok(());
        }
        Err(format!("rollout {number} went from {last} to {weight} bp, the plan is {plan:?}"))
    }
}

impl Check for Monotone {
    fn name(&self) -> &'static str {
        "S16 monotone promotion"
    }

    fn see(&mut self, fact: &Fact<'_>, _world: &World) -> Result<(), String> {
        if let Fact::Event(envelope, Some(event)) = fact {
            self.event(&envelope.stream.id, event);
        }
        if let Fact::Traffic { after: (fence, doc), by_host: false, .. } = fact {
            let weight = doc.weights.first().map_or(0, |w| w.weight_bp);
            return self.weight(fence.seq / FENCE_BLOCK, weight);
        }
        if let Fact::Sent(sending) = fact
            && sending.effect.action == "traffic"
            && self.aborted.contains(&(sending.effect.seq / FENCE_BLOCK))
            && sending.effect.payload["weights"][0]["weightBp"].as_u64() != Some(0)
        {
            return Err(format!("{} is sent after an abort", sending.effect.key));
        }
        Ok(())
    }

    fn copy(&self) -> Box<dyn Check> {
        Box::new(self.clone())
    }
}
