//! `completions`: for a shell.

use super::Context;
use crate::cli::{self, CompletionsArgs};
use crate::exit::{Exit, Failure};

/// Prints them.
pub(super) fn run(context: &Context, args: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut cli::command(), "tidegate", &mut script);
    context.printer.raw(&script);
    Ok(Exit::Done)
}
