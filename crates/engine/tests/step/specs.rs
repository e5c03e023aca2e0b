//! A small shop to release.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidegate_core::Digest;
use tidegate_core::release::{Creation, Input, stream_id};
use tidegate_core::spec::{
    Canary, CheckKind, CheckSpec, CountMetric, CountsLimit, EnvironmentSpec, ErrorSpec,
    IfEngineLost, Limit, LostAction, NoDataPolicy, Platform, Probes, ProjectSpec, ReleaseRef,
    Resources, ServiceSpec, Step, StopSpec,
};

use crate::world::World;

pub(crate) fn service() -> ServiceSpec {
    ServiceSpec {
        name: "web".into(),
        artifact: "web-{version}".into(),
        command: vec!["./web".into()],
        instances: 3,
        env: BTreeMap::new(),
        secrets: Vec::new(),
        resources: Resources::default(),
        stop: StopSpec { signal: "SIGTERM".into(), grace_ms: 10_000 },
        probes: Probes::default(),
        routes: Vec::new(),
        errors: ErrorSpec { status: vec![(500, 599)], timeout_ms: 60_000 },
    }
}

pub(crate) fn environment(steps: Vec<Step>) -> EnvironmentSpec {
    EnvironmentSpec {
        name: "production".into(),
        needs: None,
        platform: Platform::Process { listen: "127.0.0.1:0".into() },
        strategy: Canary {
            name: "canary".into(),
            steps,
            analysis: vec!["errors".into()],
            progress_deadline_ms: 60_000,
            scale_down_delay_ms: 5_000,
            sticky_cookie: None,
        },
        bake_ms: 20_000,
        if_engine_lost: IfEngineLost {
            after_ms: 60_000,
            canary: LostAction::Rollback,
            bake: LostAction::Stay,
        },
    }
}

pub(crate) fn check(name: &str, kind: CheckKind) -> CheckSpec {
    CheckSpec {
        name: name.into(),
        kind,
        interval_ms: 5_000,
        count: 1,
        failure_limit: 0,
        consecutive_error_limit: 4,
        no_data: NoDataPolicy::Continue,
        source_down: NoDataPolicy::Hold,
    }
}

pub(crate) fn smoke() -> CheckSpec {
    let url = "{previewUrl}/health".to_owned();
    check("smoke", CheckKind::Http { url, status: vec![(200, 399)], timeout_ms: 1000 })
}

pub(crate) fn errors() -> CheckSpec {
    check(
        "errors",
        CheckKind::Counts(CountsLimit {
            metric: CountMetric::ErrorRate,
            limit: Limit::RateBp(500),
            minimum_sample: 20,
            for_ms: 0,
        }),
    )
}

pub(crate) fn project(steps: Vec<Step>) -> ProjectSpec {
    ProjectSpec {
        project: "shop".into(),
        home: None,
        services: vec![service()],
        environments: vec![environment(steps)],
        checks: vec![errors(), smoke()],
        unsupported: Vec::new(),
    }
}

pub(crate) fn weight(percent: u32) -> Step {
    Step::SetWeight { weight_bp: percent * 100 }
}

pub(crate) fn pause(seconds: u64) -> Step {
    Step::Pause { duration_ms: Some(seconds * 1000) }
}

pub(crate) fn gate() -> Step {
    Step::Analysis { checks: vec!["smoke".into()] }
}

pub(crate) fn migrate() -> Step {
    Step::Run { name: "migrate".into(), command: vec!["./migrate".into()], timeout_ms: 60_000 }
}

pub(crate) fn canary() -> Vec<Step> {
    vec![gate(), migrate(), weight(10), pause(10), gate(), weight(50), pause(10)]
}

pub(crate) fn creation(version: &str, project: ProjectSpec) -> Value {
    json!(Input::Create(Box::new(Creation {
        release: ReleaseRef {
            version: version.into(),
            digest: Digest::of(version.as_bytes()),
            path: format!("/srv/{version}"),
        },
        service: "web".into(),
        environments: project.environments.iter().map(|e| e.name.clone()).collect(),
        project,
        principal: "ada".into(),
    })))
}

pub(crate) fn release(world: &mut World, version: &str) {
    let input = creation(version, project(canary()));
    world.ask("release", &stream_id("web", version), input).expect("accepted");
}

/// A world in which v1 is the stable version.
pub(crate) fn with_v1() -> World {
    let mut world = World::new();
    release(&mut world, "v1");
    world.until("production-web-1", "ended", |doc| !doc["endedAt"].is_null());
    world
}
