//! The only place of this crate that reads a clock, and times as people and documents write them.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Milliseconds since 1970 by the machine's clock.
#[expect(clippy::disallowed_methods, reason = "a client shows times; it decides nothing by them")]
pub(crate) fn now_ms() -> u64 {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A moment of the monotonic clock.
#[expect(clippy::disallowed_methods, reason = "bounds of a client's own waiting")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}

/// A bound in time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// So far from now.
    pub(crate) fn after(time: Duration) -> Self {
        Self(instant().checked_add(time))
    }

    /// Never.
    pub(crate) fn never() -> Self {
        Self(None)
    }

    /// Whether it is over.
    pub(crate) fn passed(&self) -> bool {
        self.0.is_some_and(|end| instant() >= end)
    }

    /// What is left, at most `most`.
    pub(crate) fn left(&self, most: Duration) -> Duration {
        self.0.map_or(most, |end| end.saturating_duration_since(instant()).min(most))
    }
}

fn timestamp(ms: u64) -> Timestamp {
    i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default()
}

/// RFC 3339 in UTC with milliseconds.
pub(crate) fn rfc3339(ms: u64) -> String {
    format!("{:.3}", timestamp(ms))
}

/// Milliseconds of an RFC 3339 text.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let at: Timestamp = text.parse().ok()?;
    u64::try_from(at.as_millisecond()).ok()
}

/// `14:03:28` where the user is.
pub(crate) fn local_hms(ms: u64) -> String {
    timestamp(ms).to_zoned_datetime(TimeZone::system()).strftime("%H:%M:%S").to_string()
}

/// `2026-07-01 14:03` where the user is.
pub(crate) fn local_minute(ms: u64) -> String {
    timestamp(ms).to_zoned_datetime(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string()
}

/// `2026-07-01T14:03:28Z`.
pub(crate) fn utc_second(ms: u64) -> String {
    format!("{:.0}", timestamp(ms / 1000 * 1000))
}

/// `00:23`, `1:02:03`.
pub(crate) fn stopwatch(ms: u64) -> String {
    let seconds = ms / 1000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes:02}:{seconds:02}")
    }
}

/// `90s`, `5m`, `4h`, `1d`, `250ms`, or a number of seconds, as clap's parser for options.
///
/// # Errors
/// A sentence.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 =
        number.parse().map_err(|_| format!("`{text}` is no duration; write 90s, 5m, 4h or 1d"))?;
    let ms = match unit {
        "ms" => 1,
        "s" | "" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("`{unit}` is no unit; write 90s, 5m, 4h or 1d")),
    };
    number.checked_mul(ms).map(Duration::from_millis).ok_or_else(|| format!("`{text}` is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339_in_utc_and_read_back() {
        assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(parse("2023-11-14T22:13:20.123Z"), Some(1_700_000_000_123));
        assert_eq!(utc_second(1_700_000_000_999), "2023-11-14T22:13:20Z");
        assert_eq!(stopwatch(3_723_000), "1:02:03");
    }

    #[test]
    fn durations_have_units_and_nothing_else() {
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert!(parse_duration("5 m").is_err());
        assert!(parse_duration("-1s").is_err());
        assert!(parse_duration("99999999999999999999d").is_err());
    }
}
