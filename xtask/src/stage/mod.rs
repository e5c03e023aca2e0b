//! A stage for a bar: a temporary project with a home in it, the binary under test, and hands to
//! type its commands, kill its processes and look at what is left. Whatever was started in it is
//! gone when it is dropped.

mod build;
mod census;
mod processes;
mod project;
mod run;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

pub use build::Binaries;
pub use census::{Census, DAEMONS, Holding};
pub use processes::{Pid, Signal, alive, kill, processes_naming, stopped};
pub use project::{CANARY, Project};
pub use run::{Background, Ran};

use crate::load::{Load, LoadOptions};

/// Longest that a verb may take before it is called hung.
pub const VERB_BOUND: Duration = Duration::from_secs(60);

/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(10);

/// A project on a stage.
#[derive(Debug)]
pub struct Stage {
    folder: TempDir,
    binaries: Binaries,
    address: SocketAddr,
    keep: Option<PathBuf>,
}

impl Stage {
    /// An empty project folder and a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When the system gives neither.
    pub fn new(binaries: &Binaries) -> Result<Self> {
        // A short path, so that the sockets of the home need no detour.
        let folder = tempfile::Builder::new().prefix("tg-").tempdir()?;
        std::fs::create_dir_all(folder.path().join("dist"))?;
        Ok(Self { folder, binaries: binaries.clone(), address: free_address()?, keep: None })
    }

    /// The same; the logs of engine, host and switch and the last status are copied to `logs` in
    /// this folder when the stage is cleared away.
    ///
    /// # Errors
    /// As [`Stage::new`].
    pub fn keeping(binaries: &Binaries, folder: &Path) -> Result<Self> {
        let mut stage = Self::new(binaries)?;
        stage.keep = Some(folder.join("logs"));
        Ok(stage)
    }

    /// What is left is for people: if it cannot be copied, the bar's figures are the same.
    fn keep_logs(&self) {
        let Some(folder) = &self.keep else { return };
        let _ = std::fs::create_dir_all(folder);
        for role in ["engine", "host", "switch"] {
            let name = format!("{role}.log");
            let _ = std::fs::copy(self.home().join(&name), folder.join(&name));
        }
        if let Ok(status) = self.status() {
            let _ = std::fs::write(folder.join("status.json"), format!("{status:#}"));
        }
    }

    /// The project's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The home's folder.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.folder().join("home")
    }

    /// Where the environment listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The programs under test.
    #[must_use]
    pub const fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// Types a command and waits for its end, at most [`VERB_BOUND`].
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    pub fn tidegate(&self, arguments: &[&str]) -> Result<Ran> {
        run::run(self, arguments, VERB_BOUND)
    }

    /// Types a command and lets it run.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn background(&self, arguments: &[&str]) -> Result<Background> {
        Background::start(self, arguments)
    }

    /// The process id that the home has written down for `engine`, `host` or `switch`.
    #[must_use]
    pub fn pid(&self, role: &str) -> Option<Pid> {
        let text = std::fs::read_to_string(self.home().join(format!("{role}.pid"))).ok()?;
        text.trim().parse().ok()
    }

    /// The process of this role, once it is alive and not `not`.
    ///
    /// # Errors
    /// When there is none within 15 s.
    pub fn living(&self, role: &str, not: Option<Pid>) -> Result<Pid> {
        wait_until(Duration::from_secs(15), &format!("a living {role}"), || {
            self.pid(role).filter(|pid| Some(*pid) != not && alive(*pid))
        })
    }

    /// `status -o json`.
    ///
    /// # Errors
    /// When the command fails or prints no document.
    pub fn status(&self) -> Result<Value> {
        let ran = self.tidegate(&["status", "-o", "json"])?;
        if ran.code != 0 {
            bail!("{ran}");
        }
        serde_json::from_str(&ran.stdout).with_context(|| format!("no JSON from {ran}"))
    }

    /// The environment of this name in `status`.
    ///
    /// # Errors
    /// As [`Stage::status`], or when it is not there.
    pub fn environment(&self, name: &str) -> Result<Value> {
        let status = self.status()?;
        let list = status["environments"].as_array().map(Vec::as_slice).unwrap_or_default();
        let found = list.iter().find(|environment| environment["name"] == name);
        found.cloned().with_context(|| format!("no environment {name} in {status}"))
    }

    /// The rollout of `version` in `production` once it has ended: its document, and the version
    /// that is stable then. Looks by `status`, which starts nothing.
    ///
    /// # Errors
    /// When it has not ended within `bound`.
    pub fn ended(&self, version: &str, bound: Duration) -> Result<Ended> {
        let mut last = Value::Null;
        let found = wait_until(bound, &format!("the end of {version}"), || {
            last = self.environment("production").unwrap_or_else(|error| {
                // A status that fails for a moment is looked at again; the bound still holds.
                Value::String(format!("{error:#}"))
            });
            Ended::from(&last, version)
        });
        found.with_context(|| format!("last seen: {last}"))
    }

    /// Starts a load on the environment's address, with its raw log in `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn load(&self, rate: f64, log: &Path) -> Result<Load> {
        Ok(Load::start(LoadOptions { rate, ..LoadOptions::new(self.address, log) })?)
    }

    /// All processes that belong to this stage.
    #[must_use]
    pub fn processes(&self) -> Vec<Pid> {
        processes_naming(self.folder())
    }

    /// Kills everything of this stage, also what is restarted meanwhile.
    ///
    /// # Errors
    /// When something lives on.
    pub fn clear(&self) -> Result<()> {
        wait_until(Duration::from_secs(10), "an empty stage", || {
            let left = self.processes();
            for pid in &left {
                kill(*pid, Signal::KILL);
            }
            left.is_empty().then_some(())
        })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.keep_logs();
        let _ = self.clear();
    }
}

/// How a rollout ended.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// `promoted`, `rolledBack`, `held`, …
    pub outcome: String,
    /// The version that is stable in the environment now.
    pub stable: String,
    /// The rollout's identity.
    pub id: String,
    /// The rollout's document.
    pub document: Value,
}

impl Ended {
    /// From an environment's document; none while its rollout is not `version`'s or not over. Held
    /// is an end: nothing goes on by itself.
    fn from(environment: &Value, version: &str) -> Option<Self> {
        let rollout = &environment["rollout"];
        let held = rollout["phase"] == "Held" || rollout["outcome"] == "held";
        let over = !rollout["endedAt"].is_null() || held;
        if rollout["version"] != version || !over {
            return None;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Some(Self {
            outcome: if held { "held".into() } else { text(&rollout["outcome"]) },
            stable: text(&environment["stable"]["version"]),
            id: text(&rollout["id"]),
            document: rollout.clone(),
        })
    }
}

/// Looks until there is a value, at most for `bound`.
///
/// # Errors
/// When there is none.
pub fn wait_until<T>(
    bound: Duration,
    what: &str,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if start.elapsed() > bound {
            bail!("not within {:.1} s: {what}", bound.as_secs_f64());
        }
        std::thread::sleep(LOOK);
    }
}

/// A port of 127.0.0.1 that nobody listens on.
///
/// # Errors
/// When there is none.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Microseconds of Unix time.
#[must_use]
pub fn now_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Duration, Ended, wait_until};
    use serde_json::json;

    #[test]
    fn a_rollout_is_over_when_it_says_when_it_ended_or_is_held() {
        let stable = json!({"version": "v1"});
        let ended = |rollout| Ended::from(&json!({"stable": stable, "rollout": rollout}), "v2");
        assert_eq!(ended(json!(null)), None);
        let baking =
            json!({"version": "v2", "phase": "Baking", "outcome": "promoted", "endedAt": null});
        assert_eq!(ended(baking), None);
        let other = json!({"version": "v1", "outcome": "promoted", "endedAt": "x"});
        assert_eq!(ended(other), None);
        let back = json!({"version": "v2", "id": "r", "outcome": "rolledBack", "endedAt": "x"});
        let back = ended(back).unwrap();
        assert_eq!((back.outcome.as_str(), back.stable.as_str()), ("rolledBack", "v1"));
        let held = json!({"version": "v2", "phase": "Held", "endedAt": null});
        assert_eq!(ended(held).unwrap().outcome, "held");
    }

    #[test]
    fn waiting_ends_at_its_bound() {
        let waited = wait_until(Duration::from_millis(30), "the moon", || None::<()>);
        assert!(waited.unwrap_err().to_string().contains("the moon"));
    }
}
