//! The calls of `tidegate_wire::host`, on `host.sock`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidegate_core::Digest;
use tidegate_core::capacity::CapacityDoc;
use tidegate_wire::PROTOCOL;
use tidegate_wire::error::{ErrorBody, OTHER_HOME, STALE_FENCE};
use tidegate_wire::host::{Accepted, Capacity, Claim, Claimed, Contact, HostReport, Run, Stage};

use crate::host::Host;
use crate::instance::command::Values;
use crate::state::{LaneState, Refusal, Verdict};

/// Largest body of a call.
const BODY_MAX: usize = 16 << 20;
/// Longest time that an observation is held open.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Most instances that one version may ask for.
const INSTANCES_MAX: u32 = 1_000;

/// All calls.
pub(crate) fn router(host: Arc<Host>) -> Router {
    Router::new()
        .route("/v1/claim", post(claim))
        .route("/v1/contact", post(contact))
        .route("/v1/stage", post(stage))
        .route("/v1/capacity", post(capacity))
        .route("/v1/run", post(run))
        .route("/v1/observe", get(observe))
        .layer(axum::extract::DefaultBodyLimit::max(BODY_MAX))
        .with_state(host)
}

type Answer<T> = Result<Json<T>, Refusal>;

/// An answer as JSON.
struct Json<T>(T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.body.doc())).into_response()
    }
}

/// Nothing to say but yes.
#[derive(Serialize)]
struct Done {}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|e| {
        let body = ErrorBody::new("badRequest", "this call is not understood", "body")
            .cause(e.to_string())
            .fix("use a tidegate of the same or a neighbouring version");
        Refusal::new(400, body)
    })
}

/// Passes an answer on. That somebody was refused because of fence or home is written down: who it
/// was, under which fence, and what the floor is here.
fn told<T>(
    call: &str,
    home: &str,
    fence: impl std::fmt::Display,
    answer: Result<T, Refusal>,
) -> Result<T, Refusal> {
    if let Err(Refusal { body, .. }) = &answer
        && [STALE_FENCE, OTHER_HOME].contains(&body.code.as_str())
    {
        let floor = body.cause.first().unwrap_or(&body.on);
        tracing::warn!(code = body.code, call, home, %fence, floor, "refused: {}", body.message);
    }
    answer
}

async fn claim(State(host): State<Arc<Host>>, body: Bytes) -> Answer<Claimed> {
    let Claim { home, epoch, .. } = parse(&body)?;
    let who = home.clone();
    let claimed = host
        .change_state(move |state| {
            state.check_claim(&home, epoch)?;
            let changed = state.home.is_none() || state.epoch != epoch;
            state.home = Some(home);
            state.epoch = epoch;
            Ok((changed, ()))
        })
        .await;
    told("claim", &who, format_args!("epoch {}", epoch.0), claimed)?;
    host.heard();
    let version = host.config.version.clone();
    Ok(Json(Claimed { epoch, protocol: PROTOCOL, version }))
}

async fn contact(State(host): State<Arc<Host>>, body: Bytes) -> Answer<Done> {
    let Contact { home, epoch, work_open } = parse(&body)?;
    let who = home.clone();
    let taken = host
        .change_state(move |state| {
            state.check_owner(&home, epoch)?;
            let changed = state.epoch != epoch || state.work_open != work_open;
            state.epoch = epoch;
            state.work_open = work_open;
            Ok((changed, ()))
        })
        .await;
    told("contact", &who, format_args!("epoch {}", epoch.0), taken)?;
    host.heard();
    Ok(Json(Done {}))
}

async fn stage(State(host): State<Arc<Host>>, body: Bytes) -> Answer<Done> {
    let Stage { home, fence, path, digest, command } = parse(&body)?;
    let owner = host.inner().state.check_owner(&home, fence.epoch);
    told("stage", &home, fence, owner)?;
    let path = PathBuf::from(path);
    if !path.is_absolute() {
        return Err(Refusal::impossible(
            "the artifact's path is not absolute",
            path.display().to_string(),
            "give an absolute path",
        ));
    }
    let staging = Arc::clone(&host);
    tokio::task::spawn_blocking(move || {
        staging.store.stage(&path, &digest)?;
        let values = Values { port: None, instance: "", version: "", digest: &digest };
        check_command(&staging, &digest, &command, &values, true)?;
        sweep(&staging, Some(digest));
        Ok(Json(Done {}))
    })
    .await
    .map_err(|e| Refusal::io("cannot stage an artifact", "stage", &std::io::Error::other(e)))?
}

/// Refuses a start command that cannot be executed. Where a placeholder is in it that nobody knows
/// yet it is looked at when the capacity comes.
fn check_command(
    host: &Host,
    digest: &Digest,
    command: &[String],
    values: &Values<'_>,
    early: bool,
) -> Result<(), Refusal> {
    let program = command.first().map(String::as_str).unwrap_or_default();
    let open = ["{version}", "{instance}", "{port}", "{address}"];
    if early && open.iter().any(|name| program.contains(name)) {
        return Ok(());
    }
    crate::artifact::runnable(&host.store.folder(digest), &values.fill(program)).map(|_| ())
}

/// Removes artifacts that nobody needs.
fn sweep(host: &Host, also: Option<Digest>) {
    let runs = host.runs.digests();
    let used: BTreeSet<Digest> = {
        let inner = host.inner();
        let docs = inner.state.lanes.values().flat_map(|lane| &lane.doc.versions);
        let slots = inner.slots.values().map(|slot| slot.capacity.digest.clone());
        docs.map(|version| version.digest.clone()).chain(slots).chain(runs).chain(also).collect()
    };
    if let Err(e) = host.store.sweep(&used) {
        tracing::warn!("cannot remove old artifacts: {e}");
    }
}

async fn capacity(State(host): State<Arc<Host>>, body: Bytes) -> Answer<Accepted> {
    let asked: Capacity = parse(&body)?;
    let (who, fence) = (asked.home.clone(), asked.fence);
    told("capacity", &who, fence, take_capacity(&host, asked).await)?;
    host.heard();
    crate::instance::reconcile(&host);
    Ok(Json(Accepted { fence }))
}

async fn take_capacity(host: &Arc<Host>, asked: Capacity) -> Result<(), Refusal> {
    let Capacity { home, fence, doc } = asked;
    let digest = Digest::of_json(&doc)
        .map_err(|e| Refusal::io("cannot digest the document", &doc.lane, &e.into()))?;
    {
        let inner = host.inner();
        inner.state.check_owner(&home, fence.epoch)?;
        if inner.state.check_document(&doc.lane, fence, &digest)? == Verdict::Newer {
            drop(inner);
            check_document(host, &doc)?;
        }
    }
    host.change_state(move |state| {
        state.check_owner(&home, fence.epoch)?;
        let verdict = state.check_document(&doc.lane, fence, &digest)?;
        state.epoch = fence.epoch;
        if verdict == Verdict::Newer {
            let lane = LaneState {
                fence,
                digest,
                doc,
                fallback_pending: None,
                fallback_refused: None,
                fallback_applied: None,
            };
            state.lanes.insert(lane.doc.lane.clone(), lane);
        }
        Ok((verdict == Verdict::Newer, ()))
    })
    .await
}

/// Refuses what cannot be carried out, before anything moves.
fn check_document(host: &Host, doc: &CapacityDoc) -> Result<(), Refusal> {
    let on = format!("lane {}", doc.lane);
    if doc.lane.split('/').filter(|part| !part.is_empty()).count() != 2 {
        return Err(Refusal::impossible(
            "a lane is called ENVIRONMENT/SERVICE",
            on,
            "correct the name",
        ));
    }
    let mut seen = BTreeSet::new();
    for version in &doc.versions {
        let on = format!("{on}, version {}", version.version);
        if !seen.insert((&version.version, &version.digest)) {
            return Err(Refusal::impossible("this version is named twice", on, "name it once"));
        }
        if version.instances > INSTANCES_MAX {
            return Err(Refusal::impossible(
                format!("more than {INSTANCES_MAX} instances of a version"),
                on,
                "ask for fewer",
            ));
        }
        if !host.store.has(&version.digest) {
            return Err(Refusal::impossible(
                format!("the artifact {} is not on this host", version.digest.short()),
                on,
                "stage it first",
            ));
        }
        if crate::process::signal_by_name(&version.service.stop.signal).is_none() {
            return Err(Refusal::impossible(
                format!("{} is no stop signal", version.service.stop.signal),
                on,
                "use SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2 or SIGWINCH",
            ));
        }
        let values =
            Values { port: None, instance: "", version: &version.version, digest: &version.digest };
        check_command(host, &version.digest, &version.service.command, &values, false)?;
    }
    Ok(())
}

async fn run(State(host): State<Arc<Host>>, body: Bytes) -> Answer<tidegate_wire::host::RunEnded> {
    let asked: Run = parse(&body)?;
    let owner = host.inner().state.check_owner(&asked.home, asked.fence.epoch);
    told("run", &asked.home, asked.fence, owner)?;
    Ok(Json(crate::run::run(&host, asked).await?))
}

/// The query of an observation.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Observe {
    after: u64,
    wait_ms: u64,
}

async fn observe(State(host): State<Arc<Host>>, Query(asked): Query<Observe>) -> Json<HostReport> {
    let mut revisions = host.revisions();
    let within = Duration::from_millis(asked.wait_ms).min(WAIT_MAX);
    // An `after` above the revision is one of a former life: the answer shows this one at once.
    let _ = tokio::time::timeout(within, revisions.wait_for(|now| *now != asked.after)).await;
    Json(host.report())
}
