//! The open second, and the closed ones of the last 15 minutes.
//!
//! Nothing here wakes up while nothing is counted: the second is closed by the next outcome, by a
//! reader, or by the closer, which only runs while a second with something in it is open.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_wire::Digest;
use tidegate_wire::counts::{LATENCY_BUCKETS, Outcomes, SecondRecord, bucket, bucket_bounds_us};
use tidegate_wire::switch::{Block, CountsBatch};
use tokio::sync::{Notify, watch};

use super::history::OpenBlocks;
use super::{BLOCK_SECONDS, Clock};

/// How long closed seconds are kept for a reader.
const KEEP_SECONDS: u64 = 15 * 60;
/// Most records that one answer carries; the reader asks again for the rest.
const BATCH_MAX: usize = 10_000;

/// Whose counts: a version of a lane under one weight.
#[derive(Debug)]
pub(crate) struct CellKey {
    pub(crate) lane: String,
    pub(crate) version: String,
    pub(crate) digest: Digest,
    pub(crate) weight_bp: u32,
    /// Requests of this version under way, whatever the weight.
    pub(crate) in_flight: Arc<AtomicU32>,
}

/// What became of one client request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A head came: its status, whether it is the service's fault, and after how long.
    Head { status: u16, fault: bool, latency_us: u64 },
    /// Refused, reset or broken before the head.
    Connect,
    /// No head in time.
    Timeout,
    /// What came is not HTTP, or too large.
    Protocol,
    /// The body was cut by the instance after a good head; the request itself is counted already.
    Broken,
    /// The client went away before the head.
    ClientGone,
    /// Failed on an instance that was told to stop.
    Cutover,
    /// A tester chose the version.
    Forced,
}

#[derive(Debug)]
struct Cell {
    key: Arc<CellKey>,
    n: u32,
    outcomes: Outcomes,
    latency: Box<[u32; LATENCY_BUCKETS]>,
    retries: u32,
    client_gone: u32,
    cutover: u32,
    forced: u32,
}

impl Cell {
    fn new(key: Arc<CellKey>) -> Self {
        Self {
            key,
            n: 0,
            outcomes: Outcomes::default(),
            latency: Box::new([0; LATENCY_BUCKETS]),
            retries: 0,
            client_gone: 0,
            cutover: 0,
            forced: 0,
        }
    }

    fn add(&mut self, outcome: Outcome, bounds: &[u64; LATENCY_BUCKETS - 1]) {
        let errors = &mut self.outcomes;
        match outcome {
            Outcome::Head { status, fault, latency_us } => {
                self.n += 1;
                *(if fault { &mut errors.status } else { &mut errors.ok }) += 1;
                let class = usize::from(status / 100).saturating_sub(1);
                if let Some(count) = errors.by_class.get_mut(class) {
                    *count += 1;
                }
                let slot = usize::from(bucket(bounds, latency_us));
                if let Some(count) = self.latency.get_mut(slot) {
                    *count += 1;
                }
            }
            Outcome::Connect => (self.n, errors.connect) = (self.n + 1, errors.connect + 1),
            Outcome::Timeout => (self.n, errors.timeout) = (self.n + 1, errors.timeout + 1),
            Outcome::Protocol => (self.n, errors.protocol) = (self.n + 1, errors.protocol + 1),
            Outcome::Broken => errors.broken += 1,
            Outcome::ClientGone => self.client_gone += 1,
            Outcome::Cutover => self.cutover += 1,
            Outcome::Forced => self.forced += 1,
        }
    }

    fn close(self, switch_epoch: u64, seq: u64, second: u64) -> SecondRecord {
        let latency = (0_u8..).zip(self.latency.iter()).filter(|(_, count)| **count > 0);
        SecondRecord {
            switch_epoch,
            seq,
            second,
            lane: self.key.lane.clone(),
            version: self.key.version.clone(),
            digest: self.key.digest.clone(),
            weight_bp: self.key.weight_bp,
            n: self.n,
            outcomes: self.outcomes,
            latency: latency.map(|(index, count)| (index, *count)).collect(),
            retries: self.retries,
            client_gone: self.client_gone,
            cutover: self.cutover,
            shadow: 0,
            forced: self.forced,
            in_flight: self.key.in_flight.load(Ordering::Relaxed),
        }
    }
}

#[derive(Debug)]
struct Inner {
    /// The second in which outcomes are counted now.
    second: u64,
    cells: HashMap<usize, Cell>,
    closed: VecDeque<SecondRecord>,
    /// Of the last closed record.
    seq: u64,
    blocks: OpenBlocks,
    finished: Vec<Block>,
}

/// All counts of this life of the switch.
#[derive(Debug)]
pub(crate) struct Counts {
    clock: Clock,
    switch_epoch: u64,
    bounds: [u64; LATENCY_BUCKETS - 1],
    inner: Mutex<Inner>,
    /// Something is open: the closer has to look.
    opened: Notify,
    /// The last closed sequence.
    last: watch::Sender<u64>,
}

impl Counts {
    pub(crate) fn new(switch_epoch: u64) -> Self {
        let clock = Clock::new();
        let second = clock.now_ms() / 1000;
        Self {
            clock,
            switch_epoch,
            bounds: bucket_bounds_us(),
            inner: Mutex::new(Inner {
                second,
                cells: HashMap::new(),
                closed: VecDeque::new(),
                seq: 0,
                blocks: OpenBlocks::new(second),
                finished: Vec::new(),
            }),
            opened: Notify::new(),
            last: watch::Sender::new(0),
        }
    }

    pub(crate) fn switch_epoch(&self) -> u64 {
        self.switch_epoch
    }

    /// Counts an outcome, and attempts beyond the first that it took.
    pub(crate) fn record(&self, key: &Arc<CellKey>, outcome: Outcome, retries: u32) {
        let mut inner = self.lock();
        self.turn(&mut inner);
        if inner.cells.is_empty() {
            self.opened.notify_one();
        }
        let id = Arc::as_ptr(key) as usize;
        let cell = inner.cells.entry(id).or_insert_with(|| Cell::new(Arc::clone(key)));
        cell.add(outcome, &self.bounds);
        cell.retries += retries;
    }

    /// Everything closed after `after` of this life; another life's reader starts at the oldest.
    pub(crate) fn batch(&self, switch_epoch: u64, after: u64) -> CountsBatch {
        let mut inner = self.lock();
        self.turn(&mut inner);
        let after = if switch_epoch == self.switch_epoch { after } else { 0 };
        let first = inner.closed.front().map_or(inner.seq + 1, |record| record.seq);
        let skip = usize::try_from((after + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        let records: Vec<_> = inner.closed.iter().skip(skip).take(BATCH_MAX).cloned().collect();
        // Of a batch that is cut short only the seconds that are whole in it are closed for the
        // reader.
        let last = records.last().filter(|record| record.seq < inner.seq);
        let closed_second = last.map_or(inner.second, |record| record.second).saturating_sub(1);
        CountsBatch { switch_epoch: self.switch_epoch, records, first, closed_second }
    }

    /// As [`Counts::batch`], when there is something after `after` or `wait` is over.
    pub(crate) async fn wait(&self, epoch: u64, after: u64, wait: Duration) -> CountsBatch {
        let mut last = self.last.subscribe();
        if epoch == self.switch_epoch {
            let grown = last.wait_for(|seq| *seq > after);
            // Both ends lead to the same answer.
            let _ = tokio::time::timeout(wait, grown).await;
        }
        self.batch(epoch, after)
    }

    /// Blocks that ended since this was last asked; with `all` also the open ones.
    pub(crate) fn finished_blocks(&self, all: bool) -> Vec<Block> {
        let mut inner = self.lock();
        if all {
            let second = inner.second.max(self.clock.now_ms() / 1000) + 1;
            self.close(&mut inner, second);
            let open = inner.blocks.finish(second);
            inner.finished.extend(open);
        } else {
            self.turn(&mut inner);
        }
        std::mem::take(&mut inner.finished)
    }

    /// Closes seconds while there is something open; hands finished blocks to `write`. Never ends.
    pub(crate) async fn run_closer(&self, mut write: impl FnMut(Vec<Block>)) {
        loop {
            let due = {
                let mut inner = self.lock();
                self.turn(&mut inner);
                let finished = std::mem::take(&mut inner.finished);
                if !finished.is_empty() {
                    write(finished);
                }
                if !inner.cells.is_empty() {
                    Some(inner.second + 1)
                } else if inner.blocks.is_empty() {
                    None
                } else {
                    Some(inner.second / BLOCK_SECONDS * BLOCK_SECONDS + BLOCK_SECONDS)
                }
            };
            let Some(due) = due else {
                self.opened.notified().await;
                continue;
            };
            let left = (due * 1000 + 1).saturating_sub(self.clock.now_ms());
            let pause = tokio::time::sleep(Duration::from_millis(left.max(1)));
            tokio::select! {
                () = pause => {}
                () = self.opened.notified() => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the open second if the clock has left it.
    fn turn(&self, inner: &mut Inner) {
        let now = self.clock.now_ms() / 1000;
        if now > inner.second {
            self.close(inner, now);
        }
    }

    fn close(&self, inner: &mut Inner, now: u64) {
        let second = inner.second;
        inner.second = now;
        let mut cells: Vec<Cell> = inner.cells.drain().map(|(_, cell)| cell).collect();
        cells.sort_by(|a, b| {
            let by = |c: &Cell| (c.key.lane.clone(), c.key.version.clone(), c.key.weight_bp);
            by(a).cmp(&by(b))
        });
        let from = inner.closed.len();
        for cell in cells {
            inner.seq += 1;
            inner.closed.push_back(cell.close(self.switch_epoch, inner.seq, second));
        }
        let Inner { closed, blocks, finished, .. } = inner;
        finished.extend(blocks.add(second, closed.iter().skip(from)));
        finished.extend(blocks.turn(now));
        let oldest = now.saturating_sub(KEEP_SECONDS);
        while inner.closed.front().is_some_and(|record| record.second < oldest) {
            inner.closed.pop_front();
        }
        let seq = inner.seq;
        self.last.send_if_modified(|last| std::mem::replace(last, seq) != seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(weight_bp: u32) -> Arc<CellKey> {
        Arc::new(CellKey {
            lane: "prod/web".into(),
            version: "v1".into(),
            digest: Digest::of(b"v1"),
            weight_bp,
            in_flight: Arc::new(AtomicU32::new(3)),
        })
    }

    fn close(counts: &Counts) {
        let mut inner = counts.lock();
        let next = inner.second + 1;
        counts.close(&mut inner, next);
    }

    const GOOD: Outcome = Outcome::Head { status: 200, fault: false, latency_us: 12_000 };
    const BAD: Outcome = Outcome::Head { status: 503, fault: true, latency_us: 9_000 };

    #[test]
    fn a_change_of_weight_inside_a_second_makes_two_records_without_a_hole_in_the_sequence() {
        let counts = Counts::new(7);
        let (low, high) = (key(500), key(1_000));
        counts.lock().second += 5; // ahead of the clock: only `close` turns it
        counts.record(&low, GOOD, 0);
        counts.record(&high, BAD, 2);
        close(&counts);
        counts.record(&high, Outcome::Connect, 1);
        counts.record(&high, Outcome::Broken, 0);
        counts.record(&high, Outcome::ClientGone, 0);
        counts.record(&high, Outcome::Cutover, 0);
        counts.record(&high, Outcome::Forced, 0);
        close(&counts);
        let batch = counts.batch(7, 0);
        let seqs: Vec<_> = batch.records.iter().map(|r| (r.seq, r.weight_bp, r.n)).collect();
        assert_eq!(seqs, [(1, 500, 1), (2, 1_000, 1), (3, 1_000, 1)]);
        assert_eq!(batch.records[0].outcomes.by_class, [0, 1, 0, 0, 0]);
        assert_eq!(batch.records[0].latency, [(4, 1)]);
        assert_eq!(batch.records[1].errors(), 1);
        assert_eq!(batch.records[1].retries, 2);
        let last = &batch.records[2];
        assert_eq!((last.errors(), last.outcomes.connect, last.outcomes.broken), (2, 1, 1));
        assert_eq!((last.client_gone, last.cutover, last.forced, last.in_flight), (1, 1, 1, 3));
        assert!(batch.closed_second >= last.second);
    }

    #[test]
    fn a_reader_of_another_life_starts_at_the_oldest_and_one_behind_sees_where_the_gap_ends() {
        let counts = Counts::new(7);
        let one = key(1);
        counts.lock().second += 5;
        for _ in 0..3 {
            counts.record(&one, GOOD, 0);
            close(&counts);
        }
        assert_eq!(counts.batch(6, 2).records.len(), 3);
        assert_eq!(counts.batch(7, 2).records.len(), 1);
        assert_eq!(counts.batch(7, 3).records.len(), 0);
        assert_eq!(counts.batch(7, 3).first, 1);
        {
            let mut inner = counts.lock();
            let later = inner.second + KEEP_SECONDS - 1;
            counts.close(&mut inner, later);
        }
        let batch = counts.batch(7, 0);
        assert_eq!((batch.first, batch.records.len()), (3, 1));
        close(&counts);
        assert_eq!(counts.batch(7, 0).first, 4, "nothing is left: the gap ends after the last");
    }

    #[test]
    fn a_cell_takes_the_open_second_to_the_block_with_errors_squared_per_second() {
        let counts = Counts::new(7);
        let (low, high) = (key(500), key(1_000));
        {
            let mut inner = counts.lock();
            inner.second = (inner.second / BLOCK_SECONDS + 2) * BLOCK_SECONDS;
        }
        for _ in 0..2 {
            counts.record(&low, BAD, 0);
            counts.record(&high, BAD, 0);
            close(&counts);
        }
        let blocks = counts.finished_blocks(true);
        assert_eq!(blocks.len(), 1);
        assert_eq!((blocks[0].n, blocks[0].k, blocks[0].k_squared), (4, 4, 8));
        assert_eq!(blocks[0].latency, [(0, 4)]);
    }
}
