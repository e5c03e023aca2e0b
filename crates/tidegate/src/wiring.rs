//! Which machines and which drivers an engine has: the only file that names concrete drivers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tidegate_core::lane::LaneMachine;
use tidegate_core::release::ReleaseMachine;
use tidegate_core::rollout::RolloutMachine;
use tidegate_drivers::{CheckDriver, ProcessConfig, ProcessDriver, Simulated, process};
use tidegate_engine::Registry;
use tidegate_engine::effects::Driver;
use tidegate_engine::shell::MakeDrivers;
use tidegate_wire::home::Home;

/// All machines.
pub(crate) fn registry() -> Registry {
    Registry::new().with::<LaneMachine>().with::<ReleaseMachine>().with::<RolloutMachine>()
}

/// All drivers, by the prefix of their targets' names. `binary` becomes the host.
pub(crate) fn drivers(home: &Home, binary: &Path) -> MakeDrivers {
    let (home, binary) = (home.clone(), binary.to_owned());
    Box::new(move |owner| {
        let process: Arc<dyn Driver> = Arc::new(ProcessDriver::new(ProcessConfig {
            home: home.clone(),
            identity: owner.home.clone(),
            epoch: owner.epoch,
            start_host: Box::new(process::spawn_host(binary, home)),
        }));
        let check: Arc<dyn Driver> = Arc::new(CheckDriver);
        BTreeMap::from([("process".to_owned(), process), ("check".to_owned(), check)])
    })
}

/// The simulated platform in the place of all drivers, with a line in `log` for every command.
///
/// # Errors
/// If the log cannot be opened.
pub(crate) fn simulated(log: Option<&Path>) -> std::io::Result<MakeDrivers> {
    let platform: Arc<dyn Driver> = Arc::new(Simulated::new(log)?);
    Ok(Box::new(move |_| {
        let check = Arc::clone(&platform);
        BTreeMap::from([("process".to_owned(), platform), ("check".to_owned(), check)])
    }))
}
