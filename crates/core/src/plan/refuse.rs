//! What cannot work is refused when the plan is made, with the reason; what a person should know is
//! said.

use crate::spec::{CheckKind, EnvironmentSpec, NoDataPolicy, ProjectSpec, ServiceSpec, Step};

/// Why a release of this service into this environment cannot work; empty if it can.
#[must_use]
pub fn refusals(project: &ProjectSpec, environment: &str, service: &str) -> Vec<String> {
    let mut found = Vec::new();
    for unsupported in &project.unsupported {
        let here =
            |names: &[String], name: &str| names.is_empty() || names.iter().any(|n| n == name);
        if here(&unsupported.environments, environment) && here(&unsupported.services, service) {
            let hint =
                unsupported.hint.as_ref().map_or_else(String::new, |hint| format!("; {hint}"));
            found.push(format!("{} ({}){hint}", unsupported.text, unsupported.at));
        }
    }
    if !project.services.iter().any(|s| s.name == service) {
        found.push(format!("there is no service {service}"));
    }
    let Some(environment) = project.environments.iter().find(|e| e.name == environment) else {
        if found.is_empty() {
            found.push(format!("there is no environment {environment}"));
        }
        return found;
    };
    for name in super::checks_of(&environment.strategy) {
        match project.checks.iter().find(|c| c.name == name) {
            None => found.push(format!("{}: there is no check {name}", environment.name)),
            Some(check) if check.count > 1 && check.count <= check.failure_limit => {
                found.push(format!(
                    "check {name} can never fail: {} measurements, {} failures allowed",
                    check.count, check.failure_limit
                ));
            }
            Some(_) => {}
        }
    }
    found.extend(gates_without_traffic(project, environment));
    found
}

/// A limit on counts before the first weight would wait for ever: nobody has sent a request yet.
fn gates_without_traffic(project: &ProjectSpec, environment: &EnvironmentSpec) -> Vec<String> {
    let mut found = Vec::new();
    for step in &environment.strategy.steps {
        match step {
            Step::SetWeight { weight_bp } if *weight_bp > 0 => break,
            Step::Analysis { checks } => {
                for name in checks {
                    let counts = project
                        .checks
                        .iter()
                        .any(|c| c.name == *name && matches!(c.kind, CheckKind::Counts(_)));
                    if counts {
                        found.push(format!(
                            "{}: check {name} looks at the new version's requests, and before the \
                             first setWeight it has none; name it in `analysis` of the strategy",
                            environment.name
                        ));
                    }
                }
            }
            Step::SetWeight { .. } | Step::Pause { .. } | Step::Run { .. } => {}
        }
    }
    found
}

/// What a person should know before the release starts.
#[must_use]
pub fn warnings(
    project: &ProjectSpec,
    environment: &EnvironmentSpec,
    service: &ServiceSpec,
) -> Vec<String> {
    let mut found = Vec::new();
    if environment.strategy.analysis.is_empty() {
        found.push(format!(
            "{}: nothing watches the new version's requests; name a check in `analysis` of strategy {}",
            environment.name, environment.strategy.name
        ));
    }
    if service.probes.readiness.is_none() {
        found.push(format!(
            "{}: no readiness probe; an instance counts as ready as soon as its port is open",
            service.name
        ));
    }
    for name in &environment.strategy.analysis {
        let continues = project.checks.iter().any(|c| {
            c.name == *name
                && c.no_data == NoDataPolicy::Continue
                && matches!(c.kind, CheckKind::Counts(_))
        });
        if continues {
            found.push(format!(
                "{}: with less traffic than its sample, check {name} cannot see anything and the \
                 release goes on at the planned time (noData: hold makes it wait)",
                environment.name
            ));
        }
    }
    found.push(
        "after a reboot of this machine nothing starts Tidegate again by itself: type `tidegate watch`"
            .to_owned(),
    );
    found
}
