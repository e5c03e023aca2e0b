//! One file for each verb.

mod completions;
mod config;
mod demo;
mod doctor;
mod explain;
mod history;
mod init;
mod logs;
mod plan;
mod release;
mod schema;
mod status;
mod steer;
mod validate;
mod watch;

use tidegate_wire::home::Home;

use crate::cli::{Common, Verb};
use crate::exit::{Exit, Failure};
use crate::output::Printer;
use crate::{home, project, roles};

/// What every verb is given.
#[derive(Debug)]
pub(crate) struct Context {
    /// Options of every verb.
    pub(crate) common: Common,
    /// Where it prints.
    pub(crate) printer: Printer,
}

/// The home of a verb, with what is known of the project.
#[derive(Debug)]
pub(crate) struct Place {
    /// The home.
    pub(crate) home: Home,
    /// Environments in the order of the file.
    pub(crate) order: Vec<String>,
    /// The project's name, if there is a file.
    pub(crate) project: Option<String>,
}

impl Context {
    /// The home, for verbs that look or steer: they need no project file if a home is named, and
    /// none without mistakes.
    ///
    /// # Errors
    /// If no home can be named.
    pub(crate) fn place(&self) -> Result<Place, Failure> {
        let glance = project::glance(&self.common)?;
        if glance.as_ref().is_some_and(|glance| glance.broken) {
            self.printer.warning("the project file has mistakes; see `tidegate validate`");
        }
        let glance = glance.unwrap_or_default();
        let file = Some((glance.folder.as_path(), glance.home.as_deref()));
        let home = home::resolve(self.common.home.as_deref(), file, glance.project.as_deref())?;
        Ok(Place { home, order: glance.order, project: glance.project })
    }

    /// The home of a project whose file was read.
    ///
    /// # Errors
    /// If no home can be named.
    pub(crate) fn home_of(&self, loaded: &project::Loaded) -> Result<Home, Failure> {
        let spec = loaded.spec();
        home::resolve(
            self.common.home.as_deref(),
            Some((&loaded.folder, spec.home.as_deref())),
            Some(&spec.project),
        )
    }
}

/// Runs a future on this thread.
///
/// # Errors
/// The future's, or that there can be no runtime.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::unreachable("noRuntime", "the system gives no event loop", "")
                .cause(error.to_string())
        })?
        .block_on(future)
}

/// Runs a verb.
///
/// # Errors
/// Why it did not do what was asked.
pub(crate) fn run(context: &Context, verb: Verb) -> Result<Exit, Failure> {
    match verb {
        Verb::Init(args) => init::run(context, &args),
        Verb::Validate => validate::run(context),
        Verb::Plan(args) => plan::run(context, &args),
        Verb::Release(args) => release::run(context, &args),
        Verb::Watch(args) => watch::run(context, &args),
        Verb::Status => status::run(context),
        Verb::Explain(args) => explain::run(context, &args),
        Verb::History(args) => history::run(context, &args),
        Verb::Logs(args) => logs::run(context, &args),
        Verb::Promote(args) => steer::promote(context, &args),
        Verb::Pause(args) => steer::simple(context, &args, "pause"),
        Verb::Resume(args) => steer::simple(context, &args, "resume"),
        Verb::Abort(args) => steer::abort(context, &args),
        Verb::Retry(args) => steer::retry(context, &args),
        Verb::Undo(args) => steer::undo(context, &args),
        Verb::Doctor => doctor::run(context),
        Verb::Demo(args) => demo::run(context, &args),
        Verb::Schema => schema::run(context),
        Verb::Config => config::run(context),
        Verb::Completions(args) => completions::run(context, &args),
        Verb::Engine(args) => roles::engine(context, &args),
        Verb::Host(_) => roles::host(context),
        Verb::Shim(args) => Err(roles::misused("shim", &args)),
        Verb::Switch(_) => roles::switch(context),
        Verb::ExecInstance(args) => Err(roles::misused("exec-instance", &args)),
    }
}
