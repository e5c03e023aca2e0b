//! Environments: where, how, and what happens when nobody answers.

use std::collections::{BTreeSet, HashMap};

use tidegate_core::spec::{EnvironmentSpec, IfEngineLost, LostAction, Platform};

use crate::shape::leaf::{BOOL, DURATION, HOST, LISTEN, NAME, POSITIVE_DURATION, TEXT};
use crate::shape::{Field, Object, Shape, View};
use crate::yaml::Entry;

use super::context::{Context, Missing};
use super::protection;
use super::strategy::Strategies;

/// Platforms whose settings this version knows as a whole only.
const OTHER_PLATFORMS: [(&str, &str); 5] = [
    ("kubernetes", "Kubernetes"),
    ("lambda", "AWS Lambda"),
    ("ecs", "AWS ECS"),
    ("containerApps", "Azure Container Apps"),
    ("cloudRun", "Google Cloud Run"),
];

static PROCESS: Object = Object::new(
    "the process platform",
    &[Field::new("listen", Shape::Leaf(&LISTEN), "IP address and port for clients.").required()],
);
static DOCKER: Object = Object::new(
    "the docker platform",
    &[
        Field::new("user", Shape::Leaf(&TEXT), "Who signs in on the hosts."),
        Field::new(
            "hosts",
            Shape::Map(&HOST, &Shape::List(&Shape::Leaf(&NAME), 1)),
            "Hosts and their roles.",
        )
        .required(),
    ],
);
static PLATFORM: Object = Object::new(
    "a platform",
    &[
        Field::new("process", Shape::Object(&PROCESS), "Bare processes on this machine."),
        Field::new("docker", Shape::Object(&DOCKER), "Containers on servers. Not in this version."),
        Field::new("kubernetes", Shape::Any, "Not in this version."),
        Field::new("lambda", Shape::Any, "Not in this version."),
        Field::new("ecs", Shape::Any, "Not in this version."),
        Field::new("containerApps", Shape::Any, "Not in this version."),
        Field::new("cloudRun", Shape::Any, "Not in this version."),
    ],
)
.one_of(&["process", "docker", "kubernetes", "lambda", "ecs", "containerApps", "cloudRun"]);
static SOAK: Object = Object::new(
    "soak",
    &[
        Field::new("time", Shape::Leaf(&POSITIVE_DURATION), "Healthy time before.").required(),
        Field::new("counts", Shape::List(&Shape::Leaf(&NAME), 1), "What counts as healthy.")
            .or("[probes]"),
    ],
);
const LOST: &[&str] = &["rollback", "stay"];
static IF_ENGINE_LOST: Object = Object::new(
    "ifEngineLost",
    &[
        Field::new("after", Shape::Leaf(&POSITIVE_DURATION), "After so long without contact.")
            .or("10m"),
        Field::new("canary", Shape::Word(LOST), "In a canary.").or("rollback"),
        Field::new("bake", Shape::Word(LOST), "In the bake window.").or("stay"),
    ],
);
static BEFORE_TRAFFIC: Object = Object::new(
    "a job before traffic",
    &[
        Field::new("run", Shape::Command, "Program and arguments.").required(),
        Field::new("service", Shape::Leaf(&NAME), "With this service's files and environment."),
        Field::new("once", Shape::Leaf(&BOOL), "Not on each host.").or("true"),
        Field::new("produces", Shape::Word(&["backup"]), "What it leaves behind."),
        Field::new("undo", Shape::Word(&["expandContract", "none"]), "How it is undone."),
        Field::new("timeout", Shape::Leaf(&POSITIVE_DURATION), "Killed after so long.").or("10m"),
    ],
);
/// One environment.
pub(crate) static ENVIRONMENT: Object = Object::new(
    "an environment",
    &[
        Field::new("needs", Shape::Leaf(&NAME), "Promoted there before."),
        Field::new("soak", Shape::Object(&SOAK), "And healthy there so long. Not in this version."),
        Field::new("platform", Shape::Object(&PLATFORM), "Where it runs.").required(),
        Field::new("strategy", Shape::Leaf(&NAME), "How a release goes out.").or("default"),
        Field::new(
            "bake",
            Shape::Leaf(&DURATION),
            "Watched after promotion for so long, with the previous version warm.",
        )
        .or("1h"),
        Field::new(
            "ifEngineLost",
            Shape::Object(&IF_ENGINE_LOST),
            "What the host does when it hears nothing.",
        )
        .or("{}"),
        Field::new(
            "protection",
            Shape::Object(&protection::PROTECTION),
            "Who may release here and when. Not in this version.",
        ),
        Field::new(
            "order",
            Shape::List(&Shape::Leaf(&NAME), 1),
            "Services in the order in which they go out. Not in this version.",
        ),
        Field::new(
            "beforeTraffic",
            Shape::List(&Shape::Object(&BEFORE_TRAFFIC), 1),
            "Jobs before the first request. Not in this version.",
        ),
    ],
);

/// All environments that this build can release to; the others are named as unsupported.
pub(super) fn environments(
    root: View<'_>,
    strategies: &Strategies,
    context: &mut Context<'_>,
) -> Vec<EnvironmentSpec> {
    let entries = root.entries("environments");
    let dependents = Dependents::of(root);
    strategies.say_unsupported(root, &dependents, context);
    entries
        .iter()
        .filter_map(|entry| environment(entry, root, strategies, &dependents, context))
        .collect()
}

fn environment(
    entry: &Entry,
    root: View<'_>,
    strategies: &Strategies,
    dependents: &Dependents<'_>,
    context: &mut Context<'_>,
) -> Option<EnvironmentSpec> {
    let view = View::new(&entry.value);
    let name = entry.key.to_string();
    for missing in extras(view) {
        context.unsupported_in(missing, dependents.touched(&[&entry.key]));
    }
    if let Some(protection) = view.view("protection") {
        protection::check(protection, root, context);
    }
    let platform = platform(view, &|| dependents.touched(&[&entry.key]), context);
    let lost = view.view("ifEngineLost")?;
    let action = |key: &str| match lost.text(key) {
        Some("rollback") => Some(LostAction::Rollback),
        Some("stay") => Some(LostAction::Stay),
        Some(_) | None => None,
    };
    Some(EnvironmentSpec {
        name,
        needs: view.text("needs").map(str::to_owned),
        platform: platform?,
        strategy: strategies.canary(view.text("strategy")?)?,
        bake_ms: view.duration("bake")?,
        if_engine_lost: IfEngineLost {
            after_ms: lost.duration("after")?,
            canary: action("canary")?,
            bake: action("bake")?,
        },
    })
}

/// What is understood and not done.
fn extras(view: View<'_>) -> Vec<Missing> {
    let table = [
        ("soak", "soak times are not in this version", "wait yourself, or use a longer `bake`"),
        (
            "protection",
            "protection is not in this version: nobody would be asked",
            "remove it, or protect the environment in the system that calls Tidegate",
        ),
        ("order", "an order of services is not in this version", "release them one by one"),
        (
            "beforeTraffic",
            "beforeTraffic is not in this version",
            "use a `run` step in the strategy, before the first setWeight",
        ),
    ];
    table
        .into_iter()
        .filter(|(key, ..)| view.get(key).is_some())
        .map(|(key, text, hint)| Missing::new(text, view.key_span(key), Some(hint)))
        .collect()
}

fn platform(
    view: View<'_>,
    touched: &dyn Fn() -> Vec<String>,
    context: &mut Context<'_>,
) -> Option<Platform> {
    let platform = view.view("platform")?;
    if let Some(process) = platform.view("process") {
        return Some(Platform::Process { listen: process.text("listen")?.trim().to_owned() });
    }
    let docker = [("docker", "Docker on servers")];
    for (key, title) in OTHER_PLATFORMS.into_iter().chain(docker) {
        if platform.get(key).is_some() {
            let text = format!("the platform {title} is not in this version");
            let hint = Some("use `platform: { process: { listen: 127.0.0.1:8080 } }`");
            let missing = Missing::new(text, platform.key_span(key), hint);
            context.unsupported_in(missing, touched());
        }
    }
    None
}

/// Which environments need which.
#[derive(Debug)]
pub(super) struct Dependents<'a> {
    names: Vec<&'a str>,
    /// Indices of the environments that need the one of that name.
    needing: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Dependents<'a> {
    /// Of all environments of the project.
    pub(super) fn of(root: View<'a>) -> Self {
        let entries = root.entries("environments");
        let mut needing: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, entry) in entries.iter().enumerate() {
            if let Some(needs) = View::new(&entry.value).text("needs") {
                needing.entry(needs).or_default().push(index);
            }
        }
        Self { names: entries.iter().map(|entry| &*entry.key).collect(), needing }
    }

    /// These environments and all that need one of them, directly or not, in the order of the
    /// file.
    pub(super) fn touched(&self, names: &[&str]) -> Vec<String> {
        let mut open: Vec<usize> =
            (0..self.names.len()).filter(|index| names.contains(&self.name(*index))).collect();
        let mut found: BTreeSet<usize> = open.iter().copied().collect();
        while let Some(index) = open.pop() {
            for next in self.needing.get(self.name(index)).into_iter().flatten() {
                if found.insert(*next) {
                    open.push(*next);
                }
            }
        }
        found.into_iter().map(|index| self.name(index).to_owned()).collect()
    }

    fn name(&self, index: usize) -> &'a str {
        self.names.get(index).copied().unwrap_or_default()
    }
}
