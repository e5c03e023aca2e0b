//! `tidegate shim`: the parent of one instance. Small, and independent of the host's life.
//!
//! It leads its own session, takes the lock of the instance's folder, starts `exec-instance` in a
//! process group of its own, copies its output to rotated files and keeps how it ended. SIGTERM
//! asks it to stop the instance: stop signal, grace, SIGKILL, each to the whole group.

mod exec;
pub(crate) mod logs;
pub(crate) mod mask;
pub(crate) mod spec;

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::rc::Rc;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process_group, setsid};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

pub use exec::exec_instance;
pub(crate) use exec::secret_value;

use crate::process::{Process, ProcessId, boot_id, signal_by_name};
use crate::state::files;
use logs::LogFile;
use mask::{Masker, Patterns};
use spec::{Ended, Phase, ShimSpec, ShimStatus, lock_path, status_path};

/// How long output is still read after the instance and its group are gone.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// Runs the instance that `spec_path` describes until it ends. The outcome is in `status.json`
/// beside it; the exit code only says whether the shim did its work.
#[must_use]
pub fn shim(spec_path: &Path) -> ExitCode {
    // Fails only for a process that leads its group: then it has been detached already.
    let _ = setsid();
    match shim_inner(spec_path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("shim of {}: {e}", spec_path.display());
            ExitCode::FAILURE
        }
    }
}

fn shim_inner(spec_path: &Path) -> io::Result<()> {
    let folder = spec_path.parent().unwrap_or_else(|| Path::new("."));
    let lock = File::options().write(true).create(true).truncate(false).open(lock_path(folder))?;
    // Waits for the shim of an earlier generation, if there is one on its way out.
    lock.lock()?;
    // A host that has given this start up has removed the spec; it did so before it looked at the
    // lock, so whoever holds the lock and still finds the spec is the one to run it.
    let Some(spec) = files::read_json::<ShimSpec>(spec_path)? else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, run(spec_path, folder, spec))
}

struct Keeper {
    folder: PathBuf,
    durable: bool,
    status: ShimStatus,
}

impl Keeper {
    fn write(&self) -> io::Result<()> {
        files::replace_json(&status_path(&self.folder), &self.status, self.durable)
    }
}

async fn run(spec_path: &Path, folder: &Path, spec: ShimSpec) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    // Taken so that they do not end the shim.
    let _hangup = signal(SignalKind::hangup())?;
    let _interrupt = signal(SignalKind::interrupt())?;
    let mut keeper = Keeper {
        folder: folder.to_owned(),
        durable: spec.durable,
        status: ShimStatus {
            generation: spec.generation,
            boot: boot_id(),
            shim: ProcessId::own()?,
            instance: None,
            notes: Vec::new(),
            phase: Phase::Starting,
        },
    };
    keeper.write()?;
    let (mut child, report) = match start(spec_path) {
        Ok(started) => started,
        Err(e) => {
            keeper.status.phase = Phase::Failed { why: format!("cannot start a process: {e}") };
            return keeper.write();
        }
    };
    let pumps = pump(&mut child, &spec);
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    let id =
        ProcessId::of(pid).ok_or_else(|| io::Error::other("the instance has no /proc entry"))?;
    let process = Process::open(id).ok_or_else(|| io::Error::other("no pidfd of the instance"))?;
    keeper.status.instance = Some(id);
    let failed = until_executed(report, &mut keeper.status.notes).await;
    if failed.is_none() {
        keeper.status.phase = Phase::Running;
        keeper.write()?;
        announce();
    }
    let mut ended = until_ended(&process, &spec, &mut terminate).await;
    // The instance is a zombie until it is reaped below, so its group's number is still its own.
    signal_group(pid, Signal::KILL);
    let exit = child.wait()?;
    let _ = tokio::time::timeout(LAST_OUTPUT, async {
        for pump in pumps {
            let _ = pump.await;
        }
    })
    .await;
    ended.code = exit.code();
    ended.signal = exit.signal();
    keeper.status.phase = match failed {
        Some(why) => Phase::Failed { why },
        None => Phase::Ended(ended),
    };
    keeper.write()
}

fn start(spec_path: &Path) -> io::Result<(Child, OwnedFd)> {
    let (report, write_end) = pipe_with(PipeFlags::CLOEXEC)?;
    // This very program, also when its file has been replaced by an upgrade since.
    let child = Command::new("/proc/self/exe")
        .arg("exec-instance")
        .arg(spec_path)
        .env(spec::PARENT_VARIABLE, std::process::id().to_string())
        .stdin(Stdio::from(write_end))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    Ok((child, report))
}

/// Tells the host, if it is still there, that the status says "running". Standard output is a pipe
/// to it.
fn announce() {
    use std::io::Write;
    let mut out = io::stdout().lock();
    let _ = out.write_all(b"running\n");
    let _ = out.flush();
}

/// Reads what `exec-instance` has to say; its end without a failure means that the command runs.
async fn until_executed(report: OwnedFd, notes: &mut Vec<String>) -> Option<String> {
    let mut text = Vec::new();
    if let Ok(pipe) = pipe::Receiver::from_owned_fd(report) {
        let _ = pipe.take(64 << 10).read_to_end(&mut text).await;
    }
    let mut failed = None;
    for line in String::from_utf8_lossy(&text).lines() {
        if let Some(why) = line.strip_prefix("fail ") {
            failed = Some(why.to_owned());
        } else if let Some(note) = line.strip_prefix("warn ") {
            notes.push(note.to_owned());
        }
    }
    failed
}

async fn until_ended(
    process: &Process,
    spec: &ShimSpec,
    terminate: &mut tokio::signal::unix::Signal,
) -> Ended {
    let mut ended = Ended::default();
    let mut deadline = spec.timeout_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
    loop {
        tokio::select! {
            () = process.ended() => return ended,
            _ = terminate.recv(), if !ended.stopped => {
                ended.stopped = true;
                let name = signal_by_name(&spec.stop_signal).unwrap_or(Signal::TERM);
                signal_group(process.id.pid, name);
                deadline = Some(Instant::now() + Duration::from_millis(spec.grace_ms));
            }
            () = until(deadline) => {
                ended.timed_out = ended.timed_out || !ended.stopped;
                signal_group(process.id.pid, Signal::KILL);
                deadline = Some(Instant::now() + Duration::from_secs(1));
            }
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn signal_group(pid: i32, signal: Signal) {
    if let Some(group) = Pid::from_raw(pid) {
        let _ = kill_process_group(group, signal);
    }
}

fn pump(child: &mut Child, spec: &ShimSpec) -> Vec<tokio::task::JoinHandle<()>> {
    let open =
        |path: &Path| Rc::new(RefCell::new(LogFile::open(path, spec.log_bytes, spec.log_files)));
    let out = open(&spec.stdout);
    let err = if spec.stderr == spec.stdout { Rc::clone(&out) } else { open(&spec.stderr) };
    let values = spec.secrets.iter().map(|name| std::fs::read(spec.secrets_folder.join(name)));
    let secrets = Patterns::new(&values.filter_map(Result::ok).collect::<Vec<_>>());
    let mut pumps = Vec::new();
    if let Some(pipe) = child.stdout.take() {
        pumps.push(tokio::task::spawn_local(copy(OwnedFd::from(pipe), out, secrets.clone())));
    }
    if let Some(pipe) = child.stderr.take() {
        pumps.push(tokio::task::spawn_local(copy(OwnedFd::from(pipe), err, secrets)));
    }
    pumps
}

async fn copy(from: OwnedFd, to: Rc<RefCell<LogFile>>, secrets: Patterns) {
    let Ok(mut pipe) = pipe::Receiver::from_owned_fd(from) else { return };
    let mut masker = Masker::new(secrets);
    let mut chunk = vec![0_u8; 16 << 10];
    while let Ok(n @ 1..) = pipe.read(&mut chunk).await {
        let piece = masker.feed(chunk.get(..n).unwrap_or_default());
        to.borrow_mut().append(&piece);
    }
    to.borrow_mut().append(&masker.finish());
}
