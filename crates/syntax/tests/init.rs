//! `init`: from a folder to a file that is accepted, and what is said about it.

mod common;

use snapbox::{assert_data_eq, str};
use tidegate_syntax::init;
use tidegate_syntax::init::{Listed, Listing};

fn file(path: &str, contents: &str) -> Listed {
    let contents = Some(contents.to_owned());
    Listed { path: path.to_owned(), contents, ..Listed::default() }
}

fn folder(path: &str) -> Listed {
    Listed { path: path.to_owned(), is_folder: true, ..Listed::default() }
}

fn program(path: &str) -> Listed {
    Listed { path: path.to_owned(), executable: true, ..Listed::default() }
}

/// Artifact and command of each service, then the notes.
fn check(entries: Vec<Listed>, expected: impl snapbox::IntoData) {
    let listing = Listing { folder: "My Shop".to_owned(), entries };
    let (yaml, notes) = init(&listing);
    let project = common::good(&yaml);
    assert!(project.warnings.is_empty(), "{:?}", project.warnings);
    let mut text = format!("project {}\n", project.spec.project);
    for service in &project.spec.services {
        let paths: Vec<&str> = service.routes.iter().map(|route| route.path.as_str()).collect();
        text.push_str(&format!(
            "{}: {} {:?} {paths:?}\n",
            service.name, service.artifact, service.command
        ));
    }
    for note in notes {
        text.push_str(&format!("{:?} {}: {}\n", note.understanding, note.about, note.text));
    }
    assert_data_eq!(text, expected);
}

#[test]
fn an_empty_folder_gives_a_file_to_fill_in() {
    check(
        vec![],
        str![[r#"
project My-Shop
My-Shop: dist/My-Shop-{version} ["./My-Shop", "--listen", "{address}"] []
Guessed .: nothing says what is released: set `artifact` and `command`
Guessed .: put each version to `dist/My-Shop-{version}`

"#]],
    );
}

#[test]
fn versions_that_are_built_are_services() {
    check(
        vec![
            folder("dist"),
            folder("dist/web-v1"),
            program("dist/web-v1/web"),
            program("dist/web-v1/tools/helper"),
            folder("dist/web-v2"),
            file("dist/api-gateway-1.0.3.tar.gz", ""),
            folder("dist/notes"),
            file("Dockerfile", "FROM scratch"),
        ],
        str![[r#"
project My-Shop
api-gateway: dist/api-gateway-{version}.tar.gz ["./api-gateway", "--listen", "{address}"] []
web: dist/web-{version} ["./web", "--listen", "{address}"] ["/web"]
Understood dist/api-gateway-1.0.3.tar.gz: version 1.0.3 of the service api-gateway
Understood dist/web-v1: version v1 of the service web
Understood dist/web-v2: version v2 of the service web
Guessed dist/api-gateway-1.0.3.tar.gz: how the program learns its address is not known: look at `command`
Guessed dist/api-gateway-1.0.3.tar.gz: which program starts it is not known: look at `command`
Guessed dist/web-v1: how the program learns its address is not known: look at `command`
NotInThisVersion Dockerfile: containers are not in this version

"#]],
    );
}

#[test]
fn a_node_program_starts_as_its_package_says() {
    let package = r#"{ "name": "@acme/store", "scripts": { "start": "node server.js" } }"#;
    check(
        vec![file("package.json", package)],
        str![[r#"
project store
store: dist/store-{version}.tar.gz ["sh", "-c", "PORT={port} exec node server.js"] []
Understood package.json: starts with `node server.js`
Guessed .: put each version to `dist/store-{version}.tar.gz`
Guessed package.json: that it listens on the port in the variable PORT

"#]],
    );
    let shell = r#"{ "name": "store", "scripts": { "start": "FOO=1 node a && node b" } }"#;
    check(
        vec![file("package.json", shell)],
        str![[r#"
project store
store: dist/store-{version}.tar.gz ["sh", "-c", "PORT={port} exec npm start"] []
Understood package.json: starts with `npm start`
Guessed .: put each version to `dist/store-{version}.tar.gz`
Guessed package.json: that it listens on the port in the variable PORT

"#]],
    );
    check(
        vec![file("package.json", "{ not json")],
        str![[r#"
project My-Shop
web: dist/web-{version}.tar.gz ["sh", "-c", "PORT={port} exec npm start"] []
Understood package.json: starts with `npm start`
Guessed .: put each version to `dist/web-{version}.tar.gz`
Guessed package.json: that it listens on the port in the variable PORT

"#]],
    );
}

#[test]
fn a_rust_program_has_the_name_of_its_package() {
    let cargo = "[workspace]\nname = \"no\"\n[package]\nname = \"shopd\"\n[lib]\nname = \"x\"\n";
    check(
        vec![file("Cargo.toml", cargo)],
        str![[r#"
project shopd
shopd: dist/shopd-{version} ["./shopd", "--listen", "{address}"] []
Understood Cargo.toml: the program shopd; `cargo build --release` leaves it in target/release
Guessed .: put each version to `dist/shopd-{version}`
Guessed Cargo.toml: that it takes its address as `--listen`

"#]],
    );
}

#[test]
fn a_python_program_and_a_go_program_are_understood() {
    check(
        vec![file("requirements.txt", "flask"), file("main.py", "")],
        str![[r#"
project My-Shop
My-Shop: dist/My-Shop-{version} ["sh", "-c", "PORT={port} exec python3 main.py"] []
Understood requirements.txt: a Python program
Guessed .: put each version to `dist/My-Shop-{version}`
Guessed requirements.txt: that `python3 main.py` starts it and it listens on the port in PORT

"#]],
    );
    check(
        vec![file("go.mod", "module example.com/acme/shop\n\ngo 1.25\n")],
        str![[r#"
project My-Shop
shop: dist/shop-{version} ["./shop", "--listen", "{address}"] []
Understood go.mod: the program shop
Guessed .: put each version to `dist/shop-{version}`
Guessed go.mod: that it takes its address as `--listen`

"#]],
    );
}

#[test]
fn files_of_later_versions_are_named() {
    check(
        vec![
            file("docker-compose.yml", "services:\n  web: { image: a }\n  db: { image: b }\n"),
            file("compose.yaml", "a: [\n"),
            file("k8s/deployment.yaml", "apiVersion: apps/v1\nkind: Deployment\n"),
            file(".github/workflows/ci.yml", "on: push\n"),
            file("chart/Chart.yaml", "name: shop\n"),
            file("values.yaml", "a: 1\n"),
            file("tidegate.yaml", "version: 1\n"),
        ],
        str![[r#"
project My-Shop
My-Shop: dist/My-Shop-{version} ["./My-Shop", "--listen", "{address}"] []
Understood tidegate.yaml: is there already, and is not read
Guessed .: nothing says what is released: set `artifact` and `command`
Guessed .: put each version to `dist/My-Shop-{version}`
NotInThisVersion .github/workflows/ci.yml: pipelines are not in this version
NotInThisVersion chart/Chart.yaml: Helm charts are not in this version
NotInThisVersion compose.yaml: Compose files are not in this version
NotInThisVersion docker-compose.yml: Compose files are not in this version; services: web, db
NotInThisVersion k8s/deployment.yaml: Kubernetes is not in this version; kind Deployment

"#]],
    );
}

#[test]
fn strange_names_still_give_a_file_that_is_accepted() {
    for name in ["", "...", "123", "ä ö", "a{version}b", "--", "x\ny: z"] {
        let listing = Listing {
            folder: name.to_owned(),
            entries: vec![
                folder(&format!("dist/{name}-1")),
                file("package.json", &serde_json::json!({ "name": name }).to_string()),
            ],
        };
        common::good(&init(&listing).0);
    }
}

#[test]
fn the_file_explains_itself() {
    let entries = vec![folder("dist/web-v1"), program("dist/web-v1/web")];
    let (yaml, _) = init(&Listing { folder: "shop".to_owned(), entries });
    assert_data_eq!(
        yaml,
        str![[r##"
# What is released, where to, and how. `tidegate validate` checks this file, `tidegate config`
# prints it with every default filled in, `tidegate schema` describes every key.
version: 1
project: shop

services:
  web:
    # A folder, .tar.gz or .tar.zst with one version. `tidegate release v2` takes the one with v2.
    artifact: "dist/web-{version}"
    # Starts one instance in that folder. {address} {port} {instance} {version} {digest} are filled in.
    command: [./web, "--listen", "{address}"]
    instances: 2
    # An instance gets requests when its port accepts a connection; better is to ask it:
    # probes: { readiness: { http: /health, periodSeconds: 1 } }

environments:
  production:
    # Where clients connect to; the service itself listens elsewhere, behind this address.
    platform: { process: { listen: 127.0.0.1:8080 } }
    strategy: careful
    # Watched for so long after promotion, with the previous version warm.
    bake: 1h

strategies:
  careful:
    canary:
      steps:
        - setWeight: 10            # percent of the requests
        - pause: { duration: 5m }  # watched; `pause: {}` waits for `tidegate promote`
        - setWeight: 50
        - pause: { duration: 5m }
      analysis: [errors]

checks:
  # The release goes back by itself when more than 5 % of its requests fail.
  errors: { counts: errorRate, limit: 5%, minimumSample: 20 }

"##]]
    );
}
