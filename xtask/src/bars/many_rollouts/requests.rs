//! What is released: one project with a lane for each of many services.

use std::collections::BTreeMap;

use tidegate_core::Digest;
use tidegate_core::spec::{
    Canary, EnvironmentSpec, ErrorSpec, IfEngineLost, LostAction, Platform, Probes, ProjectSpec,
    Resources, ServiceSpec, Step, StopSpec,
};
use tidegate_wire::api::ReleaseRequest;

const PROJECT: &str = "many";
const ENVIRONMENT: &str = "production";
/// Pairs of weight and pause in the plan of the few.
const PAIRS: u32 = 98;

fn service(number: usize) -> String {
    format!("s{number:04}")
}

/// The id of a service's second rollout.
pub(super) fn rollout(number: usize) -> String {
    format!("{ENVIRONMENT}-{}-2", service(number))
}

/// Its stream, as the platform's log names it.
pub(super) fn stream(number: usize) -> String {
    format!("{PROJECT}/rollout/{}", rollout(number))
}

/// The first release of a service: all traffic at once.
pub(super) fn first(number: usize) -> ReleaseRequest {
    request(number, "v1", vec![weight(100)])
}

/// The second one: an ordinary canary that pauses until somebody promotes.
pub(super) fn paused(number: usize) -> ReleaseRequest {
    request(number, "v2", vec![weight(10), pause(), weight(50), pause()])
}

/// The second one, with as many steps as there are percent.
pub(super) fn long(number: usize) -> ReleaseRequest {
    request(number, "v2", (1..=PAIRS).flat_map(|percent| [weight(percent), pause()]).collect())
}

fn weight(percent: u32) -> Step {
    Step::SetWeight { weight_bp: percent * 100 }
}

fn pause() -> Step {
    Step::Pause { duration_ms: None }
}

fn request(number: usize, version: &str, steps: Vec<Step>) -> ReleaseRequest {
    let service = service(number);
    ReleaseRequest {
        version: version.to_owned(),
        path: format!("/srv/{service}-{version}"),
        digest: Digest::of(format!("{service}-{version}").as_bytes()),
        environments: vec![ENVIRONMENT.to_owned()],
        project: project(&service, steps),
        service,
        principal: "bar".to_owned(),
        request_id: String::new(),
    }
}

fn project(service: &str, steps: Vec<Step>) -> ProjectSpec {
    ProjectSpec {
        project: PROJECT.to_owned(),
        home: None,
        services: vec![ServiceSpec {
            name: service.to_owned(),
            artifact: "dist/{version}".to_owned(),
            command: vec!["./server".to_owned(), "--port".to_owned(), "{port}".to_owned()],
            instances: 1,
            env: BTreeMap::new(),
            secrets: Vec::new(),
            resources: Resources::default(),
            stop: StopSpec { signal: "SIGTERM".to_owned(), grace_ms: 1_000 },
            probes: Probes::default(),
            routes: Vec::new(),
            errors: ErrorSpec { status: vec![(500, 599)], timeout_ms: 60_000 },
        }],
        environments: vec![EnvironmentSpec {
            name: ENVIRONMENT.to_owned(),
            needs: None,
            platform: Platform::Process { listen: "127.0.0.1:8080".to_owned() },
            strategy: Canary {
                name: "canary".to_owned(),
                steps,
                analysis: Vec::new(),
                progress_deadline_ms: 600_000,
                scale_down_delay_ms: 0,
                sticky_cookie: None,
            },
            bake_ms: 0,
            if_engine_lost: IfEngineLost {
                after_ms: 30_000,
                canary: LostAction::Rollback,
                bake: LostAction::Stay,
            },
        }],
        checks: Vec::new(),
        unsupported: Vec::new(),
    }
}
