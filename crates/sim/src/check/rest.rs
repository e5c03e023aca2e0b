//! S17: at rest everything is old or everything is new. LV2: who has not ended says what it waits
//! for.

use std::collections::BTreeMap;

use tidegate_journal::Reader;

use super::Check;
use crate::fact::Fact;
use crate::shop;
use crate::world::World;

#[derive(Clone)]
pub(super) struct AllOrNothing;

impl Check for AllOrNothing {
    fn name(&self) -> &'static str {
        "S17 all old or all new"
    }

    fn see(&mut self, fact: &Fact<'_>, world: &World) -> Result<(), String> {
        let Fact::Rest(disk) = fact else { return Ok(()) };
        let row = disk.view(&shop::lane()).map_err(|e| e.to_string())?;
        let Some(row) = row else { return Ok(()) };
        let stable = row.view.doc["stable"]["version"].as_str();
        let shares = world.switch.shares();
        let wanted: BTreeMap<String, u32> =
            stable.map(|version| (version.to_owned(), 10_000)).into_iter().collect();
        if shares != wanted {
            return Err(format!("stable is {stable:?}, the shares are {shares:?}"));
        }
        let shape = world.host.shape();
        let only = shape.keys().all(|version| Some(version.as_str()) == stable);
        if !only || shape.len() != wanted.len() {
            return Err(format!("stable is {stable:?}, there run {shape:?}"));
        }
        Ok(())
    }

    fn copy(&self) -> Box<dyn Check> {
        Box::new(self.clone())
    }
}

#[derive(Clone)]
pub(super) struct NoZombies;

impl Check for NoZombies {
    fn name(&self) -> &'static str {
        "LV2 no zombies"
    }

    fn see(&mut self, fact: &Fact<'_>, _world: &World) -> Result<(), String> {
        let Fact::Recovered(disk) = fact else { return Ok(()) };
        for row in disk.views("rollout", true, usize::MAX).map_err(|e| e.to_string())? {
            if row.view.doc["waiting"]["code"].as_str().is_none() {
                return Err(format!("{} is open and waits for nothing", row.stream));
            }
        }
        Ok(())
    }

    fn copy(&self) -> Box<dyn Check> {
        Box::new(self.clone())
    }
}
