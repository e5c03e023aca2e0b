//! The life of the engine, while it has unfinished work: it is started again when it dies, and a
//! successor is started when it lives and does not move.

use std::sync::Arc;
use std::time::Duration;

use tidegate_wire::home::EXIT_JOURNAL;
use tokio::time::Instant;

use crate::child::{Pauses, spawn};
use crate::host::Host;
use crate::process::{Process, of_pid_file};

/// So many engines in a row that were heard and did not live long are each followed at once: what
/// kills an engine from outside is no reason to wait.
const AT_ONCE: u32 = 5;
/// Pause after further ones, and after one that ended before it was heard; doubled each time.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause.
const PAUSE_MOST: Duration = Duration::from_secs(60);
/// An engine that has lived for so long, or has done all work, is the first in its row.
const PROVEN: Duration = Duration::from_secs(3);
/// A heartbeat that stands still for longer means that the engine is stuck.
const STILL: Duration = Duration::from_secs(3);
/// How long an engine that was started may wait to become the owner before another one is started.
const TURN: Duration = Duration::from_secs(10);
/// Between two looks at the heartbeat; only while work is open. A successor has two seconds after
/// [`STILL`], of which this is a part.
const LOOK: Duration = Duration::from_millis(100);

/// Watches while work is open. Never returns.
pub(crate) async fn watch(host: Arc<Host>) {
    let (mut row, mut pause) = (Row::new(), Duration::ZERO);
    let mut started: Option<Process> = None;
    loop {
        let changed = host.state_changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if !host.inner().state.work_open {
            changed.await;
            continue;
        }
        let seen = Instant::now();
        let why = tokio::select! {
            why = lost(&host) => why,
            () = closed(&host) => {
                (row, pause) = (Row::new(), Duration::ZERO);
                continue;
            }
        };
        if seen.elapsed() >= PROVEN {
            (row, pause) = (Row::new(), Duration::ZERO);
        }
        // One that was started and has not become the owner: it may be waiting for its turn.
        if let Some(waiting) = started.take().filter(|engine| is_waiting(&host, engine)) {
            tokio::select! {
                () = waiting.ended() => {}
                () = tokio::time::sleep(TURN) => {}
                () = closed(&host) => {}
            }
            continue;
        }
        if !pause.is_zero() {
            tokio::time::sleep(std::mem::take(&mut pause)).await;
            // Meanwhile a verb may have started one, or the work may be done.
            continue;
        }
        tracing::warn!("the engine is started again: {why}");
        match start(&host).await {
            Ok((engine, shown)) => {
                pause = row.pause_after(shown);
                if shown == Shown::Ended(Some(EXIT_JOURNAL)) {
                    tracing::error!(
                        "the engine cannot read its journal, see engine.log; the next try is in {} s",
                        pause.as_secs()
                    );
                }
                started = Some(engine);
            }
            Err(why) => {
                tracing::error!("{why}");
                pause = row.pauses.next();
            }
        }
    }
}

/// What a new engine has shown of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// It has spoken to us.
    Heard,
    /// It has ended before that; its exit code, none where a signal has ended it.
    Ended(Option<i32>),
    /// Nothing yet.
    Silent,
}

/// Engines that have died one after the other and did not live long.
#[derive(Debug)]
struct Row {
    heard: u32,
    pauses: Pauses,
}

impl Row {
    fn new() -> Self {
        Self { heard: 0, pauses: Pauses::new(PAUSE_FIRST, PAUSE_MOST) }
    }

    /// How long the next one waits when this one dies soon.
    fn pause_after(&mut self, shown: Shown) -> Duration {
        match shown {
            Shown::Heard if self.heard < AT_ONCE => {
                self.heard += 1;
                Duration::ZERO
            }
            Shown::Ended(Some(EXIT_JOURNAL)) => PAUSE_MOST,
            Shown::Heard | Shown::Ended(_) | Shown::Silent => self.pauses.next(),
        }
    }
}

/// Starts an engine and gives it time to show itself: until it has been heard, has ended, or has
/// been silent for as long as would be called stuck (from then on the heartbeat is watched as
/// always).
async fn start(host: &Arc<Host>) -> Result<(Process, Shown), String> {
    let mut contact = host.contact.subscribe();
    // Every engine claims a higher epoch: this tells it from its predecessor's last words.
    let before = host.inner().state.epoch;
    let spawned = spawn(host, "engine", &host.config.engine.clone())?;
    let shown = tokio::select! {
        biased;
        _ = contact.wait_for(|_| host.inner().state.epoch > before) => Shown::Heard,
        code = spawned.status => Shown::Ended(code.unwrap_or_default()),
        () = tokio::time::sleep(STILL) => Shown::Silent,
        () = closed(host) => Shown::Heard,
    };
    Ok((spawned.process, shown))
}

/// Whether this engine lives and is not the one in the `.pid` file.
fn is_waiting(host: &Host, engine: &Process) -> bool {
    !engine.is_over() && owner(host).is_none_or(|owner| owner.id != engine.id)
}

/// The engine that owns the home.
fn owner(host: &Host) -> Option<Process> {
    let home = &host.config.home;
    of_pid_file(&home.pid("engine"), &["engine", "serve"], home.root())
}

/// Returns when work is no longer open.
async fn closed(host: &Host) {
    loop {
        let changed = host.state_changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if !host.inner().state.work_open {
            return;
        }
        changed.await;
    }
}

/// Returns, with the reason, when there is no engine that moves.
async fn lost(host: &Host) -> String {
    let mut beat = read_beat(host);
    let mut moved = Instant::now();
    loop {
        let Some(engine) = owner(host) else {
            return "it is gone and has unfinished work".to_owned();
        };
        tokio::select! {
            () = engine.ended() => return "it ended with unfinished work".to_owned(),
            () = tokio::time::sleep(LOOK) => {}
        }
        let now = read_beat(host);
        if now != beat {
            beat = now;
            moved = Instant::now();
        } else if moved.elapsed() > STILL {
            return format!(
                "its heartbeat has stood still for {} ms (process {})",
                moved.elapsed().as_millis(),
                engine.id.pid
            );
        }
    }
}

fn read_beat(host: &Host) -> Option<Vec<u8>> {
    std::fs::read(host.config.home.engine_heartbeat()).ok()
}

#[cfg(test)]
mod tests {
    use super::{AT_ONCE, EXIT_JOURNAL, PAUSE_FIRST, PAUSE_MOST, Row, Shown};
    use std::time::Duration;

    #[test]
    fn engines_that_were_heard_are_followed_at_once_and_not_for_ever() {
        let mut row = Row::new();
        for _ in 0..AT_ONCE {
            assert_eq!(row.pause_after(Shown::Heard), Duration::ZERO);
        }
        assert_eq!(row.pause_after(Shown::Heard), PAUSE_FIRST);
        assert_eq!(row.pause_after(Shown::Heard), PAUSE_FIRST * 2);
    }

    #[test]
    fn engines_that_end_before_they_are_heard_are_followed_more_and_more_slowly() {
        let mut row = Row::new();
        assert_eq!(row.pause_after(Shown::Ended(Some(5))), PAUSE_FIRST);
        assert_eq!(row.pause_after(Shown::Silent), PAUSE_FIRST * 2);
        assert_eq!(row.pause_after(Shown::Ended(None)), PAUSE_FIRST * 4);
        assert_eq!(row.pause_after(Shown::Ended(Some(EXIT_JOURNAL))), PAUSE_MOST);
    }
}
