//! Ends every process of a temporary home, whatever happened before.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde::Deserialize;
use tidegate_wire::home::Home;

use crate::clock::Deadline;
use crate::home::living;

/// How long all of it may take.
const MAX: Duration = Duration::from_secs(15);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(30);

/// Ends engine, host and switch (each restarts the others, so all at once and again until none
/// is left), then asks the shims to stop their instances. True if nothing is left.
pub(super) async fn end_all(home: &Home, binary: &Path) -> bool {
    let deadline = Deadline::after(MAX);
    let mut quiet = 0;
    while quiet < 5 && !deadline.passed() {
        let roles = ["engine", "host", "switch"];
        let alive: Vec<Pid> =
            roles.iter().filter_map(|role| ours(living(home, role), binary)).collect();
        quiet = if alive.is_empty() { quiet + 1 } else { 0 };
        for pid in alive {
            kill(pid, Signal::KILL);
        }
        tokio::time::sleep(LOOK).await;
    }
    let mut asked = false;
    loop {
        let left = instances(home, binary);
        if left.is_empty() {
            return true;
        }
        let late = deadline.passed();
        for (shim, instance) in &left {
            if late {
                for pid in [instance, shim].into_iter().flatten() {
                    kill(*pid, Signal::KILL);
                }
            } else if !asked && let Some(shim) = shim {
                kill(*shim, Signal::TERM);
            }
        }
        if late {
            tokio::time::sleep(LOOK).await;
            return instances(home, binary).is_empty();
        }
        asked = true;
        tokio::time::sleep(LOOK).await;
    }
}

fn kill(pid: Pid, signal: Signal) {
    // Gone in between is as good.
    let _ = rustix::process::kill_process(pid, signal);
}

/// The process, if it runs our binary: a number may mean another process by now.
fn ours(pid: Option<u32>, binary: &Path) -> Option<Pid> {
    let pid = i32::try_from(pid?).ok()?;
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    (exe == binary).then(|| Pid::from_raw(pid)).flatten()
}

#[derive(Debug, Deserialize)]
struct Status {
    shim: Process,
    instance: Option<Process>,
}

#[derive(Debug, Deserialize)]
struct Process {
    pid: u32,
}

/// Shims and instances that still live.
fn instances(home: &Home, binary: &Path) -> Vec<(Option<Pid>, Option<Pid>)> {
    let folder = home.host().join("instances");
    let folders: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    folders
        .iter()
        .filter_map(|folder| {
            let bytes = std::fs::read(folder.join("status.json")).ok()?;
            let status: Status = serde_json::from_slice(&bytes).ok()?;
            let shim = ours(Some(status.shim.pid), binary);
            let instance = ours(status.instance.map(|process| process.pid), binary);
            (shim.is_some() || instance.is_some()).then_some((shim, instance))
        })
        .collect()
}
