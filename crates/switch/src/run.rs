//! The life of a switch: start, serve, leave without losing a request.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidegate_ipc::{Client, ListenError};
use tidegate_wire::home::Home;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::control::listeners::Listeners;
use crate::control::store::{Store, StoreError, replace};
use crate::control::{Control, api};
use crate::counts::{Clock, Counts};
use crate::proxy::Proxy;

/// How a switch runs.
#[derive(Debug, Clone)]
pub struct SwitchConfig {
    /// The home: its socket, its sockets' holder, its own folder.
    pub home: Home,
    /// How long requests under way may take when the switch is told to end (default 30 s); what
    /// takes longer is cut.
    pub drain: Duration,
    /// How long the holder of the listening sockets may take to have all of them when the switch is
    /// told to end (default 2 s).
    pub deposit: Duration,
    /// When the switch is told to end, it accepts for so long until its successor answers, and
    /// idle clients get so long to ask once more and be told to go (default 5 s).
    pub linger: Duration,
    /// What clients may take their time for.
    pub limits: Limits,
}

/// Limits in time for clients.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For a head, from its first byte, and for a TLS handshake (default 15 s).
    pub head: Duration,
    /// Between two requests on one connection (default 75 s).
    pub idle: Duration,
    /// Without taking a byte of an answer (default 60 s).
    pub stuck: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(15),
            idle: Duration::from_secs(75),
            stuck: Duration::from_secs(60),
        }
    }
}

impl SwitchConfig {
    /// The switch of `home` with the defaults.
    #[must_use]
    pub fn new(home: Home) -> Self {
        Self {
            home,
            drain: Duration::from_secs(30),
            deposit: Duration::from_secs(2),
            linger: Duration::from_secs(5),
            limits: Limits::default(),
        }
    }
}

/// Why a switch does not run.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// Another one does.
    #[error(
        "another switch of {home} answers on {socket}; it serves, so there is nothing to do. To \
         replace it, end it first: its requests are finished and its sockets are handed over"
    )]
    Running {
        /// The home.
        home: PathBuf,
        /// Where the other one answers.
        socket: PathBuf,
    },
    /// The control socket cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Its own files cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something that the system should give.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Runs the switch of a home until SIGTERM or SIGINT, then leaves gently: the sockets stay with the
/// holder, requests under way are finished.
///
/// Runs best in a runtime with two worker threads: requests of one never wait for the file system
/// or the control socket of the other, and an idle switch wakes neither.
///
/// # Errors
/// [`SwitchError`] when it cannot start.
pub async fn run(config: SwitchConfig) -> Result<(), SwitchError> {
    let wrap = |source| SwitchError::System { doing: "listen to signals", source };
    let mut terminate = signal(SignalKind::terminate()).map_err(wrap)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(wrap)?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    run_until(config, stop).await
}

/// As [`run`], until `stop` is ready.
///
/// # Errors
/// [`SwitchError`] when it cannot start.
pub async fn run_until(
    config: SwitchConfig,
    stop: impl Future<Output = ()>,
) -> Result<(), SwitchError> {
    let home = &config.home;
    let socket = home.socket("switch");
    if is_answered(&socket).await {
        return Err(SwitchError::Running { home: home.root().to_owned(), socket });
    }
    raise_descriptor_limit();
    let store = Store::open(home.switch())?;
    let epoch = store.next_epoch(Clock::new().now_ms())?;
    let proxy = Arc::new(Proxy::new(Arc::new(Counts::new(epoch)), config.limits, config.linger));
    let (alive, mut ended) = mpsc::channel(1);
    let listeners = Arc::new(Listeners::new(Arc::clone(&proxy), alive));
    let control = Arc::new(Control::new(Arc::clone(&proxy), Arc::clone(&listeners), store));
    control.start(home.socket("sockets")).await?;

    let api = tidegate_ipc::bind(&socket)?;
    let pid_file = home.pid("switch");
    let pid = std::process::id();
    replace(&pid_file, format!("{pid}\n").as_bytes()).map_err(|source| SwitchError::System {
        doing: "write the file of the process id",
        source,
    })?;
    let (close_api, closed) = oneshot::channel::<()>();
    let serving = axum::serve(api, api::router(Arc::clone(&control)))
        .with_graceful_shutdown(async { drop(closed.await) });
    let serving = tokio::spawn(std::future::IntoFuture::into_future(serving));
    let background = Background::start(&control, home.socket("sockets"));
    tracing::info!(home = %home.root().display(), pid, epoch, "the switch serves");

    stop.await;

    tracing::info!("the switch leaves");
    let under_way = control.announce_leaving().await;
    let held = listeners.wait_deposited(config.deposit).await;
    // From here on a successor may answer on the control socket.
    drop(close_api);
    serving.abort();
    proxy.leaving.send_replace(true);
    let (keeping, path) = (Arc::clone(&control), under_way.clone());
    let keeping = tokio::spawn(async move { keeping.keep_leaving(&path).await });
    if held {
        wait_for_successor(&socket, config.linger).await;
    } else {
        tracing::warn!("nobody holds the sockets: clients are refused until the next switch");
    }
    listeners.stop();
    // Every connection holds `alive`; the channel ends with the last of them.
    if tokio::time::timeout(config.drain, ended.recv()).await.is_err() {
        tracing::warn!(after = ?config.drain, "requests under way were cut");
    }
    keeping.abort();
    let _ = std::fs::remove_file(under_way); // stale in a moment
    background.stop();
    let blocks = proxy.counts.finished_blocks(true);
    if let Err(error) = control.history.append(&blocks) {
        tracing::error!(%error, "the history of the last seconds is lost");
    }
    remove_own_pid(&pid_file, pid);
    Ok(())
}

/// Tasks beside the data path.
struct Background(Vec<tokio::task::AbortHandle>);

impl Background {
    fn start(control: &Arc<Control>, holder: PathBuf) -> Self {
        let (blocks, mut finished) = mpsc::unbounded_channel();
        let counts = Arc::clone(&control.proxy.counts);
        let closer = tokio::spawn(async move {
            // The other end is in the task beside it.
            counts.run_closer(|blocks_of| drop(blocks.send(blocks_of))).await;
        });
        let history = control.history.clone();
        let writer = tokio::spawn(async move {
            while let Some(blocks) = finished.recv().await {
                let history = history.clone();
                let write = tokio::task::spawn_blocking(move || history.append(&blocks)).await;
                if let Ok(Err(error)) = write {
                    tracing::error!(%error, "30 seconds of history are lost");
                }
            }
        });
        let following = Arc::clone(control);
        let following = tokio::spawn(async move { following.follow_leaving().await });
        let listeners = Arc::clone(&control.listeners);
        let deposits = tokio::spawn(async move { listeners.run_deposits(holder).await });
        let all = [closer, writer, following, deposits];
        Self(all.iter().map(tokio::task::JoinHandle::abort_handle).collect())
    }

    fn stop(self) {
        for task in self.0 {
            task.abort();
        }
    }
}

/// Until another switch answers, which then accepts on the same sockets, or `within` is over.
async fn wait_for_successor(socket: &Path, within: Duration) {
    let answered = async {
        while !is_answered(socket).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // Either way this process stops accepting next.
    let _ = tokio::time::timeout(within, answered).await;
}

async fn is_answered(socket: &Path) -> bool {
    let observe = Client::new(socket);
    let answer = observe.request("GET", "/v1/observe", bytes::Bytes::new(), Duration::from_secs(2));
    answer.await.is_ok()
}

/// Each request holds two descriptors; the soft limit is often 1,024.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// Unless a successor has written its own.
fn remove_own_pid(path: &Path, pid: u32) {
    let ours = std::fs::read_to_string(path).is_ok_and(|text| text.trim() == pid.to_string());
    if ours && let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(%error, "the file of the process id stays");
    }
}
