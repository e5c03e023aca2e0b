//! Files without mistakes: what they become, and what is filled in.

mod common;

use common::{COMPOSE, GOOD, SHOP, completed, good};
use tidegate_core::spec::{
    CheckKind, CheckSpec, CountMetric, CountsLimit, EnvironmentSpec, ErrorSpec, IfEngineLost,
    Limit, LostAction, NoDataPolicy, Platform, Probe, ProbeAction, ProjectSpec, Resources, Route,
    Step, StopSpec, TlsSpec,
};
use tidegate_syntax::config;
use tidegate_syntax::diagnostic::{Style, render_all};

fn no_warnings(text: &str) -> ProjectSpec {
    let project = good(text);
    assert_eq!(render_all(&project.warnings, Style::Plain), "");
    project.spec
}

fn http(path: &str) -> Probe {
    Probe {
        action: ProbeAction::Http { path: path.to_owned(), port: None, field: None },
        initial_delay_ms: 0,
        period_ms: 10_000,
        timeout_ms: 1_000,
        success_threshold: 1,
        failure_threshold: 3,
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn a_service_is_what_its_file_says() {
    let spec = no_warnings(GOOD);
    let [web] = spec.services.as_slice() else { panic!("{spec:#?}") };
    assert_eq!(web.name, "web");
    assert_eq!(web.artifact, "dist/web-{version}");
    assert_eq!(web.command, words(&["./web", "--listen", "{address}"]));
    assert_eq!(web.instances, 3);
    let env: Vec<_> = web.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected = [("DEBUG", "false"), ("LOG_LEVEL", "info"), ("RATIO", "1.50"), ("WORKERS", "4")];
    assert_eq!(env, expected);
    assert_eq!(web.resources, Resources { memory_bytes: Some(256 << 20), cpu_millis: Some(500) });
    assert_eq!(web.stop, StopSpec { signal: "SIGTERM".to_owned(), grace_ms: 30_000 });
    assert_eq!(web.probes.startup, Some(Probe { failure_threshold: 30, ..http("/health") }));
    assert_eq!(web.probes.readiness, Some(Probe { period_ms: 1_000, ..http("/health/ready") }));
    let tcp = ProbeAction::Tcp { port: None };
    assert_eq!(web.probes.liveness, Some(Probe { action: tcp, ..http("/") }));
    let version = ProbeAction::Http {
        path: "/version".to_owned(),
        port: None,
        field: Some("version".to_owned()),
    };
    assert_eq!(web.probes.version, Some(Probe { action: version, ..http("/") }));
    let tls = TlsSpec {
        certificate: "/srv/shop/tls/shop.pem".to_owned(),
        key: "/etc/shop.key".to_owned(),
    };
    let host = Some("shop.example.com".to_owned());
    assert_eq!(web.routes, [Route { host, path: "/".to_owned(), tls: Some(tls) }]);
    let errors = ErrorSpec { status: vec![(500, 599), (429, 429)], timeout_ms: 10_000 };
    assert_eq!(web.errors, errors);
}

#[test]
fn a_strategy_is_what_its_file_says() {
    let spec = no_warnings(GOOD);
    let production = &spec.environments[1];
    assert_eq!(production.needs.as_deref(), Some("staging"));
    assert_eq!(production.bake_ms, 30 * 60_000);
    assert_eq!(production.platform, Platform::Process { listen: "127.0.0.1:8080".to_owned() });
    let canary = &production.strategy;
    let migrate = Step::Run {
        name: "migrate".to_owned(),
        command: words(&["./web", "migrate", "{version}"]),
        timeout_ms: 300_000,
    };
    let expected = [
        migrate,
        Step::Analysis { checks: words(&["smoke"]) },
        Step::SetWeight { weight_bp: 250 },
        Step::Pause { duration_ms: Some(300_000) },
        Step::SetWeight { weight_bp: 5_000 },
        Step::Pause { duration_ms: None },
    ];
    assert_eq!(canary.steps, expected);
    assert_eq!(canary.analysis, words(&["tooMany", "slow"]));
    assert_eq!(canary.progress_deadline_ms, 300_000);
    assert_eq!(canary.sticky_cookie.as_deref(), Some("release"));
}

#[test]
fn checks_are_what_their_file_says() {
    let spec = no_warnings(GOOD);
    let limit = CountsLimit {
        metric: CountMetric::ErrorRate,
        limit: Limit::RateBp(500),
        minimum_sample: 50,
        for_ms: 30_000,
    };
    let too_many = CheckSpec {
        name: "tooMany".to_owned(),
        kind: CheckKind::Counts(limit),
        interval_ms: 10_000,
        count: 1,
        failure_limit: 0,
        consecutive_error_limit: 4,
        no_data: NoDataPolicy::Continue,
        source_down: NoDataPolicy::Hold,
    };
    assert_eq!(spec.checks[0], too_many);
    let slow = CountsLimit {
        metric: CountMetric::P95,
        limit: Limit::LatencyUs(300_000),
        minimum_sample: 1,
        for_ms: 0,
    };
    let slow = CheckSpec {
        name: "slow".to_owned(),
        kind: CheckKind::Counts(slow),
        no_data: NoDataPolicy::Fail,
        ..too_many.clone()
    };
    assert_eq!(spec.checks[1], slow);
    let smoke = CheckKind::Command {
        command: words(&["npm", "run", "test:smoke"]),
        env: [("TARGET".to_owned(), "{previewUrl}".to_owned())].into(),
        folder: "/srv/shop".to_owned(),
        timeout_ms: 300_000,
    };
    let smoke = CheckSpec {
        name: "smoke".to_owned(),
        kind: smoke,
        interval_ms: 5_000,
        count: 3,
        failure_limit: 1,
        no_data: NoDataPolicy::Hold,
        ..too_many
    };
    assert_eq!(spec.checks[2], smoke);
}

#[test]
fn what_is_left_out_has_its_default() {
    let spec = no_warnings(&completed(
        "environments:\n  production: { platform: { process: { listen: '[::1]:8080' } } }\n",
    ));
    let [EnvironmentSpec { needs, strategy, bake_ms, if_engine_lost, .. }] =
        spec.environments.as_slice()
    else {
        panic!("{spec:#?}")
    };
    assert_eq!((needs, *bake_ms), (&None, 3_600_000));
    let lost =
        IfEngineLost { after_ms: 600_000, canary: LostAction::Rollback, bake: LostAction::Stay };
    assert_eq!(*if_engine_lost, lost);
    assert_eq!(strategy.name, "default");
    let pause = Step::Pause { duration_ms: Some(30_000) };
    let expected = [
        Step::SetWeight { weight_bp: 1_000 },
        pause.clone(),
        Step::SetWeight { weight_bp: 5_000 },
        pause,
    ];
    assert_eq!(strategy.steps, expected);
    assert_eq!(strategy.scale_down_delay_ms, 30_000);
    assert_eq!(strategy.progress_deadline_ms, 600_000);
    let web = &spec.services[0];
    assert_eq!((web.instances, web.errors.timeout_ms), (1, 60_000));
    assert_eq!(web.errors.status, [(500, 599)]);
    assert_eq!(web.resources, Resources::default());
    assert_eq!(spec.home, None);
}

#[test]
fn a_strategy_of_the_file_called_default_takes_the_place_of_the_built_in_one() {
    let spec = no_warnings(&completed(
        "environments:\n  production: { platform: { process: { listen: 127.0.0.1:8080 } } }\n\
         strategies: { default: { canary: { steps: [{ setWeight: 1 }] } } }\n",
    ));
    assert_eq!(spec.environments[0].strategy.steps, [Step::SetWeight { weight_bp: 100 }]);
}

#[test]
fn anchors_and_merges_work() {
    let spec = no_warnings(&completed(
        "x-probe: &probe { http: /health, periodSeconds: 2 }\n\
         x-more: &more { failureThreshold: 7, periodSeconds: 5 }\n\
         services:\n  web:\n    artifact: a-{version}\n    command: [./web]\n    probes:\n\
         \x20     liveness: *probe\n      readiness: { <<: [*probe, *more], timeoutSeconds: 4 }\n",
    ));
    let probes = &spec.services[0].probes;
    assert_eq!(probes.liveness, Some(Probe { period_ms: 2_000, ..http("/health") }));
    let readiness =
        Probe { period_ms: 2_000, timeout_ms: 4_000, failure_threshold: 7, ..http("/health") };
    assert_eq!(probes.readiness, Some(readiness));
}

#[test]
fn probes_of_kubernetes_and_steps_of_argo_work_unchanged() {
    let spec = no_warnings(&completed(
        "services:\n  web:\n    artifact: a-{version}\n    command: [./web]\n    probes:\n\
         \x20     liveness: { httpGet: { path: /health, port: 8080 }, initialDelaySeconds: 3 }\n\
         \x20     readiness: { tcpSocket: { port: 8081 } }\n\
         \x20     startup: { exec: { command: [cat, /tmp/healthy] } }\n\
         checks: { up: { tcp: '127.0.0.1:80' } }\n\
         strategies:\n  careful:\n    canary:\n      steps:\n      - setWeight: 20\n      - pause: {}\n\
         \x20     - analysis:\n          templates:\n          - templateName: up\n",
    ));
    let probes = &spec.services[0].probes;
    let get = ProbeAction::Http { path: "/health".to_owned(), port: Some(8080), field: None };
    let liveness = Probe { action: get, initial_delay_ms: 3_000, ..http("/") };
    assert_eq!(probes.liveness, Some(liveness));
    let tcp = ProbeAction::Tcp { port: Some(8081) };
    assert_eq!(probes.readiness, Some(Probe { action: tcp, ..http("/") }));
    let exec = ProbeAction::Command { command: words(&["cat", "/tmp/healthy"]) };
    assert_eq!(probes.startup, Some(Probe { action: exec, ..http("/") }));
    let steps = &spec.environments[0].strategy.steps;
    assert_eq!(steps[2], Step::Analysis { checks: words(&["up"]) });
}

#[test]
fn variables_come_from_the_environment_only_where_the_file_says_so() {
    let spec = no_warnings(&completed(
        "services:\n  web:\n    artifact: a-{version}\n    command: [./web]\n\
         \x20   env: { LEVEL: { env: LEVEL }, EMPTY: { env: EMPTY }, HOME: $HOME }\n",
    ));
    let env = &spec.services[0].env;
    assert_eq!(env["LEVEL"], "debug");
    assert_eq!(env["EMPTY"], "");
    assert_eq!(env["HOME"], "$HOME");
}

#[test]
fn included_files_are_part_of_the_project() {
    let spec = no_warnings(&completed(
        "include: [more/checks.yaml]\n\
         strategies: { careful: { canary: { steps: [{ setWeight: 10 }], analysis: [up] } } }\n",
    ));
    assert_eq!(spec.checks.len(), 1);
    assert_eq!(spec.checks[0].name, "up");
}

#[test]
fn the_first_example_of_the_format_is_accepted_and_its_later_parts_are_named() {
    let spec = good(SHOP).spec;
    let names: Vec<_> = spec.environments.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["production"], "staging is rolling");
    let touched = |text: &str| {
        let found = spec.unsupported.iter().find(|unsupported| unsupported.text.contains(text));
        let found = found.unwrap_or_else(|| panic!("{text} in {:#?}", spec.unsupported));
        (found.environments.join(" "), found.services.join(" "))
    };
    let of = |environments: &str, services: &str| (environments.to_owned(), services.to_owned());
    assert_eq!(touched("strategy rolling"), of("staging production", ""));
    assert_eq!(touched("soak"), of("production", ""));
    assert_eq!(touched("protection"), of("production", ""));
    assert_eq!(touched("ruleOut"), of("production", ""));
    assert_eq!(touched("statistical judge is"), of("production", ""));
    assert_eq!(touched("Prometheus"), of("production", ""));
    assert_eq!(touched("approvals"), of("production", ""));
    assert_eq!(touched("certificates"), of("", "web"));
    assert_eq!(touched("notifications"), of("", ""));
    assert!(!spec.unsupported.iter().any(|u| u.text.contains("blueGreen")), "nobody uses it");
    let canary = &spec.environments[0].strategy;
    assert!(canary.analysis.is_empty(), "all three need what is not there: {canary:#?}");
}

#[test]
fn the_second_example_of_the_format_is_accepted_and_refused_as_a_whole() {
    let spec = good(COMPOSE).spec;
    assert!(spec.environments.is_empty() && spec.services.is_empty());
    for text in ["home at ssh", "Compose", "containers", "stateful", "Docker", "host by host"] {
        let found = spec.unsupported.iter().any(|unsupported| unsupported.text.contains(text));
        assert!(found, "{text} in {:#?}", spec.unsupported);
    }
}

/// The spec without the places, which move when a file is written anew.
fn placeless(mut spec: ProjectSpec) -> ProjectSpec {
    for unsupported in &mut spec.unsupported {
        unsupported.at.clear();
    }
    spec.unsupported.sort_by(|a, b| a.text.cmp(&b.text));
    spec
}

#[test]
fn the_filled_in_file_is_the_same_project_and_fills_in_to_itself() {
    let with_include = completed(
        "include: more/checks.yaml\nservices:\n  web:\n    artifact: a-{version}\n\
         \x20   command: [./web, \"say \\\"hi\\\"\", 'tab\there', \"5\", \"\", \"true\", \"#no\"]\n\
         \x20   env: { A: 'yes', B: \"null\", C: \"a: b\", D: \"line\\nbreak\", E: { env: LEVEL }, F: ' ' }\n",
    );
    for text in [GOOD, SHOP, COMPOSE, &with_include] {
        let project = good(text);
        let filled = config(&project);
        let again = good(&filled);
        assert_eq!(placeless(again.spec.clone()), placeless(project.spec), "{filled}");
        assert_eq!(config(&again), filled);
    }
}

#[test]
fn the_filled_in_file_shows_no_value_from_the_environment() {
    let text = completed(
        "services:\n  web:\n    artifact: a-{version}\n    command: [./web]\n\
         \x20   env: { LEVEL: { env: LEVEL } }\n",
    );
    let filled = config(&good(&text));
    assert!(filled.contains("env: LEVEL"), "{filled}");
    assert!(!filled.contains("debug"), "{filled}");
}
