//! Watching host and switch: long polls whose changes are reports.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_core::Epoch;
use tidegate_engine::effects::{Report, Seen};
use tidegate_wire::host::HostReport;
use tidegate_wire::switch::{CountsBatch, SwitchReport};
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
/// After an error, and where a long poll comes back at once with nothing.
const PAUSE: Duration = Duration::from_millis(500);
/// Silence from this on is reported, every second.
const SILENCE: Duration = Duration::from_secs(1);

/// Watches until a newer owner is there.
pub(super) async fn run(inner: &Inner, reports: &Sender<Report>) -> Epoch {
    tokio::select! {
        epoch = inner.contact.wait_superseded() => epoch,
        epoch = host(inner, reports) => epoch,
        epoch = switch(inner, reports) => epoch,
        epoch = counts(inner, reports) => epoch,
        epoch = silence(inner, reports) => epoch,
    }
}

async fn report(reports: &Sender<Report>, seen: Seen) {
    if reports.send(Report { target: LOCAL.to_owned(), seen }).await.is_err() {
        // Nobody listens any more: this future is about to be dropped.
        std::future::pending::<()>().await;
    }
}

/// After an error: the newer owner's epoch, or a pause in which a dead host is started.
async fn recover(inner: &Inner, error: TargetError) -> Option<Epoch> {
    if let TargetError::Superseded(epoch) = error {
        return Some(epoch);
    }
    tracing::debug!(%error, "not observed");
    let started = Instant::now();
    drop(inner.mend::<()>(Err(error)).await);
    sleep(PAUSE.saturating_sub(started.elapsed())).await;
    None
}

async fn observe<R: serde::de::DeserializeOwned>(
    link: &Link,
    after: u64,
) -> Result<R, TargetError> {
    let path = format!("/v1/observe?after={after}&waitMs={}", OBSERVE_WAIT.as_millis());
    link.get(&path, OBSERVE_WAIT + GRACE * 5).await
}

async fn host(inner: &Inner, reports: &Sender<Report>) -> Epoch {
    let mut known = BTreeMap::new();
    let (mut life, mut revision) = (String::new(), 0);
    loop {
        let started = Instant::now();
        let report_now: HostReport = match observe(&inner.host, revision).await {
            Ok(report) => report,
            Err(error) => match recover(inner, error).await {
                Some(epoch) => return epoch,
                None => continue,
            },
        };
        if report_now.epoch > inner.epoch {
            return report_now.epoch;
        }
        if report_now.life != life && revision > 0 {
            // Another process: what it says counts once it has taken the claim.
            inner.host.forget().await;
            (life, revision) = (report_now.life, 0);
            continue;
        }
        life = report_now.life;
        let grown = report_now.revision != revision;
        revision = report_now.revision;
        for lane in report_now.lanes {
            if known.get(&lane.lane) != Some(&lane) {
                known.insert(lane.lane.clone(), lane.clone());
                report(reports, Seen::Capacity(lane)).await;
            }
        }
        breathe(grown, started).await;
    }
}

async fn switch(inner: &Inner, reports: &Sender<Report>) -> Epoch {
    let mut known = BTreeMap::new();
    let (mut life, mut revision) = (0, 0);
    loop {
        let started = Instant::now();
        let report_now: SwitchReport = match observe(&inner.switch, revision).await {
            Ok(report) => report,
            Err(error) => match recover(inner, error).await {
                Some(epoch) => return epoch,
                None => continue,
            },
        };
        if report_now.epoch > inner.epoch {
            return report_now.epoch;
        }
        if report_now.switch_epoch != life && revision > 0 {
            inner.switch.forget().await;
            (life, revision) = (report_now.switch_epoch, 0);
            continue;
        }
        life = report_now.switch_epoch;
        let grown = report_now.revision != revision;
        revision = report_now.revision;
        for lane in report_now.lanes {
            if known.get(&lane.lane) != Some(&lane) {
                known.insert(lane.lane.clone(), lane.clone());
                report(reports, Seen::Traffic(lane)).await;
            }
        }
        breathe(grown, started).await;
    }
}

/// Closed seconds, each once; asking for what follows acknowledges them.
async fn counts(inner: &Inner, reports: &Sender<Report>) -> Epoch {
    let (mut epoch, mut after) = (0, 0);
    loop {
        let started = Instant::now();
        let wait = COUNTS_WAIT.as_millis();
        let path = format!("/v1/counts?epoch={epoch}&after={after}&waitMs={wait}");
        let batch: CountsBatch = match inner.switch.get(&path, COUNTS_WAIT + GRACE).await {
            Ok(batch) => batch,
            Err(error) => match recover(inner, error).await {
                Some(epoch) => return epoch,
                None => continue,
            },
        };
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
            report(reports, Seen::Samples(batch.records)).await;
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

async fn silence(inner: &Inner, reports: &Sender<Report>) -> Epoch {
    let mut every = interval(Duration::from_secs(1));
    loop {
        every.tick().await;
        let silent = [&inner.host, &inner.switch].into_iter().filter_map(Link::silence);
        if let Some((since, why)) = silent.min_by_key(|(since, _)| *since)
            && since.elapsed() > SILENCE
        {
            let millis = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            report(reports, Seen::Silence(millis, why)).await;
        }
    }
}
