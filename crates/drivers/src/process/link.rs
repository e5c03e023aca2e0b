//! One socket of the machine, claimed before it is used.

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_core::{Epoch, Reason};
use tidegate_ipc::{Client, IpcError};
use tidegate_wire::PROTOCOL;
use tidegate_wire::error::{ErrorBody, ErrorDoc, OTHER_HOME, STALE_FENCE};
use tidegate_wire::home::Home;
use tidegate_wire::host::{Claim, Claimed};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::traits::TargetError;

/// A claim is answered within this.
const CLAIM_MAX: Duration = Duration::from_secs(5);

/// A report as of now.
pub(super) const OBSERVE: &str = "/v1/observe?after=0&waitMs=0";

/// Since when a target has not answered, and why.
pub(super) type Silence = Option<(Instant, String)>;

/// A host or a switch.
pub(super) struct Link {
    role: &'static str,
    client: Client,
    claim: Claim,
    claimed: tokio::sync::Mutex<bool>,
    silent: watch::Sender<Silence>,
}

/// What both kinds of reports have.
#[derive(Deserialize)]
struct Seen {
    epoch: Epoch,
}

impl Link {
    pub(super) fn new(home: &Home, role: &'static str, identity: &str, epoch: Epoch) -> Self {
        Self {
            role,
            client: Client::new(&home.socket(role)),
            claim: Claim { home: identity.to_owned(), epoch, protocol: PROTOCOL },
            claimed: tokio::sync::Mutex::new(false),
            silent: watch::Sender::new(None),
        }
    }

    /// Whether it answers, now and on every change.
    pub(super) fn silence(&self) -> watch::Receiver<Silence> {
        self.silent.subscribe()
    }

    /// An answer, or none to a request that was `started` and had so long.
    fn note(&self, started: Instant, within: Duration, failed: Option<&IpcError>) {
        let now = Instant::now();
        self.silent.send_if_modified(|silent| match failed {
            None => silent.take().is_some(),
            Some(error) => {
                // A connection that breaks has been kept until now: a long poll is no silence.
                let heard = if now.duration_since(started) < within { now } else { started };
                let since = silent.take().map_or(heard, |(since, _)| since);
                *silent = Some((since, format!("{}: {error}", self.role)));
                true
            }
        });
    }

    /// Its process has changed, or may have: it has to be claimed again.
    pub(super) async fn forget(&self) {
        *self.claimed.lock().await = false;
    }

    /// Claims it although it was claimed before: a target that has shut the epoch says so.
    pub(super) async fn reclaim(&self) -> Result<(), TargetError> {
        self.forget().await;
        self.claim().await
    }

    /// Makes the owner known, once.
    pub(super) async fn claim(&self) -> Result<(), TargetError> {
        let mut claimed = self.claimed.lock().await;
        if *claimed {
            return Ok(());
        }
        let started = Instant::now();
        let result: Result<Claimed, _> =
            self.client.post("/v1/claim", &self.claim, CLAIM_MAX).await;
        self.note(started, CLAIM_MAX, silence_of(result.as_ref().err()));
        match result {
            Ok(Claimed { epoch, .. }) if epoch > self.claim.epoch => {
                Err(TargetError::Superseded(epoch))
            }
            Ok(_) => {
                *claimed = true;
                Ok(())
            }
            Err(error) => Err(match self.judge(error).await {
                // Nothing of ours can be newer than a claim: the epoch is the matter.
                TargetError::Overtaken(_) => TargetError::Superseded(self.claim.epoch),
                other @ (TargetError::Unreachable(_)
                | TargetError::Unanswered(_)
                | TargetError::Superseded(_)
                | TargetError::Refused(_)) => other,
            }),
        }
    }

    /// GET, after the claim.
    pub(super) async fn get<R: DeserializeOwned>(
        &self,
        path: &str,
        within: Duration,
    ) -> Result<R, TargetError> {
        self.claim().await?;
        let started = Instant::now();
        let result = self.client.get(path, within).await;
        self.conclude(started, within, result).await
    }

    /// POST, after the claim.
    pub(super) async fn post<T: Serialize + Sync, R: DeserializeOwned>(
        &self,
        path: &str,
        body: &T,
        within: Duration,
    ) -> Result<R, TargetError> {
        self.claim().await?;
        let started = Instant::now();
        let result = self.client.post(path, body, within).await;
        self.conclude(started, within, result).await
    }

    async fn conclude<R>(
        &self,
        started: Instant,
        within: Duration,
        result: Result<R, IpcError>,
    ) -> Result<R, TargetError> {
        self.note(started, within, silence_of(result.as_ref().err()));
        match result {
            Ok(answer) => Ok(answer),
            Err(error) => {
                if matches!(error, IpcError::Connect { .. } | IpcError::Lost { .. }) {
                    self.forget().await;
                }
                match refusal(&error) {
                    // A target that has lost its memory takes a claim; one of another home refuses
                    // it, and then it is final.
                    Some((409, body)) if body.code == OTHER_HOME => {
                        self.reclaim().await?;
                        Err(TargetError::Unanswered(body.message))
                    }
                    _ => Err(self.judge(error).await),
                }
            }
        }
    }

    /// What an error means.
    async fn judge(&self, error: IpcError) -> TargetError {
        let text = error.to_string();
        match error {
            IpcError::Connect { .. } => TargetError::Unreachable(text),
            IpcError::Lost { .. } => TargetError::Unanswered(text),
            IpcError::Body { .. } => TargetError::Refused(Reason::new("notUnderstood", text)),
            IpcError::Status { status, ref body, .. } => {
                let body = parse(body);
                let reason = Reason::new(
                    if body.code.is_empty() { "refused" } else { &body.code },
                    if body.message.is_empty() { text } else { body.message.clone() },
                );
                match status {
                    409 if body.code == STALE_FENCE => self.stale(&body, reason).await,
                    400..=499 if status != 408 && status != 429 => TargetError::Refused(reason),
                    _ => TargetError::Unanswered(reason.text),
                }
            }
        }
    }

    /// Overtaken by something of our own, or by another owner? The refusal may say so; the report
    /// does in any case.
    async fn stale(&self, body: &ErrorBody, reason: Reason) -> TargetError {
        let named = body.on.strip_prefix("epoch ").and_then(|epoch| epoch.trim().parse().ok());
        if let Some(epoch) = named {
            return TargetError::Superseded(Epoch(epoch).max(self.claim.epoch));
        }
        match self.client.get::<Seen>(OBSERVE, CLAIM_MAX).await {
            Ok(Seen { epoch }) if epoch > self.claim.epoch => TargetError::Superseded(epoch),
            Ok(_) => TargetError::Overtaken(reason),
            Err(error) => TargetError::Unanswered(format!("{reason}; {error}")),
        }
    }
}

/// Errors in which the target is not heard at all.
fn silence_of(error: Option<&IpcError>) -> Option<&IpcError> {
    error.filter(|error| match error {
        IpcError::Connect { .. } | IpcError::Lost { .. } => true,
        IpcError::Status { .. } | IpcError::Body { .. } => false,
    })
}

fn refusal(error: &IpcError) -> Option<(u16, ErrorBody)> {
    match error {
        IpcError::Status { status, body, .. } => Some((*status, parse(body))),
        IpcError::Connect { .. } | IpcError::Lost { .. } | IpcError::Body { .. } => None,
    }
}

fn parse(body: &str) -> ErrorBody {
    serde_json::from_str::<ErrorDoc>(body).map(|doc| doc.error).unwrap_or_default()
}
