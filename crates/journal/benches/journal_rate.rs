//! How fast the journal is beside a bare loop over SQLite with the same pragmas and rows.
//!
//! Both have 16 waiters behind one committer with group commit (256 events or 2 ms); a waiter
//! sends its next event when its last one is durable. The two run in turns, so that both see the
//! same disk. Prints one JSON object. `cargo bench -p tidegate-journal --bench journal_rate`
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![expect(clippy::print_stdout, reason = "the figures are its output")]

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use serde_json::json;
use tidegate_core::{Epoch, StreamId, Timestamp};
use tidegate_journal::sqlite::{SqliteJournal, SqliteReader, disk_check};
use tidegate_journal::{Batch, Change, Journal, NewEvent, Reader as _, View};

type Failed = Box<dyn std::error::Error>;

const WAITERS: usize = 16;
const GROUP: usize = 256;
const GROUP_TIME: Duration = Duration::from_millis(2);
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
const LARGE: u64 = 1000;

/// One waiter's event and where it waits for it.
struct Asked {
    waiter: usize,
    durable: SyncSender<()>,
}

/// What a round has shown.
#[derive(Default)]
struct Figures {
    rates: Vec<f64>,
    micros: Vec<u64>,
    batched: Vec<f64>,
}

trait Store {
    /// Makes one event of each of these waiters durable.
    fn commit(&mut self, waiters: &[usize]) -> Result<(), Failed>;
}

fn data() -> String {
    format!("{{\"text\":\"{}\"}}", "x".repeat(300 - 11))
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
        Ok(Self(connection, data()))
    }
}

impl Store for Bare {
    fn commit(&mut self, waiters: &[usize]) -> Result<(), Failed> {
        let transaction = self.0.transaction()?;
        for _ in waiters {
            transaction
                .prepare_cached("INSERT INTO rows (data) VALUES (?1)")?
                .execute([&self.1])?;
        }
        Ok(transaction.commit()?)
    }
}

/// The journal, a stream for each waiter.
struct Ours {
    journal: SqliteJournal,
    at: u64,
    versions: Vec<u64>,
    data: String,
}

impl Ours {
    fn open(path: &Path) -> Result<Self, Failed> {
        let mut journal = SqliteJournal::open(path, "bench")?;
        journal.take_over(Epoch(0))?;
        Ok(Self { journal, at: 0, versions: vec![0; WAITERS], data: data() })
    }
}

impl Store for Ours {
    fn commit(&mut self, waiters: &[usize]) -> Result<(), Failed> {
        self.at += 1;
        let mut changes = Vec::with_capacity(waiters.len());
        for waiter in waiters {
            let version = self.versions.get_mut(*waiter).ok_or("no such waiter")?;
            let stream = StreamId::new("bench", "rollout", &waiter.to_string());
            let mut change = Change::new(stream, *version);
            change.events.push(NewEvent {
                event: "counted".to_owned(),
                form: 1,
                data: self.data.clone(),
                reason: None,
            });
            *version += 1;
            changes.push(change);
        }
        self.journal.commit(&Batch { at: Timestamp(self.at), epoch: Epoch(1), changes })?;
        Ok(())
    }
}

/// Commits what comes in, in groups, until all waiters are gone.
fn commit_groups(store: &mut dyn Store, inbox: &Receiver<Asked>) -> Result<u64, Failed> {
    let mut events = 0;
    while let Ok(first) = inbox.recv() {
        let mut group = vec![first];
        let begun = Instant::now();
        // Everybody waits for an answer: once all have asked, nobody else can come.
        while group.len() < GROUP.min(WAITERS) {
            match inbox.recv_timeout(GROUP_TIME.saturating_sub(begun.elapsed())) {
                Ok(asked) => group.push(asked),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        let waiters: Vec<usize> = group.iter().map(|asked| asked.waiter).collect();
        store.commit(&waiters)?;
        events += waiters.len() as u64;
        for asked in group {
            // A waiter whose time is over has gone.
            let _ = asked.durable.send(());
        }
    }
    Ok(events)
}

/// One round: events per second, and each event's time to be durable.
fn group_round(store: &mut dyn Store, figures: &mut Figures) -> Result<(), Failed> {
    let (outbox, inbox) = sync_channel::<Asked>(GROUP);
    let begun = Instant::now();
    let waiters: Vec<_> = (0..WAITERS)
        .map(|waiter| {
            let outbox = outbox.clone();
            std::thread::spawn(move || {
                let mut micros = Vec::new();
                let (durable, answer) = sync_channel(1);
                while begun.elapsed() < ROUND {
                    let asked = Instant::now();
                    if outbox.send(Asked { waiter, durable: durable.clone() }).is_err()
                        || answer.recv().is_err()
                    {
                        break;
                    }
                    micros.push(u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX));
                }
                micros
            })
        })
        .collect();
    drop(outbox);
    let events = commit_groups(store, &inbox)?;
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    figures.rates.push(events as f64 / begun.elapsed().as_secs_f64());
    for waiter in waiters {
        figures.micros.extend(waiter.join().map_err(|_| "a waiter has panicked")?);
    }
    Ok(())
}

/// Events per second with 1,000 in a transaction.
fn large_round(store: &mut dyn Store, figures: &mut Figures) -> Result<(), Failed> {
    let group: Vec<usize> = (0..LARGE).map(|n| usize::try_from(n).unwrap_or(0) % WAITERS).collect();
    let begun = Instant::now();
    for _ in 0..10 {
        store.commit(&group)?;
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    figures.batched.push((10 * LARGE) as f64 / begun.elapsed().as_secs_f64());
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn percentile(values: &mut [u64], share: usize) -> u64 {
    values.sort_unstable();
    values.get(values.len() * share / 100).copied().unwrap_or(0)
}

/// Milliseconds to open a stopped journal with 1,500 finished rollouts and to list the open ones
/// and the last 100.
fn status(folder: &Path) -> Result<f64, Failed> {
    let path = folder.join("status.db");
    let mut journal = SqliteJournal::open(&path, "bench")?;
    journal.take_over(Epoch(0))?;
    let mut changes = Vec::new();
    for n in 0..1500 {
        let stream = StreamId::new("bench", "rollout", &format!("r-{n}"));
        let doc = json!({"phase": "promoted", "steps": vec!["a step with some words"; 30]});
        let view = Some(View { open: n % 500 == 0, doc });
        changes.push(Change { view, ..Change::new(stream, 0) });
    }
    journal.commit(&Batch { at: Timestamp(1), epoch: Epoch(1), changes })?;
    drop(journal);
    let mut millis = Vec::new();
    for _ in 0..20 {
        let begun = Instant::now();
        let reader = SqliteReader::open(&path)?;
        let open = reader.views("rollout", true, 100)?.len();
        let all = reader.views("rollout", false, 100)?.len();
        if (open, all) != (3, 100) {
            return Err(format!("{open} open and {all} listed").into());
        }
        millis.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(median(&mut millis))
}

fn figures_json(figures: &mut Figures) -> serde_json::Value {
    json!({
        "eventsPerSecond": median(&mut figures.rates).round(),
        "rounds": figures.rates.iter().map(|rate| rate.round()).collect::<Vec<_>>(),
        "p50Micros": percentile(&mut figures.micros, 50),
        "p99Micros": percentile(&mut figures.micros, 99),
        "eventsPerSecondBy1000": median(&mut figures.batched).round(),
    })
}

fn main() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let disk = disk_check(folder.path())?;
    let (mut bare, mut ours) = (Figures::default(), Figures::default());
    let mut control = Bare::open(&folder.path().join("bare.db"))?;
    let mut journal = Ours::open(&folder.path().join("journal.db"))?;
    for round in 0..ROUNDS {
        // In turns, and each of them first half of the time.
        for turn in [round % 2, 1 - round % 2] {
            let (store, figures): (&mut dyn Store, _) = match turn {
                0 => (&mut control, &mut bare),
                _ => (&mut journal, &mut ours),
            };
            group_round(store, figures)?;
            large_round(store, figures)?;
        }
    }
    let begun = Instant::now();
    let events = journal.journal.verify()?;
    let verify_millis = begun.elapsed().as_millis();
    let group_ratio = median(&mut ours.rates) / median(&mut bare.rates);
    let large_ratio = median(&mut ours.batched) / median(&mut bare.batched);
    let report = json!({
        "waiters": WAITERS,
        "flushMicros": { "median": disk.median_micros, "p99": disk.p99_micros },
        "bare": figures_json(&mut bare),
        "journal": figures_json(&mut ours),
        "ratio": group_ratio,
        "ratioBy1000": large_ratio,
        "verify": { "events": events, "millis": u64::try_from(verify_millis)? },
        "statusMillis": status(folder.path())?,
    });
    println!("{report:#}");
    Ok(())
}
