//! Files of containers, clusters and pipelines: named, and not in this version.

use crate::diagnostic::{Sink, shown};
use crate::source::Sources;
use crate::yaml::{Budget, Node, decode, read};

use super::{Listing, Note, Understanding};

/// Notes about what this version cannot take over.
pub(super) fn notes(listing: &Listing, notes: &mut Vec<Note>) {
    for entry in &listing.entries {
        let name = entry.path.rsplit('/').next().unwrap_or(&entry.path);
        if entry.is_folder {
            continue;
        }
        if entry.path == "tidegate.yaml" {
            let text = "is there already, and is not read";
            notes.push(Note::new(Understanding::Understood, &entry.path, text));
            continue;
        }
        let text = match name {
            "Dockerfile" | "Containerfile" => Some("containers are not in this version".to_owned()),
            "docker-compose.yml" | "docker-compose.yaml" | "compose.yml" | "compose.yaml" => {
                Some(compose(entry.contents.as_deref()))
            }
            "Procfile" => Some("is not read; its `web:` line belongs into `command`".to_owned()),
            "Chart.yaml" => Some("Helm charts are not in this version".to_owned()),
            _ if entry.path.starts_with(".github/workflows/") => {
                Some("pipelines are not in this version".to_owned())
            }
            _ => manifest(name, entry.contents.as_deref()),
        };
        if let Some(text) = text {
            notes.push(Note::new(Understanding::NotInThisVersion, &entry.path, text));
        }
    }
}

fn compose(contents: Option<&str>) -> String {
    let tree = contents.and_then(tree);
    let services: Vec<String> = tree
        .as_ref()
        .and_then(|tree| tree.get("services"))
        .map(|services| services.entries().iter().take(12).map(|e| shown(&e.key)).collect())
        .unwrap_or_default();
    if services.is_empty() {
        "Compose files are not in this version".to_owned()
    } else {
        format!("Compose files are not in this version; services: {}", services.join(", "))
    }
}

/// A manifest of Kubernetes by its two keys.
fn manifest(name: &str, contents: Option<&str>) -> Option<String> {
    if !name.ends_with(".yaml") && !name.ends_with(".yml") {
        return None;
    }
    let text = contents?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    value("apiVersion:")?;
    let kind = value("kind:")?;
    Some(format!("Kubernetes is not in this version; kind {}", shown(kind)))
}

fn tree(text: &str) -> Option<Node> {
    let mut sources = Sources::default();
    let mut sink = Sink::default();
    let file = decode("file", text.as_bytes(), &mut sources, &mut sink)?;
    read(file, &sources, &mut sink, &mut Budget::default())
}
