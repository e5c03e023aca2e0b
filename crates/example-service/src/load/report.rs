//! What a raw log says. Everything here is counted from the file, so that anybody can count again.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::client::LoadError;
use super::line::{ErrorClass, FOOTER, HEADER, Line};

/// All requests of a raw log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoadReport {
    /// In the order of their numbers.
    pub lines: Vec<Line>,
}

/// Counts over some requests.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// All of them.
    pub requests: u64,
    /// Those without a whole answer or with a status of 500 or above.
    pub failed: u64,
    /// Whole answers by `1xx` to `5xx`.
    pub by_status: BTreeMap<String, u64>,
    /// The others by error class.
    pub by_error: BTreeMap<ErrorClass, u64>,
    /// Requests by the version that answered; `-` where nothing says which.
    pub by_version: BTreeMap<String, u64>,
    /// Failed requests by version.
    pub failed_by_version: BTreeMap<String, u64>,
    /// Median latency of whole answers in microseconds.
    pub p50_us: u64,
    /// 95th percentile.
    pub p95_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// The slowest.
    pub max_us: u64,
    /// The longest that a request had to wait for a free connection after it was due.
    pub max_lag_us: u64,
}

impl LoadReport {
    /// Reads a raw log that was written to its end.
    ///
    /// # Errors
    /// [`LoadError`] where the file cannot be read, a line is not one, a number is missing or
    /// there twice, or the end is missing: then nothing can be said about the run.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| LoadError::Log(path.to_owned(), error.to_string()))?;
        Self::parse(&text).map_err(|error| LoadError::Log(path.to_owned(), error))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut rows = text.lines();
        if rows.next() != Some(HEADER) {
            return Err("does not start with the header of a raw log".into());
        }
        let (mut lines, mut sent) = (Vec::new(), None);
        for row in rows {
            if let Some(number) = row.strip_prefix(FOOTER) {
                sent = Some(number.parse::<u64>().map_err(|error| format!("{row}: {error}"))?);
            } else {
                lines.push(row.parse::<Line>()?);
            }
        }
        lines.sort_by_key(|line| line.n);
        let sent = sent.ok_or("has no end: the client was killed")?;
        for (expected, line) in (0_u64..).zip(&lines) {
            if line.n > expected {
                return Err(format!("request {expected} is missing"));
            }
            if line.n < expected {
                return Err(format!("request {} is there twice", line.n));
            }
        }
        if u64::try_from(lines.len()) != Ok(sent) {
            return Err(format!("{} of {sent} requests are there", lines.len()));
        }
        Ok(Self { lines })
    }

    /// The requests that were under way at some moment from `from_us` to `to_us`, both included.
    #[must_use]
    pub fn window(&self, from_us: u64, to_us: u64) -> Self {
        let inside = |line: &&Line| line.sent_us <= to_us && line.answered_us >= from_us;
        Self { lines: self.lines.iter().filter(inside).cloned().collect() }
    }

    /// Failed requests, those answered by one of `versions` themselves left out.
    #[must_use]
    pub fn failures_not_answered_by(&self, versions: &[&str]) -> Vec<&Line> {
        let ours = |line: &&Line| {
            line.failed() && !versions.iter().any(|version| line.answered_by(version))
        };
        self.lines.iter().filter(ours).collect()
    }

    /// The counts over all lines.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        let mut latencies = Vec::with_capacity(self.lines.len());
        for line in &self.lines {
            tally.requests += 1;
            *tally.by_version.entry(line.version.clone()).or_default() += 1;
            if line.failed() {
                tally.failed += 1;
                *tally.failed_by_version.entry(line.version.clone()).or_default() += 1;
            }
            match line.error {
                Some(error) => *tally.by_error.entry(error).or_default() += 1,
                None => {
                    *tally.by_status.entry(format!("{}xx", line.status / 100)).or_default() += 1;
                    latencies.push(line.latency_us());
                }
            }
            tally.max_lag_us = tally.max_lag_us.max(line.sent_us.saturating_sub(line.due_us));
        }
        latencies.sort_unstable();
        tally.p50_us = percentile(&latencies, 50);
        tally.p95_us = percentile(&latencies, 95);
        tally.p99_us = percentile(&latencies, 99);
        tally.max_us = percentile(&latencies, 100);
        tally
    }
}

/// The nearest-rank percentile of ascending values; 0 where there are none.
fn percentile(ascending: &[u64], percent: usize) -> u64 {
    let rank = (ascending.len() * percent).div_ceil(100).max(1);
    ascending.get(rank - 1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{FOOTER, HEADER, LoadReport, percentile};

    fn log(rows: &[&str], sent: u64) -> String {
        format!("{HEADER}\n{}\n{FOOTER}{sent}\n", rows.join("\n"))
    }

    #[test]
    fn the_counts_are_those_of_the_lines() {
        let text = log(
            &[
                "1\t20\t50\t500\tv2\tPOST\t-\t20",
                "0\t10\t20\t200\tv1\tGET\t-\t9",
                "2\t30\t31\t0\t-\tGET\trefused\t30",
            ],
            3,
        );
        let report = LoadReport::parse(&text).unwrap();
        let tally = report.tally();
        assert_eq!((tally.requests, tally.failed), (3, 2));
        assert_eq!(tally.by_version["v1"], 1);
        assert_eq!(tally.failed_by_version["v2"], 1);
        assert_eq!(tally.by_status["5xx"], 1);
        assert_eq!((tally.p50_us, tally.max_us, tally.max_lag_us), (10, 30, 1));
        let ours: Vec<u64> =
            report.failures_not_answered_by(&["v2"]).iter().map(|line| line.n).collect();
        assert_eq!(ours, [2]);
    }

    #[test]
    fn a_request_under_way_at_the_border_is_in_the_window() {
        let text = log(&["0\t10\t20\t200\tv1\tGET\t-\t9", "1\t21\t30\t200\tv1\tGET\t-\t9"], 2);
        let report = LoadReport::parse(&text).unwrap();
        assert_eq!(report.window(20, 20).lines.len(), 1);
        assert_eq!(report.window(20, 21).lines.len(), 2);
        assert_eq!(report.window(31, 99).lines.len(), 0);
    }

    #[test]
    fn a_log_with_a_hole_a_double_or_no_end_says_nothing() {
        let one = "0\t10\t20\t200\tv1\tGET\t-\t9";
        let two = "2\t10\t20\t200\tv1\tGET\t-\t9";
        let why = |text: &str| LoadReport::parse(text).unwrap_err();
        assert_eq!(why(&log(&[one, two], 2)), "request 1 is missing");
        assert_eq!(why(&log(&[one, one], 2)), "request 0 is there twice");
        assert_eq!(why(&log(&[one], 2)), "1 of 2 requests are there");
        assert_eq!(why(&format!("{HEADER}\n{one}\n")), "has no end: the client was killed");
        assert!(why(one).contains("header"));
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        assert_eq!(percentile(&[], 50), 0);
        assert_eq!(percentile(&[7], 1), 7);
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!((percentile(&hundred, 50), percentile(&hundred, 99)), (50, 99));
    }
}
