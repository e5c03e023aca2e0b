//! Watching host and switch: long polls whose changes are reports.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_core::Epoch;
use tidegate_core::capacity::LaneCapacity;
use tidegate_core::traffic::LaneTraffic;
use tidegate_engine::effects::{Report, Seen};
use tidegate_wire::host::HostReport;
use tidegate_wire::switch::{CountsBatch, SwitchReport};
use tokio::sync::Mutex;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, interval, sleep};

use super::link::Link;
use super::{Inner, LOCAL};
use crate::traits::TargetError;

/// A long poll for changes; nothing goes over the wire meanwhile.
const OBSERVE_WAIT: Duration = Duration::from_secs(20);
/// A long poll for counts; also the switch's sign of life, so it is short.
const COUNTS_WAIT: Duration = Duration::from_secs(1);
/// An answer may be late by so much.
const GRACE: Duration = Duration::from_secs(1);
/// Where a long poll comes back at once with nothing.
const PAUSE: Duration = Duration::from_millis(500);
/// First pause after an error; it doubles up to [`PAUSE`], so that a process that was started again
/// is heard at once.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Silence from this on is reported, every second.
const SILENCE: Duration = Duration::from_secs(1);

/// Watches until a newer owner is there.
pub(super) async fn run(inner: &Inner, reports: &Sender<Report>) -> Epoch {
    let seen = Told { reports, capacity: Mutex::default(), traffic: Mutex::default() };
    tokio::select! {
        epoch = inner.contact.wait_superseded() => epoch,
        epoch = host(inner, &seen) => epoch,
        epoch = switch(inner, &seen) => epoch,
        epoch = counts(inner, &seen) => epoch,
        epoch = silence(inner, &seen) => epoch,
    }
}

/// What was told last. Each lock is held until the report is on its way, so that an old report never
/// follows a newer one.
struct Told<'a> {
    reports: &'a Sender<Report>,
    capacity: Mutex<BTreeMap<String, LaneCapacity>>,
    traffic: Mutex<BTreeMap<String, LaneTraffic>>,
}

impl Told<'_> {
    async fn tell(&self, seen: Seen) {
        if self.reports.send(Report { target: LOCAL.to_owned(), seen }).await.is_err() {
            // Nobody listens any more: this future is about to be dropped.
            std::future::pending::<()>().await;
        }
    }

    async fn capacity(&self, lanes: Vec<LaneCapacity>) {
        let mut known = self.capacity.lock().await;
        for lane in lanes {
            if known.get(&lane.lane) != Some(&lane) {
                known.insert(lane.lane.clone(), lane.clone());
                self.tell(Seen::Capacity(lane)).await;
            }
        }
    }

    async fn traffic(&self, lanes: Vec<LaneTraffic>) {
        let mut known = self.traffic.lock().await;
        for lane in lanes {
            if known.get(&lane.lane) != Some(&lane) {
                known.insert(lane.lane.clone(), lane.clone());
                self.tell(Seen::Traffic(lane)).await;
            }
        }
    }

    /// The same once more: after a silence a report says that it is over, also when nothing has
    /// changed meanwhile.
    async fn again(&self) {
        for lane in self.capacity.lock().await.values() {
            self.tell(Seen::Capacity(lane.clone())).await;
        }
        for lane in self.traffic.lock().await.values() {
            self.tell(Seen::Traffic(lane.clone())).await;
        }
    }
}

/// After an error: the newer owner's epoch, or a pause in which a dead host is started.
async fn recover(inner: &Inner, error: TargetError, pause: &mut Duration) -> Option<Epoch> {
    if let TargetError::Superseded(epoch) = error {
        return Some(epoch);
    }
    tracing::debug!(%error, "not observed");
    let started = Instant::now();
    drop(inner.mend::<()>(Err(error)).await);
    sleep(pause.saturating_sub(started.elapsed())).await;
    *pause = (*pause * 2).min(PAUSE);
    None
}

async fn observe<R: serde::de::DeserializeOwned>(
    link: &Link,
    after: u64,
) -> Result<R, TargetError> {
    let path = format!("/v1/observe?after={after}&waitMs={}", OBSERVE_WAIT.as_millis());
    link.get(&path, OBSERVE_WAIT + GRACE * 5).await
}

async fn host(inner: &Inner, told: &Told<'_>) -> Epoch {
    let (mut life, mut revision, mut pause) = (None, 0, PAUSE_FIRST);
    loop {
        let started = Instant::now();
        let report: HostReport = match observe(&inner.host, revision).await {
            Ok(report) => report,
            Err(error) => match recover(inner, error, &mut pause).await {
                Some(epoch) => return epoch,
                None => {
                    // Whoever answers next may be another process, at the same revision by chance.
                    revision = 0;
                    continue;
                }
            },
        };
        pause = PAUSE_FIRST;
        if report.epoch > inner.epoch {
            return report.epoch;
        }
        if life.as_ref().is_some_and(|life| *life != report.life) {
            // Another process: what it says counts once it has taken the claim.
            inner.host.forget().await;
            (life, revision) = (Some(report.life), 0);
            continue;
        }
        life = Some(report.life);
        let grown = report.revision != revision;
        revision = report.revision;
        told.capacity(report.lanes).await;
        breathe(grown, started).await;
    }
}

async fn switch(inner: &Inner, told: &Told<'_>) -> Epoch {
    let (mut life, mut revision, mut pause) = (None, 0, PAUSE_FIRST);
    loop {
        let started = Instant::now();
        let report: SwitchReport = match observe(&inner.switch, revision).await {
            Ok(report) => report,
            Err(error) => match recover(inner, error, &mut pause).await {
                Some(epoch) => return epoch,
                None => {
                    revision = 0;
                    continue;
                }
            },
        };
        pause = PAUSE_FIRST;
        if report.epoch > inner.epoch {
            return report.epoch;
        }
        if life.is_some_and(|life| life != report.switch_epoch) {
            inner.switch.forget().await;
            (life, revision) = (Some(report.switch_epoch), 0);
            continue;
        }
        life = Some(report.switch_epoch);
        let grown = report.revision != revision;
        revision = report.revision;
        told.traffic(report.lanes).await;
        breathe(grown, started).await;
    }
}

/// Closed seconds, each once; asking for what follows acknowledges them.
async fn counts(inner: &Inner, told: &Told<'_>) -> Epoch {
    let (mut epoch, mut after, mut pause) = (0, 0, PAUSE_FIRST);
    loop {
        let started = Instant::now();
        let wait = COUNTS_WAIT.as_millis();
        let path = format!("/v1/counts?epoch={epoch}&after={after}&waitMs={wait}");
        let batch: CountsBatch = match inner.switch.get(&path, COUNTS_WAIT + GRACE).await {
            Ok(batch) => batch,
            Err(error) => match recover(inner, error, &mut pause).await {
                Some(epoch) => return epoch,
                None => continue,
            },
        };
        pause = PAUSE_FIRST;
        if batch.switch_epoch != epoch && after > 0 {
            // Another life of the switch, asked with a position of the one before.
            tracing::warn!(switch = batch.switch_epoch, "the switch has counted anew: a gap");
            (epoch, after) = (batch.switch_epoch, 0);
            continue;
        }
        epoch = batch.switch_epoch;
        if after > 0 && batch.first > after + 1 {
            tracing::warn!(from = after + 1, to = batch.first - 1, "counts were lost: a gap");
        }
        let grown = !batch.records.is_empty();
        if let Some(last) = batch.records.last() {
            after = last.seq;
            told.tell(Seen::Samples(batch.records)).await;
        }
        breathe(grown, started).await;
    }
}

/// A long poll that comes back early with nothing new must not become a fast one.
async fn breathe(grown: bool, started: Instant) {
    if !grown && started.elapsed() < PAUSE {
        sleep(PAUSE).await;
    }
}

async fn silence(inner: &Inner, told: &Told<'_>) -> Epoch {
    let mut every = interval(Duration::from_secs(1));
    let (mut host, mut switch) = (inner.host.silence(), inner.switch.silence());
    let mut reported = false;
    loop {
        let due = tokio::select! {
            _ = every.tick() => true,
            Ok(()) = host.changed() => false,
            Ok(()) = switch.changed() => false,
        };
        let silences = [host.borrow_and_update().clone(), switch.borrow_and_update().clone()];
        let longest = silences.into_iter().flatten().min_by_key(|(since, _)| *since);
        match longest.filter(|(since, _)| since.elapsed() > SILENCE) {
            Some((since, why)) if due => {
                let millis = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
                reported = true;
                told.tell(Seen::Silence(millis, why)).await;
            }
            None if reported => {
                reported = false;
                told.again().await;
            }
            Some(_) | None => {}
        }
    }
}
