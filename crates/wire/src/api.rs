//! The engine's API: the documents of `interface.md` §4, over `engine.sock`.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `GET /v1/status` | – | [`Status`] |
//! | `GET /v1/rollouts/{id}` | – | [`Rollout`] |
//! | `GET /v1/events?since=SEQ&limit=N&waitMs=N` | – | JSON lines of [`Event`]; with `Accept: text/event-stream` SSE |
//! | `POST /v1/releases` | [`ReleaseRequest`] | [`ReleaseAccepted`] |
//! | `POST /v1/rollouts/{id}/{verb}` | [`VerbRequest`] | [`VerbAccepted`] |
//! | `POST /v1/lanes/{environment}/{service}/undo` | [`VerbRequest`] | [`VerbAccepted`] |
//! | `GET /v1/engine` | – | [`EngineStatus`] |
//!
//! Refusals: 400 (exit code 2), 409 (3), 404 (2), 503 (5), with an `ErrorDoc`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate_core::spec::ProjectSpec;
use tidegate_core::{Digest, Reason};

/// `kind: Status`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// [`crate::API_VERSION`].
    pub api_version: String,
    /// `Status`.
    pub kind: String,
    /// The home's folder or URL.
    pub home: String,
    /// The engine.
    pub engine: EngineStatus,
    /// In the order of the project file where known, else by name.
    pub environments: Vec<Environment>,
    /// What a person should know: no unit restarts it after a reboot, …
    pub warnings: Vec<String>,
}

/// The engine of a home.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EngineStatus {
    /// `running` or `stopped`.
    pub state: String,
    /// Its process.
    pub pid: Option<u32>,
    /// RFC 3339.
    pub since: Option<String>,
    /// Of the binary.
    pub version: Option<String>,
}

/// One lane: an environment (and service).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Environment {
    /// The environment's name.
    pub name: String,
    /// The service of this lane.
    pub service: String,
    /// What runs there as the good one.
    pub stable: Option<VersionRef>,
    /// A freeze in force.
    pub frozen: Option<Value>,
    /// The rollout in progress, or the last one.
    pub rollout: Option<Rollout>,
}

/// A version by name and digest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionRef {
    /// Its name.
    pub version: String,
    /// Its digest.
    #[schemars(with = "String")]
    pub digest: Digest,
}

/// A rollout's document. `core::rollout`'s view writes exactly this form.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rollout {
    /// Its identity.
    pub id: String,
    /// The environment.
    pub environment: String,
    /// The services in it.
    pub services: Vec<String>,
    /// What goes out.
    pub version: String,
    /// Its digest.
    #[schemars(with = "String")]
    pub digest: Digest,
    /// What ran before.
    pub previous: Option<VersionRef>,
    /// Pending, Progressing, Paused, Degraded, Healthy, Baking, RollingBack, Held.
    pub phase: String,
    /// Where in the plan.
    pub step: StepRef,
    /// Percent.
    pub weight: Weight,
    /// What it waits for.
    pub waiting: Option<Waiting>,
    /// Since the first shifted request.
    pub counts: Counts,
    /// The last verdict of a check that decided.
    pub verdict: Option<Value>,
    /// The stream's version; for `--if-revision`.
    pub revision: u64,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339.
    pub ended_at: Option<String>,
    /// promoted, rolledBack, held, superseded, refused; `promoted` also while baking.
    pub outcome: Option<String>,
    /// Why it ended like this.
    #[schemars(with = "Option<ReasonDoc>")]
    pub reason: Option<Reason>,
    /// Digest of the plan that it follows.
    #[schemars(with = "Option<String>")]
    pub plan: Option<Digest>,
}

/// Where in the plan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepRef {
    /// From 1.
    pub index: u32,
    /// Of how many.
    pub count: u32,
    /// setWeight, pause, analysis, run, promote, bake, …
    pub kind: String,
}

/// Percent of the requests that the new version gets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Weight {
    /// What the plan wants now.
    pub wanted: f64,
    /// What the switch has acknowledged.
    pub applied: f64,
    /// What the switch was seen to have in force.
    pub observed: f64,
}

/// What a rollout waits for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// A stable word.
    pub code: String,
    /// A sentence.
    pub text: String,
    /// RFC 3339.
    pub since: String,
    /// RFC 3339, where known.
    pub until: Option<String>,
    /// Whom or what it needs.
    pub needs: Option<String>,
}

/// Requests and errors of both versions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Counts {
    /// The old version.
    pub stable: Count,
    /// The new version.
    pub canary: Count,
}

/// Requests and errors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Count {
    /// n
    pub requests: u64,
    /// k
    pub errors: u64,
}

/// `kind: Event`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// [`crate::API_VERSION`].
    pub api_version: String,
    /// `Event`.
    pub kind: String,
    /// The journal's sequence, without holes.
    pub seq: u64,
    /// RFC 3339.
    pub at: String,
    /// `project/kind/id`.
    pub stream: String,
    /// `rollout.stepStarted`, …
    pub event: String,
    /// The event's own fields.
    pub data: Value,
    /// Why.
    #[schemars(with = "Option<ReasonDoc>")]
    pub reason: Option<Reason>,
}

/// Make a release and drive it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseRequest {
    /// The version's name.
    pub version: String,
    /// The service.
    pub service: String,
    /// Absolute path of its artifact.
    pub path: String,
    /// Digest of its artifact, computed by the client and checked by the host.
    #[schemars(with = "String")]
    pub digest: Digest,
    /// Environments in order, the last one is the goal.
    pub environments: Vec<String>,
    /// The project as resolved by the client.
    #[schemars(with = "Value")]
    pub project: ProjectSpec,
    /// Who asks, as the operating system knows it.
    pub principal: String,
    /// Identity of the request: the same again is the same answer.
    pub request_id: String,
}

/// The release is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseAccepted {
    /// `VERSION` of the service: the release stream's id.
    pub release: String,
    /// The rollout that is in progress for it now, where there is one already.
    pub rollout: Option<String>,
    /// The journal's sequence after the acceptance; `events?since=` from here shows all of it.
    pub seq: u64,
    /// It had been accepted before: nothing new was started, and why.
    pub no_op: Option<String>,
}

/// A verb on a rollout or a lane.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VerbRequest {
    /// Only if the rollout is at this revision.
    pub if_revision: Option<u64>,
    /// `promote --full`.
    pub full: bool,
    /// `undo --to VERSION`.
    pub to: Option<String>,
    /// Why, in a person's words.
    pub reason: Option<String>,
    /// Who asks.
    pub principal: String,
    /// Identity of the request.
    pub request_id: String,
}

/// The verb is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerbAccepted {
    /// The rollout that it acts on.
    pub rollout: Option<String>,
    /// Its revision now.
    pub revision: u64,
    /// The journal's sequence after it.
    pub seq: u64,
    /// Nothing changed, and why.
    pub no_op: Option<String>,
}

/// The form of a [`Reason`], for the published description of the API.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Reason")]
#[expect(dead_code, reason = "describes a type of another crate")]
struct ReasonDoc {
    /// A stable word in camelCase.
    code: String,
    /// One sentence.
    text: String,
}
