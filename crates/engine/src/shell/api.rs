//! The generic part of the engine's API: who may connect, how the engine stands, its events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::Connected;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::{IncomingStream, Listener};
use futures_util::stream;
use serde::Deserialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::handle::{AskError, EngineHandle, event_doc};

/// Events in one answer at most, and where the client names no number.
const LIMIT_MAX: usize = 1_000;
/// A long poll is answered after at most so long.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Who has connected, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The user.
    pub uid: u32,
    /// The process, where known.
    pub pid: Option<i32>,
}

/// A listener that lets only our own user and root in.
pub(super) struct Guarded(pub(super) UnixListener);

impl Listener for Guarded {
    type Io = UnixStream;
    type Addr = Peer;

    async fn accept(&mut self) -> (UnixStream, Peer) {
        let ours = rustix::process::getuid().as_raw();
        loop {
            let (stream, _) = Listener::accept(&mut self.0).await;
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == ours || peer.uid() == 0 => {
                    return (stream, Peer { uid: peer.uid(), pid: peer.pid() });
                }
                Ok(peer) => tracing::warn!(uid = peer.uid(), "another user was turned away"),
                Err(error) => tracing::warn!(%error, "a nameless peer was turned away"),
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Peer> {
        Ok(Peer { uid: rustix::process::getuid().as_raw(), pid: None })
    }
}

impl Connected<IncomingStream<'_, Guarded>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Guarded>) -> Self {
        *stream.remote_addr()
    }
}

/// Requests under way and the last sign of interest, for the idle exit.
#[derive(Debug)]
pub(super) struct Activity(watch::Sender<(usize, Instant)>);

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(watch::Sender::new((0, Instant::now()))))
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<(usize, Instant)> {
        self.0.subscribe()
    }

    fn enter(self: &Arc<Self>) -> Present {
        self.0.send_modify(|(under_way, last)| {
            *under_way += 1;
            *last = Instant::now();
        });
        Present(Arc::clone(self))
    }
}

/// Somebody is there, as long as this is kept.
struct Present(Arc<Activity>);

impl Drop for Present {
    fn drop(&mut self) {
        self.0.0.send_modify(|(under_way, last)| {
            *under_way -= 1;
            *last = Instant::now();
        });
    }
}

#[derive(Clone)]
struct Context {
    engine: EngineHandle,
    activity: Arc<Activity>,
}

/// All routes: the domain's and the generic ones.
pub(super) fn router(engine: &EngineHandle, domain: Router, activity: &Arc<Activity>) -> Router {
    let context = Context { engine: engine.clone(), activity: Arc::clone(activity) };
    Router::new()
        .route("/v1/engine", get(engine_status))
        .route("/v1/events", get(events))
        .with_state(context)
        .merge(domain)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(activity), noted))
}

async fn noted(State(activity): State<Arc<Activity>>, request: Request, next: Next) -> Response {
    let _present = activity.enter();
    next.run(request).await
}

async fn engine_status(State(context): State<Context>) -> Response {
    axum::Json(context.engine.status()).into_response()
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct EventsQuery {
    since: u64,
    limit: usize,
    wait_ms: u64,
}

impl Default for EventsQuery {
    fn default() -> Self {
        Self { since: 0, limit: LIMIT_MAX, wait_ms: 0 }
    }
}

async fn events(
    State(context): State<Context>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, AskError> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if header(header::ACCEPT).is_some_and(|accept| accept.contains("text/event-stream")) {
        let since = headers
            .get("last-event-id")
            .and_then(|id| id.to_str().ok()?.trim().parse().ok())
            .unwrap_or(query.since);
        return Ok(follow(&context, since));
    }
    let wait = Duration::from_millis(query.wait_ms).min(WAIT_MAX);
    let engine = &context.engine;
    // An error means that the time is over or the engine ends: then there is nothing new.
    let mut last = engine.subscribe();
    drop(tokio::time::timeout(wait, last.wait_for(|seq| *seq > query.since)).await);
    let limit = query.limit.clamp(1, LIMIT_MAX);
    let mut lines = String::new();
    for event in engine.events(query.since, limit).await? {
        if let Ok(line) = serde_json::to_string(&event_doc(&event)) {
            lines.push_str(&line);
            lines.push('\n');
        }
    }
    let content = [(header::CONTENT_TYPE, "application/jsonl")];
    Ok((content, Body::from(lines)).into_response())
}

/// Server-sent events without an end; `id` is the sequence.
fn follow(context: &Context, since: u64) -> Response {
    struct Follower {
        engine: EngineHandle,
        last: watch::Receiver<u64>,
        since: u64,
        ready: std::vec::IntoIter<sse::Event>,
        _present: Present,
    }
    let follower = Follower {
        engine: context.engine.clone(),
        last: context.engine.subscribe(),
        since,
        ready: Vec::new().into_iter(),
        _present: context.activity.enter(),
    };
    let events = stream::unfold(follower, |mut follower| async move {
        loop {
            if let Some(event) = follower.ready.next() {
                return Some((Ok::<_, Infallible>(event), follower));
            }
            let since = follower.since;
            follower.last.wait_for(|seq| *seq > since).await.ok()?;
            let events = follower.engine.events(since, LIMIT_MAX).await.ok()?;
            follower.since = events.last().map_or(since, |event| event.seq);
            let ready: Vec<_> = events
                .iter()
                .map(|event| {
                    let data = serde_json::to_string(&event_doc(event)).unwrap_or_default();
                    sse::Event::default().id(event.seq.to_string()).data(data)
                })
                .collect();
            follower.ready = ready.into_iter();
        }
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))).into_response()
}
