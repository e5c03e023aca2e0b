//! The switch: shares, requests under way, closed seconds.

use std::collections::BTreeMap;

use tidegate_core::counts::{Outcomes, SecondRecord};
use tidegate_core::traffic::{LaneTraffic, TrafficDoc, VersionTraffic};
use tidegate_core::{Digest, Fence};

use super::{Accepted, Gate, Host, Refusal, SLOT_MS, World};

/// Requests that arrive in a slot.
const REQUESTS: u32 = 10;
/// Seconds of counts that are kept.
const KEPT: usize = 900;

/// Basis points by version, without zeros.
pub type Shares = BTreeMap<String, u32>;

/// The switch of the simulation: one lane.
#[derive(Debug, Clone, Default)]
pub struct Switch {
    /// Epochs.
    pub gate: Gate,
    /// It does not answer until then; what it serves goes on.
    pub down_until: u64,
    /// The table in force.
    pub lane: Option<Accepted<TrafficDoc>>,
    /// Since when a version gets nothing.
    pub zero_since: BTreeMap<String, u64>,
    /// When a version got its first request.
    pub first_request: BTreeMap<String, u64>,
    /// Requests under way: (version, ends at) → how many.
    under_way: BTreeMap<(String, u64), u32>,
    owed: BTreeMap<String, u64>,
    failed: BTreeMap<String, u64>,
    open: BTreeMap<(String, u32), SecondRecord>,
    /// Closed seconds.
    pub records: Vec<SecondRecord>,
    /// The life of its process.
    pub life: u64,
    seq: u64,
    second: u64,
    /// Requests that found no instance.
    pub unserved: u64,
    /// Errors of each version so far, those without an instance included.
    pub errors: BTreeMap<String, u64>,
    /// Grows with everything that a report would show.
    pub revision: u64,
}

impl Switch {
    /// What each version gets.
    #[must_use]
    pub fn shares(&self) -> Shares {
        let Some(lane) = &self.lane else { return Shares::new() };
        let shares = lane.doc.weights.iter().filter(|w| w.weight_bp > 0);
        shares.map(|w| (w.version.clone(), w.weight_bp)).collect()
    }

    /// What one version gets.
    #[must_use]
    pub fn share(&self, version: &str) -> u32 {
        self.shares().get(version).copied().unwrap_or(0)
    }

    /// Requests that a version is answering.
    #[must_use]
    pub fn in_flight(&self, version: &str) -> u32 {
        self.under_way.iter().filter(|((v, _), _)| v == version).map(|(_, n)| n).sum()
    }

    /// Versions with instances and without requests.
    pub(super) fn idle_versions(&self, host: &Host) -> Vec<String> {
        let mut versions: Vec<String> = host.instances.iter().map(|i| i.version.clone()).collect();
        versions.dedup();
        versions.retain(|v| self.in_flight(v) == 0);
        versions
    }

    /// Its process dies and another one takes its place: the table is durable, requests are not.
    pub fn restart(&mut self) {
        self.under_way.clear();
        self.open.clear();
        self.records.clear();
        self.life += 1;
        self.seq = 0;
        self.revision += 1;
    }
}

impl World {
    /// A traffic document arrives from the engine: `Ok(true)` if it is new.
    ///
    /// # Errors
    /// Why the switch does not take it.
    pub fn take_traffic(&mut self, fence: Fence, doc: TrafficDoc) -> Result<bool, Refusal> {
        self.put_traffic(fence, doc)
    }

    pub(super) fn put_traffic(&mut self, fence: Fence, doc: TrafficDoc) -> Result<bool, Refusal> {
        let digest = Digest::of_json(&doc).unwrap_or_default();
        let switch = &mut self.switch;
        let new = switch.gate.admit(switch.lane.as_ref(), fence, &digest, self.sabotage)?;
        if new {
            let before = switch.shares();
            switch.lane = Some(Accepted { fence, digest, doc });
            let after = switch.shares();
            for version in before.keys().filter(|v| !after.contains_key(*v)) {
                switch.zero_since.insert(version.clone(), self.now);
            }
            for version in after.keys() {
                switch.zero_since.remove(version);
            }
            switch.revision += 1;
        }
        Ok(new)
    }

    /// The requests of one slot.
    pub(super) fn serve(&mut self) {
        let now = self.now;
        let under_way = &mut self.switch.under_way;
        let before = under_way.len();
        under_way.retain(|(_, ends), _| *ends > now);
        if under_way.len() != before && now.is_multiple_of(5 * SLOT_MS) {
            self.switch.revision += 1;
        }
        let second = self.wall() / 1000;
        if second != self.switch.second {
            self.close_second(second);
        }
        for (version, share) in self.switch.shares() {
            let owed = self.switch.owed.entry(version.clone()).or_default();
            *owed += u64::from(REQUESTS) * u64::from(share);
            let count = u32::try_from(*owed / 10_000).unwrap_or(0);
            *owed %= 10_000;
            if count > 0 {
                self.request(&version, share, count, second);
            }
        }
        // An answered last request is news.
        let idle = self.switch.zero_since.keys().any(|v| self.switch.in_flight(v) == 0);
        if idle && before != self.switch.under_way.len() {
            self.switch.revision += 1;
        }
    }

    fn request(&mut self, version: &str, share: u32, count: u32, second: u64) {
        let now = self.now;
        let behaviour = self.behaviour(version);
        let first = *self.switch.first_request.entry(version.to_owned()).or_insert(now);
        let ready = self.host.ready(version) > 0;
        let failing = now >= first + behaviour.errors_after_ms;
        let switch = &mut self.switch;
        let failed = switch.failed.entry(version.to_owned()).or_default();
        if failing {
            *failed += u64::from(count) * u64::from(behaviour.errors);
        }
        let errors = u32::try_from(*failed / 1000).unwrap_or(0).min(count);
        *failed -= u64::from(errors) * 1000;
        let key = (version.to_owned(), share);
        let lane = switch.lane.as_ref().map_or("", |l| l.doc.lane.as_str()).to_owned();
        let record = switch.open.entry(key).or_insert_with(|| SecondRecord {
            switch_epoch: switch.life,
            seq: 0,
            second,
            lane,
            version: version.to_owned(),
            digest: Digest::of(version.as_bytes()),
            weight_bp: share,
            n: 0,
            outcomes: Outcomes::default(),
            latency: Vec::new(),
            retries: 0,
            client_gone: 0,
            cutover: 0,
            shadow: 0,
            forced: 0,
            in_flight: 0,
        });
        record.n += count;
        if ready {
            record.outcomes.ok += count - errors;
            record.outcomes.status += errors;
            *switch
                .under_way
                .entry((version.to_owned(), now + behaviour.request_ms))
                .or_default() += count;
        } else {
            record.outcomes.connect += count;
            switch.unserved += u64::from(count);
        }
        let bad = if ready { errors } else { count };
        *switch.errors.entry(version.to_owned()).or_default() += u64::from(bad);
    }

    fn close_second(&mut self, second: u64) {
        let switch = &mut self.switch;
        switch.second = second;
        for (_, mut record) in std::mem::take(&mut switch.open) {
            switch.seq += 1;
            record.seq = switch.seq;
            record.latency = vec![(1, record.n)];
            switch.records.push(record);
        }
        let surplus = switch.records.len().saturating_sub(KEPT);
        switch.records.drain(..surplus);
        switch.revision += 1;
    }

    /// The switch's report on the lane; none before the first document.
    #[must_use]
    pub fn traffic_report(&self) -> Option<LaneTraffic> {
        let lane = self.switch.lane.as_ref()?;
        let mut versions: Vec<VersionTraffic> = lane
            .doc
            .weights
            .iter()
            .map(|w| VersionTraffic {
                version: w.version.clone(),
                digest: w.digest.clone(),
                weight_bp: w.weight_bp,
                in_flight: self.reported_in_flight(&w.version),
                usable: self.host.ready(&w.version),
            })
            .collect();
        for (version, _) in self.switch.under_way.keys() {
            if versions.iter().all(|v| v.version != *version) {
                versions.push(VersionTraffic {
                    version: version.clone(),
                    digest: Digest::of(version.as_bytes()),
                    weight_bp: 0,
                    in_flight: self.reported_in_flight(version),
                    usable: self.host.ready(version),
                });
            }
        }
        Some(LaneTraffic { lane: lane.doc.lane.clone(), fence: Some(lane.fence), versions })
    }

    fn reported_in_flight(&self, version: &str) -> u32 {
        if self.sabotage.drained_at_once { 0 } else { self.switch.in_flight(version) }
    }
}
