//! Durable events through the engine beside a bare loop over SQLite with the same pragmas and rows.
//!
//! The engine is the real one: committer thread, dispatcher, heartbeat and API over a SQLite
//! journal in a home of its own; 16 waiters ask a machine by the handle that the API has, each its
//! own stream, and ask again when their event is durable. The control is a thread that inserts rows
//! of the same size with group commit for 16 waiters and does nothing else. The two run in turns,
//! so that both see the same disk. Prints one JSON object:
//! `cargo bench -p tidegate-engine --bench engine_rate`
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![expect(clippy::print_stdout, reason = "the figures are its output")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use axum::Router;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate_core::machine::{Command, Machine, Rejected, Stimulus, StreamId, View};
use tidegate_core::{Epoch, Reason, Timestamp};
use tidegate_engine::Registry;
use tidegate_engine::shell::{EngineHandle, ShellConfig, run};
use tidegate_journal::Reader as _;
use tidegate_journal::sqlite::{SqliteReader, disk_check};
use tidegate_wire::home::Home;

type Failed = Box<dyn std::error::Error + Send + Sync>;

const WAITERS: usize = 16;
const GROUP_TIME: Duration = Duration::from_millis(2);
const ROUNDS: usize = 6;
const ROUND: Duration = Duration::from_secs(2);
/// Bytes of an event's data, and of the control's rows.
const ROW: usize = 300;

/// A machine that does next to nothing: it counts what it is told.
struct Counter;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Counted {
    events: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Told {
    text: String,
}

impl Machine for Counter {
    const KIND: &'static str = "counter";
    const FORM: u16 = 1;
    type State = Counted;
    type Input = Told;
    type Event = Told;
    type Volatile = ();

    fn accept(
        _: &StreamId,
        _: &Counted,
        stimulus: Stimulus<Told>,
        _: Timestamp,
    ) -> Result<Vec<Told>, Rejected> {
        match stimulus {
            Stimulus::Ask(told) => Ok(vec![told]),
            Stimulus::Timer(_) | Stimulus::Answer { .. } => Ok(Vec::new()),
        }
    }

    fn apply(state: &mut Counted, _: &Told, _: Timestamp) {
        state.events += 1;
    }

    fn decide(_: &StreamId, _: &Counted, _: &Told, _: Timestamp) -> Vec<Command> {
        Vec::new()
    }

    fn describe(_: &Told) -> (&'static str, Option<Reason>) {
        ("told", None)
    }

    fn view(_: &StreamId, state: &Counted, (): &()) -> View {
        // Open, so that it stays in memory as a rollout in progress does.
        View { open: true, doc: json!({ "events": state.events }) }
    }
}

/// What the rounds have shown.
#[derive(Default)]
struct Figures {
    rates: Vec<f64>,
    micros: Vec<u64>,
}

impl Figures {
    fn add(&mut self, events: usize, begun: Instant) {
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        self.rates.push(events as f64 / begun.elapsed().as_secs_f64());
    }
}

/// Text that makes an event's data [`ROW`] bytes long.
fn text() -> String {
    "x".repeat(ROW - r#"{"text":""}"#.len())
}

/// The control: nothing but rows.
struct Bare(rusqlite::Connection, String);

impl Bare {
    fn open(path: &Path) -> Result<Self, Failed> {
        let connection = rusqlite::Connection::open(path)?;
        connection.execute_batch(
            "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; \
             PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
             PRAGMA wal_autocheckpoint = 1000; \
             CREATE TABLE rows (seq INTEGER PRIMARY KEY, data TEXT NOT NULL);",
        )?;
        Ok(Self(connection, "x".repeat(ROW)))
    }

    fn commit(&mut self, rows: usize) -> Result<(), Failed> {
        let transaction = self.0.transaction()?;
        for _ in 0..rows {
            transaction
                .prepare_cached("INSERT INTO rows (data) VALUES (?1)")?
                .execute([&self.1])?;
        }
        Ok(transaction.commit()?)
    }

    /// Commits what comes in, in groups, until all waiters are gone.
    fn serve(&mut self, inbox: &Receiver<SyncSender<()>>) -> Result<(), Failed> {
        while let Ok(first) = inbox.recv() {
            let mut group = vec![first];
            let begun = Instant::now();
            // Everybody waits for an answer: once all have asked, nobody else can come.
            while group.len() < WAITERS {
                match inbox.recv_timeout(GROUP_TIME.saturating_sub(begun.elapsed())) {
                    Ok(asked) => group.push(asked),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
            }
            self.commit(group.len())?;
            for durable in group {
                // A waiter whose time is over has gone.
                let _ = durable.send(());
            }
        }
        Ok(())
    }

    fn round(&mut self, figures: &mut Figures) -> Result<(), Failed> {
        let (outbox, inbox) = sync_channel::<SyncSender<()>>(WAITERS);
        let begun = Instant::now();
        let waiter = |outbox: SyncSender<SyncSender<()>>| {
            move || {
                let mut micros = Vec::new();
                let (durable, answer) = sync_channel(1);
                while begun.elapsed() < ROUND {
                    let asked = Instant::now();
                    if outbox.send(durable.clone()).is_err() || answer.recv().is_err() {
                        break;
                    }
                    micros.push(since(asked));
                }
                micros
            }
        };
        let waiters: Vec<_> =
            (0..WAITERS).map(|_| std::thread::spawn(waiter(outbox.clone()))).collect();
        drop(outbox);
        self.serve(&inbox)?;
        let mut micros = Vec::new();
        for waiter in waiters {
            micros.extend(waiter.join().map_err(|_| "a waiter has panicked")?);
        }
        figures.add(micros.len(), begun);
        figures.micros.extend(micros);
        Ok(())
    }
}

fn since(asked: Instant) -> u64 {
    u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// The engine and the runtime of those who ask.
struct Ours {
    engine: EngineHandle,
    runtime: tokio::runtime::Runtime,
}

impl Ours {
    fn start(folder: &Path) -> Result<Self, Failed> {
        let (found, handle) = sync_channel(1);
        let config = ShellConfig {
            home: Home::new(folder),
            registry: Registry::new().with::<Counter>(),
            drivers: Box::new(|_| BTreeMap::new()),
            router: Box::new(move |engine| {
                // The receiver waits for it.
                let _ = found.send(engine);
                Router::new()
            }),
            idle_exit: Duration::from_secs(600),
            version: "bench".to_owned(),
            at_least: Epoch(0),
        };
        // Ends with the process.
        std::thread::spawn(move || run(config).map_err(|error| println!("{error}")));
        let engine = handle.recv_timeout(Duration::from_secs(20))?;
        // As many threads as the engine's own API has.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        Ok(Self { engine, runtime })
    }

    fn round(&self, figures: &mut Figures) -> Result<(), Failed> {
        let begun = Instant::now();
        let micros = self.runtime.block_on(async {
            let mut waiters = tokio::task::JoinSet::new();
            for waiter in 0..WAITERS {
                let engine = self.engine.clone();
                waiters.spawn(async move {
                    let stream = StreamId::new("bench", "counter", &waiter.to_string());
                    let mut micros = Vec::new();
                    while begun.elapsed() < ROUND {
                        let asked = Instant::now();
                        let input = json!({ "text": text() });
                        engine.ask(stream.clone(), input, None).await?;
                        micros.push(since(asked));
                    }
                    Ok::<_, tidegate_engine::shell::AskError>(micros)
                });
            }
            let mut micros = Vec::new();
            while let Some(waiter) = waiters.join_next().await {
                micros.extend(waiter??);
            }
            Ok::<_, Failed>(micros)
        })?;
        figures.add(micros.len(), begun);
        figures.micros.extend(micros);
        Ok(())
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn percentile(values: &mut [u64], share: usize) -> u64 {
    values.sort_unstable();
    values.get(values.len() * share / 100).copied().unwrap_or(0)
}

fn figures_json(figures: &mut Figures) -> serde_json::Value {
    json!({
        "events": figures.micros.len(),
        "rounds": figures.rates.iter().map(|rate| rate.round()).collect::<Vec<_>>(),
        "eventsPerSecond": median(&mut figures.rates).round(),
        "p50Micros": percentile(&mut figures.micros, 50),
        "p99Micros": percentile(&mut figures.micros, 99),
    })
}

fn main() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let disk = disk_check(folder.path())?;
    let (mut bare, mut engine) = (Figures::default(), Figures::default());
    let mut control = Bare::open(&folder.path().join("bare.db"))?;
    let home = folder.path().join("home");
    std::fs::create_dir(&home)?;
    let ours = Ours::start(&home)?;
    for round in 0..ROUNDS {
        // In turns, and each of them first half of the time.
        for turn in [round % 2, 1 - round % 2] {
            if turn == 0 {
                control.round(&mut bare)?;
            } else {
                ours.round(&mut engine)?;
            }
        }
    }
    // What was answered is in the journal: as many events as were counted by those who asked.
    let durable = SqliteReader::open(&Home::new(&home).journal())?.last_seq()?;
    let ratio = median(&mut engine.rates) / median(&mut bare.rates);
    let report = json!({
        "waiters": WAITERS,
        "rowBytes": ROW,
        "flushMicros": { "median": disk.median_micros, "p99": disk.p99_micros },
        "bare": figures_json(&mut bare),
        "engine": figures_json(&mut engine),
        "durable": durable,
        "ratio": ratio,
    });
    println!("{report:#}");
    Ok(())
}
