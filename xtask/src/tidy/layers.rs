//! Who may know whom, and that the compiler's rules are on everywhere.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Finding, Package, Tree};

/// Which crates of ours each crate may need. Dependencies run one way:
/// `core <- syntax, journal, wire <- engine, host, drivers <- tidegate`. The switch knows messages
/// only; the host knows the core and never the engine.
const LAYERS: [(&str, &[&str]); 13] = [
    ("core", &[]),
    ("syntax", &["core"]),
    ("journal", &["core"]),
    ("wire", &["core"]),
    ("ipc", &[]),
    ("engine", &["core", "journal", "wire", "ipc"]),
    ("host", &["core", "wire", "ipc"]),
    ("switch", &["wire", "ipc"]),
    ("drivers", &["core", "wire", "ipc", "engine"]),
    ("sim", &["core", "journal", "engine"]),
    ("example-service", &[]),
    (
        "tidegate",
        &[
            "core",
            "syntax",
            "journal",
            "wire",
            "ipc",
            "engine",
            "host",
            "switch",
            "drivers",
            "example-service",
        ],
    ),
    ("xtask", &["core", "journal", "wire", "ipc", "example-service"]),
];

/// What tests may need beyond that.
const IN_TESTS: [&str; 3] = ["example-service", "sim", "xtask"];

/// What the pure crates may need of other people's.
const PURE_NEEDS: [(&str, &[&str]); 2] = [
    ("core", &["serde", "serde_json", "sha2", "thiserror"]),
    (
        "syntax",
        &[
            "serde",
            "serde_json",
            "saphyr-parser",
            "annotate-snippets",
            "schemars",
            "thiserror",
            "jiff",
        ],
    ),
];

/// Lints that the root manifest has to switch on, and numbers that `clippy.toml` has to hold.
const LINTS: [(&str, &str); 8] = [
    ("Cargo.toml", "unsafe_code = \"forbid\""),
    ("Cargo.toml", "missing_docs = \"warn\""),
    ("Cargo.toml", "unwrap_used = \"warn\""),
    ("Cargo.toml", "too_many_lines = \"warn\""),
    ("Cargo.toml", "wildcard_enum_match_arm = \"warn\""),
    ("Cargo.toml", "allow_attributes_without_reason = \"warn\""),
    ("Cargo.toml", "disallowed_methods = \"warn\""),
    ("clippy.toml", "too-many-lines-threshold = 70"),
];

/// The crates of the workspace, as cargo sees them.
pub(super) fn packages(root: &Path) -> Result<Vec<Package>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    let document: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let list = document["packages"].as_array().context("cargo metadata without packages")?;
    list.iter().map(package).collect()
}

fn package(document: &serde_json::Value) -> Result<Package> {
    let name = document["name"].as_str().context("a package without a name")?;
    let mut package = Package { name: name.to_owned(), ..Package::default() };
    for dependency in document["dependencies"].as_array().into_iter().flatten() {
        let name = dependency["name"].as_str().context("a dependency without a name")?;
        match dependency["kind"].as_str() {
            Some("dev") => package.needs_in_tests.push(name.to_owned()),
            _ => package.needs.push(name.to_owned()),
        }
    }
    Ok(package)
}

fn short(name: &str) -> &str {
    name.strip_prefix("tidegate-").unwrap_or(name)
}

pub(super) fn layers(tree: &Tree) -> Vec<Finding> {
    let ours = |name: &str| tree.crates.iter().any(|package| package.name == name);
    let mut findings = Vec::new();
    for package in &tree.crates {
        let name = short(&package.name);
        let manifest = if name == "xtask" {
            "xtask/Cargo.toml".to_owned()
        } else {
            format!("crates/{name}/Cargo.toml")
        };
        let Some((_, may)) = LAYERS.iter().find(|(known, _)| *known == name) else {
            let what = format!("{name} has no place among the layers: add it to this rule");
            findings.push(Finding::new(&manifest, 0, what));
            continue;
        };
        for need in &package.needs {
            let need_name = short(need);
            if ours(need) && !may.contains(&need_name) {
                let what = format!("{name} may not know {need_name}");
                findings.push(Finding::new(&manifest, 0, what));
            }
            let pure = PURE_NEEDS.iter().find(|(pure, _)| *pure == name);
            if !ours(need) && pure.is_some_and(|(_, may)| !may.contains(&need.as_str())) {
                let what = format!("{name} is pure and may not need {need}");
                findings.push(Finding::new(&manifest, 0, what));
            }
        }
        for need in package.needs_in_tests.iter().filter(|need| ours(need)) {
            let need = short(need);
            if !may.contains(&need) && !IN_TESTS.contains(&need) {
                let what = format!("the tests of {name} may not know {need}");
                findings.push(Finding::new(&manifest, 0, what));
            }
        }
    }
    findings
}

pub(super) fn lints(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, line) in LINTS {
        if !tree.text(file).is_some_and(|text| text.lines().any(|own| own.trim() == line)) {
            findings.push(Finding::new(file, 0, format!("has to say: {line}")));
        }
    }
    for (file, text) in tree.ending("/Cargo.toml") {
        let inherits = text.split("[lints]").nth(1).is_some_and(|after| {
            after.lines().map(str::trim).find(|line| !line.is_empty()) == Some("workspace = true")
        });
        if !inherits {
            findings.push(Finding::new(file, 0, "does not inherit the workspace's lints"));
        }
    }
    findings
}

pub(super) fn pins(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    if tree.text("Cargo.lock").is_none() {
        findings.push(Finding::new("Cargo.lock", 0, "is not committed"));
    }
    for (number, line) in (1..).zip(tree.text(".gitignore").unwrap_or_default().lines()) {
        if line.contains("Cargo.lock") {
            findings.push(Finding::new(".gitignore", number, "hides Cargo.lock"));
        }
    }
    let channel = tree.text("rust-toolchain.toml").and_then(|text| {
        text.lines().find_map(|line| line.trim().strip_prefix("channel")?.split('"').nth(1))
    });
    let exact = channel.is_some_and(|channel| {
        let parts: Vec<&str> = channel.split('.').collect();
        parts.len() == 3 && parts.iter().all(|part| part.parse::<u32>().is_ok())
    });
    if !exact {
        let what = "the channel has to be one exact version, such as 1.95.0";
        findings.push(Finding::new("rust-toolchain.toml", 0, what));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{package, places, tree};
    use super::{LINTS, Tree, layers, lints, pins};

    #[test]
    fn a_dependency_against_the_layers_is_found() {
        let good = Tree {
            crates: vec![
                package("tidegate-core", &["serde"]),
                package("tidegate-engine", &["tidegate-core", "tokio"]),
                package("tidegate-host", &["tidegate-core"]),
            ],
            ..Tree::default()
        };
        assert_eq!(layers(&good), []);
        let bad = Tree {
            crates: vec![
                package("tidegate-core", &["tokio"]),
                package("tidegate-engine", &[]),
                package("tidegate-host", &["tidegate-engine"]),
                package("tidegate-new", &[]),
            ],
            ..Tree::default()
        };
        let found =
            ["crates/core/Cargo.toml:0", "crates/host/Cargo.toml:0", "crates/new/Cargo.toml:0"];
        assert_eq!(places(&layers(&bad)), found);
    }

    #[test]
    fn a_crate_that_does_not_inherit_the_lints_is_found() {
        let on = |file: &str| {
            let lines = LINTS.iter().filter(|(of, _)| *of == file).map(|(_, line)| *line);
            lines.collect::<Vec<_>>().join("\n")
        };
        let (cargo, clippy) = (on("Cargo.toml"), on("clippy.toml"));
        let mut files = vec![
            ("Cargo.toml", cargo.as_str()),
            ("clippy.toml", clippy.as_str()),
            ("crates/a/Cargo.toml", "[lints]\nworkspace = true\n"),
        ];
        assert_eq!(lints(&tree(&files)), []);
        files.push(("crates/b/Cargo.toml", "[lints.rust]\nx = \"warn\"\n"));
        files[1].1 = "too-many-lines-threshold = 700";
        assert_eq!(places(&lints(&tree(&files))), ["clippy.toml:0", "crates/b/Cargo.toml:0"]);
    }

    #[test]
    fn a_toolchain_that_moves_and_a_missing_lock_are_found() {
        let pinned = ("rust-toolchain.toml", "[toolchain]\nchannel = \"1.95.0\"\n");
        assert_eq!(pins(&tree(&[("Cargo.lock", ""), pinned])), []);
        let moving = ("rust-toolchain.toml", "[toolchain]\nchannel = \"stable\"\n");
        let found = ["Cargo.lock:0", "rust-toolchain.toml:0"];
        assert_eq!(places(&pins(&tree(&[moving]))), found);
    }
}
