//! The control socket: the calls of the wire contract, one function each.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Json, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::StatusCode;
use serde::Deserialize;
use tidegate_wire::error::ErrorBody;
use tidegate_wire::host::{Accepted, Claim, Claimed};
use tidegate_wire::switch::{CountsBatch, Endpoints, History, SwitchReport, Table};

use super::{Control, Refusal};

/// Largest message.
const BODY_MAX: usize = 16 << 20;
/// Longest wait of one call.
const WAIT_MAX: Duration = Duration::from_secs(60);

type Shared = State<Arc<Control>>;

/// The calls of `switch.sock`.
pub(crate) fn router(control: Arc<Control>) -> Router {
    Router::new()
        .route("/v1/claim", post(claim))
        .route("/v1/table", post(table))
        .route("/v1/endpoints", post(endpoints))
        .route("/v1/observe", get(observe))
        .route("/v1/counts", get(counts))
        .route("/v1/history", get(history))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(control)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, body) = match self {
            Self::Fence(body) => (StatusCode::CONFLICT, body),
            Self::Impossible(body) => (StatusCode::UNPROCESSABLE_ENTITY, body),
            Self::Store(body) => (StatusCode::SERVICE_UNAVAILABLE, body),
        };
        (status, Json(body.doc())).into_response()
    }
}

/// Passes an answer on. That somebody was refused because of fence or home is written down: who it
/// was, under which fence; the message names the floor.
fn told<T>(
    call: &str,
    home: &str,
    fence: impl std::fmt::Display,
    answer: Result<T, Refusal>,
) -> Result<T, Refusal> {
    if let Err(Refusal::Fence(body)) = &answer {
        tracing::warn!(code = body.code, call, home, %fence, "refused: {}", body.message);
    }
    answer
}

async fn claim(
    State(control): Shared,
    Json(message): Json<Claim>,
) -> Result<Json<Claimed>, Refusal> {
    let claimed = control.claim(&message).await;
    told("claim", &message.home, format_args!("epoch {}", message.epoch.0), claimed).map(Json)
}

async fn table(
    State(control): Shared,
    Json(message): Json<Table>,
) -> Result<Json<Accepted>, Refusal> {
    told("table", &message.home, message.fence, control.table(&message).await).map(Json)
}

async fn endpoints(
    State(control): Shared,
    Json(message): Json<Endpoints>,
) -> Result<Json<serde_json::Value>, Refusal> {
    control.endpoints(message).await?;
    Ok(Json(serde_json::json!({})))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Observe {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait_ms: u64,
}

fn wait(wait_ms: u64) -> Duration {
    Duration::from_millis(wait_ms).min(WAIT_MAX)
}

async fn observe(State(control): Shared, Query(ask): Query<Observe>) -> Json<SwitchReport> {
    Json(control.observe(ask.after, wait(ask.wait_ms)).await)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AskCounts {
    #[serde(default)]
    epoch: u64,
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait_ms: u64,
}

async fn counts(State(control): Shared, Query(ask): Query<AskCounts>) -> Json<CountsBatch> {
    Json(control.proxy.counts.wait(ask.epoch, ask.after, wait(ask.wait_ms)).await)
}

#[derive(Deserialize)]
struct AskHistory {
    lane: String,
    #[serde(default)]
    since: u64,
}

async fn history(
    State(control): Shared,
    Query(ask): Query<AskHistory>,
) -> Result<Json<History>, Refusal> {
    let broken = |why: String| {
        let text = format!("the history of {} cannot be read: {why}", ask.lane);
        Refusal::Store(ErrorBody::new("storeFailed", text, "switch").into())
    };
    let finished = control.proxy.counts.finished_blocks(false);
    let (files, lane) = (control.history.clone(), ask.lane.clone());
    let read = tokio::task::spawn_blocking(move || {
        files.append(&finished)?;
        files.read(&lane, ask.since)
    });
    match read.await {
        Ok(Ok(blocks)) => Ok(Json(History { blocks })),
        Ok(Err(error)) => Err(broken(error.to_string())),
        Err(error) => Err(broken(error.to_string())),
    }
}
