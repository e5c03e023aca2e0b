//! The pure half of `tidegate init`: from what lies in a folder to a first `tidegate.yaml`, and
//! what was understood of it.

mod find;
mod later;

use crate::source::Span;
use crate::yaml::{Node, flow};

use find::Found;

/// What lies in a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The folder's own name.
    pub folder: String,
    /// Files and folders in it and a few levels below, in any order.
    pub entries: Vec<Listed>,
}

/// One file or folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// Path from the folder, with `/`.
    pub path: String,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// Whether the owner may execute it.
    pub executable: bool,
    /// What is in it, where it is a small text file that [`Listing::wants`].
    pub contents: Option<String>,
}

impl Listing {
    /// Whether the contents of a file of this path help.
    #[must_use]
    pub fn wants(path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        matches!(name, "package.json" | "Cargo.toml" | "go.mod" | "pyproject.toml")
            || name.ends_with(".yml")
            || name.ends_with(".yaml")
    }

    /// Whether there is such a file or folder.
    fn has(&self, path: &str) -> bool {
        self.entries.iter().any(|entry| entry.path == path)
    }

    /// What is in a file.
    fn contents(&self, path: &str) -> Option<&str> {
        self.entries.iter().find(|entry| entry.path == path)?.contents.as_deref()
    }
}

/// How sure a note is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Understanding {
    /// It is in the file as it lies there.
    Understood,
    /// It is in the file and has to be looked at.
    Guessed,
    /// It is not in the file, because this version cannot do it.
    NotInThisVersion,
}

/// Something that was found, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// How sure it is.
    pub understanding: Understanding,
    /// The file or folder that it is about.
    pub about: String,
    /// What became of it, as a sentence without a full stop.
    pub text: String,
}

impl Note {
    /// A note from its parts.
    fn new(understanding: Understanding, about: &str, text: impl Into<String>) -> Self {
        Self { understanding, about: about.to_owned(), text: text.into() }
    }
}

/// A commented `tidegate.yaml` that [`crate::read_project`] accepts, and what was understood of
/// the folder and what was not.
#[must_use]
pub fn init(listing: &Listing) -> (String, Vec<Note>) {
    let mut notes = Vec::new();
    let services = find::services(listing, &mut notes);
    later::notes(listing, &mut notes);
    notes.sort();
    notes.dedup();
    (yaml(&find::project(listing), &services), notes)
}

fn yaml(project: &str, services: &[Found]) -> String {
    let mut text = format!(
        "\
# What is released, where to, and how. `tidegate validate` checks this file, `tidegate config`
# prints it with every default filled in, `tidegate schema` describes every key.
version: 1
project: {project}

services:
"
    );
    for (index, service) in services.iter().enumerate() {
        text.push_str(&service_yaml(service, index == 0));
    }
    text.push_str(
        "
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
",
    );
    text
}

fn service_yaml(service: &Found, first: bool) -> String {
    let nowhere = Span { file: 0, start: 0, end: 0 };
    let scalar = |text: &str| flow(&Node::scalar(text, false, nowhere));
    let words = service.command.iter().map(|word| Node::scalar(word, false, nowhere)).collect();
    let command = flow(&Node::list(words, nowhere));
    let routes = if first {
        String::new()
    } else {
        format!(
            "    # Its requests; the first service has all others.\n    routes: [{{ path: /{} }}]\n",
            service.name
        )
    };
    format!(
        "  {name}:
    # A folder, .tar.gz or .tar.zst with one version. `tidegate release v2` takes the one with v2.
    artifact: {artifact}
    # Starts one instance in that folder. {{address}} {{port}} {{instance}} {{version}} {{digest}} are filled in.
    command: {command}
    instances: 2
    # An instance gets requests when its port accepts a connection; better is to ask it:
    # probes: {{ readiness: {{ http: /health, periodSeconds: 1 }} }}
{routes}",
        name = service.name,
        artifact = scalar(&service.artifact),
    )
}
