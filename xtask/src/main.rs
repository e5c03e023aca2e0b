//! `cargo xtask`: house rules and bars.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its answer")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use xtask::bars::{self, BARS};
use xtask::tidy::{self, RULES, Tree};

/// What keeps this repository honest.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the house rules (`cargo test` checks the same).
    Tidy {
        /// Another tree than this one.
        root: Option<PathBuf>,
    },
    /// Measure a bar; without a name, list them.
    Bar {
        /// Which one.
        name: Option<String>,
        /// Fewer rounds: ends within two minutes.
        #[arg(long)]
        short: bool,
        /// What the random moments are made from; printed, so that a run can be repeated.
        #[arg(long)]
        seed: Option<u64>,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Tidy { root } => check(&root.unwrap_or_else(tidy::root)),
        Command::Bar { name: None, .. } => {
            for bar in BARS {
                println!("{:<14} {}", bar.name, bar.about);
            }
            Ok(true)
        }
        Command::Bar { name: Some(name), short, seed } => bars::measure(&name, short, seed),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check(root: &Path) -> Result<bool> {
    let tree = Tree::read(root)?;
    if tree.files.is_empty() {
        bail!("nothing to check below {}", root.display());
    }
    let mut all = 0;
    for (name, rule) in RULES {
        let findings = rule(&tree);
        all += findings.len();
        for finding in findings {
            println!("{finding} [{name}]");
        }
    }
    println!("{} rules, {} files, {all} findings", RULES.len(), tree.files.len());
    Ok(all == 0)
}
