//! Which machines and which drivers an engine has: the only file that names concrete drivers.

use tidegate_core::lane::LaneMachine;
use tidegate_core::release::ReleaseMachine;
use tidegate_core::rollout::RolloutMachine;
use tidegate_engine::Registry;
use tidegate_engine::shell::MakeDrivers;
use tidegate_wire::home::Home;

/// All machines.
pub(crate) fn registry() -> Registry {
    Registry::new().with::<LaneMachine>().with::<ReleaseMachine>().with::<RolloutMachine>()
}

/// All drivers, by the prefix of their targets' names.
pub(crate) fn drivers(home: &Home) -> MakeDrivers {
    let _ = home;
    Box::new(|_owner| std::collections::BTreeMap::new())
}
