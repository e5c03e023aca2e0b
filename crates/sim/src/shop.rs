//! What is released in the simulation.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidegate_core::release::{Creation, Input};
use tidegate_core::spec::{
    Canary, CheckKind, CheckSpec, CountMetric, CountsLimit, EnvironmentSpec, ErrorSpec,
    IfEngineLost, Limit, LostAction, NoDataPolicy, Platform, Probes, ProjectSpec, ReleaseRef,
    Resources, ServiceSpec, Step, StopSpec,
};
use tidegate_core::{Digest, StreamId};

/// The project.
pub const PROJECT: &str = "shop";
/// The one environment of the simulation.
pub const ENVIRONMENT: &str = "production";
/// The service.
pub const SERVICE: &str = "web";
/// The lane.
pub const LANE: &str = "production/web";
/// Host and switch.
pub const TARGET: &str = "process:local";

/// How releases go out.
#[derive(Debug, Clone)]
pub struct Shop {
    /// The canary's steps.
    pub steps: Vec<Step>,
    /// Names of watching checks: `errors` (counts) and `alive` (measured).
    pub watching: Vec<String>,
    /// Instances at full weight.
    pub instances: u32,
    /// Milliseconds.
    pub bake_ms: u64,
    /// Milliseconds.
    pub scale_down_delay_ms: u64,
    /// Milliseconds.
    pub progress_deadline_ms: u64,
    /// Drain time in milliseconds.
    pub grace_ms: u64,
    /// The fallback.
    pub lost: IfEngineLost,
    /// What checks do that cannot be measured.
    pub source_down: NoDataPolicy,
}

impl Default for Shop {
    fn default() -> Self {
        Self {
            steps: vec![gate(), weight(10), pause(2), weight(50), pause(2)],
            watching: vec!["errors".to_owned()],
            instances: 2,
            bake_ms: 3_000,
            scale_down_delay_ms: 1_000,
            progress_deadline_ms: 20_000,
            grace_ms: 3_000,
            lost: IfEngineLost {
                after_ms: 30_000,
                canary: LostAction::Rollback,
                bake: LostAction::Stay,
            },
            source_down: NoDataPolicy::Hold,
        }
    }
}

/// A weight step, in percent.
#[must_use]
pub fn weight(percent: u32) -> Step {
    Step::SetWeight { weight_bp: percent * 100 }
}

/// A pause step.
#[must_use]
pub fn pause(seconds: u64) -> Step {
    Step::Pause { duration_ms: Some(seconds * 1_000) }
}

/// An analysis step with the measured gate.
#[must_use]
pub fn gate() -> Step {
    Step::Analysis { checks: vec!["smoke".to_owned()] }
}

/// A run step.
#[must_use]
pub fn run() -> Step {
    Step::Run {
        name: "migrate".to_owned(),
        command: vec!["./migrate".to_owned()],
        timeout_ms: 20_000,
    }
}

impl Shop {
    fn service(&self, name: &str) -> ServiceSpec {
        ServiceSpec {
            name: name.to_owned(),
            artifact: "web-{version}".to_owned(),
            command: vec!["./web".to_owned()],
            instances: self.instances,
            env: BTreeMap::new(),
            secrets: Vec::new(),
            resources: Resources::default(),
            stop: StopSpec { signal: "SIGTERM".to_owned(), grace_ms: self.grace_ms },
            probes: Probes::default(),
            routes: Vec::new(),
            errors: ErrorSpec { status: vec![(500, 599)], timeout_ms: 60_000 },
        }
    }

    /// The project as a client resolves it, with one service of this name.
    #[must_use]
    pub fn project(&self, service: &str) -> ProjectSpec {
        ProjectSpec {
            project: PROJECT.to_owned(),
            home: None,
            services: vec![self.service(service)],
            environments: vec![EnvironmentSpec {
                name: ENVIRONMENT.to_owned(),
                needs: None,
                platform: Platform::Process { listen: "127.0.0.1:8080".to_owned() },
                strategy: Canary {
                    name: "canary".to_owned(),
                    steps: self.steps.clone(),
                    analysis: self.watching.clone(),
                    progress_deadline_ms: self.progress_deadline_ms,
                    scale_down_delay_ms: self.scale_down_delay_ms,
                    sticky_cookie: None,
                },
                bake_ms: self.bake_ms,
                if_engine_lost: self.lost.clone(),
            }],
            checks: self.checks(),
            unsupported: Vec::new(),
        }
    }

    fn checks(&self) -> Vec<CheckSpec> {
        let check = |name: &str, kind| CheckSpec {
            name: name.to_owned(),
            kind,
            interval_ms: 2_000,
            count: 1,
            failure_limit: 0,
            consecutive_error_limit: 3,
            no_data: NoDataPolicy::Continue,
            source_down: self.source_down,
        };
        let http = |path: &str| CheckKind::Http {
            url: format!("{{previewUrl}}/{path}"),
            status: vec![(200, 399)],
            timeout_ms: 1_000,
        };
        let counts = CheckKind::Counts(CountsLimit {
            metric: CountMetric::ErrorRate,
            limit: Limit::RateBp(500),
            minimum_sample: 10,
            for_ms: 0,
        });
        vec![check("errors", counts), check("smoke", http("smoke")), check("alive", http("alive"))]
    }

    /// What a client asks for a release, and which stream.
    #[must_use]
    pub fn release(&self, service: &str, version: &str) -> (StreamId, Value) {
        let creation = Creation {
            release: ReleaseRef {
                version: version.to_owned(),
                digest: Digest::of(version.as_bytes()),
                path: format!("/srv/{version}"),
            },
            service: service.to_owned(),
            environments: vec![ENVIRONMENT.to_owned()],
            project: self.project(service),
            principal: "ada".to_owned(),
        };
        let id = tidegate_core::release::stream_id(service, version);
        (StreamId::new(PROJECT, "release", &id), json!(Input::Create(Box::new(creation))))
    }
}

/// The lane's stream.
#[must_use]
pub fn lane() -> StreamId {
    StreamId::new(PROJECT, "lane", LANE)
}

/// A rollout's stream by its number in the lane.
#[must_use]
pub fn rollout(number: u64) -> StreamId {
    StreamId::new(PROJECT, "rollout", &format!("{ENVIRONMENT}-{SERVICE}-{number}"))
}
