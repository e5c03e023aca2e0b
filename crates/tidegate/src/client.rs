//! Finds the engine of a home, and starts it when a verb needs it.

use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_ipc::{Client, IpcError};
use tidegate_journal::Reader;
use tidegate_wire::api::EngineStatus;
use tidegate_wire::home::{EXIT_JOURNAL, Home};

use crate::clock::Deadline;
use crate::exit::{Exit, Failure};
use crate::home;
use crate::roles::VERSION;

/// An engine that runs answers a question within so long; one that is stopped never does.
pub(crate) const ANSWER: Duration = Duration::from_millis(1500);
/// A new engine, or the successor of one that is stuck, answers within so long.
const START: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(25);
/// Before an engine is started again that ended by itself; doubled each time.
const AGAIN: Duration = Duration::from_millis(200);
/// So many engines that end by themselves, without another one that drives, are enough.
const ENDED_MAX: u32 = 4;

/// The engine of a home, spoken to.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    home: Home,
    client: Client,
}

impl Engine {
    /// The engine of this home if it answers now; starts nothing.
    pub(crate) async fn find(home: &Home) -> Option<(Self, EngineStatus)> {
        let engine = Self::at(home);
        let status = engine.client.get("/v1/engine", ANSWER).await.ok()?;
        Some((engine, status))
    }

    fn at(home: &Home) -> Self {
        Self { home: home.clone(), client: Client::new(&home.socket("engine")) }
    }

    /// The engine of this home, started if need be. The home's folder exists.
    ///
    /// # Errors
    /// If it does not answer within a bound, with the last lines of its log.
    pub(crate) async fn ensure(home: &Home) -> Result<Self, Failure> {
        let engine = Self::at(home);
        let deadline = Deadline::after(START);
        let mut log = Log::open(home, "engine")?;
        let mut child: Option<Child> = None;
        let mut ended: Option<ExitStatus> = None;
        let mut failures = 0;
        loop {
            // A process that is stopped takes connections and never answers; its successor opens a
            // socket of its own, so a short question is asked again and again.
            let wait = deadline.left(Duration::from_millis(400));
            if let Ok(status) = engine.client.get::<EngineStatus>("/v1/engine", wait).await {
                return understands(status.version.as_deref()).map(|()| engine);
            }
            if deadline.passed() {
                return Err(no_engine(home, &mut log, ended));
            }
            if let Some(running) = &mut child
                && let Ok(Some(status)) = running.try_wait()
            {
                ended = Some(status);
                child = None;
                failures += u32::from(!status.success());
                if status.code() == Some(EXIT_JOURNAL) {
                    return Err(damaged(home).unwrap_or_else(|| no_engine(home, &mut log, ended)));
                }
                if status.code() == Some(Exit::Input as i32) || failures == ENDED_MAX {
                    return Err(no_engine(home, &mut log, ended));
                }
                tokio::time::sleep(AGAIN * 2_u32.pow(failures)).await;
            }
            if child.is_none() {
                child = Some(spawn(home, "engine", &log)?);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// GET.
    ///
    /// # Errors
    /// [`IpcError`].
    pub(crate) async fn get<R: DeserializeOwned>(
        &self,
        path: &str,
        within: Duration,
    ) -> Result<R, IpcError> {
        self.client.get(path, within).await
    }

    /// GET of JSON lines.
    ///
    /// # Errors
    /// [`IpcError`].
    pub(crate) async fn lines<R: DeserializeOwned>(
        &self,
        path: &str,
        within: Duration,
    ) -> Result<Vec<R>, IpcError> {
        let reply = self.client.request("GET", path, bytes::Bytes::new(), within).await?;
        let socket = self.home.socket("engine");
        if !(200..300).contains(&reply.status) {
            let body = String::from_utf8_lossy(&reply.body).into_owned();
            return Err(IpcError::Status { socket, status: reply.status, body });
        }
        reply
            .body
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| {
                serde_json::from_slice(line)
                    .map_err(|e| IpcError::Body { socket: socket.clone(), why: e.to_string() })
            })
            .collect()
    }

    /// POST, sent again to the next engine if this one dies before it answers: every request is
    /// safe to repeat.
    ///
    /// # Errors
    /// The engine's refusal, or that there is none.
    pub(crate) async fn post<T: Serialize + Sync, R: DeserializeOwned>(
        &self,
        path: &str,
        body: &T,
    ) -> Result<R, Failure> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.client.post(path, body, Duration::from_secs(20)).await {
                Ok(answer) => return Ok(answer),
                Err(IpcError::Connect { .. } | IpcError::Lost { .. }) if tries < 4 => {
                    // A request that ends one engine after the other may have met damage.
                    if tries > 1
                        && let Some(failure) = damaged(&self.home)
                    {
                        return Err(failure);
                    }
                    Self::ensure(&self.home).await?;
                }
                Err(error) => return Err(Failure::from_ipc(&error)),
            }
        }
    }
}

/// Neighbours of one minor version understand each other; others are refused before anything is
/// asked of them.
fn understands(version: Option<&str>) -> Result<(), Failure> {
    let minor = |version: &str| -> Option<(u64, u64)> {
        let mut parts = version.split('.').map(|part| part.parse::<u64>().ok());
        Some((parts.next()??, parts.next()??))
    };
    let (Some(ours), Some(theirs)) = (minor(VERSION), version.and_then(minor)) else {
        return Ok(());
    };
    if ours.0 == theirs.0 && ours.1.abs_diff(theirs.1) <= 1 {
        return Ok(());
    }
    Err(Failure::unreachable("versions", "the engine speaks another version", "")
        .cause(format!("it has {}, this binary has {VERSION}", version.unwrap_or_default()))
        .fix("use the binary of the engine's version, or end the engine: verbs start this one"))
}

/// Brings host and switch of a home back whose instances should run: after a reboot nobody else
/// does. The host takes what shall run from its own state, and starts the switch.
///
/// # Errors
/// If they do not live within a bound.
pub(crate) async fn revive(home: &Home) -> Result<(), Failure> {
    let mut log = Log::open(home, "host")?;
    // A host that somebody else starts at this moment has the lock, and ours leaves.
    let mut child = spawn(home, "host", &log)?;
    let deadline = Deadline::after(START);
    while ["host", "switch"].iter().any(|role| home::living(home, role).is_none()) {
        // Reaped, so that it is not taken for alive.
        let _ = child.try_wait();
        if deadline.passed() {
            let on = home.root().display().to_string();
            let failure = Failure::unreachable("hostUnreachable", "the host does not start", on);
            return Err(log
                .tail()
                .into_iter()
                .fold(failure, Failure::cause)
                .fix(format!("see {}", log.path.display())));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Starts a role, detached: it makes a session of its own, its output goes to the log.
fn spawn(home: &Home, role: &str, log: &Log) -> Result<Child, Failure> {
    let failed = |error: std::io::Error| {
        Failure::unreachable("notStarted", format!("the {role} cannot be started"), "")
            .cause(error.to_string())
    };
    let program = std::env::current_exe().map_err(failed)?;
    let out = log.file.try_clone().map_err(failed)?;
    let err = log.file.try_clone().map_err(failed)?;
    Command::new(program)
        .arg(role)
        .arg("--home")
        .arg(home.root())
        .current_dir(home.root())
        .stdin(Stdio::null())
        .stdout(Stdio::from(out))
        .stderr(Stdio::from(err))
        .spawn()
        .map_err(failed)
}

struct Log {
    path: PathBuf,
    file: std::fs::File,
    start: u64,
}

impl Log {
    fn open(home: &Home, role: &str) -> Result<Self, Failure> {
        let path = home.log(role);
        let failed = |error: std::io::Error| {
            Failure::unreachable(
                "homeNotWritable",
                "a log in the home cannot be written",
                path.display().to_string(),
            )
            .cause(error.to_string())
            .fix("give this user the right to write there, or name another home with --home")
        };
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let start = file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Self { path, file, start })
    }

    /// The last lines since we began.
    fn tail(&mut self) -> Vec<String> {
        let mut text = String::new();
        let read = self
            .file
            .seek(SeekFrom::Start(self.start))
            .and_then(|_| (&mut self.file).take(1 << 20).read_to_string(&mut text));
        if read.is_err() {
            return Vec::new();
        }
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let from = lines.len().saturating_sub(5);
        lines.iter().skip(from).map(|line| crate::output::printable(line)).collect()
    }
}

/// What is wrong with the journal, as far as everybody can see it.
fn damaged(home: &Home) -> Option<Failure> {
    match crate::source::journal(home) {
        Err(failure) => Some(failure),
        Ok(reader) => Some(Failure::from(reader?.verify().err()?)),
    }
}

fn no_engine(home: &Home, log: &mut Log, ended: Option<ExitStatus>) -> Failure {
    let mut failure = Failure::unreachable(
        "engineUnreachable",
        "the engine of this home does not answer",
        home.root().display().to_string(),
    );
    if let Some(status) = ended {
        failure = failure.cause(match (status.code(), status.signal()) {
            (Some(code), _) => format!("it ended with status {code}"),
            (None, Some(signal)) => format!("it was ended by signal {signal}"),
            (None, None) => "it ended".to_owned(),
        });
    }
    for line in log.tail() {
        failure = failure.cause(line);
    }
    failure
        .fix(format!("see {}", log.path.display()))
        .fix("`tidegate doctor` looks for what is in the way")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_more_than_one_minor_version_away_is_refused() {
        let mut parts = VERSION.split('.').map(|part| part.parse::<u64>().unwrap());
        let (major, minor) = (parts.next().unwrap(), parts.next().unwrap());
        let check = |major: u64, minor: u64| understands(Some(&format!("{major}.{minor}.7")));
        check(major, minor).unwrap();
        check(major, minor + 1).unwrap();
        assert!(check(major, minor + 2).is_err());
        assert!(check(major + 1, minor).is_err());
        understands(None).unwrap();
    }
}
