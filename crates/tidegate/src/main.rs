//! Tidegate: takes a release to production and, when production says so, back again. One binary:
//! verbs for people, and the roles that they start.

mod api;
mod cli;
mod client;
mod clock;
mod commands;
mod documents;
mod exit;
mod follow;
mod home;
mod output;
mod principal;
mod project;
mod roles;
mod source;
mod wiring;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::FromArgMatches;
use clap::error::ErrorKind;

use crate::cli::{Cli, NOT_IN_THIS_VERSION, Output};
use crate::commands::Context;
use crate::exit::{Exit, Failure};
use crate::output::Printer;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = roles::bare(&arguments) {
        return code;
    }
    defects_exit_with_70();
    let matches = match cli::command().try_get_matches_from(&arguments) {
        Ok(matches) => matches,
        Err(error) => return usage(&error, &arguments).into(),
    };
    let printer = |output, quiet| Printer::new(output, quiet);
    if let Some(verb) = matches.subcommand_name()
        && NOT_IN_THIS_VERSION.contains(&verb)
    {
        let printer = printer(wanted_output(&arguments), false);
        printer.failure(
            &Failure::refused("notInThisVersion", format!("`{verb}` is not in this version"), "")
                .fix("`tidegate --help` lists what is"),
        );
        return Exit::Refused.into();
    }
    let Cli { common, verb } = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &arguments).into(),
    };
    let context = Context { printer: printer(common.output, common.quiet), common };
    match commands::run(&context, verb) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            context.printer.failure(&failure);
            failure.exit.into()
        }
    }
}

/// Help and version on stdout, mistakes of the command line as errors.
fn usage(error: &clap::Error, arguments: &[OsString]) -> Exit {
    let quiet_kinds = [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion];
    if quiet_kinds.contains(&error.kind()) {
        drop(error.print());
        return Exit::Done;
    }
    match wanted_output(arguments) {
        Output::Text => drop(error.print()),
        output @ (Output::Json | Output::Jsonl) => {
            let text = error.to_string();
            let message = text.lines().next().unwrap_or_default();
            let message = message.strip_prefix("error: ").unwrap_or(message);
            Printer::new(output, false)
                .failure(&Failure::input("usage", message, "").fix("`tidegate --help`"));
        }
    }
    Exit::Input
}

/// `-o` as it stands in arguments that could not be parsed.
fn wanted_output(arguments: &[OsString]) -> Output {
    let texts: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
    let after = |name: &str| texts.iter().position(|text| *text == name).map(|at| at + 1);
    let value = after("-o")
        .or_else(|| after("--output"))
        .and_then(|at| texts.get(at).copied())
        .or_else(|| texts.iter().find_map(|text| text.strip_prefix("--output=")))
        .or_else(|| texts.iter().find_map(|text| text.strip_prefix("-o")))
        .unwrap_or_default();
    match value.trim_start_matches('=') {
        "json" => Output::Json,
        "jsonl" => Output::Jsonl,
        _ => Output::Text,
    }
}

/// A panic is a defect of ours: it is said so, and scripts are told by exit code 70.
fn defects_exit_with_70() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        before(info);
        Printer::new(Output::Text, false).failure(
            &Failure::defect("this must not happen", "")
                .cause(info.to_string())
                .fix("an unfinished release goes on with the next engine"),
        );
        end_with_70();
    }));
}

#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "after a defect nothing of this process can be trusted, its destructors included"
)]
fn end_with_70() {
    std::process::exit(Exit::Defect as i32);
}
