//! Processes of our own binary that outlive the host: engine and switch.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::host::Host;
use crate::process::{Process, ProcessId};

/// Starts the binary with these arguments, detached (it leads its own session itself), its output
/// appended to the role's log.
///
/// # Errors
/// A sentence for a person.
pub(crate) fn spawn(host: &Host, role: &str, arguments: &[OsString]) -> Result<Spawned, String> {
    let path = host.config.home.log(role);
    let open = || File::options().append(true).create(true).mode(0o600).open(&path);
    let cannot = |e: std::io::Error| format!("cannot write {}: {e}", path.display());
    let mut child = tokio::process::Command::new(&host.config.binary)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(open().map_err(cannot)?)
        .stderr(open().map_err(cannot)?)
        .spawn()
        .map_err(|e| format!("cannot start {} {role}: {e}", host.config.binary.display()))?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    let process = pid.and_then(ProcessId::of).and_then(Process::open);
    let status = tokio::spawn(async move { child.wait().await.ok()?.code() });
    let process =
        process.ok_or_else(|| format!("the {role} ended at once; see {}", path.display()))?;
    Ok(Spawned { process, status })
}

/// A process that was started here.
#[derive(Debug)]
pub(crate) struct Spawned {
    /// The process.
    pub(crate) process: Process,
    /// Its exit code once it has ended; none where a signal has ended it.
    pub(crate) status: JoinHandle<Option<i32>>,
}

/// Pauses between starts: doubling from the first to the most, forgiven after running for a while.
#[derive(Debug)]
pub(crate) struct Pauses {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Pauses {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.most);
        pause
    }

    pub(crate) fn forgive(&mut self) {
        self.next = self.first;
    }
}
