//! How fast events become durable through the whole engine, beside a bare loop over SQLite.
//!
//! On both sides 16 waiters are tasks on one thread and ask a committing thread; each asks again
//! when its last event is durable. The bare loop does nothing but insert rows of 300 bytes with the
//! journal's pragmas in groups (256 rows or 2 ms, and at once when all waiters have asked). The
//! engine's side is the running shell with its real journal: a question to a machine, its event of
//! 300 bytes with hash, view and snapshots, one commit, the answer. They run in turns, so that both
//! see the same disk. Prints one JSON object.
//! `cargo bench -p tidegate-engine --bench engine_rate`
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![expect(clippy::print_stdout, reason = "the figures are its output")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate_core::machine::{Command, Machine, Rejected, Stimulus, View};
use tidegate_core::{Epoch, Reason, StreamId, Timestamp};
use tidegate_engine::Registry;
use tidegate_engine::shell::{self, EngineHandle, ShellConfig};
use tidegate_wire::home::Home;
use tokio::sync::{mpsc, oneshot};

type Failed = Box<dyn std::error::Error + Send + Sync>;

const WAITERS: usize = 16;
const GROUP_TIME: Duration = Duration::from_millis(2);
const PAIRS: usize = 7;
const ROUND: Duration = Duration::from_secs(2);
/// Bytes of an event's JSON, and of a row of the bare loop.
const ROW: usize = 300;

/// Remembers how often it was asked; each time is an event.
struct Counter;

#[derive(Clone, Default, Serialize, Deserialize)]
struct Count {
    asked: u64,
}

#[derive(Serialize, Deserialize)]
struct Said {
    text: String,
}

impl Machine for Counter {
    const KIND: &'static str = "counter";
    const FORM: u16 = 1;
    type State = Count;
    type Input = Said;
    type Event = Said;
    type Volatile = ();

    fn accept(
        _: &StreamId,
        _: &Count,
        stimulus: Stimulus<Said>,
        _: Timestamp,
    ) -> Result<Vec<Said>, Rejected> {
        match stimulus {
            Stimulus::Ask(said) => Ok(vec![said]),
            Stimulus::Timer(_) | Stimulus::Answer { .. } => Ok(Vec::new()),
        }
    }

    fn apply(state: &mut Count, _: &Said, _: Timestamp) {
        state.asked += 1;
    }

    fn decide(_: &StreamId, _: &Count, _: &Said, _: Timestamp) -> Vec<Command> {
        Vec::new()
    }

    fn describe(_: &Said) -> (&'static str, Option<Reason>) {
        ("counted", None)
    }

    fn view(_: &StreamId, state: &Count, (): &()) -> View {
        View { open: true, doc: json!({ "asked": state.asked }) }
    }
}

/// What the rounds of one side have shown.
#[derive(Default)]
struct Figures {
    rates: Vec<f64>,
    micros: Vec<u64>,
}

/// Where waiters ask.
#[derive(Clone)]
enum Store {
    Bare(mpsc::Sender<oneshot::Sender<()>>),
    Engine(EngineHandle),
}

impl Store {
    /// Returns when one more event of this waiter is durable.
    async fn ask(&self, waiter: usize, text: &str) -> Result<(), Failed> {
        match self {
            Self::Bare(inbox) => {
                let (durable, answer) = oneshot::channel();
                inbox.send(durable).await?;
                Ok(answer.await?)
            }
            Self::Engine(engine) => {
                let stream = StreamId::new("bench", "counter", &waiter.to_string());
                engine.ask(stream, json!({ "text": text }), None).await?;
                Ok(())
            }
        }
    }
}

/// The control: rows and nothing else.
fn bare(path: &Path) -> Result<Store, Failed> {
    let mut connection = rusqlite::Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; \
         PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
         PRAGMA wal_autocheckpoint = 1000; \
         CREATE TABLE rows (seq INTEGER PRIMARY KEY, data TEXT NOT NULL);",
    )?;
    let (inbox, mut asked) = mpsc::channel::<oneshot::Sender<()>>(1_024);
    std::thread::spawn(move || -> Result<(), Failed> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let data = "x".repeat(ROW);
        while let Some(first) = asked.blocking_recv() {
            let begun = Instant::now();
            let mut group = vec![first];
            while group.len() < WAITERS {
                if let Ok(next) = asked.try_recv() {
                    group.push(next);
                    continue;
                }
                let left = GROUP_TIME.saturating_sub(begun.elapsed());
                let next = async { tokio::time::timeout(left, asked.recv()).await };
                let Ok(Some(next)) = runtime.block_on(next) else { break };
                group.push(next);
            }
            let transaction = connection.transaction()?;
            for _ in &group {
                transaction
                    .prepare_cached("INSERT INTO rows (data) VALUES (?1)")?
                    .execute([&data])?;
            }
            transaction.commit()?;
            for durable in group {
                // A waiter whose time is over has gone.
                let _ = durable.send(());
            }
        }
        Ok(())
    });
    Ok(Store::Bare(inbox))
}

/// The running engine of a home; it ends with the process.
fn engine(folder: &Path) -> Result<Store, Failed> {
    std::fs::create_dir_all(folder)?;
    let (started, handle) = std::sync::mpsc::channel();
    let config = ShellConfig {
        home: Home::new(folder),
        registry: Registry::new().with::<Counter>(),
        drivers: Box::new(|_| BTreeMap::new()),
        router: Box::new(move |engine| {
            // The receiver waits for exactly this.
            let _ = started.send(engine);
            axum::Router::new()
        }),
        idle_exit: Duration::from_secs(600),
        version: "bench".to_owned(),
        at_least: Epoch(0),
    };
    std::thread::spawn(move || shell::run(config));
    Ok(Store::Engine(handle.recv_timeout(Duration::from_secs(20))?))
}

/// One round of one side.
fn round(store: &Store, figures: &mut Figures) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    // With its JSON around it.
    let text = "x".repeat(ROW - "{\"text\":\"\"}".len());
    let begun = Instant::now();
    let micros: Vec<u64> = runtime.block_on(async {
        let waiters: Vec<_> = (0..WAITERS)
            .map(|waiter| {
                let (store, text) = (store.clone(), text.clone());
                tokio::spawn(async move {
                    let mut micros = Vec::new();
                    while begun.elapsed() < ROUND {
                        let asked = Instant::now();
                        store.ask(waiter, &text).await?;
                        micros.push(u64::try_from(asked.elapsed().as_micros())?);
                    }
                    Ok::<_, Failed>(micros)
                })
            })
            .collect();
        let mut all = Vec::new();
        for waiter in waiters {
            all.extend(waiter.await??);
        }
        Ok::<_, Failed>(all)
    })?;
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    figures.rates.push(micros.len() as f64 / begun.elapsed().as_secs_f64());
    figures.micros.extend(micros);
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn percentile(values: &mut [u64], share: usize) -> u64 {
    values.sort_unstable();
    values.get(values.len() * share / 100).copied().unwrap_or(u64::MAX)
}

fn figures_json(figures: &mut Figures) -> serde_json::Value {
    json!({
        "eventsPerSecond": median(figures.rates.clone()).round(),
        "rounds": figures.rates.iter().map(|rate| rate.round()).collect::<Vec<_>>(),
        "p50Micros": percentile(&mut figures.micros, 50),
        "p99Micros": percentile(&mut figures.micros, 99),
    })
}

fn main() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let control = bare(&folder.path().join("bare.db"))?;
    let engine = engine(&folder.path().join("home"))?;
    let (mut bare, mut ours) = (Figures::default(), Figures::default());
    for pair in 0..PAIRS {
        // In turns, and each of them first half of the time.
        for turn in [pair % 2, 1 - pair % 2] {
            match turn {
                0 => round(&control, &mut bare)?,
                _ => round(&engine, &mut ours)?,
            }
        }
    }
    let ratios: Vec<f64> = ours.rates.iter().zip(&bare.rates).map(|(o, b)| o / b).collect();
    let report = json!({
        "waiters": WAITERS,
        "pairs": PAIRS,
        "rowBytes": ROW,
        "bare": figures_json(&mut bare),
        "engine": figures_json(&mut ours),
        "ratio": median(ours.rates.clone()) / median(bare.rates.clone()),
        "ratios": ratios,
    });
    println!("{report}");
    Ok(())
}
