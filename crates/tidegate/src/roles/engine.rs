//! `tidegate engine`: the driver of a home.

use std::path::Path;
use std::sync::Arc;

use tidegate_core::Epoch;
use tidegate_engine::shell::{self, Ended, MakeDrivers, ShellConfig, ShellError};
use tidegate_engine::step::Fatal;
use tidegate_journal::Error;
use tidegate_journal::sqlite::disk_check;
use tidegate_wire::error::ErrorBody;
use tidegate_wire::home::Home;

use super::{VERSION, log, named_home, own_binary};
use crate::api::DiskWarning;
use crate::cli::{EngineArgs, PlatformArg};
use crate::commands::Context;
use crate::exit::{Exit, Failure, with_chain};
use crate::{api, home, wiring};

/// Drives the home until there is nothing to do.
pub(crate) fn engine(context: &Context, args: &EngineArgs) -> Result<Exit, Failure> {
    // Fails only for a process that leads its group: then somebody has detached it already.
    let _ = rustix::process::setsid();
    log();
    let home = named_home(context)?;
    home::prepare(&home)?;
    let binary = own_binary()?;
    let disk = check_disk(&home);
    let mut at_least = Epoch(0);
    loop {
        let drivers = drivers(&home, &binary, args)?;
        match shell::run(config(&home, drivers, args, at_least, &disk)) {
            Ok(Ended::Superseded(epoch)) => {
                tracing::info!(epoch = epoch.0, "coming back with a higher epoch");
                at_least = Epoch(epoch.0.saturating_add(1));
            }
            Ok(Ended::Idle) => {
                tracing::info!("nothing left to do");
                return Ok(Exit::Done);
            }
            Ok(Ended::Terminated) => {
                tracing::info!("told to end");
                return Ok(Exit::Done);
            }
            Ok(Ended::OtherEngine(pid)) => {
                tracing::info!(?pid, "another engine drives this home");
                return Ok(Exit::Done);
            }
            Err(error) => return Err(failed(&home, error)),
        }
    }
}

/// Measures what a flush costs, beside the work: whoever takes over must not wait for it. A disk
/// that is too slow or too fast to be true is said in the log and in `status`.
fn check_disk(home: &Home) -> DiskWarning {
    let warning = DiskWarning::default();
    let (folder, found) = (home.root().to_owned(), Arc::clone(&warning));
    std::thread::spawn(move || match disk_check(&folder) {
        Ok(report) => {
            if let Some(text) = report.warning {
                tracing::warn!("{text}");
                let _ = found.set(text);
            }
        }
        Err(error) => tracing::warn!("the disk could not be measured: {error}"),
    });
    warning
}

/// What the home is driven with. A home with real instances is never handed to a platform that
/// would forget them.
fn drivers(home: &Home, binary: &Path, args: &EngineArgs) -> Result<MakeDrivers, Failure> {
    match args.platform {
        PlatformArg::Process if args.simulated_log.is_none() => Ok(wiring::drivers(home, binary)),
        PlatformArg::Process => Err(Failure::input(
            "usage",
            "--simulated-log belongs to --platform simulated",
            home.root().display().to_string(),
        )),
        PlatformArg::Simulated => {
            let host = home.root().join("host");
            if host.exists() {
                let text = "this home has had a host: it cannot be simulated";
                let failure = Failure::refused("realHome", text, host.display().to_string());
                return Err(failure.fix("use another --home for the simulation"));
            }
            wiring::simulated(args.simulated_log.as_deref()).map_err(|error| {
                let log = args.simulated_log.as_deref().unwrap_or_else(|| home.root());
                let on = log.display().to_string();
                Failure::input("simulatedLog", "the log cannot be opened", on)
                    .cause(error.to_string())
            })
        }
    }
}

fn config(
    home: &Home,
    drivers: MakeDrivers,
    args: &EngineArgs,
    at_least: Epoch,
    disk: &DiskWarning,
) -> ShellConfig {
    let folder = home.root().to_owned();
    let disk = Arc::clone(disk);
    ShellConfig {
        home: home.clone(),
        registry: wiring::registry(),
        drivers,
        router: Box::new(move |engine| api::router(engine, folder, disk)),
        idle_exit: args.idle_exit,
        version: VERSION.to_owned(),
        at_least,
    }
}

/// What the world refuses is no defect: the exit code tells the host and the client apart.
fn failed(home: &Home, error: ShellError) -> Failure {
    let on = home.root().display().to_string();
    let ends = |exit, error: &ShellError| {
        let body = ErrorBody::new("engine", "the engine has to end", &on);
        with_chain(Failure::new(exit, body), error)
    };
    match error {
        ShellError::Fatal(Fatal::Journal(error)) => {
            let hopeless = matches!(error, Error::Corrupt { .. } | Error::Newer { .. });
            let mut failure = Failure::from(error);
            if hopeless {
                failure.exit = Exit::Journal;
            }
            failure
        }
        ShellError::Fatal(Fatal::Unreadable(_)) => ends(Exit::Journal, &error),
        ShellError::Ownership(_)
        | ShellError::Listen(_)
        | ShellError::Samples(_)
        | ShellError::System { .. } => ends(Exit::Unreachable, &error),
        ShellError::Fatal(Fatal::Restless(_)) | ShellError::Defect(_) => ends(Exit::Defect, &error),
    }
}
