//! The task of one slot: start, watch, restart, stop, in an endless order. There is one task for
//! each name, so there are never two instances of the same one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::start::{Running, folders, read_end, start};
use super::stop::{drained, settled, stop};
use super::{Life, health};
use crate::host::Host;
use crate::process::signal_name;
use crate::shim::spec::Ended;
use crate::state::files;

/// The longest pause before a restart.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// After running for so long the pauses start from the shortest again.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);
/// How many logs of instances that are gone are kept.
const OLD_LOGS: usize = 20;

/// Pauses between restarts, as in Kubernetes: doubling, with a bound, forgiven after a while.
#[derive(Debug)]
struct BackOff {
    first: Duration,
    next: Duration,
}

impl BackOff {
    fn new(first: Duration) -> Self {
        Self { first, next: first }
    }

    fn after(&mut self, ran: Duration) -> Duration {
        if ran >= FORGIVEN_AFTER {
            self.next = self.first;
        }
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

/// How a life of an instance came to its end.
enum Outcome {
    /// By itself, or because a probe said so; why.
    Failed(String),
    /// It was to stop.
    Stopped,
}

/// Keeps the slot as it is wanted; ends when it is not wanted and everything of it is gone.
pub(super) async fn supervise(
    host: Arc<Host>,
    name: String,
    mut wanted: watch::Receiver<bool>,
    mut found: Option<Running>,
    mut generation: u64,
) {
    let first = Duration::from_millis(host.config.restart_after_ms.max(1));
    let mut back_off = BackOff::new(first);
    loop {
        if found.is_none() && !*wanted.borrow_and_update() {
            if finish(&host, &name).await {
                return;
            }
            continue;
        }
        let started = match found.take() {
            Some(running) => Ok(running),
            None => start(&host, &name, generation).await,
        };
        let pause = match started {
            Err(why) => {
                crashed(&host, &name, why);
                back_off.after(Duration::ZERO)
            }
            Ok(running) => {
                generation = running.at.generation;
                match live(&host, &name, &running, &mut wanted).await {
                    Outcome::Stopped => {
                        down(&host, &name);
                        continue;
                    }
                    Outcome::Failed(why) => {
                        crashed(&host, &name, why);
                        back_off.after(running.since.elapsed())
                    }
                }
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = until(&mut wanted, false) => continue,
        }
        host.with_slot(&name, |slot| slot.view.restarts += 1);
    }
}

/// Returns when the slot is wanted, or is not.
async fn until(wanted: &mut watch::Receiver<bool>, is: bool) {
    // The sender lives as long as the slot; without one nothing is wanted any more.
    if wanted.wait_for(|wanted| *wanted == is).await.is_err() && is {
        std::future::pending::<()>().await;
    }
}

/// From a running process to its end.
async fn live(
    host: &Arc<Host>,
    name: &str,
    running: &Running,
    wanted: &mut watch::Receiver<bool>,
) -> Outcome {
    let mut ready = running.was_ready;
    let (up, unready) = (Life::Ready(running.at), Life::Unready(running.at));
    loop {
        // One that is not wanted (found by a new host) must not be shown as ready even once.
        if *wanted.borrow() {
            set_life(host, name, if ready { up.clone() } else { unready.clone() });
            tokio::select! {
                () = running.ended() => return ended(host, name, running).await,
                why = health::watch(host, name, running, ready) => {
                    set_life(host, name, Life::Failing);
                    stop(running).await;
                    return Outcome::Failed(why);
                }
                () = until(wanted, false) => {}
            }
            ready = host.with_slot(name, |slot| slot.view.life == up).unwrap_or(false);
        }
        set_life(host, name, Life::Leaving(running.at));
        health::remember(host, name, running.at, false);
        tokio::select! {
            () = running.ended() => {
                settled(running).await;
                return Outcome::Stopped;
            }
            () = drained(host, name, running) => {}
            // Wanted again before it was told anything: it serves on.
            () = until(wanted, true) => continue,
        }
        stop(running).await;
        return Outcome::Stopped;
    }
}

/// The process is gone: first the switch, then why.
async fn ended(host: &Arc<Host>, name: &str, running: &Running) -> Outcome {
    set_life(host, name, Life::Failing);
    settled(running).await;
    let folder = folders(host, name).root;
    Outcome::Failed(match read_end(&folder, running.at.generation) {
        Err(why) => why,
        Ok(end) => describe(host, name, &end),
    })
}

pub(super) fn describe(host: &Host, name: &str, end: &Ended) -> String {
    if host.cgroups.oom_kills(name) > 0 && (end.signal == Some(9) || end.code == Some(137)) {
        let limit = host.with_slot(name, |s| s.capacity.service.resources.memory_bytes).flatten();
        let limit = limit.map_or_else(String::new, |bytes| format!(" (limit {})", size(bytes)));
        return format!("killed: out of memory{limit}");
    }
    match (end.code, end.signal) {
        (Some(code), _) => format!("ended with exit status {code}; see its log"),
        (None, Some(signal)) => format!("killed by {}; see its log", signal_name(signal)),
        (None, None) => "ended; see its log".to_owned(),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 && b % (1 << 30) == 0 => format!("{} GiB", b >> 30),
        b if b >= 1 << 20 => format!("{} MiB", b >> 20),
        b => format!("{} KiB", b >> 10),
    }
}

fn set_life(host: &Host, name: &str, life: Life) {
    host.with_slot(name, |slot| slot.view.life = life);
}

fn crashed(host: &Host, name: &str, why: String) {
    tracing::warn!("instance {name}: {why}");
    host.with_slot(name, |slot| {
        slot.view.life = Life::Down;
        slot.view.probe = None;
        slot.view.crash = Some((crate::process::now_ms(), why));
    });
}

fn down(host: &Host, name: &str) {
    host.with_slot(name, |slot| {
        slot.view.life = Life::Down;
        slot.view.probe = None;
    });
}

/// Removes what is left of a slot that is not wanted. False if it is wanted again meanwhile.
async fn finish(host: &Arc<Host>, name: &str) -> bool {
    let folder = folders(host, name).root;
    let old = host.config.home.host().join("old-logs");
    let cleared = {
        let (host, name) = (Arc::clone(host), name.to_owned());
        tokio::task::spawn_blocking(move || {
            host.cgroups.remove(&name);
            clear(&folder, &old, &name)
        })
        .await
    };
    if let Ok(Err(e)) = cleared {
        tracing::warn!("cannot remove the folder of instance {name}: {e}");
    }
    let mut inner = host.inner();
    let Some(slot) = inner.slots.get(name) else { return true };
    if *slot.wanted.borrow() {
        return false;
    }
    let lane = slot.lane.clone();
    inner.slots.remove(name);
    inner.ports.remove(name);
    inner.unenforced.remove(name);
    inner.untold.insert(lane);
    drop(inner);
    host.link.notify_one();
    host.bump();
    true
}

/// Keeps the logs, removes the rest.
pub(super) fn clear(folder: &std::path::Path, old: &std::path::Path, name: &str) -> io::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    files::private_folder(old)?;
    let kept = old.join(name);
    files::remove_folder(&kept)?;
    files::private_folder(&kept)?;
    let mut any = false;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let file = entry.file_name().to_string_lossy().into_owned();
        if file.starts_with("stdout.log") || file.starts_with("stderr.log") {
            any |= entry.metadata()?.len() > 0;
            std::fs::rename(entry.path(), kept.join(file))?;
        }
    }
    if !any {
        files::remove_folder(&kept)?;
    }
    files::remove_folder(folder)?;
    let mut all = Vec::new();
    for entry in std::fs::read_dir(old)? {
        let entry = entry?;
        all.push((entry.metadata()?.modified()?, entry.path()));
    }
    all.sort();
    let surplus = all.len().saturating_sub(OLD_LOGS);
    for (_, path) in all.into_iter().take(surplus) {
        files::remove_folder(&path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_minutes_and_are_forgiven_after_ten_minutes_of_running() {
        let mut back_off = BackOff::new(Duration::from_secs(1));
        let pauses: Vec<u64> = (0..10).map(|_| back_off.after(Duration::ZERO).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(back_off.after(Duration::from_secs(599)).as_secs(), 300);
        assert_eq!(back_off.after(Duration::from_secs(600)).as_secs(), 1);
        assert_eq!(back_off.after(Duration::ZERO).as_secs(), 2);
    }
}
