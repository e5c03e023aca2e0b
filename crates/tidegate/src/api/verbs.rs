//! What changes something: releases and the verbs on rollouts and lanes.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;
use tidegate_core::spec::ReleaseRef;
use tidegate_core::{StreamId, lane, release, rollout};
use tidegate_engine::shell::Peer;
use tidegate_wire::api::{ReleaseAccepted, ReleaseRequest, Rollout, VerbAccepted, VerbRequest};
use tidegate_wire::error::ErrorBody;
use tidegate_wire::home::Home;

use super::Api;
use super::answer::{self, Refusal};
use crate::{documents, principal};

/// `POST /v1/releases`
pub(super) async fn release(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Result<Json<ReleaseRequest>, JsonRejection>,
) -> Result<Response, Refusal> {
    let Json(request) = request.map_err(|error| bad_body(&error))?;
    check(&request)?;
    room(&Home::new(&api.home))?;
    let id = release::stream_id(&request.service, &request.version);
    let project = request.project.project.clone();
    let environments = request.environments.clone();
    // Events behind this one are the release's whole story.
    let seq = *api.engine.subscribe().borrow();
    let input = release::Input::Create(Box::new(release::Creation {
        release: ReleaseRef {
            version: request.version.clone(),
            digest: request.digest,
            path: request.path,
        },
        service: request.service.clone(),
        environments: request.environments,
        project: request.project,
        principal: principal::of(peer.uid),
    }));
    api.remember(&project);
    let stream = StreamId::new(&project, "release", &id);
    let answer = api.engine.ask(stream, as_value(&input)?, None).await?;
    let mut active = None;
    for environment in &environments {
        let lane = StreamId::new(&project, "lane", &lane::name(environment, &request.service));
        let Some(rollout) = api.last_rollout(&lane).await? else { continue };
        if rollout.version == request.version && !documents::is_over(&rollout) {
            active = Some(rollout.id);
        }
    }
    answer::json(&ReleaseAccepted { release: id, rollout: active, seq, no_op: answer.no_op })
}

/// What is left on a full disk is for the way back.
fn room(home: &Home) -> Result<(), Refusal> {
    let Err(failure) = crate::home::room(home) else { return Ok(()) };
    let body = failure.errors.into_iter().next().map(|report| report.body).unwrap_or_default();
    Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, body))
}

/// What a client of ours never sends, and another one might.
fn check(request: &ReleaseRequest) -> Result<(), Refusal> {
    let wrong = |text: String| {
        Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            ErrorBody::new("badRelease", text, &request.version),
        ))
    };
    if let Err(failure) = crate::project::version_name(&request.version) {
        let text = failure.errors.first().map(|r| r.body.message.clone()).unwrap_or_default();
        return wrong(text);
    }
    if request.environments.is_empty() {
        return wrong("it names no environment".to_owned());
    }
    for name in &request.environments {
        if !request.project.environments.iter().any(|known| known.name == *name) {
            return wrong(format!("environment {name} is not in the project"));
        }
    }
    if !request.project.services.iter().any(|known| known.name == request.service) {
        return wrong(format!("service {} is not in the project", request.service));
    }
    if !std::path::Path::new(&request.path).is_absolute() {
        return wrong("the artifact's path is not absolute".to_owned());
    }
    let environments: Vec<&str> = request.environments.iter().map(String::as_str).collect();
    if let Err(failure) =
        crate::project::supported(&request.project, &environments, &request.service)
        && let Some(report) = failure.errors.into_iter().next()
    {
        return Err(Refusal::new(StatusCode::CONFLICT, report.body));
    }
    Ok(())
}

/// `POST /v1/rollouts/{id}/{verb}`
pub(super) async fn on_rollout(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path((id, verb)): Path<(String, String)>,
    request: Result<Json<VerbRequest>, JsonRejection>,
) -> Result<Response, Refusal> {
    let Json(request) = request.map_err(|error| bad_body(&error))?;
    let (stream, found) = api.rollout(&id).await?;
    let principal = principal::of(peer.uid);
    let input = match verb.as_str() {
        "promote" => rollout::Input::Promote { full: request.full, principal },
        "pause" => rollout::Input::Pause { principal },
        "resume" => rollout::Input::Resume { principal },
        "abort" => rollout::Input::Abort { principal, reason: request.reason },
        "undo" | "retry" => {
            let service = found.services.first().map_or("", String::as_str);
            let id = lane::name(&found.environment, service);
            let lane = StreamId::new(&stream.project, "lane", &id);
            return ask_lane(&api, lane, &verb, request, principal).await;
        }
        _ => return Err(unknown_verb(&verb)),
    };
    let answer = api.engine.ask(stream, as_value(&input)?, request.if_revision).await?;
    answer::json(&VerbAccepted {
        rollout: Some(id),
        revision: answer.revision,
        seq: answer.seq,
        no_op: answer.no_op,
    })
}

/// The project of a lane, where a home has several.
#[derive(Debug, Deserialize)]
pub(super) struct Which {
    project: Option<String>,
}

/// `POST /v1/lanes/{environment}/{service}/{verb}`
pub(super) async fn on_lane(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path((environment, service, verb)): Path<(String, String, String)>,
    Query(which): Query<Which>,
    request: Result<Json<VerbRequest>, JsonRejection>,
) -> Result<Response, Refusal> {
    let Json(request) = request.map_err(|error| bad_body(&error))?;
    let lane = api.lane(&environment, &service, which.project.as_deref()).await?;
    ask_lane(&api, lane, &verb, request, principal::of(peer.uid)).await
}

async fn ask_lane(
    api: &Api,
    stream: StreamId,
    verb: &str,
    request: VerbRequest,
    principal: String,
) -> Result<Response, Refusal> {
    let input = match verb {
        "undo" => lane::Input::Undo { to: request.to, principal, reason: request.reason },
        "retry" => lane::Input::Retry { principal },
        _ => return Err(unknown_verb(verb)),
    };
    // The revision that people see is the rollout's; the lane's own is read before it, so that a
    // rollout that was started in between is noticed as well.
    let mut lane_revision = None;
    if let Some(wanted) = request.if_revision {
        lane_revision = api.engine.view(stream.clone()).await?.map(|row| row.version);
        let is = api.last_rollout(&stream).await?.map_or(0, |rollout| rollout.revision);
        if is != wanted {
            return Err(Refusal::new(
                StatusCode::CONFLICT,
                ErrorBody::new(
                    "revision",
                    format!("the rollout is at revision {is}, not at {wanted}"),
                    stream.to_string(),
                )
                .fix("look at `tidegate status` and decide again"),
            ));
        }
    }
    let answer = api.engine.ask(stream.clone(), as_value(&input)?, lane_revision).await?;
    let rollout = api.last_rollout(&stream).await?;
    answer::json(&VerbAccepted {
        revision: rollout.as_ref().map_or(0, |rollout| rollout.revision),
        rollout: rollout.map(|rollout| rollout.id),
        seq: answer.seq,
        no_op: answer.no_op,
    })
}

impl Api {
    /// The active rollout of a lane, or its last one.
    async fn last_rollout(&self, lane: &StreamId) -> Result<Option<Rollout>, Refusal> {
        let Some(row) = self.engine.view(lane.clone()).await? else { return Ok(None) };
        let doc = documents::lane(&row).map_err(|error| Refusal::not_understood(&error))?;
        match doc.rollout {
            None => Ok(None),
            Some(id) => self.view_of(StreamId::new(&lane.project, "rollout", &id)).await,
        }
    }
}

fn as_value<T: serde::Serialize>(input: &T) -> Result<Value, Refusal> {
    serde_json::to_value(input).map_err(|error| {
        Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            ErrorBody::new("defect", "the input cannot be written", "").cause(error.to_string()),
        )
    })
}

fn unknown_verb(verb: &str) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        ErrorBody::new("noSuchVerb", format!("there is no verb {verb}"), verb)
            .fix("promote, pause, resume, abort, retry or undo"),
    )
}

fn bad_body(error: &JsonRejection) -> Refusal {
    Refusal::new(
        StatusCode::BAD_REQUEST,
        ErrorBody::new("badBody", "the body is not what this route takes", "")
            .cause(error.to_string()),
    )
}
