//! The project file: validate, plan, and what is refused before anything moves.

use snapbox::{assert_data_eq, str};

use crate::stage::Stage;

const CANARY: &str =
    "{ setWeight: 10 }, { pause: { duration: 5m } }, { setWeight: 50 }, { pause: {} }";

#[test]
fn a_valid_file_is_said_to_be_valid() {
    let stage = Stage::project(CANARY);
    assert_data_eq!(
        stage.run(&["validate"]).code(0).out,
        str![[r#"
valid: tidegate.yaml, project shop: 1 service (web), 1 environment (production)

"#]]
    );
    let document = stage.run(&["validate", "-o", "json"]).code(0).json();
    assert_eq!(document["kind"], "Validation");
    assert_eq!(document["services"][0], "web");
}

#[test]
fn all_mistakes_come_at_once_with_their_places() {
    let stage = Stage::empty();
    let text = "version: 1\nproject: shop\nservices:\n  web:\n    artifakt: x\n    command: [./web]\n    \
                instances: many\nenvironments:\n  production:\n    platform: { process: { listen: \
                nowhere } }\n";
    stage.write("tidegate.yaml", text);
    let said = stage.run(&["validate"]).code(2);
    assert!(said.out.is_empty());
    for part in ["artifakt", "many", "nowhere", "tidegate.yaml:5", "tidegate.yaml:7"] {
        assert!(said.err.contains(part), "{part} is missing in\n{}", said.err);
    }
    let document = stage.run(&["validate", "-o", "json"]).code(2).error();
    assert!(document["error"]["mistakes"].as_array().unwrap().len() >= 3, "{document:#}");
    // Every other verb that needs the file says the same; those that only look go on.
    stage.run(&["release", "v1"]).code(2);
    let said = stage.run(&["status"]).code(0);
    assert!(said.err.contains("mistakes"), "{}", said.err);
}

#[test]
fn a_plan_fits_eighty_columns_and_changes_nothing() {
    let stage = Stage::project(CANARY);
    stage.version("v1", 200);
    let said = stage.run(&["plan", "v1"]).code(0);
    assert!(said.out.lines().all(|line| line.chars().count() <= 80), "{}", said.out);
    let plan = stage.run(&["plan", "v1", "-o", "json"]).code(0).json();
    assert_eq!(plan["kind"], "Plan");
    assert!(plan["digest"].as_str().unwrap().starts_with("sha256:"));
    let step = &plan["steps"][0];
    for key in
        ["n", "environment", "action", "undo", "undoSeconds", "pointOfNoReturn", "ifWeDieHere"]
    {
        assert!(step.get(key).is_some(), "{key} is missing in {step}");
    }
    assert!(!stage.home().exists());
}

#[test]
fn what_is_wrong_with_a_release_is_said_before_anything_moves() {
    let stage = Stage::project(CANARY);
    stage.version("v1", 200);
    let missing = stage.run(&["release", "v9"]).code(2);
    assert!(missing.err.contains("dist/web-v9"), "{}", missing.err);
    stage.run(&["plan", "../v1"]).code(2);
    stage.run(&["release", "v1", "--to", "nowhere"]).code(2);
    stage.run(&["release", "v1", "-s", "api"]).code(2);
    assert!(!stage.home().join("journal.db").exists());
}

#[test]
fn a_start_command_that_cannot_be_started_is_found_before_anything_moves() {
    use std::os::unix::fs::PermissionsExt;
    let stage = Stage::project(CANARY);
    stage.version("v1", 200);
    let program = stage.path("dist/web-v1/web");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = stage.run(&["release", "v1"]).code(2);
    assert!(said.err.contains("not executable") && said.err.contains("chmod +x"), "{}", said.err);
    std::fs::remove_file(&program).unwrap();
    stage.run(&["plan", "v1"]).code(2);
    assert!(!stage.home().join("engine.pid").exists());
}

#[test]
fn a_taken_port_is_refused_and_nothing_starts() {
    let stage = Stage::project("{ setWeight: 10 }");
    stage.version("v1", 200);
    let _holder = std::net::TcpListener::bind(stage.listen).unwrap();
    let said = stage.run(&["release", "v1"]).code(3);
    assert!(said.err.contains(&stage.listen.to_string()), "{}", said.err);
    assert!(!stage.home().join("engine.pid").exists());
    stage.run(&["plan", "v1"]).code(3);
    stage.run(&["doctor"]).code(3);
}

#[test]
fn what_this_version_cannot_do_is_refused_with_its_place() {
    let stage = Stage::project("{ setWeight: 10 }");
    stage.version("v1", 200);
    let text = std::fs::read_to_string(stage.path("tidegate.yaml")).unwrap();
    stage.write(
        "tidegate.yaml",
        &text.replace("bake: 1s", "bake: 1s\n    protection: { waitTimer: 5m }"),
    );
    stage.run(&["validate"]).code(0);
    let said = stage.run(&["release", "v1", "-o", "json"]).code(3);
    let error = said.error();
    assert_eq!(error["error"]["code"], "notInThisVersion");
    assert!(error["error"]["on"].as_str().unwrap().contains("tidegate.yaml:"), "{error}");
}

#[test]
fn several_services_and_several_ends_have_to_be_named() {
    let stage = Stage::project("{ setWeight: 10 }");
    let text = std::fs::read_to_string(stage.path("tidegate.yaml")).unwrap();
    let api = "  api: { artifact: \"dist/api-{version}\", command: [./api], routes: [{ path: /api }] }\nenvironments:";
    stage.write("tidegate.yaml", &text.replace("environments:", api));
    let said = stage.run(&["release", "v1"]).code(2);
    assert!(said.err.contains("web, api"), "{}", said.err);
    let other = "environments:\n  canada: { platform: { process: { listen: \"127.0.0.1:1\" } } }";
    stage.write("tidegate.yaml", &text.replace("environments:", other));
    let said = stage.run(&["release", "v1"]).code(2);
    assert!(said.err.contains("canada, production"), "{}", said.err);
}

#[test]
fn init_writes_a_valid_file_once_and_never_over_another() {
    let stage = Stage::empty();
    stage.version("v1", 200);
    let said = stage.run(&["init"]).code(0);
    assert!(said.out.contains("wrote"), "{}", said.out);
    stage.run(&["validate"]).code(0);
    let before = std::fs::read(stage.path("tidegate.yaml")).unwrap();
    stage.run(&["init"]).code(3);
    assert_eq!(std::fs::read(stage.path("tidegate.yaml")).unwrap(), before);
}
