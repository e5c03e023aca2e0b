//! The life of the switch: one is always running, and its listening sockets survive it.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use tidegate_ipc::sockets::Holder;
use tokio::time::Instant;

use crate::child::{Pauses, spawn};
use crate::config::HostError;
use crate::host::Host;
use crate::process::of_pid_file;
use crate::switch_link;

/// First pause before the switch is started again.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Longest pause.
const PAUSE_MOST: Duration = Duration::from_secs(5);
/// A switch that has run for so long is started again at once.
const PROVEN: Duration = Duration::from_secs(10);
/// How long another starter's switch may take until its `.pid` file is there.
const PID_FILE: Duration = Duration::from_millis(200);

/// Keeps the switch's sockets while it is away.
pub(crate) fn hold_sockets(host: &Host) -> Result<(), HostError> {
    let path = host.config.home.socket("sockets");
    let listener = tidegate_ipc::bind(&path)?;
    listener
        .into_std()
        .and_then(|listener| Holder::new().spawn(listener))
        .map_err(HostError::io("serve", &path))
}

/// Starts the switch whenever there is none. Never returns.
pub(crate) async fn watch(host: Arc<Host>, arguments: Vec<OsString>) {
    let mut pauses = Pauses::new(PAUSE_FIRST, PAUSE_MOST);
    let home = host.config.home.clone();
    loop {
        let started = Instant::now();
        let mut fresh = false;
        let running = match of_pid_file(&home.pid("switch"), &["switch"], home.root()) {
            Some(running) => Ok(running),
            None => {
                fresh = true;
                spawn(&host, "switch", &arguments).map(|spawned| spawned.process)
            }
        };
        match running {
            Ok(running) => {
                tracing::info!("the switch runs as process {}", running.id.pid);
                if fresh {
                    switch_link::tell_all(&host, true);
                }
                host.switch_started.notify_one();
                running.ended().await;
                switch_link::trouble(&host, "the switch has ended and is started again".to_owned());
                if let Some(other) = other(&host).await {
                    // The one that was started has found another one and left it the place.
                    other.ended().await;
                }
            }
            Err(why) => {
                tracing::error!("{why}");
                switch_link::trouble(&host, why);
            }
        }
        if started.elapsed() >= PROVEN {
            pauses.forgive();
            continue;
        }
        tokio::time::sleep(pauses.next()).await;
    }
}

/// Another switch than the one that has just ended.
async fn other(host: &Host) -> Option<crate::process::Process> {
    let home = &host.config.home;
    let found = of_pid_file(&home.pid("switch"), &["switch"], home.root());
    if found.is_none() && home.socket("switch").exists() && !home.pid("switch").exists() {
        tokio::time::sleep(PID_FILE).await;
        return of_pid_file(&home.pid("switch"), &["switch"], home.root());
    }
    found
}
