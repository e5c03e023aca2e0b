//! The domain's routes of the engine's API; the generic ones (`/v1/engine`, `/v1/events`) are the
//! shell's.

mod answer;
mod openapi;
mod verbs;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tidegate_core::StreamId;
use tidegate_engine::shell::EngineHandle;
use tidegate_journal::ViewRow;
use tidegate_wire::api::{Environment, Rollout};
use tidegate_wire::error::ErrorBody;

use crate::documents;
use answer::Refusal;

/// What every route is given.
#[derive(Clone)]
pub(super) struct Api {
    engine: EngineHandle,
    home: PathBuf,
    disk: DiskWarning,
    /// Projects that have been asked for, the last one first: a verb names a rollout without its
    /// project, and looking through all lanes for it would cost more with every lane.
    projects: Arc<Mutex<Vec<String>>>,
}

/// What the check of the home's disk has found, once it is through.
pub(crate) type DiskWarning = Arc<OnceLock<String>>;

/// All routes over a running engine of the home in this folder.
pub(crate) fn router(engine: EngineHandle, home: PathBuf, disk: DiskWarning) -> Router {
    Router::new()
        .route("/v1/openapi.json", get(openapi::route))
        .route("/v1/status", get(status))
        .route("/v1/rollouts/{id}", get(one_rollout))
        .route("/v1/releases", post(verbs::release))
        .route("/v1/rollouts/{id}/{verb}", post(verbs::on_rollout))
        .route("/v1/lanes/{environment}/{service}/{verb}", post(verbs::on_lane))
        .fallback(unknown)
        .with_state(Api { engine, home, disk, projects: Arc::default() })
}

async fn unknown(uri: Uri) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        ErrorBody::new("noSuchRoute", "this engine has no such route", uri.path()),
    )
}

async fn status(State(api): State<Api>) -> Result<Response, Refusal> {
    let mut environments = Vec::new();
    for row in api.engine.views("lane", false, usize::MAX).await? {
        environments.push(api.environment(&row).await?);
    }
    let warnings = api.disk.get().cloned().into_iter().collect();
    let status = documents::status(&api.home, api.engine.status(), environments, &[], warnings);
    answer::json(&status)
}

async fn one_rollout(State(api): State<Api>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let (_, rollout) = api.rollout(&id).await?;
    answer::json(&documents::with_kind("Rollout", &rollout))
}

impl Api {
    async fn environment(&self, row: &ViewRow) -> Result<Environment, Refusal> {
        let lane = documents::lane(row).map_err(|error| Refusal::not_understood(&error))?;
        let rollout = match &lane.rollout {
            None => None,
            Some(id) => {
                let stream = StreamId::new(&row.stream.project, "rollout", id);
                self.view_of(stream).await?
            }
        };
        Ok(documents::environment(lane, rollout))
    }

    async fn view_of(&self, stream: StreamId) -> Result<Option<Rollout>, Refusal> {
        match self.engine.view(stream).await? {
            None => Ok(None),
            Some(row) => {
                documents::rollout(&row).map(Some).map_err(|error| Refusal::not_understood(&error))
            }
        }
    }

    /// A rollout by its id, in whichever project.
    async fn rollout(&self, id: &str) -> Result<(StreamId, Rollout), Refusal> {
        let mut tried = self.projects.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for project in &tried {
            let stream = StreamId::new(project, "rollout", id);
            if let Some(rollout) = self.view_of(stream.clone()).await? {
                return Ok((stream, rollout));
            }
        }
        for lane in self.engine.views("lane", false, usize::MAX).await? {
            let project = lane.stream.project;
            if tried.contains(&project) {
                continue;
            }
            let stream = StreamId::new(&project, "rollout", id);
            if let Some(rollout) = self.view_of(stream.clone()).await? {
                self.remember(&project);
                return Ok((stream, rollout));
            }
            tried.push(project);
        }
        Err(Refusal::new(
            StatusCode::NOT_FOUND,
            ErrorBody::new("noSuchRollout", format!("there is no rollout {id} in this home"), id)
                .fix("`tidegate history` lists them"),
        ))
    }

    /// Looks into this project first from now on.
    fn remember(&self, project: &str) {
        let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        if projects.first().is_some_and(|first| first == project) {
            return;
        }
        projects.retain(|known| known != project);
        projects.insert(0, project.to_owned());
    }

    /// A lane by its name, in the named project or in the only one that has it.
    async fn lane(
        &self,
        environment: &str,
        service: &str,
        project: Option<&str>,
    ) -> Result<StreamId, Refusal> {
        let id = tidegate_core::lane::name(environment, service);
        let mut found: Vec<StreamId> = self
            .engine
            .views("lane", false, usize::MAX)
            .await?
            .into_iter()
            .map(|row| row.stream)
            .filter(|stream| {
                stream.id == id && project.is_none_or(|project| project == stream.project)
            })
            .collect();
        match (found.len(), found.pop()) {
            (1, Some(stream)) => Ok(stream),
            (0, _) | (_, None) => Err(Refusal::new(
                StatusCode::NOT_FOUND,
                ErrorBody::new("noSuchLane", "nothing was ever released there", &id)
                    .fix("`tidegate status` lists what runs"),
            )),
            (_, Some(_)) => Err(Refusal::new(
                StatusCode::CONFLICT,
                ErrorBody::new("whichProject", "several projects of this home have it", &id)
                    .fix("run it beside the project's tidegate.yaml"),
            )),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let text = serde_json::to_string(&self.body.doc()).unwrap_or_default();
        let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        (self.status, kind, text).into_response()
    }
}
