//! Processes that are not our children: identity that survives reuse of process ids, and their end
//! without polling.

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

/// A process for as long as this machine is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProcessId {
    /// The process id.
    pub(crate) pid: i32,
    /// When it was started, in clock ticks since the machine's start.
    pub(crate) start: u64,
}

impl ProcessId {
    /// The process that has this id now; none if there is no such process.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything, so count from its end: field 22 is the 20th
        // after it.
        let rest = stat.get(stat.rfind(')')? + 1..)?;
        let start = rest.split_ascii_whitespace().nth(19)?.parse().ok()?;
        Some(Self { pid, start })
    }

    /// This process.
    pub(crate) fn own() -> io::Result<Self> {
        i32::try_from(std::process::id())
            .ok()
            .and_then(Self::of)
            .ok_or_else(|| io::Error::other("cannot read /proc/self/stat; is /proc mounted?"))
    }
}

/// A living process, or one that has ended since it was opened.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) id: ProcessId,
    pidfd: AsyncFd<OwnedFd>,
}

impl Process {
    /// Opens the process if it is still the same one. One that has ended and has not been reaped
    /// is opened too; [`Process::ended`] returns at once for it.
    pub(crate) fn open(id: ProcessId) -> Option<Self> {
        let pid = Pid::from_raw(id.pid)?;
        let fd = pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
        // After the descriptor is open: from here on the number cannot mean another process.
        if ProcessId::of(id.pid) != Some(id) {
            return None;
        }
        Some(Self { id, pidfd: watch(fd).ok()? })
    }

    /// Returns when the process has ended.
    pub(crate) async fn ended(&self) {
        // An error here means that the descriptor cannot be waited for: then nothing is known,
        // which callers treat as an end, too.
        let _ = self.pidfd.readable().await;
    }

    /// Sends a signal; a process that is gone is fine.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(self.pidfd.get_ref(), signal);
    }

    /// Whether the process is gone or waits to be reaped.
    pub(crate) fn is_over(&self) -> bool {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{}/stat", self.id.pid)) else {
            return true;
        };
        let after = stat.rfind(')').and_then(|at| stat.get(at + 1..)).unwrap_or_default();
        ProcessId::of(self.id.pid) != Some(self.id) || after.trim_start().starts_with(['Z', 'X'])
    }
}

/// The replacement of this function is unsafe, because a type could give out a descriptor that it
/// does not own. An `OwnedFd` cannot.
#[expect(deprecated, reason = "the replacement is unsafe; an OwnedFd fulfils its conditions")]
fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

/// The process of a `.pid` file, if it lives and was started with one of `roles` among its arguments
/// and with `home` there or in its environment (so that a number from before a reboot means
/// nothing).
pub(crate) fn of_pid_file(
    path: &std::path::Path,
    roles: &[&str],
    home: &std::path::Path,
) -> Option<Process> {
    let pid: i32 = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
    let process = Process::open(ProcessId::of(pid)?)?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let is_role = line.split(|b| *b == 0).skip(1).any(|a| roles.iter().any(|r| a == r.as_bytes()));
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let home = home.canonicalize().ok()?;
    let names_home = line.split(|b| *b == 0).any(|a| is_folder(a, b"--home=", &home))
        || environment.split(|b| *b == 0).any(|a| is_folder(a, b"TIDEGATE_HOME=", &home));
    (is_role && names_home && !process.is_over()).then_some(process)
}

/// Whether a word, without a prefix that it may have, names this folder.
fn is_folder(word: &[u8], prefix: &[u8], folder: &std::path::Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::OsStr::from_bytes(word.strip_prefix(prefix).unwrap_or(word));
    std::path::Path::new(path).canonicalize().is_ok_and(|path| path == folder)
}

/// Identity of the machine's run; changes with every start of the machine.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|t| t.trim().to_owned())
        .unwrap_or_default()
}

/// A random identity.
pub(crate) fn random_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/uuid")
        .map_or_else(|_| format!("{:016x}", random_u64()), |text| text.trim().to_owned())
}

/// A random number, not for secrets.
pub(crate) fn random_u64() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// A signal by its name in a spec.
pub(crate) fn signal_by_name(name: &str) -> Option<Signal> {
    Some(match name {
        "SIGTERM" => Signal::TERM,
        "SIGINT" => Signal::INT,
        "SIGQUIT" => Signal::QUIT,
        "SIGHUP" => Signal::HUP,
        "SIGUSR1" => Signal::USR1,
        "SIGUSR2" => Signal::USR2,
        "SIGWINCH" => Signal::WINCH,
        _ => return None,
    })
}

/// The usual name of a signal's number.
pub(crate) fn signal_name(number: i32) -> String {
    let name = match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        _ => return format!("signal {number}"),
    };
    name.to_owned()
}

/// Milliseconds since 1970 by this machine's clock.
pub(crate) fn now_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
