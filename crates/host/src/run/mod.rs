//! One-shots: at most once for each effect, whatever dies in between.
//!
//! `host/runs/HASH/run.json` says that the effect may have been started, durably, before it is. The
//! command runs behind a shim, which keeps how it ended, durably; `result.json` is the answer.

mod tail;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_core::Digest;
use tidegate_wire::host::{Run, RunEnded};
use tokio::sync::watch;

use crate::host::Host;
use crate::instance::adopt::locked;
use crate::instance::command::{Folders, Values, environment, place_secrets};
use crate::instance::start::{forget_specs, launch, read_status};
use crate::process::{Process, boot_id};
use crate::shim::spec::{Ended, Phase, ShimSpec, ShimStatus, spec_path};
use crate::state::{Refusal, files};

/// Every one-shot is the first generation of its folder.
const GENERATION: u64 = 1;
/// Between two looks at a shim that has not said anything yet.
const LOOK: Duration = Duration::from_millis(20);

/// An answer that may not be there yet.
type Answer = watch::Receiver<Option<Result<RunEnded, Refusal>>>;

/// All one-shots of this host.
#[derive(Debug)]
pub(crate) struct Runs {
    root: PathBuf,
    /// Those under way by effect, with the artifact that each uses.
    waiting: Mutex<BTreeMap<String, (Digest, Answer)>>,
}

/// That an effect may have been started.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Intent {
    effect: String,
    boot: String,
}

impl Runs {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root, waiting: Mutex::new(BTreeMap::new()) }
    }

    /// Artifacts that are in use.
    pub(crate) fn digests(&self) -> Vec<Digest> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.values().map(|(digest, _)| digest.clone()).collect()
    }

    fn folder(&self, effect: &str) -> PathBuf {
        self.root.join(Digest::of(effect.as_bytes()).hex())
    }
}

/// Runs the effect, or waits for the run that it has already, or repeats its answer.
pub(crate) async fn run(host: &Arc<Host>, asked: Run) -> Result<RunEnded, Refusal> {
    let mut answer = {
        let mut waiting = host.runs.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting.get(&asked.effect) {
            Some((_, answer)) => answer.clone(),
            None => {
                let (sender, receiver) = watch::channel(None);
                waiting.insert(asked.effect.clone(), (asked.digest.clone(), receiver.clone()));
                let host = Arc::clone(host);
                // Its own task: it goes on when the caller goes away.
                tokio::spawn(async move {
                    let effect = asked.effect.clone();
                    let answer = carry_out(&host, &asked).await;
                    sender.send_replace(Some(answer));
                    let mut waiting =
                        host.runs.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                    waiting.remove(&effect);
                });
                receiver
            }
        }
    };
    let lost = || {
        Refusal::new(
            500,
            tidegate_wire::error::ErrorBody::new("lost", "the run's task ended early", "run"),
        )
    };
    answer.wait_for(Option::is_some).await.map_err(|_| lost())?.clone().ok_or_else(lost)?
}

async fn carry_out(host: &Arc<Host>, asked: &Run) -> Result<RunEnded, Refusal> {
    let folders = Folders { root: host.runs.folder(&asked.effect) };
    let shown = folders.root.display().to_string();
    let disk = |e: std::io::Error| Refusal::io("cannot keep a one-shot's record", &shown, &e);
    let result = folders.root.join("result.json");
    if let Some(ended) = files::read_json::<RunEnded>(&result).map_err(disk)? {
        return Ok(ended);
    }
    let secrets = secret_values(host, asked);
    let ended = match files::read_json::<Intent>(&folders.root.join("run.json")).map_err(disk)? {
        Some(intent) => match resume(&folders.root, &intent).await.map_err(disk)? {
            Some(known) => known,
            // Nothing was started and nothing can be any more: it is started now.
            None => begin(host, asked, &folders).await?,
        },
        None => begin(host, asked, &folders).await?,
    };
    let ended = answer(&folders, ended, &secrets);
    files::replace_json(&result, &ended, true).map_err(disk)?;
    host.cgroups.remove(&cgroup_name(&asked.effect));
    let _ = files::remove_folder(&folders.secrets());
    let _ = files::remove_folder(&folders.work());
    Ok(ended)
}

/// What became of a one-shot.
enum Known {
    Ended(Ended),
    NotStarted(String),
    Unknown(String),
}

fn secret_values(host: &Host, asked: &Run) -> Vec<Vec<u8>> {
    let read = |name: &String| crate::instance::command::secret(&host.config.home, name).ok();
    asked.service.secrets.iter().filter_map(read).collect()
}

fn answer(folders: &Folders, known: Known, secrets: &[Vec<u8>]) -> RunEnded {
    let tail = || tail::tail(&folders.log("output"), secrets);
    match known {
        Known::Ended(Ended { timed_out: true, .. }) => RunEnded::TimedOut { tail: tail() },
        Known::Ended(ended) => RunEnded::Exited {
            status: ended.code.or_else(|| ended.signal.map(|s| 128 + s)).unwrap_or(-1),
            tail: tail(),
        },
        Known::NotStarted(why) => RunEnded::Exited { status: 127, tail: why },
        Known::Unknown(why) => RunEnded::Unknown { why },
    }
}

/// A former life of this host has written the intent. `None`: it is certain that nothing was
/// started and nothing will be.
async fn resume(folder: &Path, intent: &Intent) -> std::io::Result<Option<Known>> {
    loop {
        let status = read_status(folder, GENERATION);
        match status {
            Some(ShimStatus { phase: Phase::Ended(ended), .. }) => {
                return Ok(Some(Known::Ended(ended)));
            }
            Some(ShimStatus { phase: Phase::Failed { why }, .. }) => {
                return Ok(Some(Known::NotStarted(why)));
            }
            Some(status) => match Process::open(status.shim).filter(|shim| !shim.is_over()) {
                Some(shim) if status.boot == boot_id() => shim.ended().await,
                Some(_) | None => {
                    // It may have written its last word between the two looks.
                    return Ok(Some(match read_status(folder, GENERATION).map(|s| s.phase) {
                        Some(Phase::Ended(ended)) => Known::Ended(ended),
                        Some(Phase::Failed { why }) => Known::NotStarted(why),
                        Some(Phase::Starting | Phase::Running) | None => {
                            Known::Unknown(gone(&intent.boot))
                        }
                    }));
                }
            },
            None => {
                forget_specs(folder)?;
                if !locked(folder)? && read_status(folder, GENERATION).is_none() {
                    return Ok(None);
                }
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

fn gone(boot: &str) -> String {
    if *boot == boot_id() {
        "it was started, and its shim was killed before it could say how it ended".to_owned()
    } else {
        "it was started, and the machine went down before it ended".to_owned()
    }
}

async fn begin(host: &Arc<Host>, asked: &Run, folders: &Folders) -> Result<Known, Refusal> {
    let spec = {
        let (host, asked, folders) = (Arc::clone(host), asked.clone(), folders.clone());
        tokio::task::spawn_blocking(move || prepare(&host, &asked, &folders)).await.map_err(
            |e| Refusal::io("cannot start a one-shot", "run", &std::io::Error::other(e)),
        )??
    };
    let shim = match launch(host, &folders.root, &spec).await {
        Ok((shim, _, notes)) => {
            for note in notes {
                tracing::warn!("one-shot {}: {note}", asked.effect);
            }
            shim
        }
        Err(why) => {
            // What the status says counts; without any, nothing was executed only if no shim has
            // got as far as writing one.
            return Ok(match read_status(&folders.root, GENERATION).map(|s| s.phase) {
                Some(Phase::Ended(ended)) => Known::Ended(ended),
                Some(Phase::Failed { why }) => Known::NotStarted(why),
                Some(Phase::Starting | Phase::Running) => Known::Unknown(why),
                None => Known::NotStarted(why),
            });
        }
    };
    shim.ended().await;
    Ok(match read_status(&folders.root, GENERATION).map(|s| s.phase) {
        Some(Phase::Ended(ended)) => Known::Ended(ended),
        Some(Phase::Failed { why }) => Known::NotStarted(why),
        Some(Phase::Starting | Phase::Running) | None => Known::Unknown(gone(&boot_id())),
    })
}

/// A one-shot's group among those of instances.
fn cgroup_name(effect: &str) -> String {
    format!("run-{}", Digest::of(effect.as_bytes()).short())
}

/// Refuses what cannot be run before the intent is written; then everything on disk.
fn prepare(host: &Host, asked: &Run, folders: &Folders) -> Result<ShimSpec, Refusal> {
    if !host.store.has(&asked.digest) {
        return Err(Refusal::impossible(
            format!("the artifact {} is not on this host", asked.digest.short()),
            format!("one-shot of {}", asked.version),
            "stage it first",
        ));
    }
    let name = format!("run-{}", asked.service.name);
    let values =
        Values { port: None, instance: &name, version: &asked.version, digest: &asked.digest };
    let artifact = host.store.folder(&asked.digest);
    let mut command: Vec<String> = asked.command.iter().map(|a| values.fill(a)).collect();
    let program = command.first().cloned().unwrap_or_default();
    let path = crate::artifact::runnable(&artifact, &program)?;
    if let Some(first) = command.first_mut() {
        *first = path.display().to_string();
    }
    let shown = folders.root.display().to_string();
    let disk = |e: std::io::Error| Refusal::io("cannot keep a one-shot's record", &shown, &e);
    files::private_folder(&folders.root).map_err(disk)?;
    files::private_folder(&folders.work()).map_err(disk)?;
    place_secrets(&host.config.home, &asked.service.secrets, &folders.secrets()).map_err(
        |why| Refusal::impossible(why, format!("one-shot of {}", asked.version), "set the secret"),
    )?;
    let group = host.cgroups.create(&cgroup_name(&asked.effect), &asked.service.resources);
    let spec = ShimSpec {
        name: name.clone(),
        generation: GENERATION,
        command,
        cwd: artifact,
        env: environment(&asked.service, &values, folders),
        secrets: asked.service.secrets.clone(),
        secrets_folder: folders.secrets(),
        cgroups: group.procs,
        stop_signal: asked.service.stop.signal.clone(),
        grace_ms: asked.service.stop.grace_ms,
        timeout_ms: Some(asked.timeout_ms),
        stdout: folders.log("output"),
        stderr: folders.log("output"),
        log_bytes: host.config.log_bytes,
        log_files: host.config.log_files,
        durable: true,
    };
    let intent = Intent { effect: asked.effect.clone(), boot: boot_id() };
    files::replace_json(&spec_path(&folders.root, GENERATION), &spec, true).map_err(disk)?;
    files::replace_json(&folders.root.join("run.json"), &intent, true).map_err(disk)?;
    files::sync_folder(&host.runs.root).map_err(disk)?;
    Ok(spec)
}
