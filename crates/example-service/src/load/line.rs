//! One request as one line of the raw log, columns parted by tabs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The first line of a raw log.
pub(super) const HEADER: &str = "# n\tsentUs\tansweredUs\tstatus\tversion\tmethod\terror\tdueUs";

/// What the last line of a complete raw log starts with; the number of requests follows.
pub(super) const FOOTER: &str = "# sent=";

/// One request and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number, from 0.
    pub n: u64,
    /// When it was handed to a connection, or when connecting failed; microseconds of Unix time.
    pub sent_us: u64,
    /// When its answer was complete or it had failed; microseconds of Unix time.
    pub answered_us: u64,
    /// The status of a whole answer; 0 where there was none.
    pub status: u16,
    /// The version that answered; `-` where nothing says so.
    pub version: String,
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Why there is no whole answer.
    pub error: Option<ErrorClass>,
    /// When it was due by the rate; microseconds of Unix time.
    pub due_us: u64,
}

impl Line {
    /// Whether the client did not get a whole answer, or one with a status of 500 or above.
    #[must_use]
    pub const fn failed(&self) -> bool {
        self.error.is_some() || self.status == 0 || self.status >= 500
    }

    /// Whether the version itself answered: a whole answer that names it.
    #[must_use]
    pub fn answered_by(&self, version: &str) -> bool {
        self.error.is_none() && self.status != 0 && self.version == version
    }

    /// From the hand-over to the end, in microseconds.
    #[must_use]
    pub const fn latency_us(&self) -> u64 {
        self.answered_us.saturating_sub(self.sent_us)
    }
}

/// Why a request has no whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ErrorClass {
    /// No connection.
    Refused,
    /// The connection was reset after something was sent.
    Reset,
    /// The connection was closed without an answer after something was sent.
    Closed,
    /// Not answered in time.
    Timeout,
    /// The head came and the body not to its end.
    Cut,
    /// Not HTTP.
    Protocol,
    /// The answer to another request.
    Mixed,
    /// Something else.
    Other,
}

impl ErrorClass {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Refused, "refused"),
        (Self::Reset, "reset"),
        (Self::Closed, "closed"),
        (Self::Timeout, "timeout"),
        (Self::Cut, "cut"),
        (Self::Protocol, "protocol"),
        (Self::Mixed, "mixed"),
        (Self::Other, "other"),
    ];

    /// Its word in the log.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(class, _)| *class == self).map_or("other", |(_, word)| word)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n, sent_us, answered_us, status, version, method, error, due_us } = self;
        let error = error.map_or("-", ErrorClass::word);
        write!(f, "{n}\t{sent_us}\t{answered_us}\t{status}\t{version}\t{method}\t{error}\t{due_us}")
    }
}

impl FromStr for Line {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let columns: Vec<&str> = text.split('\t').collect();
        let [n, sent, answered, status, version, method, error, due] = columns[..] else {
            return Err(format!("{} columns, not 8: {text}", columns.len()));
        };
        let number = |text: &str| {
            text.parse::<u64>().map_err(|error| format!("not a number: {text}: {error}"))
        };
        Ok(Self {
            n: number(n)?,
            sent_us: number(sent)?,
            answered_us: number(answered)?,
            status: status.parse().map_err(|error| format!("not a status: {status}: {error}"))?,
            version: version.to_owned(),
            method: match method {
                "GET" => "GET",
                "POST" => "POST",
                _ => return Err(format!("not a method: {method}")),
            },
            error: match error {
                "-" => None,
                word => Some(
                    ErrorClass::ALL
                        .iter()
                        .find(|(_, known)| *known == word)
                        .ok_or_else(|| format!("not a class of errors: {word}"))?
                        .0,
                ),
            },
            due_us: number(due)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{ErrorClass, Line};

    fn line() -> Line {
        Line {
            n: 7,
            sent_us: 10,
            answered_us: 25,
            status: 200,
            version: "v1".into(),
            method: "GET",
            error: None,
            due_us: 9,
        }
    }

    #[test]
    fn a_line_reads_back_as_it_was_written() {
        for error in [None, Some(ErrorClass::Cut), Some(ErrorClass::Refused)] {
            let line = Line { error, ..line() };
            assert_eq!(line.to_string().parse::<Line>().unwrap(), line);
        }
    }

    #[test]
    fn a_line_that_lost_a_column_is_refused() {
        let error = "7\t10\t25\t200\tv1\tGET\t-".parse::<Line>().unwrap_err();
        assert!(error.contains("7 columns"), "{error}");
    }

    #[test]
    fn a_whole_answer_below_500_is_no_failure_and_everything_else_is_one() {
        assert!(!line().failed());
        assert!(!Line { status: 404, ..line() }.failed());
        assert!(Line { status: 500, ..line() }.failed());
        assert!(Line { status: 0, error: Some(ErrorClass::Reset), ..line() }.failed());
        assert!(Line { status: 0, ..line() }.failed());
    }
}
