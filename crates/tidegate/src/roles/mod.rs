//! The processes behind the verbs: each is this binary under another name.

mod engine;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tidegate_host::HostConfig;
use tidegate_switch::SwitchConfig;
use tidegate_wire::home::Home;
use tracing_subscriber::EnvFilter;

pub(crate) use engine::engine;

use crate::cli::{Output, RoleArgs};
use crate::commands::{self, Context};
use crate::exit::{Exit, Failure, with_chain};
use crate::output::Printer;

/// Version of this binary.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Logs to stderr, which whoever starts a role points at its log file. `TIDEGATE_LOG` filters.
fn log() {
    let filter = EnvFilter::try_from_env("TIDEGATE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let made = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .try_init();
    drop(made);
}

fn runtime(threads: usize) -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::unreachable("noRuntime", "the system gives no event loop", "")
                .cause(error.to_string())
        })
}

/// The path of this binary, which starts the other roles.
fn own_binary() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| {
        Failure::defect("the path of this binary is not known", "").cause(error.to_string())
    })
}

fn named_home(context: &Context) -> Result<Home, Failure> {
    crate::home::resolve(context.common.home.as_deref(), None, None)
}

/// The host of a home.
pub(crate) fn host(context: &Context) -> Result<Exit, Failure> {
    log();
    let home = named_home(context)?;
    let config = HostConfig::new(home.clone(), own_binary()?, VERSION);
    runtime(2)?.block_on(tidegate_host::run(config)).map_err(|error| {
        let failure = Failure::unreachable(
            "host",
            "the host does not run",
            home.root().display().to_string(),
        );
        with_chain(failure, &error)
    })?;
    Ok(Exit::Done)
}

/// The switch of a home.
pub(crate) fn switch(context: &Context) -> Result<Exit, Failure> {
    log();
    let home = named_home(context)?;
    let config = SwitchConfig::new(home.clone());
    runtime(2)?.block_on(tidegate_switch::run(config)).map_err(|error| {
        let on = home.root().display().to_string();
        with_chain(Failure::unreachable("switch", "the switch does not run", on), &error)
    })?;
    Ok(Exit::Done)
}

/// The roles that must begin before anything else of this process: no threads, no parser.
pub(crate) fn bare(arguments: &[OsString]) -> Option<ExitCode> {
    let (role, rest) = arguments.get(1..)?.split_first()?;
    match (role.to_str()?, rest) {
        ("shim", [spec]) => Some(tidegate_host::shim(Path::new(spec))),
        ("exec-instance", [spec]) => Some(tidegate_host::exec_instance(Path::new(spec))),
        ("demo-service", rest) => Some(demo_service(rest)),
        _ => None,
    }
}

/// The service of the demo, in versions good and bad.
fn demo_service(arguments: &[OsString]) -> ExitCode {
    use clap::{Args, FromArgMatches};
    let command = clap::Command::new("demo-service").no_binary_name(true);
    let options = tidegate_example_service::Options::augment_args(command)
        .try_get_matches_from(arguments)
        .and_then(|matches| tidegate_example_service::Options::from_arg_matches(&matches));
    let options = match options {
        Ok(options) => options,
        Err(error) => {
            drop(error.print());
            return Exit::Input.into();
        }
    };
    let printer = Printer::new(Output::Text, false);
    let served = commands::block_on(async {
        tidegate_example_service::serve(options).await.map_err(|error| {
            with_chain(Failure::unreachable("demoService", "the service does not run", ""), &error)
        })
    });
    match served {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            printer.failure(&failure);
            failure.exit.into()
        }
    }
}

/// `shim` and `exec-instance` with anything but one argument.
pub(crate) fn misused(role: &str, args: &RoleArgs) -> Failure {
    Failure::input(
        "usage",
        format!("`tidegate {role}` takes the path of a spec, and nothing else"),
        format!("{} arguments", args.rest.len()),
    )
    .fix("it is started by the host of a home; nobody else needs it")
}
