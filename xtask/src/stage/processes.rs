//! Processes, by /proc and signals.

use std::path::Path;

use rustix::process::{Pid as RawPid, kill_process};

/// A process id.
pub type Pid = i32;

pub use rustix::process::Signal;

/// Sends a signal; whether there was somebody to send it to.
pub fn kill(pid: Pid, signal: Signal) -> bool {
    RawPid::from_raw(pid).is_some_and(|pid| kill_process(pid, signal).is_ok())
}

/// The state letter of a process, none when it is gone.
fn state(pid: Pid) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command stands in brackets and may hold anything.
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Whether it runs: there and not a zombie.
#[must_use]
pub fn alive(pid: Pid) -> bool {
    state(pid).is_some_and(|state| !"ZX".contains(state))
}

/// How many children of these processes have ended and were not reaped.
#[must_use]
pub(super) fn zombies_of(parents: &[Pid]) -> usize {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<Pid>().ok());
    pids.filter(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut fields = stat.rsplit_once(')').unwrap_or_default().1.split_whitespace();
        let (state, parent) = (fields.next(), fields.next().and_then(|text| text.parse().ok()));
        state == Some("Z") && parent.is_some_and(|parent: Pid| parents.contains(&parent))
    })
    .count()
}

/// Whether it is stopped by a signal.
#[must_use]
pub fn stopped(pid: Pid) -> bool {
    state(pid) == Some('T')
}

/// All living processes other than this one that name `folder` in their command, environment,
/// working folder or program.
#[must_use]
pub fn processes_naming(folder: &Path) -> Vec<Pid> {
    let own = std::process::id();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<Pid>().ok());
    pids.filter(|pid| u32::try_from(*pid) != Ok(own) && alive(*pid) && names(*pid, folder))
        .collect()
}

fn names(pid: Pid, folder: &Path) -> bool {
    let needle = folder.as_os_str().as_encoded_bytes();
    let text = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let inside = |file: &str| {
        std::fs::read_link(format!("/proc/{pid}/{file}")).is_ok_and(|path| path.starts_with(folder))
    };
    let holds = |text: &[u8]| text.windows(needle.len()).any(|part| part == needle);
    holds(&text("cmdline")) || holds(&text("environ")) || inside("cwd") || inside("exe")
}

#[cfg(test)]
mod tests {
    use super::{Signal, alive, kill, processes_naming, stopped};
    use crate::stage::wait_until;
    use std::process::{Child, Command};
    use std::time::Duration;

    const BOUND: Duration = Duration::from_secs(10);

    struct Sleeper(Child);

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_process_that_was_started_in_a_folder_is_found_stopped_and_killed() {
        let folder = tempfile::tempdir().unwrap();
        let mut sleeper =
            Sleeper(Command::new("sleep").arg("60").current_dir(folder.path()).spawn().unwrap());
        let pid = i32::try_from(sleeper.0.id()).unwrap();
        assert_eq!(processes_naming(folder.path()), [pid]);
        assert!(alive(pid) && !stopped(pid));
        kill(pid, Signal::STOP);
        wait_until(BOUND, "stopped", || stopped(pid).then_some(())).unwrap();
        kill(pid, Signal::KILL);
        wait_until(BOUND, "dead", || (!alive(pid)).then_some(())).unwrap();
        assert!(processes_naming(folder.path()).is_empty());
        sleeper.0.wait().unwrap();
        assert!(!kill(pid, Signal::TERM));
    }
}
