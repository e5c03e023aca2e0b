//! What the domain's routes may ask of the engine.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tidegate_core::machine::{Rejected, RejectedKind};
use tidegate_core::{Epoch, StreamId};
use tidegate_journal::{Envelope, ViewRow};
use tidegate_wire::API_VERSION;
use tidegate_wire::api::{EngineStatus, Event};
use tidegate_wire::error::{ErrorBody, ErrorDoc};
use tokio::sync::{mpsc, oneshot, watch};

use super::committer::{Answered, Glance, Look, Message};
use super::feed::Feed;
use super::rfc3339::rfc3339;
use crate::step::Fatal;

/// How long somebody waits for room in the committer's queue.
const ROOM_MAX: Duration = Duration::from_secs(5);

/// An input is durable, or it was so already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskAnswer {
    /// The stream's version after it.
    pub revision: u64,
    /// The journal's sequence after it.
    pub seq: u64,
    /// Nothing changed, and why.
    pub no_op: Option<String>,
}

/// Why an input was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The machine says no.
    #[error("{0}")]
    Rejected(Rejected),
    /// The engine is about to end; nothing was changed. The next one takes the same question.
    #[error("the engine is about to end")]
    Ending,
    /// More work is waiting than can be done; nothing was changed.
    #[error("the engine has too much to do")]
    Busy,
    /// The journal cannot be read.
    #[error("{0}")]
    Unreadable(String),
}

impl AskError {
    /// The HTTP status: 400 wrong input, 409 refused, 200 already so, 503 not now, 500 unreadable.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Rejected(rejected) => match rejected.kind {
                RejectedKind::Input => StatusCode::BAD_REQUEST,
                RejectedKind::Refused => StatusCode::CONFLICT,
                RejectedKind::Already => StatusCode::OK,
            },
            Self::Ending | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreadable(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The error as the document that clients get.
    #[must_use]
    pub fn doc(&self) -> ErrorDoc {
        let body = match self {
            Self::Rejected(rejected) => {
                let body = ErrorBody::new(&rejected.code, &rejected.text, "");
                rejected.hint.iter().fold(body, ErrorBody::fix)
            }
            Self::Ending => ErrorBody::new("ending", self.to_string(), "engine")
                .fix("repeat the command: it starts the next engine"),
            Self::Busy => ErrorBody::new("busy", self.to_string(), "engine")
                .fix("repeat the command in a moment"),
            Self::Unreadable(why) => {
                ErrorBody::new("journalUnreadable", "the journal cannot be read", "journal.db")
                    .cause(why)
                    .fix("`tidegate doctor` checks the journal")
            }
        };
        body.doc()
    }
}

impl IntoResponse for AskError {
    fn into_response(self) -> Response {
        (self.status(), Json(self.doc())).into_response()
    }
}

/// Speaks to a running engine. Cheap to clone.
#[derive(Clone)]
pub struct EngineHandle {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) inbox: mpsc::Sender<Message>,
    pub(super) feed: Arc<Feed>,
    pub(super) home: String,
    pub(super) epoch: Epoch,
    pub(super) status: EngineStatus,
}

impl std::fmt::Debug for EngineHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineHandle").field("epoch", &self.inner.epoch).finish_non_exhaustive()
    }
}

impl EngineHandle {
    /// Asks a machine; returns when the answer is durable. `if_revision`: only if the stream is at
    /// this version.
    ///
    /// # Errors
    /// [`AskError`]. If the engine dies meanwhile this never returns: nobody knows the answer.
    pub async fn ask(
        &self,
        stream: StreamId,
        input: Value,
        if_revision: Option<u64>,
    ) -> Result<AskAnswer, AskError> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Ask { stream, input, if_revision, reply }).await?;
        let Answered { result, revision, seq } = answer.await.map_err(|_| AskError::Ending)?;
        match result {
            Ok(_) => Ok(AskAnswer { revision, seq, no_op: None }),
            Err(rejected) if rejected.kind == RejectedKind::Already => {
                Ok(AskAnswer { revision, seq, no_op: Some(rejected.text) })
            }
            Err(rejected) => Err(AskError::Rejected(rejected)),
        }
    }

    /// One stream's row, as fresh as it is in memory.
    ///
    /// # Errors
    /// [`AskError::Unreadable`], [`AskError::Ending`], [`AskError::Busy`].
    pub async fn view(&self, stream: StreamId) -> Result<Option<ViewRow>, AskError> {
        self.look(move |glance| glance.view(&stream)).await
    }

    /// Rows of one kind, newest first, at most `limit`; `open_only`: those with unfinished work.
    ///
    /// # Errors
    /// As [`EngineHandle::view`].
    pub async fn views(
        &self,
        kind: &str,
        open_only: bool,
        limit: usize,
    ) -> Result<Vec<ViewRow>, AskError> {
        let kind = kind.to_owned();
        self.look(move |glance| glance.views(&kind, open_only, limit)).await
    }

    /// Events of all streams after a sequence, at most `limit`.
    ///
    /// # Errors
    /// As [`EngineHandle::view`].
    pub async fn events(&self, since: u64, limit: usize) -> Result<Vec<Envelope>, AskError> {
        if let Some(events) = self.inner.feed.after(since, limit) {
            return Ok(events);
        }
        self.look(move |glance| glance.events(since, limit)).await
    }

    /// Events of one stream after a version, at most `limit`.
    ///
    /// # Errors
    /// As [`EngineHandle::view`].
    pub async fn stream_events(
        &self,
        stream: StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Envelope>, AskError> {
        self.look(move |glance| glance.stream(&stream, after, limit)).await
    }

    /// The journal's last sequence, and a way to wait for the next one.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.inner.feed.subscribe()
    }

    /// The engine's part of `status`.
    #[must_use]
    pub fn status(&self) -> EngineStatus {
        self.inner.status.clone()
    }

    /// The home's identity.
    #[must_use]
    pub fn home(&self) -> &str {
        &self.inner.home
    }

    /// The owner's number.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.inner.epoch
    }

    async fn look<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Glance) -> Result<T, Fatal> + Send + 'static,
    ) -> Result<T, AskError> {
        let (reply, answer) = oneshot::channel();
        let look: Look = Box::new(move |glance| {
            // Whoever has gone away meanwhile needs no answer.
            drop(reply.send(read(glance).map_err(|e| AskError::Unreadable(e.to_string()))));
        });
        self.send(Message::Look(look)).await?;
        answer.await.map_err(|_| AskError::Ending)?
    }

    async fn send(&self, message: Message) -> Result<(), AskError> {
        match self.inner.inbox.send_timeout(message, ROOM_MAX).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(AskError::Busy),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(AskError::Ending),
        }
    }
}

/// An event as the API shows it: `KIND.event`, RFC 3339, the event's own fields as `data`.
#[must_use]
pub fn event_doc(envelope: &Envelope) -> Event {
    Event {
        api_version: API_VERSION.to_owned(),
        kind: "Event".to_owned(),
        seq: envelope.seq,
        at: rfc3339(envelope.at),
        stream: envelope.stream.to_string(),
        event: format!("{}.{}", envelope.stream.kind, envelope.event),
        data: serde_json::from_str(&envelope.data).unwrap_or_default(),
        reason: envelope.reason.clone(),
    }
}
