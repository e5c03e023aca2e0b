//! `tidegate.yaml`: the tables of its keys, and the way from a checked tree to the core's spec.

mod check;
mod context;
mod environment;
mod include;
mod lanes;
mod names;
mod people;
mod placeholder;
mod probe;
mod protection;
mod service;
mod step;
mod strategy;

use std::collections::BTreeMap;

use tidegate_core::spec::ProjectSpec;

use crate::diagnostic::{Code, Diagnostic, Sink};
use crate::shape::leaf::{FORMAT, NAME, TEXT};
use crate::shape::{Checker, Field, Object, Shape, View, fill};
use crate::source::Sources;
use crate::yaml::{Budget, Entry, Node, decode, read};

use context::Context;

/// The whole file.
pub(crate) static PROJECT: Object = Object::new("the project", &[
    Field::new("version", Shape::Leaf(&FORMAT), "Version of this format.").required(),
    Field::new("project", Shape::Leaf(&NAME), "Name of the project.").required(),
    Field::new(
        "home",
        Shape::Leaf(&TEXT),
        "Where engine and journal live: local, a folder, ssh://user@host or https://…",
    )
    .or("local"),
    Field::new(
        "include",
        Shape::Either(&[Shape::Leaf(&TEXT), Shape::List(&Shape::Leaf(&TEXT), 1)]),
        "Further files in this folder or below, each with services, environments, strategies, \
         checks, people or notify.",
    ),
    Field::new(
        "services",
        Shape::Map(&NAME, &Shape::Object(&service::SERVICE)),
        "What is released.",
    ),
    Field::new(
        "environments",
        Shape::Map(&NAME, &Shape::Object(&environment::ENVIRONMENT)),
        "Where it is released to, in the order in which a release goes through them.",
    ),
    Field::new(
        "strategies",
        Shape::Map(&NAME, &strategy::STRATEGY),
        "How a release goes out. An environment without one uses `default`, which is built in: \
         weights 10 and 50 with pauses of 30s; a strategy of that name in the file takes its place.",
    )
    .or("{}"),
    Field::new("checks", Shape::Map(&NAME, &Shape::Object(&check::CHECK)), "What is watched.")
        .or("{}"),
    Field::new(
        "people",
        Shape::Map(&NAME, &Shape::Object(&people::PERSON)),
        "Who may approve, by SSH public key.",
    ),
    Field::new("notify", Shape::List(&Shape::Object(&people::NOTIFY), 0), "Who is told what."),
    Field::new("compose", Shape::Object(&service::COMPOSE), "Compose files with the services."),
])
.extensible();

/// What is read, and the little that is asked of the outside.
pub struct ProjectInput<'a> {
    /// The file's name as diagnostics show it.
    pub file: &'a str,
    /// The absolute path of the folder that it lies in; relative paths of certificates start
    /// there, and command checks run there.
    pub folder: &'a str,
    /// What is in it.
    pub bytes: &'a [u8],
    /// An environment variable, for `{env: NAME}`. Nothing else is looked up.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// What is in a file of `include:`, by its path relative to the folder; an error is one
    /// sentence for a person.
    pub include: &'a dyn Fn(&str) -> Result<Vec<u8>, String>,
}

impl std::fmt::Debug for ProjectInput<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProjectInput").field("file", &self.file).finish_non_exhaustive()
    }
}

/// A project file without mistakes.
#[derive(Debug, Clone)]
pub struct Project {
    /// What it asks for, resolved. The host part of the format that this build cannot do is under
    /// `unsupported`; `plan` and `release` refuse what touches it.
    pub spec: ProjectSpec,
    /// What somebody should know, in the order of the file.
    pub warnings: Vec<Diagnostic>,
    /// The file with all defaults filled in.
    pub(crate) document: Node,
}

/// Reads a project file with the files that it includes.
///
/// # Errors
/// Every mistake at once, and the warnings, in the order of the file.
pub fn read_project(input: &ProjectInput<'_>) -> Result<Project, Vec<Diagnostic>> {
    let mut sources = Sources::default();
    let mut sink = Sink::default();
    match read_with(input, &mut sources, &mut sink) {
        Some((spec, document)) if !sink.has_errors() => {
            Ok(Project { spec, warnings: sink.finish(), document })
        }
        Some(_) | None => Err(sink.finish()),
    }
}

/// The spec and the filled tree; what is wrong is in the sink.
fn read_with(
    input: &ProjectInput<'_>,
    sources: &mut Sources,
    sink: &mut Sink,
) -> Option<(ProjectSpec, Node)> {
    let mut budget = Budget::default();
    let file = decode(input.file, input.bytes, sources, sink)?;
    let root = read(file, sources, sink, &mut budget)?;
    let root = include::with_included(&root, input, sources, sink, &mut budget);
    let mut checker = Checker { sources, sink, oversized: false };
    checker.check(&root, Shape::Object(&PROJECT), "the project");
    if checker.oversized || root.entries().is_empty() {
        return None;
    }
    let root = strategy::with_default(&root);
    let document = fill(&root, Shape::Object(&PROJECT));
    let context = Context::new(input, sources, sink);
    let spec = spec(View::new(&document), context);
    Some((spec, document))
}

/// From the tree to the spec.
fn spec(root: View<'_>, mut context: Context<'_>) -> ProjectSpec {
    let context = &mut context;
    sections_present(root, context);
    names::references(root, context);
    let home = home(root, context);
    let checks = check::checks(root, context);
    let strategies = strategy::strategies(root, &checks, context);
    let services = service::services(root, context);
    let environments = environment::environments(root, &strategies, context);
    people::unsupported(root, context);
    lanes::distinct(root, context);
    // Behind a mistyped name everything looks unused.
    if !context.sink.has_errors() {
        names::unused(root, context);
    }
    let used = |check: &check::Mapped| match &check.kind {
        Ok(spec) => Some(spec.clone()),
        Err(_) => None,
    };
    ProjectSpec {
        project: root.text("project").unwrap_or_default().to_owned(),
        home,
        services,
        environments,
        checks: checks.iter().filter_map(used).collect(),
        unsupported: std::mem::take(&mut context.unsupported),
    }
}

/// A project has at least one service and one environment.
fn sections_present(root: View<'_>, context: &mut Context<'_>) {
    let sections = [
        ("services", "services: { web: { artifact: \"dist/web-{version}\", command: [./web] } }"),
        (
            "environments",
            "environments: { production: { platform: { process: { listen: 127.0.0.1:8080 } } } }",
        ),
    ];
    for (section, example) in sections {
        let there = root.get(section).is_some_and(|node| !node.entries().is_empty());
        // Something else than a mapping has been diagnosed as such.
        let wrong =
            root.get(section).is_some_and(|node| !matches!(node.value, crate::yaml::Value::Map(_)));
        if !there && !wrong {
            let diagnostic = Diagnostic::error(Code::MissingKey, format!("no {section}"))
                .at(context.sources, root.key_span(section), "a project needs at least one")
                .fix(format!("add `{example}`"));
            context.sink.push(diagnostic);
        }
    }
}

/// Where engine and journal live; none for the default.
fn home(root: View<'_>, context: &mut Context<'_>) -> Option<String> {
    let home = root.text("home")?;
    if home == "local" {
        return None;
    }
    let scheme = home.split_once("://").map(|(scheme, _)| scheme);
    match scheme {
        Some("ssh" | "https") => context.unsupported_everywhere(
            format!("a home at {}:// is not in this version", scheme.unwrap_or_default()),
            root.span("home"),
            Some("use `local` or a folder".to_owned()),
        ),
        Some(_) => {
            let diagnostic = Diagnostic::error(Code::Path, "home is not known")
                .at(context.sources, root.span("home"), "")
                .fix("write `local`, a folder, `ssh://user@host` or `https://…`");
            context.sink.push(diagnostic);
        }
        None => {}
    }
    Some(home.to_owned())
}

/// Named things by their name, in the order of the file.
pub(crate) fn by_name(entries: &[Entry]) -> BTreeMap<&str, &Entry> {
    entries.iter().map(|entry| (&*entry.key, entry)).collect()
}
