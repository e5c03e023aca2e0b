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

use crate::cli::Platform;
use crate::exit::Failure;

/// All machines.
pub(crate) fn registry() -> Registry {
    Registry::new().with::<LaneMachine>().with::<ReleaseMachine>().with::<RolloutMachine>()
}

/// What stands behind the environments of a home.
#[derive(Clone)]
pub(crate) enum Behind {
    /// This machine.
    Process,
    /// Nothing: see [`Simulated`].
    Simulated(Arc<Simulated>),
}

/// The platform that an engine was told to have. A home keeps the kind that it began with: what is
/// simulated would be believed to run, and the other way round.
pub(crate) fn behind(
    home: &Home,
    platform: Option<Platform>,
    log: Option<&Path>,
) -> Result<Behind, Failure> {
    let on = home.root().display().to_string();
    let mark = home.root().join("simulated");
    let Some((Platform::Simulated, log)) = platform.zip(log) else {
        if mark.exists() {
            let text = "this home has a simulated platform; nothing of it runs on this machine";
            return Err(Failure::refused("simulatedHome", text, on)
                .fix("name another home with --home")
                .fix("or start its engine with --platform simulated"));
        }
        return Ok(Behind::Process);
    };
    if home.host().exists() {
        let text = "this home has had a host; its instances would be forgotten";
        return Err(Failure::refused("realHome", text, on)
            .fix("name a new folder with --home for a simulated platform"));
    }
    let wrong = |what: &Path, error: std::io::Error| {
        let text = "the simulated platform cannot keep its state";
        Failure::unreachable("simulatedLog", text, what.display().to_string())
            .cause(error.to_string())
    };
    std::fs::write(&mark, "").map_err(|error| wrong(&mark, error))?;
    let simulated = Simulated::new(Some(log)).map_err(|error| wrong(log, error))?;
    Ok(Behind::Simulated(Arc::new(simulated)))
}

/// All drivers, by the prefix of their targets' names. `binary` becomes the host.
pub(crate) fn drivers(home: &Home, binary: &Path, behind: &Behind) -> MakeDrivers {
    if let Behind::Simulated(simulated) = behind {
        let all: Arc<dyn Driver> = Arc::clone(simulated) as Arc<dyn Driver>;
        return Box::new(|_| {
            BTreeMap::from([("process".to_owned(), Arc::clone(&all)), ("check".to_owned(), all)])
        });
    }
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

#[cfg(test)]
mod tests {
    use super::{Behind, behind};
    use crate::cli::Platform::Simulated;
    use tidegate_wire::home::Home;

    #[test]
    fn a_home_keeps_the_kind_of_platform_that_it_began_with() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let home = |name: &str| {
            let home = Home::new(folder.path().join(name));
            std::fs::create_dir(home.root()).unwrap();
            home
        };
        let code = |made: Result<Behind, crate::exit::Failure>| {
            made.err().map(|failure| failure.errors[0].body.code.clone())
        };
        let real = home("real");
        std::fs::create_dir(real.host()).unwrap();
        assert_eq!(code(behind(&real, None, None)), None);
        let refused = behind(&real, Some(Simulated), Some(&log));
        assert_eq!(code(refused).as_deref(), Some("realHome"));
        let toy = home("toy");
        assert_eq!(code(behind(&toy, Some(Simulated), Some(&log))), None);
        assert_eq!(code(behind(&toy, None, None)).as_deref(), Some("simulatedHome"));
        assert_eq!(code(behind(&toy, Some(Simulated), Some(&log))), None, "again");
    }
}
