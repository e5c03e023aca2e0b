//! Whose fault each failed request was, from the client's raw log and the times of the kills.

use std::time::Duration;

use super::plan::Target;
use super::{Killed, Played};
use crate::load::{Line, LoadReport};

/// Failed requests by reason.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Judged {
    /// A bad version answered it itself, while it was served.
    pub(super) own: usize,
    /// Sent before a killed switch was gone and not yet answered.
    pub(super) in_flight: usize,
    /// From the death of all three until the first good answer after it.
    pub(super) dead: usize,
    /// The longest such time, in seconds.
    pub(super) outage_s: f64,
    /// None of these: what must not be.
    pub(super) other: usize,
}

pub(super) fn judge(played: &[Played], report: &LoadReport) -> Judged {
    let bad: Vec<&str> =
        played.iter().filter(|played| !played.good).map(|p| p.version.as_str()).collect();
    let kills: Vec<&Killed> = played.iter().flat_map(|played| &played.kills).collect();
    let outages: Vec<(u64, u64)> = kills
        .iter()
        .filter(|kill| kill.target == Target::All)
        .map(|kill| (kill.at_us, restored_us(report, kill)))
        .collect();
    let mut judged = Judged::default();
    for (from, to) in &outages {
        let seconds = Duration::from_micros(to - from).as_secs_f64();
        judged.outage_s = judged.outage_s.max(seconds);
    }
    for line in report.lines.iter().filter(|line| line.failed()) {
        if bad.iter().any(|version| line.answered_by(version)) {
            judged.own += 1;
        } else if outages.iter().any(|(from, to)| under_way(line, *from, *to)) {
            judged.dead += 1;
        } else if kills.iter().any(|kill| in_flight(line, kill)) {
            judged.in_flight += 1;
        } else {
            judged.other += 1;
        }
    }
    judged
}

/// The first good answer to a request that was sent after the death.
fn restored_us(report: &LoadReport, kill: &Killed) -> u64 {
    let after = report.lines.iter().filter(|line| line.sent_us >= kill.gone_us && !line.failed());
    let last = report.lines.iter().map(|line| line.answered_us).max().unwrap_or(kill.gone_us);
    after.map(|line| line.answered_us).min().unwrap_or_else(|| last.max(kill.gone_us))
}

const fn under_way(line: &Line, from_us: u64, to_us: u64) -> bool {
    line.sent_us <= to_us && line.answered_us >= from_us
}

fn in_flight(line: &Line, kill: &Killed) -> bool {
    kill.target == Target::Switch && under_way(line, kill.at_us, kill.gone_us)
}

#[cfg(test)]
mod tests {
    use super::{Judged, judge};
    use crate::bars::kill_anywhere::{Killed, Played, plan::Target};
    use crate::load::{ErrorClass, Line, LoadReport};

    fn line(n: u64, sent_us: u64, answered_us: u64) -> Line {
        Line {
            n,
            sent_us,
            answered_us,
            status: 200,
            version: "v1".into(),
            method: "GET",
            error: None,
            due_us: sent_us,
        }
    }

    fn failed(n: u64, sent_us: u64, answered_us: u64) -> Line {
        Line {
            status: 0,
            version: "-".into(),
            error: Some(ErrorClass::Reset),
            ..line(n, sent_us, answered_us)
        }
    }

    fn round(good: bool, target: Target, at_us: u64, gone_us: u64) -> Played {
        Played {
            version: "v2".into(),
            good,
            twin: false,
            kills: vec![Killed { target, at_us, gone_us, inside: true, back: true, back_ms: 0 }],
            start_us: 0,
            end_us: 0,
            outcome: String::new(),
            stable: String::new(),
            right: true,
            effects: 1,
        }
    }

    fn check(round: Played, lines: Vec<Line>, expected: &Judged) {
        assert_eq!(&judge(&[round], &LoadReport { lines }), expected);
    }

    #[test]
    fn what_was_in_flight_in_a_killed_switch_is_told_from_what_came_after() {
        let lines = vec![failed(0, 90, 105), failed(1, 90, 99), failed(2, 111, 120)];
        let expected = Judged { in_flight: 1, other: 2, ..Judged::default() };
        check(round(true, Target::Switch, 100, 110), lines, &expected);
    }

    #[test]
    fn a_request_lost_when_engine_or_host_is_killed_is_nobody_elses_fault() {
        for target in [Target::Engine, Target::Host] {
            let expected = Judged { other: 1, ..Judged::default() };
            check(round(true, target, 100, 110), vec![failed(0, 90, 105)], &expected);
        }
    }

    #[test]
    fn an_outage_ends_with_the_first_good_answer() {
        let lines = vec![
            failed(0, 200, 210),
            line(1, 1_000_000, 2_000_100),
            failed(2, 2_000_200, 2_000_201),
        ];
        let expected = Judged { dead: 1, other: 1, outage_s: 2.0, ..Judged::default() };
        check(round(true, Target::All, 100, 110), lines, &expected);
    }

    #[test]
    fn only_a_bad_versions_own_answers_are_its_own() {
        let own = |n| Line { status: 500, version: "v2".into(), ..line(n, 1, 2) };
        let cut = Line { version: "v2".into(), ..failed(1, 1, 2) };
        let lines = vec![own(0), cut];
        let expected = Judged { own: 1, other: 1, ..Judged::default() };
        check(round(false, Target::Engine, 100, 110), lines.clone(), &expected);
        let expected = Judged { other: 2, ..Judged::default() };
        check(round(true, Target::Engine, 100, 110), lines, &expected);
    }
}
