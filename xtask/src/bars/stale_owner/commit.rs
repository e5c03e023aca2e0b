//! Stopping an engine inside a commit.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::stage::{Pid, Signal, Stage, kill};

/// The byte of the journal's `-shm` file that SQLite locks for as long as a transaction writes.
const WRITE_LOCK: u64 = 120;

/// Stops the engine while it waits for the disk and holds the journal's write lock; when. Verbs
/// that are journalled whatever the rollout is at are typed one after the other until then, for
/// some seconds; none: it was not caught, and runs.
pub(super) fn catch(stage: &Stage, engine: Pid) -> Result<Option<Instant>> {
    let tasks: Vec<String> = std::fs::read_dir(format!("/proc/{engine}/task"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|task| format!("{}/syscall", task.path().display()))
        .collect();
    let seen = |task: &String| std::fs::read_to_string(task).is_ok_and(|text| flushes(&text));
    let start = Instant::now();
    for verb in ["pause", "resume"].into_iter().cycle() {
        let mut typed = stage.background(&[verb])?;
        while typed.runs() {
            // No pause between two looks: a flush is over in a few hundred microseconds.
            if tasks.iter().any(seen) {
                let at = super::stop(engine)?;
                if in_transaction(stage, engine) {
                    return Ok(Some(at));
                }
                kill(engine, Signal::CONT);
            }
        }
        if start.elapsed() > Duration::from_secs(5) {
            break;
        }
    }
    Ok(None)
}

/// Whether `/proc/PID/task/TID/syscall` says fsync or fdatasync.
fn flushes(text: &str) -> bool {
    let numbers: [&str; 2] =
        if cfg!(target_arch = "aarch64") { ["82", "83"] } else { ["74", "75"] };
    text.split_whitespace().next().is_some_and(|number| numbers.contains(&number))
}

fn in_transaction(stage: &Stage, engine: Pid) -> bool {
    let Ok(file) = std::fs::metadata(stage.home().join("journal.db-shm")) else { return false };
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    locks.lines().any(|line| is_write_lock(line, engine, file.ino()))
}

/// A line such as `3: POSIX  ADVISORY  WRITE 4711 fd:01:9437 120 120`.
fn is_write_lock(line: &str, pid: Pid, inode: u64) -> bool {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let [_, "POSIX", _, "WRITE", owner, file, from, to] = columns[..] else { return false };
    let number = |text: &str| text.parse::<u64>().ok();
    owner.parse() == Ok(pid)
        && file.rsplit(':').next().and_then(number) == Some(inode)
        && number(from).is_some_and(|from| from <= WRITE_LOCK)
        && (to == "EOF" || number(to).is_some_and(|to| to >= WRITE_LOCK))
}

#[cfg(test)]
mod tests {
    use super::is_write_lock;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_flush_is_known_by_its_number() {
        use super::flushes;
        assert!(flushes("75 0x3 0x0 0x0 0x0 0x0 0x0 0x7ffd 0x7f"));
        assert!(flushes("74 0x3"));
        assert!(!flushes("750 0x3"));
        assert!(!flushes("running"));
        assert!(!flushes("202 0x74"));
    }

    #[test]
    fn the_write_lock_is_told_from_other_locks() {
        let line = "3: POSIX  ADVISORY  WRITE 4711 fd:01:9437 120 120";
        assert!(is_write_lock(line, 4711, 9437));
        assert!(!is_write_lock(line, 4712, 9437));
        assert!(!is_write_lock(line, 4711, 9438));
        for other in [
            "3: POSIX  ADVISORY  READ 4711 fd:01:9437 120 120",
            "3: POSIX  ADVISORY  WRITE 4711 fd:01:9437 124 124",
            "3: FLOCK  ADVISORY  WRITE 4711 fd:01:9437 0 EOF",
            "3: -> POSIX  ADVISORY  WRITE 4711 fd:01:9437 120 120",
        ] {
            assert!(!is_write_lock(other, 4711, 9437), "{other}");
        }
    }
}
