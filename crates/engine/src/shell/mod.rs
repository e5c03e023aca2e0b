//! The shell around the pure engine: threads, clocks, sockets and the ownership of a home.
//!
//! [`run`] is the role `tidegate engine`. Three threads of ours and a small runtime:
//!
//! * *heartbeat* ([`ownership`]) shows that the committer makes progress;
//! * *committer* owns the engine and its journal: inputs in, one commit, outputs out;
//! * *samples* makes closed seconds durable before they become inputs;
//! * the runtime holds the dispatcher (effects to drivers), the watchers and the API.
#![expect(
    clippy::disallowed_methods,
    reason = "the shell is where clocks are read and identities are made"
)]

mod api;
mod clock;
mod committer;
mod dispatcher;
mod feed;
mod handle;
mod lifetime;
pub mod ownership;
pub mod pulse;
mod rfc3339;
mod room;
pub mod samples;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Router;
use tidegate_core::Epoch;
use tidegate_journal::Journal;
use tidegate_journal::sqlite::SqliteJournal;
use tidegate_wire::api::EngineStatus;
use tidegate_wire::home::Home;
use tokio::sync::mpsc;

pub use api::Peer;
pub use handle::{AskAnswer, AskError, EngineHandle, event_doc};
pub use rfc3339::rfc3339;

use crate::effects::Driver;
use crate::registry::Registry;
use crate::step::{Engine, Fatal, Outputs};
use clock::Clock;
use committer::{Committer, Facts, Outlets};
use feed::Feed;
use handle::Inner;
use ownership::{Acquired, Ownership, OwnershipError};
use pulse::Pulse;
use samples::{SampleError, Store};

/// Idle time after which an engine without open work ends.
pub const IDLE_EXIT: Duration = Duration::from_secs(600);

/// For whom drivers are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The home's identity.
    pub home: String,
    /// This ownership of it.
    pub epoch: Epoch,
}

/// Makes the drivers: by the prefix of target names (`process` drives `process:local`). Called once,
/// within the engine's runtime.
pub type MakeDrivers = Box<dyn FnOnce(&Owner) -> BTreeMap<String, Arc<dyn Driver>> + Send>;

/// Makes the domain's routes. They are served beside `/v1/engine` and `/v1/events`; handlers may
/// extract `ConnectInfo<Peer>`.
pub type MakeRouter = Box<dyn FnOnce(EngineHandle) -> Router + Send>;

/// What an engine needs.
pub struct ShellConfig {
    /// The home that it drives; its folder exists.
    pub home: Home,
    /// All machines.
    pub registry: Registry,
    /// See [`MakeDrivers`].
    pub drivers: MakeDrivers,
    /// See [`MakeRouter`].
    pub router: MakeRouter,
    /// See [`IDLE_EXIT`].
    pub idle_exit: Duration,
    /// Of the binary, for `status`.
    pub version: String,
    /// The epoch is at least this: one above that of [`Ended::Superseded`], 0 otherwise.
    pub at_least: Epoch,
}

/// Why an engine ended in good order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Nothing to do for [`ShellConfig::idle_exit`].
    Idle,
    /// Told to, by SIGTERM or SIGINT. Open work goes on with the next engine.
    Terminated,
    /// Another engine drives this home; its process id where known.
    OtherEngine(Option<u32>),
    /// A target has accepted this epoch from somebody else, or has shut it: run again with
    /// [`ShellConfig::at_least`] one above it.
    Superseded(Epoch),
}

/// Why an engine ended in disorder. Nothing was answered that is not durable; the next engine goes
/// on from there.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// The home cannot be owned.
    #[error(transparent)]
    Ownership(#[from] OwnershipError),
    /// The journal failed or cannot be read, or machines do not come to rest.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// The sample segments failed.
    #[error(transparent)]
    Samples(#[from] SampleError),
    /// The socket cannot be opened.
    #[error(transparent)]
    Listen(#[from] tidegate_ipc::ListenError),
    /// The system refused something.
    #[error("{doing}: {source}")]
    System {
        /// What was done.
        doing: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// Something that must not happen.
    #[error("a defect of Tidegate: {0}")]
    Defect(String),
}

/// What ends an engine.
#[derive(Debug)]
enum End {
    Superseded(Epoch),
    Fatal(Fatal),
    Samples(SampleError),
    Defect(String),
}

/// Drives a home, on its SQLite journal, until there is nothing to do or it must end. Blocks.
///
/// # Errors
/// [`ShellError`]; the process should end at once with 70, and a host or person starts the next.
pub fn run(config: ShellConfig) -> Result<Ended, ShellError> {
    run_on(config, |home| {
        let identity = format!("h-{}", uuid::Uuid::now_v7());
        SqliteJournal::open(&home.journal(), &identity)
    })
}

/// As [`run`], on the journal that `open` opens once the home is owned.
///
/// # Errors
/// As [`run`].
pub fn run_on<J, F>(config: ShellConfig, open: F) -> Result<Ended, ShellError>
where
    J: Journal + Send + 'static,
    F: FnOnce(&Home) -> Result<J, tidegate_journal::Error>,
{
    let pulse = Arc::new(Pulse::new());
    let ownership = match ownership::acquire(&config.home, &pulse)? {
        Acquired::Ours(ownership) => ownership,
        Acquired::Other(pid) => return Ok(Ended::OtherEngine(pid)),
    };
    let journal = open(&config.home).map_err(Fatal::from)?;
    // Opening has taken the reserve again, which may have been the last room.
    room::look(&config.home);
    drive(config, &ownership, pulse, journal)
}

/// Recovers, starts everything, waits for the end, stops everything.
fn drive<J: Journal + Send + 'static>(
    config: ShellConfig,
    ownership: &Ownership,
    pulse: Arc<Pulse>,
    journal: J,
) -> Result<Ended, ShellError> {
    let clock = Clock::start(journal.last_at().map_err(Fatal::from)?);
    let feed = Arc::new(Feed::new(journal.last_seq().map_err(Fatal::from)?));
    let (mut engine, first) = Engine::recover(journal, config.registry, config.at_least)?;
    ownership.set_epoch(engine.epoch().0);
    let owner = Owner { home: engine.journal().home().to_owned(), epoch: engine.epoch() };
    tracing::info!(home = %owner.home, epoch = owner.epoch.0, "driving");

    let (orders, ordered) = mpsc::unbounded_channel();
    let facts = tokio::sync::watch::Sender::new(Facts::default());
    let watches = tokio::sync::watch::Sender::new(Arc::default());
    let (facts_seen, watches_seen) = (facts.subscribe(), watches.subscribe());
    let outlets = Outlets { feed: Arc::clone(&feed), orders, facts, watches, pulse };
    let mut store = Store::new(config.home.samples());
    let recovered = first.send.iter().map(|sending| sending.id).max().unwrap_or(0);
    replay(&mut engine, first, &clock, &mut store, &outlets)?;

    let (inbox, received) = mpsc::channel(committer::QUEUE);
    let (ends, ended) = mpsc::unbounded_channel();
    let stop = Arc::new(AtomicBool::new(false));
    let committer = Committer {
        engine,
        clock,
        outlets,
        inbox: received,
        stop: Arc::clone(&stop),
        last_tick: None,
        tokens: 0,
        answered: 0,
    };
    let handle = EngineHandle {
        inner: Arc::new(Inner {
            inbox: inbox.clone(),
            feed,
            home: owner.home.clone(),
            epoch: owner.epoch,
            status: EngineStatus {
                state: "running".to_owned(),
                pid: Some(std::process::id()),
                since: Some(rfc3339(clock.now())),
                version: Some(config.version),
            },
        }),
    };
    lifetime::Life {
        home: config.home,
        owner,
        clock,
        drivers: config.drivers,
        router: config.router,
        idle_exit: config.idle_exit,
        recovered,
        handle,
        inbox,
        ends,
        stop,
    }
    .live(
        committer,
        store,
        lifetime::Seen { facts: facts_seen, watches: watches_seen, ordered, ended },
    )
}

/// The first step: what earlier processes have stored in segments comes before anything new, and
/// messages that were under way are delivered.
fn replay<J: Journal>(
    engine: &mut Engine<J>,
    first: Outputs,
    clock: &Clock,
    store: &mut Store,
    outlets: &Outlets,
) -> Result<(), ShellError> {
    let inputs = store.set_watches(first.watches.clone().unwrap_or_default())?;
    outlets.publish(first);
    let outputs = engine.step(clock.now(), inputs)?;
    outlets.publish(outputs);
    Ok(())
}

fn system(doing: &'static str) -> impl FnOnce(std::io::Error) -> ShellError {
    move |source| ShellError::System { doing, source }
}

/// Removes what would make a stopped home look alive. Only while the home is ours.
fn tidy(home: &Home) {
    let socket = home.socket("engine");
    let paths: [PathBuf; 3] = [tidegate_ipc::resolve(&socket), socket, home.pid("engine")];
    for path in paths {
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove it");
        }
    }
}
