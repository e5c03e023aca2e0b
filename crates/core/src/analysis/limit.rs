//! A plain limit on one-second counts, for how long and with which minimum sample.
//!
//! The metric is computed over the last [`WINDOW_S`] seconds (for `errors`, a number, over the whole
//! `for`), or over as many more before them as the minimum sample needs, at most [`LONGEST_S`]:
//! otherwise a canary of two requests a second would never be judged. With `for` it must be over the limit in every second's window without a break,
//! and the break-free time counts from the first errored second of the window in which it went
//! over: so "1.2 % errors for 5 min" is found after 5 min, not after 5 min and a window. Seconds
//! without data neither prolong nor break it. At the limit is still good.

use std::collections::VecDeque;

use super::{Finding, Numbers};
use crate::counts::{LATENCY_BUCKETS, SecondRecord, bucket_bounds_us};
use crate::spec::{CountMetric, CountsLimit, Limit};

/// Seconds over which a rate or a percentile is computed.
const WINDOW_S: u64 = 10;

/// The same where the minimum sample takes longer. What is older says nothing of now.
const LONGEST_S: u64 = 300;

/// One second of the window, summed over switches and weights.
#[derive(Debug, Clone, Default)]
struct Second {
    second: u64,
    n: u64,
    k: u64,
    latency: Vec<(u8, u32)>,
}

/// A limit and what it has seen. Bounded: seconds of one window, at most [`LONGEST_S`] or the `for`.
#[derive(Debug, Clone)]
pub struct LimitWatch {
    spec: CountsLimit,
    window_s: u64,
    seconds: VecDeque<Second>,
    over_since: Option<u64>,
    over_requests: u64,
    seen: u64,
}

impl LimitWatch {
    /// A watch that has seen nothing.
    #[must_use]
    pub fn new(spec: CountsLimit) -> Self {
        let window_s = match spec.metric {
            CountMetric::Errors => (spec.for_ms / 1000).max(WINDOW_S),
            CountMetric::ErrorRate | CountMetric::P50 | CountMetric::P95 | CountMetric::P99 => {
                WINDOW_S
            }
        };
        Self {
            spec,
            window_s,
            seconds: VecDeque::new(),
            over_since: None,
            over_requests: 0,
            seen: 0,
        }
    }

    /// Adds one record of the judged version. Records of one second may come in several parts;
    /// records older than the window are dropped.
    pub fn feed(&mut self, record: &SecondRecord) {
        let (n, k) = (u64::from(record.n), u64::from(record.errors()));
        self.seen += n;
        let part = Second { second: record.second, n, k, latency: record.latency.clone() };
        match self.seconds.iter_mut().rev().find(|s| s.second <= record.second) {
            Some(there) if there.second == record.second => {
                there.n += part.n;
                there.k += part.k;
                there.latency.extend(part.latency);
            }
            Some(_) | None => {
                let at = self.seconds.partition_point(|s| s.second < record.second);
                self.seconds.insert(at, part);
            }
        }
        let newest = self.seconds.back().map_or(0, |s| s.second);
        self.forget(newest);
        self.advance(n);
    }

    /// Drops the seconds that the window does not need any more.
    fn forget(&mut self, newest: u64) {
        let needed = match self.spec.metric {
            CountMetric::Errors => 0,
            CountMetric::ErrorRate | CountMetric::P50 | CountMetric::P95 | CountMetric::P99 => {
                u64::from(self.spec.minimum_sample)
            }
        };
        let longest_s = self.window_s.max(LONGEST_S);
        let mut have: u64 = self.seconds.iter().map(|s| s.n).sum();
        while let Some(oldest) = self.seconds.front() {
            let spare = have - oldest.n >= needed || oldest.second + longest_s <= newest;
            if oldest.second + self.window_s > newest || !spare {
                break;
            }
            have -= oldest.n;
            self.seconds.pop_front();
        }
    }

    /// Requests seen since the watch began.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// What it says now.
    #[must_use]
    pub fn finding(&self) -> Finding {
        let numbers = self.numbers();
        let minimum = u64::from(self.spec.minimum_sample.max(1));
        let sampled = match self.spec.metric {
            // A number of errors needs no sample: six errors are six errors.
            CountMetric::Errors => numbers.requests.max(minimum),
            CountMetric::ErrorRate | CountMetric::P50 | CountMetric::P95 | CountMetric::P99 => {
                numbers.requests.max(self.over_requests)
            }
        };
        if sampled < minimum || numbers.requests == 0 {
            return Finding::NoData(numbers);
        }
        if !self.is_over(&numbers) {
            return Finding::Within(numbers);
        }
        let needed_s = match self.spec.metric {
            CountMetric::Errors => 0,
            CountMetric::ErrorRate | CountMetric::P50 | CountMetric::P95 | CountMetric::P99 => {
                self.spec.for_ms.div_ceil(1000)
            }
        };
        let lasted = self.over_since.map_or(0, |since| numbers.to + 1 - since.min(numbers.to + 1));
        if lasted >= needed_s { Finding::Breached(numbers) } else { Finding::Over(numbers) }
    }

    /// The finding in words, with the limit beside it.
    #[must_use]
    pub fn words(&self) -> String {
        let numbers = self.numbers();
        let (name, value, limit) = match (self.spec.metric, self.spec.limit) {
            (CountMetric::ErrorRate, limit) => {
                ("error rate", percent(numbers.value), percent(limit_value(limit)))
            }
            (CountMetric::Errors, limit) => {
                ("errors", numbers.value.to_string(), limit_value(limit).to_string())
            }
            (CountMetric::P50, limit) => ("p50", millis(numbers.value), millis(limit_value(limit))),
            (CountMetric::P95, limit) => ("p95", millis(numbers.value), millis(limit_value(limit))),
            (CountMetric::P99, limit) => ("p99", millis(numbers.value), millis(limit_value(limit))),
        };
        format!(
            "{name} {value} (limit {limit}): {} of {} requests failed in the last {} s",
            numbers.errors,
            numbers.requests,
            (numbers.to + 1).saturating_sub(numbers.from).max(1),
        )
    }

    fn advance(&mut self, n: u64) {
        let numbers = self.numbers();
        if numbers.requests == 0 {
            return;
        }
        if self.is_over(&numbers) {
            if self.over_since.is_none() {
                let first_bad = self.seconds.iter().find(|s| s.k > 0).map(|s| s.second);
                let since = match self.spec.metric {
                    CountMetric::ErrorRate | CountMetric::Errors => first_bad,
                    CountMetric::P50 | CountMetric::P95 | CountMetric::P99 => None,
                };
                self.over_since = Some(since.unwrap_or(numbers.to));
                self.over_requests = numbers.requests;
            } else {
                self.over_requests += n;
            }
        } else {
            self.over_since = None;
            self.over_requests = 0;
        }
    }

    fn numbers(&self) -> Numbers {
        let requests: u64 = self.seconds.iter().map(|s| s.n).sum();
        let errors: u64 = self.seconds.iter().map(|s| s.k).sum();
        let value = match self.spec.metric {
            CountMetric::ErrorRate => (errors * 10_000).checked_div(requests).unwrap_or(0),
            CountMetric::Errors => errors,
            CountMetric::P50 => self.percentile_us(50),
            CountMetric::P95 => self.percentile_us(95),
            CountMetric::P99 => self.percentile_us(99),
        };
        Numbers {
            requests,
            errors,
            value,
            from: self.seconds.front().map_or(0, |s| s.second),
            to: self.seconds.back().map_or(0, |s| s.second),
        }
    }

    /// Rates are compared as fractions, so that 1.004 % is over 1 %.
    fn is_over(&self, numbers: &Numbers) -> bool {
        let limit = limit_value(self.spec.limit);
        match self.spec.metric {
            CountMetric::ErrorRate => numbers.errors * 10_000 > limit * numbers.requests,
            CountMetric::Errors => numbers.errors > limit,
            CountMetric::P50 | CountMetric::P95 | CountMetric::P99 => numbers.value > limit,
        }
    }

    /// Lower bound of the bucket that holds the percentile: the latency was at least that.
    fn percentile_us(&self, percent: u64) -> u64 {
        let mut counts = [0_u64; LATENCY_BUCKETS];
        let mut total = 0;
        for (bucket, count) in self.seconds.iter().flat_map(|s| &s.latency) {
            if let Some(slot) = counts.get_mut(usize::from(*bucket)) {
                *slot += u64::from(*count);
                total += u64::from(*count);
            }
        }
        let rank = (total * percent).div_ceil(100);
        let mut below = 0;
        let bounds = bucket_bounds_us();
        for (index, count) in counts.iter().enumerate() {
            below += count;
            if rank > 0 && below >= rank {
                return index.checked_sub(1).and_then(|i| bounds.get(i)).copied().unwrap_or(0);
            }
        }
        0
    }
}

fn limit_value(limit: Limit) -> u64 {
    match limit {
        Limit::RateBp(bp) => u64::from(bp),
        Limit::Count(count) | Limit::LatencyUs(count) => count,
    }
}

fn percent(bp: u64) -> String {
    if bp.is_multiple_of(100) {
        format!("{} %", bp / 100)
    } else {
        format!("{}.{:02} %", bp / 100, bp % 100)
    }
}

fn millis(us: u64) -> String {
    format!("{} ms", us / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::Outcomes;

    fn spec(metric: CountMetric, limit: Limit, minimum_sample: u32, for_s: u64) -> CountsLimit {
        CountsLimit { metric, limit, minimum_sample, for_ms: for_s * 1000 }
    }

    fn record(second: u64, n: u32, errors: u32) -> SecondRecord {
        SecondRecord {
            switch_epoch: 1,
            seq: second,
            second,
            lane: "e/s".into(),
            version: "v2".into(),
            digest: crate::Digest::default(),
            weight_bp: 1000,
            n,
            outcomes: Outcomes { ok: n - errors, status: errors, ..Outcomes::default() },
            latency: vec![(20, n)],
            retries: 0,
            client_gone: 0,
            cutover: 0,
            shadow: 0,
            forced: 0,
            in_flight: 0,
        }
    }

    /// First second at which the limit is breached, with errors(second) of n a second.
    fn breached_at(
        spec: CountsLimit,
        until: u64,
        n: u32,
        errors: impl Fn(u64) -> u32,
    ) -> Option<u64> {
        let mut watch = LimitWatch::new(spec);
        (0..until).find(|second| {
            watch.feed(&record(*second, n, errors(*second)));
            matches!(watch.finding(), Finding::Breached(_))
        })
    }

    #[test]
    fn a_rate_for_five_minutes_is_breached_after_five_minutes_and_not_ten_seconds_earlier() {
        let rule = spec(CountMetric::ErrorRate, Limit::RateBp(100), 50, 300);
        // 1.2 % of 250 a second.
        assert_eq!(breached_at(rule.clone(), 400, 250, |s| if s < 290 { 3 } else { 0 }), None);
        let at = breached_at(rule, 400, 250, |_| 3);
        assert!(at.is_some_and(|at| (298..=301).contains(&at)), "{at:?}");
    }

    #[test]
    fn at_the_limit_is_good_and_a_little_more_is_not() {
        let rule = spec(CountMetric::ErrorRate, Limit::RateBp(500), 50, 0);
        assert_eq!(breached_at(rule.clone(), 60, 100, |_| 5), None);
        assert_eq!(breached_at(rule, 60, 100, |_| 6), Some(0));
    }

    #[test]
    fn below_the_minimum_sample_there_is_no_verdict() {
        let mut watch = LimitWatch::new(spec(CountMetric::ErrorRate, Limit::RateBp(500), 50, 0));
        assert!(matches!(watch.finding(), Finding::NoData(_)));
        watch.feed(&record(1, 49, 49));
        assert!(matches!(watch.finding(), Finding::NoData(_)));
        watch.feed(&record(2, 1, 1));
        assert!(matches!(watch.finding(), Finding::Breached(_)));
    }

    #[test]
    fn a_little_traffic_is_judged_as_soon_as_the_minimum_sample_is_there() {
        let rule = spec(CountMetric::ErrorRate, Limit::RateBp(100), 50, 0);
        // 20 a second at 10 %: never 50 in ten seconds. One of every 25 requests fails.
        let rare = |s: u64| u32::from(s % 13 == 3);
        assert_eq!(breached_at(rule.clone(), 60, 2, rare), Some(24));
        let mut watch = LimitWatch::new(rule);
        for second in 0..60 {
            watch.feed(&record(second, 2, 0));
        }
        let Finding::Within(numbers) = watch.finding() else { panic!("{:?}", watch.finding()) };
        // No more of the past than the sample needs.
        assert_eq!((numbers.requests, numbers.from), (50, 35));
    }

    #[test]
    fn what_is_older_than_the_longest_window_is_no_sample() {
        let mut watch = LimitWatch::new(spec(CountMetric::ErrorRate, Limit::RateBp(500), 50, 0));
        watch.feed(&record(0, 49, 0));
        watch.feed(&record(LONGEST_S, 1, 1));
        assert!(matches!(watch.finding(), Finding::NoData(_)), "{:?}", watch.finding());
    }

    #[test]
    fn a_number_of_errors_breaches_at_the_first_one_too_many() {
        let rule = spec(CountMetric::Errors, Limit::Count(5), 0, 300);
        assert_eq!(breached_at(rule.clone(), 290, 10, |s| u32::from(s % 60 == 0)), None);
        assert_eq!(breached_at(rule, 300, 10, |s| u32::from(s % 50 == 0)), Some(250));
    }

    #[test]
    fn slow_answers_breach_a_latency_limit() {
        // Bucket 20 ends at 10 ms × 1.05^20 = 26.5 ms and begins at 25.2 ms.
        let slow = spec(CountMetric::P95, Limit::LatencyUs(25_000), 10, 0);
        assert_eq!(breached_at(slow, 5, 20, |_| 0), Some(0));
        let fine = spec(CountMetric::P95, Limit::LatencyUs(26_000), 10, 0);
        assert_eq!(breached_at(fine, 5, 20, |_| 0), None);
    }

    #[test]
    fn a_gap_neither_prolongs_nor_breaks_a_breach() {
        let rule = spec(CountMetric::ErrorRate, Limit::RateBp(100), 1, 20);
        let mut watch = LimitWatch::new(rule);
        for second in (0..10).chain(15..22) {
            watch.feed(&record(second, 10, 5));
        }
        assert!(matches!(watch.finding(), Finding::Breached(_)), "{:?}", watch.finding());
    }
}
