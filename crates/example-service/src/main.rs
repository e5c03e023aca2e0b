//! `tidegate-example serve --listen ADDRESS --version VERSION`: the example service as a program.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidegate_example_service::{Options, serve};

/// A small service that can be told to misbehave.
#[derive(Debug, Parser)]
#[command(name = "tidegate-example", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT.
    Serve(Box<Options>),
}

#[expect(clippy::print_stderr, reason = "the program's only way to say why it ends")]
fn main() -> ExitCode {
    let Command::Serve(options) = Cli::parse().command;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("tidegate-example: no runtime: {error}");
            return ExitCode::from(70);
        }
    };
    match runtime.block_on(serve(*options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate-example: {error}");
            ExitCode::FAILURE
        }
    }
}
