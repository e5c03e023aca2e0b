//! One measurement at a time: HTTP, TCP, command. A pass is `Applied` with what was seen, a fail is
//! `Failed`, and what could not be measured is `Unreachable`: never one for the other.

mod command;
mod http;

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_core::Reason;
use tidegate_core::machine::Outcome;
use tidegate_core::spec::CheckKind;
use tidegate_engine::effects::{Attempt, Driver, Job, Sending};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Makes measurements from where the engine runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckDriver;

#[derive(Debug, Deserialize)]
struct Payload {
    check: CheckKind,
}

impl Driver for CheckDriver {
    fn attempt<'a>(&'a self, sending: &'a Sending) -> Job<'a, Attempt> {
        Box::pin(async move { Attempt::Done(measure(&sending.effect.payload).await) })
    }
}

/// One measurement of `{"check": CheckKind}`.
pub async fn measure(payload: &Value) -> Outcome {
    let check = match serde_json::from_value::<Payload>(payload.clone()) {
        Ok(Payload { check }) => check,
        Err(error) => {
            let text = format!("the check is not understood: {error}");
            return Outcome::Refused(Reason::new("notUnderstood", text));
        }
    };
    match check {
        CheckKind::Http { url, status, timeout_ms } => {
            http::get(&url, &status, Duration::from_millis(timeout_ms)).await
        }
        CheckKind::Tcp { address, timeout_ms } => {
            tcp(&address, Duration::from_millis(timeout_ms)).await
        }
        CheckKind::Command { command, env, folder, timeout_ms } => {
            command::run(&command, &env, &folder, Duration::from_millis(timeout_ms)).await
        }
        CheckKind::Counts(_) => Outcome::Refused(Reason::new(
            "unsupported",
            "counts are judged from samples, not measured by a driver",
        )),
    }
}

fn pass(detail: impl Into<String>, value: impl Into<Value>) -> Outcome {
    Outcome::Applied(json!({ "detail": detail.into(), "value": value.into() }))
}

fn fail(code: &str, text: impl Into<String>) -> Outcome {
    Outcome::Failed(Reason::new(code, text))
}

/// It could not be measured.
fn error(code: &str, text: impl Into<String>) -> Outcome {
    Outcome::Unreachable(Reason::new(code, text))
}

/// A refused connection is an answer; silence and unknown names are none.
async fn tcp(address: &str, within: Duration) -> Outcome {
    let started = Instant::now();
    match timeout(within, TcpStream::connect(address)).await {
        Ok(Ok(_)) => {
            let took = started.elapsed().as_millis();
            pass(format!("{address} accepts connections"), u64::try_from(took).unwrap_or(u64::MAX))
        }
        Ok(Err(why)) if why.kind() == std::io::ErrorKind::ConnectionRefused => {
            fail("refused", format!("{address} refuses connections"))
        }
        Ok(Err(why)) => error("noConnection", format!("cannot connect to {address}: {why}")),
        Err(_) => {
            error("timeout", format!("no connection to {address} within {} ms", within.as_millis()))
        }
    }
}
