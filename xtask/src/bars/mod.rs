//! Bars: what Tidegate has to reach, measured from outside. Each leaves `target/bars/NAME/` with
//! raw logs and `figures.json`, prints its figures and, last, its verdict.
//!
//! A bar is a function from a [`Context`] to [`Figures`]. It holds when every figure with a bound
//! lies within it and it has at least one such figure; whatever stops it makes it fail.

mod bad_input;
mod counts_true;
mod crash_points;
mod figures;
mod first_run;
mod journal_rate;
mod kill_anywhere;
mod many_rollouts;
mod measured;
mod rounds;
mod seed;
mod stale_owner;
mod status_fast;
mod walk_away;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::{Value, json};

pub use figures::{Bound, Figure, Figures};
pub use seed::Chance;

use crate::stage::Binaries;
use crate::tidy;

/// A bar.
pub struct Bar {
    /// As in `cargo xtask bar NAME`.
    pub name: &'static str,
    /// What it shows, in a line.
    pub about: &'static str,
    run: fn(&Context, &mut Figures) -> Result<()>,
}

/// All of them.
pub const BARS: &[Bar] = &[
    Bar {
        name: "first-run",
        about: "the README's first command: three acts in under a minute, nothing lost",
        run: first_run::run,
    },
    Bar {
        name: "kill-anywhere",
        about: "engine, host and switch killed in mid-canary: the outcome of the undisturbed twin",
        run: kill_anywhere::run,
    },
    Bar {
        name: "walk-away",
        about: "terminal closed, client and engine killed, nobody typing: the canary ends right",
        run: walk_away::run,
    },
    Bar {
        name: "stale-owner",
        about: "a stopped engine is followed at once and its late commands are refused",
        run: stale_owner::run,
    },
    Bar {
        name: "crash-points",
        about: "stopped at every point of every scenario in the simulator: the twin's end",
        run: crash_points::run,
    },
    Bar {
        name: "counts-true",
        about: "every request explained, faults blamed on whose they are, gaps never zeros",
        run: counts_true::run,
    },
    Bar {
        name: "status-fast",
        about: "status within 20 ms over a long history; an idle home costs next to nothing",
        run: status_fast::run,
    },
    Bar {
        name: "many-rollouts",
        about: "1,000 rollouts in one engine: little memory, no waiting, no cost for the others",
        run: many_rollouts::run,
    },
    Bar {
        name: "journal-rate",
        about: "durable events through the engine beside a bare loop over SQLite",
        run: journal_rate::run,
    },
    Bar {
        name: "bad-input",
        about: "bad input of every kind: the right diagnostic and exit code, nothing changed",
        run: bad_input::run,
    },
];

/// What a bar is given.
#[derive(Debug)]
pub struct Context {
    /// Ends within two minutes, with fewer rounds.
    pub short: bool,
    /// What random moments are made from.
    pub seed: u64,
    /// `target/bars/NAME`, empty at the start.
    pub folder: PathBuf,
    /// The programs under test.
    pub binaries: Binaries,
}

impl Context {
    /// `full` of something, or `short` of it in a short run.
    #[must_use]
    pub const fn count(&self, full: u32, short: u32) -> u32 {
        if self.short { short } else { full }
    }

    /// Appends one JSON line to a raw log of the bar.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn note(&self, file: &str, line: &impl Serialize) -> Result<()> {
        use std::io::Write;
        let path = self.folder.join(file);
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        std::fs::File::options()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Measures one bar: builds, runs, writes `figures.json`, prints. Whether it holds.
///
/// # Errors
/// When there is no such bar, it cannot be built, or the folder cannot be written. A bar that
/// breaks down on its way does not hold, and says why.
#[expect(clippy::print_stdout, reason = "the figures are the answer")]
pub fn measure(name: &str, short: bool, seed: Option<u64>) -> Result<bool> {
    let bar = BARS.iter().find(|bar| bar.name == name).with_context(|| {
        let names: Vec<&str> = BARS.iter().map(|bar| bar.name).collect();
        format!("no bar is called {name}; there are: {}", names.join(", "))
    })?;
    let folder = tidy::root().join("target/bars").join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let seed = seed.unwrap_or_else(seed::fresh);
    println!("bar {name}: seed {seed}{}", if short { ", short" } else { "" });
    let context = Context { short, seed, folder, binaries: Binaries::build()? };
    let (started, machine) = (jiff::Timestamp::now().to_string(), machine());
    let mut figures = Figures::default();
    let broke = (bar.run)(&context, &mut figures).err().map(|error| format!("{error:#}"));
    let holds = broke.is_none() && figures.hold();
    let document = json!({
        "bar": name, "short": short, "seed": seed, "startedAt": started,
        "endedAt": jiff::Timestamp::now().to_string(), "machine": machine,
        "figures": figures.list(), "brokeDown": broke, "holds": holds,
    });
    let path = context.folder.join("figures.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&document)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    for figure in figures.list() {
        println!("  {figure}");
    }
    println!("  raw logs and figures.json in {}", context.folder.display());
    if let Some(why) = &broke {
        println!("  broke down: {why}");
    }
    println!("bar {name}: {}", if holds { "holds" } else { "DOES NOT HOLD" });
    Ok(holds)
}

/// What the figures were measured on.
fn machine() -> Value {
    let line = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let memory = line("/proc/meminfo");
    json!({
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "kernel": line("/proc/sys/kernel/osrelease"),
        "memory": memory.lines().next().unwrap_or_default(),
        "loadAverage": line("/proc/loadavg"),
    })
}

#[cfg(test)]
mod tests {
    use super::{BARS, measure};

    #[test]
    fn every_bar_has_a_name_of_its_own() {
        let mut names: Vec<&str> = BARS.iter().map(|bar| bar.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), BARS.len());
    }

    #[test]
    fn a_bar_that_does_not_exist_is_refused_with_those_that_do() {
        let refused = measure("none", true, Some(1)).unwrap_err().to_string();
        assert!(refused.contains("kill-anywhere"), "{refused}");
    }
}
