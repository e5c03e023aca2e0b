//! Starting an instance behind a shim.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::capacity::VersionCapacity;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use super::command::{Folders, Values, environment, place_secrets};
use super::{At, SlotFile};
use crate::host::Host;
use crate::process::{Process, ProcessId};
use crate::shim::spec::{Ended, Phase, ShimSpec, ShimStatus, spec_path, status_path};
use crate::state::files;

/// How long a shim may take until the start command runs.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// An instance with its shim.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) at: At,
    pub(crate) spec: ShimSpec,
    pub(crate) shim: Process,
    pub(crate) instance: Option<Process>,
    pub(crate) since: Instant,
    /// It was ready under the host's former life.
    pub(crate) was_ready: bool,
}

impl Running {
    /// Returns when the instance or its shim has ended, whichever is first.
    pub(crate) async fn ended(&self) {
        match &self.instance {
            Some(instance) => {
                tokio::select! {
                    () = instance.ended() => {}
                    () = self.shim.ended() => {}
                }
            }
            None => self.shim.ended().await,
        }
    }
}

/// The folder of an instance.
pub(crate) fn folders(host: &Host, name: &str) -> Folders {
    Folders { root: host.config.home.host().join("instances").join(name) }
}

/// Starts the next generation of a slot and returns when its start command runs.
///
/// # Errors
/// A sentence for a person.
pub(crate) async fn start(
    host: &Arc<Host>,
    name: &str,
    last_generation: u64,
) -> Result<Running, String> {
    let known = host.with_slot(name, |slot| SlotFile {
        lane: slot.lane.clone(),
        index: slot.index,
        capacity: slot.capacity.clone(),
        at: At {
            // Above the last one, and above those of a namesake whose folder is gone.
            generation: crate::process::now_ms().max(last_generation + 1),
            port: 0,
        },
        ready: false,
        restarts: slot.view.restarts,
        crash: slot.view.crash.as_ref().map(|(_, text)| text.clone()),
    });
    let mut file = known.ok_or("the instance is no longer wanted")?;
    let (host, name) = (Arc::clone(host), name.to_owned());
    let prepared = {
        let (host, name) = (Arc::clone(&host), name.clone());
        tokio::task::spawn_blocking(move || {
            let spec = prepare(&host, &name, &mut file)?;
            Ok::<_, String>((spec, file.at))
        })
    };
    let (spec, at) = prepared.await.map_err(|e| e.to_string())??;
    let folders = folders(&host, &name);
    let (shim, instance, notes) = launch(&host, &folders.root, &spec).await?;
    if !notes.is_empty() {
        host.inner().unenforced.entry(name).or_default().extend(notes);
        host.bump();
    }
    Ok(Running { at, spec, shim, instance, since: Instant::now(), was_ready: false })
}

/// Everything on disk that the shim needs.
fn prepare(host: &Host, name: &str, file: &mut SlotFile) -> Result<ShimSpec, String> {
    let capacity: &VersionCapacity = &file.capacity;
    let service = &capacity.service;
    if !host.store.has(&capacity.digest) {
        return Err(format!("its artifact {} is not on this host", capacity.digest.short()));
    }
    let folders = folders(host, name);
    let disk = |e: io::Error| format!("cannot write {}: {e}", folders.root.display());
    files::private_folder(&folders.root).map_err(disk)?;
    files::private_folder(&folders.work()).map_err(disk)?;
    place_secrets(&host.config.home, &service.secrets, &folders.secrets())?;
    file.at.port = reserve_port(host, name)?;
    let values = Values {
        port: Some(file.at.port),
        instance: name,
        version: &capacity.version,
        digest: &capacity.digest,
    };
    let artifact = host.store.folder(&capacity.digest);
    let mut command: Vec<String> = service.command.iter().map(|a| values.fill(a)).collect();
    let program = command.first().cloned().unwrap_or_default();
    let path = crate::artifact::runnable(&artifact, &program).map_err(|r| r.body.message)?;
    if let Some(first) = command.first_mut() {
        *first = path.display().to_string();
    }
    host.cgroups.remove(name);
    let group = host.cgroups.create(name, &service.resources);
    host.inner().unenforced.insert(name.to_owned(), group.unenforced.clone());
    let spec = ShimSpec {
        name: name.to_owned(),
        generation: file.at.generation,
        command,
        cwd: artifact,
        env: environment(service, &values, &folders),
        secrets: service.secrets.clone(),
        secrets_folder: folders.secrets(),
        cgroups: group.procs,
        stop_signal: service.stop.signal.clone(),
        grace_ms: service.stop.grace_ms,
        timeout_ms: None,
        stdout: folders.log("stdout"),
        stderr: folders.log("stderr"),
        log_bytes: host.config.log_bytes,
        log_files: host.config.log_files,
        durable: false,
    };
    forget_specs(&folders.root).map_err(disk)?;
    files::replace_json(&folders.root.join("slot.json"), file, false).map_err(disk)?;
    files::replace_json(&spec_path(&folders.root, spec.generation), &spec, false).map_err(disk)?;
    Ok(spec)
}

/// A port that no other slot has; the slot's own entry is made at once.
fn reserve_port(host: &Host, name: &str) -> Result<u16, String> {
    let mut inner = host.inner();
    let taken = inner.ports.iter().filter(|(owner, _)| *owner != name).map(|(_, p)| *p).collect();
    let port = super::ports::free(&taken).map_err(|e| e.to_string())?;
    inner.ports.insert(name.to_owned(), port);
    Ok(port)
}

/// Removes the specs of earlier starts: a shim that has not begun yet finds nothing to do.
pub(crate) fn forget_specs(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("spec.") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Starts the shim of a prepared folder and waits until the start command runs.
///
/// # Errors
/// A sentence for a person.
pub(crate) async fn launch(
    host: &Host,
    folder: &Path,
    spec: &ShimSpec,
) -> Result<(Process, Option<Process>, Vec<String>), String> {
    let path = spec_path(folder, spec.generation);
    let errors = File::options()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(folder.join("shim.log"))
        .map_err(|e| format!("cannot write {}: {e}", folder.display()))?;
    let mut shim = tokio::process::Command::new(&host.config.binary)
        .arg("shim")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .map_err(|e| format!("cannot start {} shim: {e}", host.config.binary.display()))?;
    let pid = shim.id().and_then(|id| i32::try_from(id).ok()).and_then(ProcessId::of);
    let process = pid.and_then(Process::open);
    let stdout = shim.stdout.take();
    // Reaped whenever it ends; it is not ended with this host.
    tokio::spawn(async move { shim.wait().await });
    let mut said = [0_u8; 8];
    if let Some(mut stdout) = stdout {
        let read = tokio::time::timeout(START_TIMEOUT, stdout.read_exact(&mut said)).await;
        if read.is_err() {
            if let Some(process) = &process {
                process.signal(rustix::process::Signal::KILL);
                process.ended().await;
            }
            return Err(format!("its shim did not start it within {} s", START_TIMEOUT.as_secs()));
        }
    }
    let status: Option<ShimStatus> = read_status(folder, spec.generation);
    match (status, process) {
        (Some(ShimStatus { phase: Phase::Failed { why }, .. }), _) => Err(why),
        (Some(status), Some(process)) => {
            Ok((process, status.instance.and_then(Process::open), status.notes))
        }
        (_, None) => Err("its shim ended at once; see shim.log in its folder".to_owned()),
        (None, _) => Err("its shim did not start it; see shim.log in its folder".to_owned()),
    }
}

/// The status that a shim has written for this start.
pub(crate) fn read_status(folder: &Path, generation: u64) -> Option<ShimStatus> {
    let status: Option<ShimStatus> = files::read_json(&status_path(folder)).ok().flatten();
    status.filter(|status| status.generation == generation)
}

/// How the start of this generation ended, as far as its shim could say.
pub(crate) fn read_end(folder: &Path, generation: u64) -> Result<Ended, String> {
    match read_status(folder, generation).map(|status| status.phase) {
        Some(Phase::Ended(ended)) => Ok(ended),
        Some(Phase::Failed { why }) => Err(why),
        Some(Phase::Starting | Phase::Running) | None => {
            Err("ended together with its shim".to_owned())
        }
    }
}

/// The folder of instances.
pub(crate) fn instances(host: &Host) -> PathBuf {
    host.config.home.host().join("instances")
}
