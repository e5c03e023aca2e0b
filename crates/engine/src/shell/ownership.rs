//! Who drives a home: an exclusive lock, and a heartbeat that shows that its holder makes progress.
//!
//! The lock alone is not enough: a stopped process keeps it, and SQLite's write lock, for ever. So
//! a waiter watches the heartbeat by its own monotonic clock. Beats: somebody else drives, and the
//! waiter leaves. Silence for [`STALE`] (of which at least [`CONFIRM`] was watched): the waiter ends
//! exactly the process that was seen to hold the lock all that time (by pidfd, so that a reused
//! process id is never hit) and takes over.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tidegate_wire::home::Home;

use super::pulse::Pulse;

/// A heartbeat whose content has not changed for so long belongs to an owner that is stuck.
pub const STALE: Duration = Duration::from_secs(3);
/// A heartbeat file that was last written [`STALE`] ago needs to be watched for so long only, which
/// is more than a beat: whoever started us has waited already.
const CONFIRM: Duration = Duration::from_millis(750);
/// Between two beats.
const BEAT: Duration = Duration::from_millis(500);
/// Between two looks of a waiter.
const LOOK: Duration = Duration::from_millis(50);
/// How long the kernel may take to end a killed owner (it may sit in a slow disk operation).
const END_MAX: Duration = Duration::from_secs(20);

/// Why a home cannot be owned.
#[derive(Debug, thiserror::Error)]
pub enum OwnershipError {
    /// A file of the home cannot be opened or written.
    #[error("{doing} {path}: {source}")]
    File {
        /// What was done.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The owner does not beat, and which process it is cannot be told.
    #[error(
        "the lock {0} is held by a process that does not beat and cannot be identified; end it by \
         hand (it may belong to another user or container)"
    )]
    Nameless(PathBuf),
    /// The owner does not beat and cannot be ended.
    #[error("process {pid} holds {path}, does not beat and cannot be ended: {why}")]
    Stuck {
        /// The process.
        pid: u32,
        /// The lock.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// The outcome of trying to own a home.
#[derive(Debug)]
pub enum Acquired {
    /// The home is ours as long as this is kept.
    Ours(Ownership),
    /// Somebody else drives it and is alive; its process id where known.
    Other(Option<u32>),
}

/// A home that is ours. Dropping it stops the heartbeat and frees the lock.
#[derive(Debug)]
pub struct Ownership {
    lock: File,
    pulse: Arc<Pulse>,
    stop: Arc<AtomicBool>,
    beats: Option<JoinHandle<()>>,
}

impl Drop for Ownership {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(beats) = self.beats.take() {
            beats.thread().unpark();
            drop(beats.join());
        }
        drop(self.lock.unlock());
    }
}

impl Ownership {
    /// Shows the epoch in the heartbeat from now on.
    pub fn set_epoch(&self, epoch: u64) {
        self.pulse.set_epoch(epoch);
        if let Some(beats) = &self.beats {
            beats.thread().unpark();
        }
    }
}

/// The process that holds a lock: its id and when it was started (clock ticks since boot).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holder {
    pid: u32,
    started: u64,
}

/// Takes the home's lock, or finds out that somebody else drives it. Takes up to about [`STALE`]
/// where the owner is stuck, and about a second where it is alive.
///
/// # Errors
/// [`OwnershipError`]: files that cannot be used, or a stuck owner that cannot be ended.
pub fn acquire(home: &Home, pulse: &Arc<Pulse>) -> Result<Acquired, OwnershipError> {
    let path = home.engine_lock();
    let lock = open_private(&path)?;
    let mut watch: Option<Observation> = None;
    loop {
        match lock.try_lock() {
            Ok(()) => return settle(home, lock, pulse).map(Acquired::Ours),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => {
                return Err(OwnershipError::File { doing: "cannot lock", path, source });
            }
        }
        let now = Observation::make(home, &path);
        let Some(first) = &watch else {
            watch = Some(now);
            std::thread::sleep(LOOK);
            continue;
        };
        if now.beat != first.beat {
            return Ok(Acquired::Other(now.holder.map(|h| h.pid)));
        }
        if now.holder != first.holder {
            // Another process has taken the lock meanwhile and is about to beat.
            watch = Some(now);
        } else if now.stale_since(first) {
            let Some(holder) = now.holder else { return Err(OwnershipError::Nameless(path)) };
            end(home, &path, holder)?;
            watch = None;
        }
        std::thread::sleep(LOOK);
    }
}

/// What a waiter sees at one moment.
struct Observation {
    at: Instant,
    beat: Vec<u8>,
    /// Since the file was written, by the wall clock.
    age: Duration,
    holder: Option<Holder>,
}

impl Observation {
    fn make(home: &Home, lock: &Path) -> Self {
        let holder = holder(home, lock);
        let beat = std::fs::read(home.engine_heartbeat()).unwrap_or_default();
        // A clock that was set meanwhile makes the age wrong, which is why it is only a hint.
        let written = std::fs::metadata(home.engine_heartbeat()).and_then(|meta| meta.modified());
        let age = written.ok().and_then(|at| at.elapsed().ok()).unwrap_or_default();
        Self { at: Instant::now(), beat, age, holder }
    }

    /// Whether nothing has moved for long enough since an observation of the same.
    fn stale_since(&self, first: &Self) -> bool {
        let watched = self.at.duration_since(first.at);
        watched >= STALE || (watched >= CONFIRM && self.age >= STALE)
    }
}

fn open_private(path: &Path) -> Result<File, OwnershipError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| OwnershipError::File {
            doing: "cannot open",
            path: path.to_owned(),
            source,
        })
}

/// With the lock in hand: beat at once, then say who we are.
fn settle(home: &Home, lock: File, pulse: &Arc<Pulse>) -> Result<Ownership, OwnershipError> {
    // Nothing below can be written on a full disk.
    super::room::look(home);
    let path = home.engine_heartbeat();
    let beat_file = open_private(&path)?;
    let failed =
        |source| OwnershipError::File { doing: "cannot write", path: path.clone(), source };
    // Longer leftovers would make the content ambiguous.
    beat_file.set_len(0).map_err(failed)?;
    let mut counter = 0;
    beat(&beat_file, pulse, &mut counter).map_err(failed)?;
    write_pid(home)?;
    let stop = Arc::new(AtomicBool::new(false));
    let beats = {
        let (pulse, stop) = (Arc::clone(pulse), Arc::clone(&stop));
        std::thread::Builder::new()
            .name("heartbeat".into())
            .spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    std::thread::park_timeout(BEAT);
                    if pulse.alive()
                        && let Err(error) = beat(&beat_file, &pulse, &mut counter)
                    {
                        tracing::error!(%error, "cannot write the heartbeat");
                    }
                }
            })
            .map_err(failed)?
    };
    Ok(Ownership { lock, pulse: Arc::clone(pulse), stop, beats: Some(beats) })
}

/// One beat: the whole content in one write. Both numbers only grow, so the text never gets
/// shorter and no end of an older one stays behind.
fn beat(file: &File, pulse: &Pulse, counter: &mut u64) -> io::Result<()> {
    *counter += 1;
    file.write_all_at(format!("{} {counter}\n", pulse.epoch()).as_bytes(), 0)
}

fn write_pid(home: &Home) -> Result<(), OwnershipError> {
    let path = home.pid("engine");
    let fresh = path.with_extension("pid.new");
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        write!(file, "{}", std::process::id())?;
        std::fs::rename(&fresh, &path)
    };
    write().map_err(|source| OwnershipError::File {
        doing: "cannot write",
        path: path.clone(),
        source,
    })
}

/// Ends exactly this process, if it still holds the lock and still does not beat.
fn end(home: &Home, lock: &Path, holder: Holder) -> Result<(), OwnershipError> {
    let stuck = |why: String| OwnershipError::Stuck { pid: holder.pid, path: lock.to_owned(), why };
    let Some(pid) = i32::try_from(holder.pid).ok().and_then(Pid::from_raw) else {
        return Err(stuck("not a process id".into()));
    };
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(stuck(error.to_string())),
    };
    // The descriptor names one process for good; only now is it certain that it is the right one.
    if self::holder(home, lock) != Some(holder) {
        return Ok(());
    }
    tracing::warn!(
        pid = holder.pid,
        "the owner of this home has not moved for {} s: ending it and taking over",
        STALE.as_secs()
    );
    match pidfd_send_signal(&pidfd, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(stuck(error.to_string())),
    }
    let started = Instant::now();
    while started.elapsed() < END_MAX {
        let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        match poll(&mut fds, Some(&second)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(stuck(error.to_string())),
        }
    }
    Err(stuck(format!("it did not end within {} s of SIGKILL", END_MAX.as_secs())))
}

/// The process that holds the lock: the one that `engine.pid` names, else whichever it is.
fn holder(home: &Home, lock: &Path) -> Option<Holder> {
    let meta = std::fs::metadata(lock).ok()?;
    let key = (meta.dev(), meta.ino());
    let named = std::fs::read_to_string(home.pid("engine"))
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok());
    if let Some(pid) = named
        && holds(pid, key)
    {
        return identify(pid);
    }
    std::fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .find(|pid| holds(*pid, key))
        .and_then(identify)
}

/// Whether a process has the file open and an flock on it.
fn holds(pid: u32, key: (u64, u64)) -> bool {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries.filter_map(Result::ok).any(|entry| {
        let Ok(meta) = std::fs::metadata(entry.path()) else { return false };
        if (meta.dev(), meta.ino()) != key {
            return false;
        }
        let info = format!("/proc/{pid}/fdinfo/{}", entry.file_name().display());
        std::fs::read_to_string(info).is_ok_and(|text| {
            text.lines().any(|line| line.starts_with("lock:") && line.contains("FLOCK"))
        })
    })
}

/// Adds the start time, which tells two processes with the same id apart.
fn identify(pid: u32) -> Option<Holder> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the fields are counted behind its end.
    let (_, fields) = stat.rsplit_once(')')?;
    let started = fields.split_whitespace().nth(19)?.parse().ok()?;
    Some(Holder { pid, started })
}
