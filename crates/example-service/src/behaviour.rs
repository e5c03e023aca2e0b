//! How the service misbehaves. Everything is off by default.

use clap::Args;
use serde::{Deserialize, Serialize};

/// What the service does wrong. Set by flags or environment at the start and changed at run time
/// by `POST /behave` with a JSON object of the fields to change. Rates are shares from 0 to 1 of
/// the requests to `/` and `/work`; probes are answered well unless a field says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Args)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Behaviour {
    /// Share of requests answered with `error_status`.
    #[arg(long, env = "EXAMPLE_ERRORS", default_value_t = 0.0)]
    pub errors: f64,
    /// The status of such an answer.
    #[arg(long, env = "EXAMPLE_ERROR_STATUS", default_value_t = 500)]
    pub error_status: u16,
    /// Share of answers whose body is cut in the middle.
    #[arg(long, env = "EXAMPLE_CUTS", default_value_t = 0.0)]
    pub cuts: f64,
    /// Milliseconds before each answer.
    #[arg(long, env = "EXAMPLE_LATENCY_MS", default_value_t = 0)]
    pub latency_ms: u64,
    /// Up to so many milliseconds more, evenly spread.
    #[arg(long, env = "EXAMPLE_JITTER_MS", default_value_t = 0)]
    pub jitter_ms: u64,
    /// Share of requests that take `slow_ms` more: the tail of the distribution.
    #[arg(long, env = "EXAMPLE_SLOW", default_value_t = 0.0)]
    pub slow: f64,
    /// How much longer those take.
    #[arg(long, env = "EXAMPLE_SLOW_MS", default_value_t = 1000)]
    pub slow_ms: u64,
    /// Ends with a failure before it listens.
    #[arg(long, env = "EXAMPLE_CRASH_AT_START")]
    pub crash_at_start: bool,
    /// Aborts when it is asked for the request after so many.
    #[arg(long, env = "EXAMPLE_CRASH_AFTER")]
    pub crash_after: Option<u64>,
    /// Bytes that every request leaves behind.
    #[arg(long, env = "EXAMPLE_LEAK_BYTES", default_value_t = 0)]
    pub leak_bytes: usize,
    /// Ignores SIGTERM.
    #[arg(long, env = "EXAMPLE_HANG_ON_STOP")]
    pub hang_on_stop: bool,
    /// Lives, and does not listen (any more).
    #[arg(long, env = "EXAMPLE_REFUSE")]
    pub refuse: bool,
    /// Answers `/health/ready` with 503.
    #[arg(long, env = "EXAMPLE_UNREADY")]
    pub unready: bool,
    /// `/version` claims to be this one.
    #[arg(long, env = "EXAMPLE_WRONG_VERSION")]
    pub wrong_version: Option<String>,
    /// Milliseconds before it listens.
    #[arg(long, env = "EXAMPLE_START_DELAY_MS", default_value_t = 0)]
    pub start_delay_ms: u64,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            errors: 0.0,
            error_status: 500,
            cuts: 0.0,
            latency_ms: 0,
            jitter_ms: 0,
            slow: 0.0,
            slow_ms: 1000,
            crash_at_start: false,
            crash_after: None,
            leak_bytes: 0,
            hang_on_stop: false,
            refuse: false,
            unready: false,
            wrong_version: None,
            start_delay_ms: 0,
        }
    }
}

impl Behaviour {
    /// This behaviour with the fields of a JSON object changed.
    ///
    /// # Errors
    /// A sentence, where the text is not such an object or names a field that does not exist.
    pub fn changed(&self, json: &[u8]) -> Result<Self, String> {
        let change: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(json).map_err(|error| format!("not a JSON object: {error}"))?;
        let mut whole = serde_json::to_value(self).map_err(|error| error.to_string())?;
        if let Some(fields) = whole.as_object_mut() {
            fields.extend(change);
        }
        serde_json::from_value(whole).map_err(|error| error.to_string())
    }

    /// The flags that start the service with this behaviour.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        let plain = Self::default();
        let mut flags = Vec::new();
        let mut set = |differs: bool, flag: &str, value: String| {
            if differs {
                flags.push(flag.to_owned());
                flags.push(value);
            }
        };
        set(self.errors > 0.0, "--errors", self.errors.to_string());
        set(
            self.error_status != plain.error_status,
            "--error-status",
            self.error_status.to_string(),
        );
        set(self.cuts > 0.0, "--cuts", self.cuts.to_string());
        set(self.latency_ms > 0, "--latency-ms", self.latency_ms.to_string());
        set(self.jitter_ms > 0, "--jitter-ms", self.jitter_ms.to_string());
        set(self.slow > 0.0, "--slow", self.slow.to_string());
        set(self.slow_ms != plain.slow_ms, "--slow-ms", self.slow_ms.to_string());
        set(self.leak_bytes > 0, "--leak-bytes", self.leak_bytes.to_string());
        set(self.start_delay_ms > 0, "--start-delay-ms", self.start_delay_ms.to_string());
        if let Some(after) = self.crash_after {
            set(true, "--crash-after", after.to_string());
        }
        if let Some(version) = &self.wrong_version {
            set(true, "--wrong-version", version.clone());
        }
        for (on, flag) in [
            (self.crash_at_start, "--crash-at-start"),
            (self.hang_on_stop, "--hang-on-stop"),
            (self.refuse, "--refuse"),
            (self.unready, "--unready"),
        ] {
            if on {
                flags.push(flag.to_owned());
            }
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::Behaviour;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        behaviour: Behaviour,
    }

    #[test]
    fn a_change_leaves_the_other_fields_alone() {
        let before = Behaviour { latency_ms: 5, ..Behaviour::default() };
        let after = before.changed(br#"{"errors": 0.25}"#).unwrap();
        assert_eq!(after, Behaviour { latency_ms: 5, errors: 0.25, ..Behaviour::default() });
    }

    #[test]
    fn a_change_of_a_field_that_does_not_exist_is_refused() {
        let refused = Behaviour::default().changed(br#"{"eror": 1}"#).unwrap_err();
        assert!(refused.contains("eror"), "{refused}");
    }

    #[test]
    fn the_flags_of_a_behaviour_make_that_behaviour() {
        let odd = Behaviour {
            errors: 0.5,
            error_status: 503,
            cuts: 0.125,
            latency_ms: 1,
            jitter_ms: 2,
            slow: 0.25,
            slow_ms: 3,
            crash_at_start: true,
            crash_after: Some(4),
            leak_bytes: 5,
            hang_on_stop: true,
            refuse: true,
            unready: true,
            wrong_version: Some("v0".into()),
            start_delay_ms: 6,
        };
        for behaviour in [odd, Behaviour::default()] {
            let line = std::iter::once("x".to_owned()).chain(behaviour.flags());
            assert_eq!(Line::try_parse_from(line).unwrap().behaviour, behaviour);
        }
    }
}
