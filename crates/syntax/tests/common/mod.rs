//! What the tests of this crate share.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;

use tidegate_syntax::{Diagnostic, Project, ProjectInput, read_project};

/// Files without mistakes.
pub(crate) const GOOD: &str = include_str!("../files/good.yaml");
/// The first example of the format.
pub(crate) const SHOP: &str = include_str!("../files/shop.yaml");
/// The second one, of the containers.
pub(crate) const COMPOSE: &str = include_str!("../files/compose.yaml");

/// A small file, section by section.
const BASE: [(&str, &str); 4] = [
    ("version", "version: 1\n"),
    ("project", "project: shop\n"),
    (
        "services",
        "services: { web: { artifact: \"dist/web-{version}\", command: [./web, \"{address}\"] } }\n",
    ),
    (
        "environments",
        "environments: { production: { platform: { process: { listen: 127.0.0.1:8080 } }, strategy: careful } }\n",
    ),
];
const STRATEGIES: &str = "strategies: { careful: { canary: { steps: [{ setWeight: 10 }, { pause: { duration: 30s } }] } } }\n";

/// The fragment with the sections of a small file that it has not itself behind it.
pub(crate) fn completed(fragment: &str) -> String {
    let has = |key: &str| fragment.lines().any(|line| line.starts_with(&format!("{key}:")));
    let mut text = fragment.to_owned();
    let mut careful = has("environments");
    for (key, section) in BASE {
        if !has(key) {
            text.push_str(section);
            careful |= key == "environments";
        }
    }
    if careful && !has("strategies") && text.contains("careful") {
        text.push_str(STRATEGIES);
    }
    text
}

/// Reads bytes with a few known variables and files.
pub(crate) fn read(bytes: &[u8]) -> Result<Project, Vec<Diagnostic>> {
    let variables = BTreeMap::from([("LEVEL", "debug"), ("EMPTY", "")]);
    let files = BTreeMap::from([
        ("more/checks.yaml", "checks:\n  up: { tcp: '127.0.0.1:80' }\nx-notes: ours\n"),
        ("wrong.yaml", "checks:\n  up: { tpc: '127.0.0.1:80' }\nhome: local\nchekcs: {}\n"),
        ("twice.yaml", "services:\n  web: { artifact: other, command: [./web] }\n"),
        ("list.yaml", "- a\n"),
        ("broken.yaml", "checks: [\n"),
    ]);
    let input = ProjectInput {
        file: "tidegate.yaml",
        folder: "/srv/shop",
        bytes,
        variable: &|name| variables.get(name).map(|value| (*value).to_owned()),
        include: &|name| {
            files
                .get(name)
                .map(|text| text.as_bytes().to_vec())
                .ok_or_else(|| "no such file".to_owned())
        },
    };
    read_project(&input)
}

/// A file that has no mistakes.
pub(crate) fn good(text: &str) -> Project {
    read(text.as_bytes()).unwrap_or_else(|mistakes| {
        panic!("{}", tidegate_syntax::diagnostic::render_all(&mistakes, Default::default()))
    })
}
