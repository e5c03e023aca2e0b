//! After a start of the host: which instances are still there? What lives is taken over as it is;
//! what is half-made is removed.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::sync::watch;
use tokio::time::Instant;

use super::start::{Running, forget_specs, instances, read_end, read_status};
use super::{Life, Slot, SlotFile, View, spawn, supervise, wanted};
use crate::host::Host;
use crate::process::Process;
use crate::shim::spec::{Phase, ShimSpec, ShimStatus, lock_path, spec_path};
use crate::state::files;

/// How long a shim that has been started by the former host may take to say so.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(20);

/// Takes over what the former host has left. To be called once, before anything else touches slots
/// or the switch.
pub(crate) async fn adopt(host: &Arc<Host>) -> std::io::Result<()> {
    let root = instances(host);
    files::private_folder(&root)?;
    for entry in std::fs::read_dir(&root)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match files::read_json::<SlotFile>(&path.join("slot.json")) {
            Ok(Some(file)) => take_over(host, &path, &name, file).await?,
            // Without this file no shim was ever started in there.
            Ok(None) | Err(_) => files::remove_folder(&path)?,
        }
    }
    Ok(())
}

async fn take_over(
    host: &Arc<Host>,
    folder: &Path,
    name: &str,
    file: SlotFile,
) -> std::io::Result<()> {
    let is_wanted = {
        let inner = host.inner();
        let lane = inner.state.lanes.get(&file.lane);
        lane.is_some_and(|lane| wanted(&lane.doc).contains_key(name))
    };
    let found = living(host, folder, &file).await?;
    if found.is_none() && !is_wanted {
        host.cgroups.remove(name);
        let old = host.config.home.host().join("old-logs");
        return supervise::clear(folder, &old, name);
    }
    let mut view = View { restarts: file.restarts, ..View::default() };
    view.crash = file.crash.map(|text| (0, text));
    match &found {
        Some(_) if !is_wanted => view.life = Life::Leaving(file.at),
        Some(running) if running.was_ready => view.life = Life::Ready(file.at),
        Some(_) => view.life = Life::Unready(file.at),
        None => {
            let why = match read_end(folder, file.at.generation) {
                Ok(end) => supervise::describe(host, name, &end),
                Err(why) => why,
            };
            view.restarts += 1;
            view.crash = Some((crate::process::now_ms(), format!("without a host: {why}")));
        }
    }
    let lane = file.lane.clone();
    let slot = Slot {
        lane: file.lane,
        capacity: file.capacity,
        index: file.index,
        wanted: watch::Sender::new(is_wanted),
        view,
    };
    let receiver = slot.wanted.subscribe();
    let mut inner = host.inner();
    inner.slots.insert(name.to_owned(), slot);
    inner.ports.insert(name.to_owned(), file.at.port);
    inner.untold.insert(lane);
    drop(inner);
    spawn(host, name, receiver, found, file.at.generation);
    Ok(())
}

/// The instance of this folder, if it and its shim live. If not, nothing of it does afterwards.
async fn living(host: &Host, folder: &Path, file: &SlotFile) -> std::io::Result<Option<Running>> {
    let generation = file.at.generation;
    let spec: Option<ShimSpec> = files::read_json(&spec_path(folder, generation)).ok().flatten();
    let status = read_status(folder, generation);
    let settled = match &status {
        Some(ShimStatus { phase: Phase::Starting, .. }) | None => {
            settle(folder, generation).await?
        }
        Some(_) => status,
    };
    let Some(status) = settled.filter(|status| status.boot == host.boot) else { return Ok(None) };
    let shim = Process::open(status.shim).filter(|shim| !shim.is_over());
    let instance = status.instance.and_then(Process::open).filter(|i| !i.is_over());
    let running = matches!(status.phase, Phase::Running);
    match (shim, spec) {
        (Some(shim), Some(spec)) if running => Ok(Some(Running {
            at: file.at,
            spec,
            was_ready: file.ready && instance.is_some(),
            shim,
            instance,
            since: Instant::now(),
        })),
        (shim, _) => {
            if let Some(instance) = instance {
                if let Some(group) = Pid::from_raw(instance.id.pid) {
                    let _ = kill_process_group(group, Signal::KILL);
                }
                let _ = tokio::time::timeout(PATIENCE, instance.ended()).await;
            }
            if let Some(shim) = shim {
                shim.signal(Signal::KILL);
                let _ = tokio::time::timeout(PATIENCE, shim.ended()).await;
            }
            Ok(None)
        }
    }
}

/// The former host died while the shim was being started. Takes the spec away, so that a shim that
/// has not read it finds nothing; then the lock tells whether there is one that has.
async fn settle(folder: &Path, generation: u64) -> std::io::Result<Option<ShimStatus>> {
    forget_specs(folder)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = read_status(folder, generation);
        let starting = matches!(&status, Some(ShimStatus { phase: Phase::Starting, .. }) | None);
        if !starting || !locked(folder)? || Instant::now() >= deadline {
            // Read again: it may have been written between the two looks.
            return Ok(read_status(folder, generation));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether a shim holds the folder.
pub(crate) fn locked(folder: &Path) -> std::io::Result<bool> {
    let file = File::options().write(true).create(true).truncate(false).open(lock_path(folder))?;
    match file.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(e)) => Err(e),
    }
}
