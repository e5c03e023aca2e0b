//! The life of the engine, while it has unfinished work: it is started again when it dies, and a
//! successor is started when it lives and does not move.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::child::{Pauses, spawn};
use crate::host::Host;
use crate::process::{Process, of_pid_file};

/// First pause between two starts of an engine.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause.
const PAUSE_MOST: Duration = Duration::from_secs(10);
/// A heartbeat that stands still for longer means that the engine is stuck.
const STILL: Duration = Duration::from_secs(3);
/// How long an engine that was started may wait to become the owner before another one is started.
const TURN: Duration = Duration::from_secs(10);
/// Between two looks at the heartbeat; only while work is open.
const LOOK: Duration = Duration::from_millis(500);

/// Watches while work is open. Never returns.
pub(crate) async fn watch(host: Arc<Host>) {
    let mut pauses = Pauses::new(PAUSE_FIRST, PAUSE_MOST);
    let mut started: Option<Process> = None;
    loop {
        let changed = host.state_changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if !host.inner().state.work_open {
            changed.await;
            continue;
        }
        let why = tokio::select! {
            why = lost(&host) => why,
            () = closed(&host) => continue,
        };
        // One that was started and has not become the owner: it may be waiting for its turn.
        if let Some(waiting) = started.take().filter(|engine| is_waiting(&host, engine)) {
            tokio::select! {
                () = waiting.ended() => {}
                () = tokio::time::sleep(TURN) => {}
                () = closed(&host) => {}
            }
            continue;
        }
        let heard = host.contact.subscribe();
        tracing::warn!("the engine is started again: {why}");
        match spawn(&host, "engine", &host.config.engine.clone()) {
            Ok(engine) => {
                let before = *heard.borrow();
                settle(&host, &engine, before, &mut pauses).await;
                started = Some(engine);
            }
            Err(why) => {
                tracing::error!("{why}");
                tokio::time::sleep(pauses.next()).await;
            }
        }
    }
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

/// Gives a new engine time to show itself: until it has been heard, has ended, or has been silent
/// for as long as would be called stuck (from then on the heartbeat is watched as always).
async fn settle(host: &Arc<Host>, engine: &Process, before: Instant, pauses: &mut Pauses) {
    let mut contact = host.contact.subscribe();
    let pause = pauses.next();
    tokio::select! {
        heard = async { contact.wait_for(|heard| *heard != before).await.is_ok() } => {
            if heard {
                pauses.forgive();
            }
        }
        () = engine.ended() => tokio::time::sleep(pause).await,
        () = tokio::time::sleep(STILL) => {}
        () = closed(host) => {}
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
