//! The engine under test on a simulated platform: its process, its socket and the platform's log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use tidegate_ipc::Client;
use tidegate_journal::Reader as _;
use tidegate_journal::sqlite::SqliteReader;
use tidegate_wire::api::{ReleaseRequest, Status, VerbRequest};
use tidegate_wire::home::Home;

use crate::stage::{Pid, wait_until};

/// Of one request.
const WITHIN: Duration = Duration::from_secs(20);

/// Waits that belong to the measuring, not to what is measured.
const LONG: Duration = Duration::from_secs(60);

/// One home with its engine.
pub(super) struct Engine {
    folder: TempDir,
    binary: PathBuf,
    child: Child,
    keep: PathBuf,
}

/// One command that has reached the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Microseconds of Unix time.
    pub(super) at_us: u64,
    /// Who ordered it, as `PROJECT/rollout/ID`.
    pub(super) stream: String,
    /// `capacity`, `traffic`, …
    pub(super) action: String,
}

impl Engine {
    /// An empty home and its running engine. The platform's log ends up in `keep`.
    pub(super) fn start(binary: &Path, keep: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("tg-").tempdir()?;
        let child = spawn(binary, folder.path())?;
        let engine =
            Self { folder, binary: binary.to_owned(), child, keep: keep.join("platform.log") };
        engine.answers()?;
        Ok(engine)
    }

    /// Kills it where it stands and starts the next one, as a host would. Returns the moment of
    /// the kill, as soon as the new process is started.
    pub(super) fn kill_and_restart(&mut self) -> Result<u64> {
        let at = crate::stage::now_us();
        self.child.kill().context("cannot kill the engine")?;
        self.child.wait()?;
        self.child = spawn(&self.binary, self.folder.path())?;
        Ok(at)
    }

    /// Its process.
    pub(super) fn pid(&self) -> Result<Pid> {
        Pid::try_from(self.child.id()).context("no process id")
    }

    /// Speaks to it.
    pub(super) fn client(&self) -> Client {
        Client::new(&Home::new(self.folder.path().join("home")).socket("engine"))
    }

    /// Waits until it answers.
    pub(super) fn answers(&self) -> Result<()> {
        let (runtime, client) = (runtime()?, self.client());
        wait_until(LONG, "an engine that answers", || {
            let answer = client.get::<serde_json::Value>("/v1/engine", WITHIN);
            runtime.block_on(answer).ok().map(drop)
        })
    }

    /// The journal's last sequence, read beside the engine.
    pub(super) fn last_seq(&self) -> Result<u64> {
        let journal = Home::new(self.folder.path().join("home")).journal();
        Ok(SqliteReader::open(&journal)?.last_seq()?)
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("platform.log")
    }

    /// The log's length in bytes, for [`Engine::lines_after`].
    pub(super) fn log_end(&self) -> Result<usize> {
        let length = std::fs::metadata(self.log()).context("no log of the platform")?.len();
        Ok(usize::try_from(length)?)
    }

    /// What has reached the platform since its log had this length.
    pub(super) fn lines_after(&self, end: usize) -> Result<Vec<Line>> {
        let text = std::fs::read_to_string(self.log()).context("no log of the platform")?;
        Ok(text.get(end..).unwrap_or_default().lines().filter_map(Line::read).collect())
    }

    /// The whole status.
    pub(super) fn status(&self) -> Result<Status> {
        Ok(runtime()?.block_on(self.client().get("/v1/status", WITHIN))?)
    }

    /// Waits until the status shows this many lanes of which each is as wanted. Looks seldom: the
    /// document is large.
    pub(super) fn until(&self, count: usize, is: impl Fn(&Lane<'_>) -> bool) -> Result<()> {
        let begun = Instant::now();
        loop {
            let status = self.status()?;
            let found = status.environments.iter().filter(|lane| is(&Lane(lane))).count();
            if found >= count {
                return Ok(());
            }
            if begun.elapsed() > LONG {
                let other = status.environments.iter().find(|lane| !is(&Lane(lane)));
                bail!("only {found} of {count} lanes came to it; another one: {other:?}");
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Asks for releases, at most so many at a time.
    pub(super) fn release(&self, requests: Vec<ReleaseRequest>, at_once: usize) -> Result<()> {
        let client = self.client();
        runtime()?.block_on(async {
            let room = std::sync::Arc::new(tokio::sync::Semaphore::new(at_once));
            let mut tasks = tokio::task::JoinSet::new();
            for request in requests {
                let (client, room) = (client.clone(), std::sync::Arc::clone(&room));
                tasks.spawn(async move {
                    let _permit = room.acquire().await?;
                    let path = "/v1/releases";
                    client.post::<_, serde_json::Value>(path, &request, WITHIN).await?;
                    anyhow::Ok(())
                });
            }
            while let Some(ended) = tasks.join_next().await {
                ended??;
            }
            Ok(())
        })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What is left is for people: the figures are the same without it.
        let _ = std::fs::copy(self.log(), &self.keep);
        let log = self.folder.path().join("engine.log");
        let _ = std::fs::copy(log, self.keep.with_file_name("engine.log"));
    }
}

/// A lane as the status shows it.
pub(super) struct Lane<'a>(&'a tidegate_wire::api::Environment);

impl Lane<'_> {
    /// This version is stable and nothing is left to do.
    pub(super) fn rests_at(&self, version: &str) -> bool {
        self.0.stable.as_ref().is_some_and(|stable| stable.version == version)
            && self.0.rollout.as_ref().is_some_and(|rollout| rollout.ended_at.is_some())
    }

    /// A rollout of this version is paused and in progress.
    pub(super) fn pauses_at(&self, version: &str) -> bool {
        self.0.rollout.as_ref().is_some_and(|rollout| {
            rollout.version == version && rollout.phase == "Paused" && rollout.ended_at.is_none()
        })
    }
}

impl Line {
    fn read(text: &str) -> Option<Self> {
        let mut fields = text.split(' ');
        let at_us = fields.next()?.parse().ok()?;
        let stream = fields.next()?.to_owned();
        // The last of them: a key may hold anything else.
        let action = fields.next_back()?.to_owned();
        Some(Self { at_us, stream, action })
    }
}

/// Asks a rollout to skip its step, again while it is on its way to it.
pub(super) async fn promote(client: &Client, rollout: &str) -> Result<()> {
    let path = format!("/v1/rollouts/{rollout}/promote");
    let request = VerbRequest { principal: "bar".to_owned(), ..VerbRequest::default() };
    let begun = Instant::now();
    loop {
        match client.post::<_, serde_json::Value>(&path, &request, WITHIN).await {
            Ok(_) => return Ok(()),
            Err(error) if begun.elapsed() > WITHIN => return Err(error.into()),
            // Not there yet, or its engine is not there yet.
            Err(
                tidegate_ipc::IpcError::Status { status: 409, .. }
                | tidegate_ipc::IpcError::Connect { .. },
            ) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// For the requests of the bar itself.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn spawn(binary: &Path, folder: &Path) -> Result<Child> {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("engine.log"))
        .context("cannot write the engine's log")?;
    Command::new(binary)
        .args(["engine", "--platform", "simulated", "--simulated-log"])
        .arg(folder.join("platform.log"))
        .arg("--home")
        .arg(folder.join("home"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .context("cannot start the engine")
}

/// The last line of each rollout in this log, of one kind of command.
pub(super) fn last_by_stream(lines: &[Line], action: &str) -> BTreeMap<String, u64> {
    let of_kind = lines.iter().filter(|line| line.action == action);
    of_kind.map(|line| (line.stream.clone(), line.at_us)).collect()
}

#[cfg(test)]
mod tests {
    use super::{Line, last_by_stream};

    #[test]
    fn a_line_of_the_platforms_log_is_read_and_half_a_line_is_not() {
        let line = Line::read("17 many/rollout/e-s-2 traffic-3 traffic").unwrap();
        assert_eq!((line.at_us, line.action.as_str()), (17, "traffic"));
        assert_eq!(Line::read("17"), None);
        assert_eq!(Line::read("soon many/rollout/x k traffic"), None);
        let lines = [line.clone(), Line { at_us: 19, ..line.clone() }];
        assert_eq!(last_by_stream(&lines, "traffic").get(&line.stream), Some(&19));
        assert!(last_by_stream(&lines, "capacity").is_empty());
    }
}
