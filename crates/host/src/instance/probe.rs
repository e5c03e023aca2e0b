//! One try of a probe, and the counting of tries. Semantics as in Kubernetes.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tidegate_core::spec::{Probe, ProbeAction};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::command::address;
use crate::shim::spec::ShimSpec;

/// Most of an answer that is read.
const ANSWER_MAX: usize = 64 << 10;
/// The pause after the first try that finds an instance not ready yet.
const QUICK_FIRST: Duration = Duration::from_millis(50);
/// The longest such pause, where the period is longer.
const QUICK_MOST: Duration = Duration::from_millis(500);
/// No probe is made more often than this.
const SHORTEST_PERIOD: Duration = Duration::from_millis(10);

/// Counts tries against thresholds.
///
/// Until it is good for the first time the probe is tried more often than its period says, so that
/// a quick start is seen at once. Those extra tries can only help: failures count at most once a
/// period, and as soon as one has passed the period holds.
#[derive(Debug)]
pub(crate) struct Judge {
    period: Duration,
    passes_needed: u32,
    failures_needed: u32,
    passes: u32,
    failures: u32,
    failure_counted: Option<Instant>,
    good: bool,
    was_good: bool,
    quick: Duration,
}

/// What a try has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing.
    Same,
    /// Good from now on.
    Good,
    /// The threshold of failures is reached.
    Bad,
}

impl Judge {
    pub(crate) fn new(probe: &Probe, good: bool) -> Self {
        Self {
            period: Duration::from_millis(probe.period_ms).max(SHORTEST_PERIOD),
            passes_needed: probe.success_threshold.max(1),
            failures_needed: probe.failure_threshold.max(1),
            passes: 0,
            failures: 0,
            failure_counted: None,
            good,
            was_good: good,
            quick: QUICK_FIRST,
        }
    }

    /// Counts a try that ended at `at`.
    pub(crate) fn count(&mut self, passed: bool, at: Instant) -> Turn {
        if passed {
            self.failures = 0;
            self.failure_counted = None;
            self.passes += 1;
            if !self.good && self.passes >= self.passes_needed {
                (self.good, self.was_good) = (true, true);
                return Turn::Good;
            }
            return Turn::Same;
        }
        self.passes = 0;
        let again = self.failure_counted.is_none_or(|last| at - last >= self.period);
        if self.was_good || again {
            self.failures += 1;
            self.failure_counted = Some(at);
        }
        if self.failures == self.failures_needed {
            self.good = false;
            return Turn::Bad;
        }
        Turn::Same
    }

    /// How long to wait before the next try.
    pub(crate) fn pause(&mut self) -> Duration {
        if self.was_good || self.passes > 0 {
            return self.period;
        }
        let pause = self.quick.min(QUICK_MOST).min(self.period);
        self.quick = self.quick * 3 / 2;
        pause
    }
}

/// What a probe is aimed at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aim<'a> {
    /// The instance's own port.
    pub(crate) port: u16,
    /// Folder and environment for commands.
    pub(crate) spec: &'a ShimSpec,
}

/// One try: what it answered, or why it failed.
pub(crate) async fn attempt(probe: &Probe, aim: Aim<'_>) -> Result<String, String> {
    let within = Duration::from_millis(probe.timeout_ms.max(1));
    let answer = async {
        match &probe.action {
            ProbeAction::Http { path, port, .. } => http(path, port.unwrap_or(aim.port)).await,
            ProbeAction::Tcp { port } => {
                let to = address(port.unwrap_or(aim.port));
                TcpStream::connect(&to)
                    .await
                    .map(|_| String::new())
                    .map_err(|e| format!("no connection to {to}: {e}"))
            }
            ProbeAction::Command { command } => super::probe_command::run(command, aim.spec).await,
        }
    };
    tokio::time::timeout(within, answer)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} ms", probe.timeout_ms)))
}

/// One GET on a connection of its own.
async fn http(path: &str, port: u16) -> Result<String, String> {
    let to = address(port);
    let slash = if path.starts_with('/') { "" } else { "/" };
    let on = format!("http://{to}{slash}{path}");
    let failed = |e: &dyn std::fmt::Display| format!("GET {on}: {e}");
    let stream = TcpStream::connect(&to).await.map_err(|e| failed(&e))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| failed(&e))?;
    let exchange = async {
        let request = http::Request::get(format!("{slash}{path}"))
            .header(http::header::HOST, &to)
            .header(http::header::USER_AGENT, "tidegate-probe")
            .header(http::header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|e| failed(&e))?;
        let response = sender.send_request(request).await.map_err(|e| failed(&e))?;
        let status = response.status().as_u16();
        if !(200..400).contains(&status) {
            return Err(failed(&format!("answered {status}")));
        }
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        let body = body.map_err(|e| failed(&e))?.to_bytes();
        Ok(String::from_utf8_lossy(&body).into_owned())
    };
    // Both in this task: when the try is given up, the connection goes with it.
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(e) => Err(failed(&e)),
        },
    }
}

/// The version in an answer: the named field of a JSON document, or the whole text.
pub(crate) fn version_in(answer: &str, probe: &Probe) -> Result<String, String> {
    let ProbeAction::Http { field: Some(field), .. } = &probe.action else {
        return Ok(answer.trim().to_owned());
    };
    let document: serde_json::Value =
        serde_json::from_str(answer).map_err(|e| format!("the answer is not JSON: {e}"))?;
    let found = field.split('.').try_fold(&document, |at, name| at.get(name));
    match found {
        Some(serde_json::Value::String(text)) => Ok(text.clone()),
        Some(serde_json::Value::Number(number)) => Ok(number.to_string()),
        Some(_) => Err(format!("the field {field} of the answer is no text")),
        None => Err(format!("the answer has no field {field}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(period_ms: u64, passes: u32, failures: u32) -> Probe {
        Probe {
            action: ProbeAction::Tcp { port: None },
            initial_delay_ms: 0,
            period_ms,
            timeout_ms: 1000,
            success_threshold: passes,
            failure_threshold: failures,
        }
    }

    #[tokio::test]
    async fn extra_tries_before_the_first_pass_do_not_use_up_the_failures() {
        let start = Instant::now();
        let mut judge = Judge::new(&probe(1000, 1, 2), false);
        for ms in [0, 50, 125, 240, 990] {
            assert_eq!(judge.count(false, start + Duration::from_millis(ms)), Turn::Same);
        }
        assert_eq!(judge.count(false, start + Duration::from_millis(1000)), Turn::Bad);
    }

    #[tokio::test]
    async fn passes_in_a_row_are_a_period_apart() {
        let now = Instant::now();
        let mut judge = Judge::new(&probe(5000, 2, 3), false);
        assert_eq!(judge.pause(), QUICK_FIRST);
        assert_eq!(judge.count(true, now), Turn::Same);
        assert_eq!(judge.pause(), Duration::from_secs(5));
        assert_eq!(judge.count(true, now), Turn::Good);
        assert_eq!(judge.pause(), Duration::from_secs(5));
    }

    #[tokio::test]
    async fn a_ready_instance_survives_failures_below_the_threshold() {
        let now = Instant::now();
        let mut judge = Judge::new(&probe(1000, 1, 3), true);
        assert_eq!(judge.count(false, now), Turn::Same);
        assert_eq!(judge.count(false, now), Turn::Same);
        assert_eq!(judge.count(true, now), Turn::Same);
        assert_eq!(judge.count(false, now), Turn::Same);
        assert_eq!(judge.count(false, now), Turn::Same);
        assert_eq!(judge.count(false, now), Turn::Bad);
        assert_eq!(judge.count(true, now), Turn::Good);
    }

    #[test]
    fn a_version_is_found_in_a_field_or_is_the_whole_answer() {
        let mut version = probe(1, 1, 1);
        assert_eq!(version_in(" v2\n", &version).unwrap(), "v2");
        version.action = ProbeAction::Http {
            path: "/version".to_owned(),
            port: None,
            field: Some("app.version".to_owned()),
        };
        assert_eq!(version_in(r#"{"app":{"version":"v2"}}"#, &version).unwrap(), "v2");
        assert!(version_in(r#"{"app":{}}"#, &version).is_err());
        assert!(version_in("v2", &version).is_err());
    }
}
