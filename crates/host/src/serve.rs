//! `tidegate host`: from the lock to the last call.

use std::fs::{File, TryLockError};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::artifact::Store;
use crate::config::{HostConfig, HostError};
use crate::host::Host;
use crate::state::{HostState, files};
use crate::{api, engine_watch, fallback, instance, switch_link, switch_watch};

/// How often a held lock is asked for before it counts as that of a living host.
const LOCK_TRIES: u32 = 25;
/// Between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Runs the host of a home until SIGTERM or SIGINT; instances and switch go on without it. Detaches
/// itself into a session of its own unless it leads a process group already.
///
/// # Errors
/// [`HostError::Running`] if the home has a living host; else what could not be read or opened.
pub async fn run(config: HostConfig) -> Result<(), HostError> {
    // Fails only for a process that leads its group: then it has been detached already.
    let _ = rustix::process::setsid();
    let folder = config.home.host();
    files::private_folder(&folder).map_err(HostError::io("make", &folder))?;
    let _lock = lock(&config).await?;
    let state = read_state(&config)?;
    let artifacts = folder.join("artifacts");
    let store = Store::open(artifacts.clone()).map_err(HostError::io("open", &artifacts))?;
    let runs = folder.join("runs");
    files::private_folder(&runs).map_err(HostError::io("make", &runs))?;
    let pid = config.home.pid("host");
    files::replace(&pid, std::process::id().to_string().as_bytes(), false)
        .map_err(HostError::io("write", &pid))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(HostError::io("handle", &pid))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(HostError::io("handle", &pid))?;
    let host = Arc::new(Host::new(config, store, state));
    // Before anything speaks to the switch: an empty list from a host that has not looked yet
    // would take all instances out of service.
    instance::adopt::adopt(&host).await.map_err(HostError::io("take over", &folder))?;
    switch_watch::hold_sockets(&host)?;
    let listener = tidegate_ipc::bind(&host.config.home.socket("host"))?;
    instance::reconcile(&host);
    switch_link::tell_all(&host, false);
    let mut tasks = tokio::task::JoinSet::new();
    if let Some(arguments) = host.config.switch.clone() {
        tasks.spawn(switch_watch::watch(Arc::clone(&host), arguments));
    }
    tasks.spawn(switch_link::tell(Arc::clone(&host)));
    tasks.spawn(switch_link::observe(Arc::clone(&host)));
    tasks.spawn(engine_watch::watch(Arc::clone(&host)));
    tasks.spawn(fallback::watch(Arc::clone(&host)));
    let calls = axum::serve(listener, api::router(Arc::clone(&host)));
    tokio::select! {
        ended = calls => ended.map_err(HostError::io("serve", &host.config.home.socket("host")))?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let _ = std::fs::remove_file(host.config.home.pid("host"));
    Ok(())
}

/// The lock of a living host; dropped with the process. A child that a host was starting when it was
/// killed holds it for a moment more, so it is asked for a few times.
async fn lock(config: &HostConfig) -> Result<File, HostError> {
    let path = config.home.host().join("host.lock");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(HostError::io("open", &path))?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
            Err(TryLockError::Error(e)) => return Err(HostError::io("lock", &path)(e)),
        }
    }
    Err(HostError::Running { home: config.home.root().to_owned(), lock: path })
}

fn read_state(config: &HostConfig) -> Result<HostState, HostError> {
    let path = config.home.host().join("state.json");
    match files::read_json(&path) {
        Ok(state) => Ok(state.unwrap_or_default()),
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
            Err(HostError::State { path, why: e.to_string() })
        }
        Err(e) => Err(HostError::io("read", &path)(e)),
    }
}
