//! The command line, as the interface has it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::clock::parse_duration;

/// Verbs of the interface that this build does not have. They are refused, not unknown.
pub(crate) const NOT_IN_THIS_VERSION: [&str; 20] = [
    "approve",
    "reject",
    "freeze",
    "unfreeze",
    "simulate",
    "judge",
    "audit",
    "setup",
    "home",
    "uninstall",
    "upgrade",
    "serve",
    "run",
    "runbook",
    "incident",
    "oncall",
    "backup",
    "migrate",
    "evidence",
    "man",
];

/// Takes a release to production and, when production says so, back again.
#[derive(Debug, Parser)]
#[command(
    name = "tidegate",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    /// For every verb.
    #[command(flatten)]
    pub(crate) common: Common,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Options of every verb.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// Only this environment.
    #[arg(short = 'e', long, global = true, value_name = "E")]
    pub(crate) environment: Option<String>,
    /// Only this service.
    #[arg(short = 's', long, global = true, value_name = "S")]
    pub(crate) service: Option<String>,
    /// Form of the answer: for people, one document, or a stream of documents.
    #[arg(short = 'o', long, global = true, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
    /// Where engine and journal live: `local` or a folder.
    #[arg(long, global = true, value_name = "H", env = "TIDEGATE_HOME", hide_env_values = true)]
    pub(crate) home: Option<String>,
    /// The project file [default: tidegate.yaml].
    #[arg(id = "file", short = 'f', long = "file", global = true, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// No progress and no hints, only the answer and errors.
    #[arg(long, global = true)]
    pub(crate) quiet: bool,
    /// Answer questions with yes.
    #[arg(long, global = true)]
    pub(crate) yes: bool,
    /// Return as soon as it is accepted.
    #[arg(long, global = true)]
    pub(crate) no_wait: bool,
}

/// Form of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// One document.
    Json,
    /// A document a line.
    Jsonl,
}

/// Verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Write a tidegate.yaml from what lies here
    Init(InitArgs),
    /// Show all mistakes of the project file at once
    Validate,
    /// Show every step, its undo and what happens if Tidegate dies there; changes nothing
    Plan(PlanArgs),
    /// Make a release and drive it through the environments
    #[command(visible_alias = "deploy")]
    Release(ReleaseArgs),
    /// Follow a rollout until it ends
    Watch(WatchArgs),
    /// What runs where, and what is under way
    Status,
    /// Why it is waiting, why it decided as it did
    Explain(NameArgs),
    /// Rollouts so far, newest first
    History(HistoryArgs),
    /// Output of the instances of a service
    Logs(LogsArgs),
    /// Go on at once: skip the current step, or all of them
    Promote(PromoteArgs),
    /// Stay at the current step
    Pause(SteerArgs),
    /// Go on after `pause`
    Resume(SteerArgs),
    /// Stop a rollout and put the version before back
    Abort(SteerArgs),
    /// Once more, after a rollout that did not end promoted
    Retry(RetryArgs),
    /// Put the version before back, or another kept one
    #[command(visible_alias = "rollback")]
    Undo(UndoArgs),
    /// Look for what would be in the way; each finding with its fix
    Doctor,
    /// Three acts on a temporary home: a good release, a bad one, a killed engine
    Demo(DemoArgs),
    /// Print the JSON Schema of tidegate.yaml
    Schema,
    /// Print the project file with all defaults filled in
    Config,
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// The engine of a home (a role; started by the verbs)
    #[command(hide = true)]
    Engine(EngineArgs),
    /// The supervisor of a machine's instances (a role; started by the engine)
    #[command(hide = true)]
    Host(RoleArgs),
    /// The parent of one instance (a role; started by the host)
    #[command(hide = true)]
    Shim(RoleArgs),
    /// The data plane (a role; started by the host)
    #[command(hide = true)]
    Switch(RoleArgs),
    /// Becomes an instance (a role; started by the shim)
    #[command(hide = true)]
    ExecInstance(RoleArgs),
}

/// `init`
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The folder to look into [default: here]
    pub(crate) folder: Option<PathBuf>,
}

/// `plan`
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The version's name, as in the artifact's path
    pub(crate) version: String,
    /// The environment to end in [default: the last one]
    #[arg(long, value_name = "E")]
    pub(crate) to: Option<String>,
}

/// `release`
#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    /// The version's name, as in the artifact's path
    pub(crate) version: String,
    /// The environment to end in [default: the last one]
    #[arg(long, value_name = "E")]
    pub(crate) to: Option<String>,
    /// How to follow it
    #[command(flatten)]
    pub(crate) follow: Follow,
    /// Abort the release when this command is interrupted, instead of detaching
    #[arg(long)]
    pub(crate) abort_on_interrupt: bool,
}

/// How to follow something.
#[derive(Debug, Clone, Args)]
pub(crate) struct Follow {
    /// Until it is promoted, until its bake window is over, or until nothing is left to do
    #[arg(long, value_enum, default_value_t = Until::Promoted, value_name = "WHEN")]
    pub(crate) until: Until,
    /// Stop watching after so long (exit code 6; it goes on)
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub(crate) timeout: Option<Duration>,
}

/// When following ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Until {
    /// All traffic is on the new version.
    Promoted,
    /// Its bake window is over.
    Baked,
    /// Nothing is left to do.
    Ended,
}

/// `watch`
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// The rollout [default: the only one in progress]
    pub(crate) id: Option<String>,
    /// From the event after this number on
    #[arg(long, value_name = "SEQ")]
    pub(crate) since: Option<u64>,
    /// How to follow it
    #[command(flatten)]
    pub(crate) follow: Follow,
    /// Abort the rollout when this command is interrupted, instead of detaching
    #[arg(long)]
    pub(crate) abort_on_interrupt: bool,
}

/// A rollout by name.
#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// The rollout [default: the one in progress, or the last one]
    pub(crate) id: Option<String>,
}

/// `history`
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Go on with every event that happens
    #[arg(long)]
    pub(crate) follow: bool,
    /// With --follow: from the event after this number on
    #[arg(long, value_name = "SEQ", requires = "follow")]
    pub(crate) since: Option<u64>,
    /// At most so many rollouts
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(crate) limit: usize,
}

/// `logs`
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The service [default: all]
    pub(crate) name: Option<String>,
    /// Only of this version
    #[arg(long, value_name = "VERSION")]
    pub(crate) version: Option<String>,
    /// Go on with every line that is written
    #[arg(short = 'f', long)]
    pub(crate) follow: bool,
    /// So many last lines of each instance
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub(crate) tail: usize,
    /// The project file [default: tidegate.yaml]
    #[arg(id = "file", long = "file", value_name = "FILE")]
    pub(crate) log_file: Option<PathBuf>,
}

/// A verb on a rollout.
#[derive(Debug, Clone, Args)]
pub(crate) struct SteerArgs {
    /// The rollout [default: the only one in progress]
    pub(crate) id: Option<String>,
    /// Only if the rollout is at this revision
    #[arg(long, value_name = "N")]
    pub(crate) if_revision: Option<u64>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// How to follow it
    #[command(flatten)]
    pub(crate) follow: Follow,
}

/// `promote`
#[derive(Debug, Args)]
pub(crate) struct PromoteArgs {
    /// The rollout and how to follow it
    #[command(flatten)]
    pub(crate) steer: SteerArgs,
    /// Skip all steps that are left
    #[arg(long)]
    pub(crate) full: bool,
}

/// `retry`
#[derive(Debug, Args)]
pub(crate) struct RetryArgs {
    /// The rollout that did not end promoted, or its lane [default: the only one]
    #[command(flatten)]
    pub(crate) steer: SteerArgs,
}

/// `undo`
#[derive(Debug, Args)]
pub(crate) struct UndoArgs {
    /// The rollout to undo and how to follow it
    #[command(flatten)]
    pub(crate) steer: SteerArgs,
    /// To this version [default: the one before]
    #[arg(long, value_name = "VERSION")]
    pub(crate) to: Option<String>,
}

/// `demo`
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Keep everything in this folder (it must not exist yet)
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
}

/// `completions`
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// `engine`
#[derive(Debug, Args)]
pub(crate) struct EngineArgs {
    /// End after so long without unfinished work
    #[arg(long, value_parser = parse_duration, default_value = "10m", value_name = "TIME")]
    pub(crate) idle_exit: Duration,
    /// Where releases run; `simulated` only in a home that never had a host
    #[arg(long, hide = true, value_enum, default_value_t = PlatformArg::Process)]
    pub(crate) platform: PlatformArg,
    /// With the simulated platform: a line for every command that reaches it
    #[arg(long, hide = true, value_name = "FILE")]
    pub(crate) simulated_log: Option<PathBuf>,
}

/// What an engine drives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlatformArg {
    /// The host and the switch of this machine.
    Process,
    /// Nothing: every command is carried out at once and by nobody.
    Simulated,
}

/// A role that reads its own arguments.
#[derive(Debug, Args)]
pub(crate) struct RoleArgs {
    /// The role's own
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub(crate) rest: Vec<OsString>,
}

/// The whole command with the verbs that are to come, hidden.
pub(crate) fn command() -> clap::Command {
    let mut command = Cli::command().after_long_help(long_help());
    for verb in NOT_IN_THIS_VERSION {
        command = command.subcommand(
            clap::Command::new(verb).hide(true).disable_help_flag(true).arg(
                clap::Arg::new("rest")
                    .num_args(0..)
                    .trailing_var_arg(true)
                    .allow_hyphen_values(true)
                    .hide(true),
            ),
        );
    }
    command
}

fn long_help() -> String {
    format!(
        "Roles (started by the verbs, by systemd or by a container): engine, host, shim, switch\n\n\
         Not in this version, refused with exit code 3:\n  {}\n\n\
         Exit codes:\n  \
         0 as asked, 1 the release was undone, 2 the input is wrong, 3 refused, 4 held: a person\n  \
         is needed, 5 engine or target out of reach, 6 --timeout passed and it goes on, 70 a\n  \
         defect of Tidegate, 130 detached and it goes on\n\n\
         Environment: TIDEGATE_HOME, NO_COLOR, CLICOLOR_FORCE, CI",
        wrap_words(&NOT_IN_THIS_VERSION)
    )
}

fn wrap_words(words: &[&str]) -> String {
    crate::output::table::wrap(&words.join(", "), 76).join("\n  ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_holds_together() {
        super::command().debug_assert();
    }
}
