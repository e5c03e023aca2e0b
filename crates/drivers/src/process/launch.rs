//! Starting a host that is dead, and noticing that it is.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tidegate_wire::home::Home;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, sleep};

/// A host that was started answers within this.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Between two looks whether it does.
const LOOK: Duration = Duration::from_millis(20);
/// First pause between two starts that came to nothing; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Between two tries to keep a host alive that does not live.
const AGAIN: Duration = Duration::from_millis(200);

/// Starts hosts, one at a time.
pub(super) struct Launcher {
    socket: PathBuf,
    start: Box<dyn Fn() -> io::Result<()> + Send + Sync>,
    state: Mutex<Starts>,
    /// A host has been asked for.
    wanted: Notify,
}

struct Starts {
    not_before: Option<Instant>,
    pause: Duration,
}

impl Launcher {
    pub(super) fn new(
        socket: PathBuf,
        start: Box<dyn Fn() -> io::Result<()> + Send + Sync>,
    ) -> Self {
        let state = Mutex::new(Starts { not_before: None, pause: PAUSE_MIN });
        Self { socket, start, state, wanted: Notify::new() }
    }

    async fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(tidegate_ipc::resolve(&self.socket)).await
    }

    async fn answers(&self) -> bool {
        self.connect().await.is_ok()
    }

    /// Starts a host whenever there is none; from the first call of [`Launcher::ensure`] on, or at
    /// once where there was a host `before`. Never returns.
    pub(super) async fn keep(&self, before: bool) {
        if !before {
            self.wanted.notified().await;
        }
        loop {
            let since = Instant::now();
            match self.connect().await {
                // Nobody says anything on this connection: it ends with the process, and costs
                // nothing until then.
                Ok(mut connection) => drop(connection.read(&mut [0]).await),
                Err(_) => {
                    if let Err(why) = self.ensure().await {
                        tracing::debug!(why, "the host is not kept alive");
                    }
                }
            }
            sleep(AGAIN.saturating_sub(since.elapsed())).await;
        }
    }

    /// Returns when a host answers; starts one if none does.
    ///
    /// # Errors
    /// In words: it could not be started, or does not answer, or it is too early to try again.
    pub(super) async fn ensure(&self) -> Result<(), String> {
        self.wanted.notify_one();
        let mut state = self.state.lock().await;
        if self.answers().await {
            return Ok(());
        }
        if let Some(not_before) = state.not_before
            && Instant::now() < not_before
        {
            return Err("the host did not come up; it will be started again".to_owned());
        }
        tracing::warn!(socket = %self.socket.display(), "no host answers: starting one");
        let result = self.start_and_wait().await;
        if result.is_ok() {
            (state.not_before, state.pause) = (None, PAUSE_MIN);
        } else {
            state.not_before = Some(Instant::now() + state.pause);
            state.pause = (state.pause * 2).min(PAUSE_MAX);
        }
        result
    }

    async fn start_and_wait(&self) -> Result<(), String> {
        (self.start)().map_err(|error| format!("the host cannot be started: {error}"))?;
        let started = Instant::now();
        while started.elapsed() < ANSWER_MAX {
            if self.answers().await {
                return Ok(());
            }
            sleep(LOOK).await;
        }
        Err(format!(
            "the host was started and does not answer within {} s; see host.log",
            ANSWER_MAX.as_secs()
        ))
    }
}

/// Starts `BINARY host --home H` with its output in the host's log. It makes itself a session of
/// its own. Must be called within a tokio runtime, which reaps it if it ends before us.
///
/// # Errors
/// If the log cannot be opened or the program not be started.
pub fn spawn_host(binary: PathBuf, home: Home) -> impl Fn() -> io::Result<()> + Send + Sync {
    move || {
        let log =
            OpenOptions::new().append(true).create(true).mode(0o600).open(home.log("host"))?;
        let child = tokio::process::Command::new(&binary)
            .arg("host")
            .arg("--home")
            .arg(home.root())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(false)
            .spawn()?;
        drop(child);
        Ok(())
    }
}
