//! The steps of a canary, in Argo Rollouts' words.

use tidegate_core::spec::Step;

use crate::diagnostic::{Code, Diagnostic, shown};
use crate::shape::leaf::{self, BOOL, NAME, PERCENT, POSITIVE_DURATION};
use crate::shape::{Field, Object, Shape, View};
use crate::source::Span;
use crate::yaml::{Node, Value};

use super::context::{Context, Missing};
use super::placeholder;

static PAUSE: Object = Object::new(
    "a pause",
    &[Field::new(
        "duration",
        Shape::Leaf(&POSITIVE_DURATION),
        "How long; left out: until somebody promotes.",
    )],
);
static TEMPLATE: Object = Object::new(
    "an analysis template",
    &[
        Field::new("templateName", Shape::Leaf(&NAME), "Name of a check.").required(),
        Field::new(
            "clusterScope",
            Shape::Leaf(&BOOL),
            "Of Argo Rollouts; checks are the file's own.",
        ),
    ],
);
/// Checks in Argo's form.
static TEMPLATES: Object = Object::new(
    "analysis",
    &[
        Field::new("templates", Shape::List(&Shape::Object(&TEMPLATE), 1), "Checks.").required(),
        Field::new("args", Shape::Any, "Arguments of templates. Not in this version."),
        Field::new("startingStep", Shape::Any, "Where the watch starts. Not in this version."),
        Field::new("dryRun", Shape::Any, "Checks that do not decide. Not in this version."),
    ],
);
/// Names of checks, as a list or in Argo's form.
pub(crate) const CHECKS: Shape =
    Shape::Either(&[Shape::List(&Shape::Leaf(&NAME), 1), Shape::Object(&TEMPLATES)]);
/// The same, and none at all is good.
pub(crate) const OPTIONAL_CHECKS: Shape =
    Shape::Either(&[Shape::List(&Shape::Leaf(&NAME), 0), Shape::Object(&TEMPLATES)]);
static RUN: Object = Object::new(
    "a run",
    &[
        Field::new("name", Shape::Leaf(&NAME), "Its name.").required(),
        Field::new("command", Shape::Command, "Program and arguments.").required(),
        Field::new("once", Shape::Leaf(&BOOL), "At most once for each release.").or("true"),
        Field::new(
            "timeout",
            Shape::Leaf(&POSITIVE_DURATION),
            "Killed after so long; that counts as failed.",
        )
        .or("5m"),
    ],
);
/// One step.
pub(crate) static STEP: Object = Object::new(
    "a step",
    &[
        Field::new("setWeight", Shape::Leaf(&PERCENT), "Share of the requests in percent."),
        Field::new("pause", Shape::Object(&PAUSE), "Wait, watched."),
        Field::new("analysis", CHECKS, "Gates: all must pass before the next step."),
        Field::new(
            "run",
            Shape::Object(&RUN),
            "A one-shot with the new version's files and environment, at most once.",
        ),
        Field::new("experiment", Shape::Any, "Not in this version."),
        Field::new("setCanaryScale", Shape::Any, "Not in this version."),
        Field::new("setHeaderRoute", Shape::Any, "Not in this version."),
        Field::new("setMirrorRoute", Shape::Any, "Not in this version."),
        Field::new("plugin", Shape::Any, "Not in this version."),
    ],
)
.one_of(&[
    "setWeight",
    "pause",
    "analysis",
    "run",
    "experiment",
    "setCanaryScale",
    "setHeaderRoute",
    "setMirrorRoute",
    "plugin",
]);
const OTHER_STEPS: [&str; 5] =
    ["experiment", "setCanaryScale", "setHeaderRoute", "setMirrorRoute", "plugin"];

/// What came out of a strategy's steps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Steps {
    /// Those that this build can do.
    pub(crate) steps: Vec<Step>,
    /// The others.
    pub(crate) missing: Vec<Missing>,
    /// Names of checks that stand as gates, with where they stand.
    pub(crate) gates: Vec<(String, Span)>,
}

/// The steps of a canary. Weights that go down are refused.
pub(super) fn steps(nodes: &[Node], context: &mut Context<'_>) -> Steps {
    let mut result = Steps::default();
    let mut weight: Option<(u32, Span)> = None;
    for node in nodes {
        let view = View::new(node);
        if let Some(node) = view.get("setWeight") {
            set_weight(node, &mut weight, &mut result, context);
        } else if let Some(pause) = view.view("pause") {
            result.steps.push(Step::Pause { duration_ms: pause.duration("duration") });
        } else if let Some(analysis) = view.get("analysis") {
            result.missing.extend(argo_extras(analysis));
            let names = check_names(analysis);
            let checks = names.iter().map(|(name, _)| name.clone()).collect();
            result.gates.extend(names);
            result.steps.push(Step::Analysis { checks });
        } else if let Some(run) = view.view("run") {
            result.steps.extend(one_shot(run, &mut result.missing, context));
        }
        for key in OTHER_STEPS {
            if view.get(key).is_some() {
                let text = format!("the step {key} is not in this version");
                let hint = Some("use setWeight, pause, analysis and run");
                result.missing.push(Missing::new(text, view.key_span(key), hint));
            }
        }
    }
    result
}

fn set_weight(
    node: &Node,
    before: &mut Option<(u32, Span)>,
    result: &mut Steps,
    context: &mut Context<'_>,
) {
    let Some(weight) = node.as_scalar().and_then(|scalar| leaf::percent(scalar).ok()) else {
        return;
    };
    if let Some((last, at)) = *before {
        let label = format!("{} after {}", percent(weight), percent(last));
        if weight < last {
            let diagnostic = Diagnostic::error(Code::WeightDown, "weight goes down")
                .at(context.sources, node.span, label)
                .note("a canary's weights only grow; going back is `abort`")
                .fix(growing(last));
            context.sink.push(diagnostic);
            return;
        }
        if weight == last {
            let diagnostic = Diagnostic::warning(Code::WeightSame, "weight stays the same")
                .at(context.sources, node.span, label)
                .see(context.sources, at, "already here")
                .fix(growing(last));
            context.sink.push(diagnostic);
        }
    }
    *before = Some((weight, node.span));
    result.steps.push(Step::SetWeight { weight_bp: weight });
}

/// What to do about a weight that does not grow.
fn growing(last: u32) -> String {
    let larger = last.saturating_add(500).min(crate::FULL_WEIGHT);
    if larger > last {
        format!("remove this step, or use setWeight: {}", percent(larger))
    } else {
        "remove this step".to_owned()
    }
}

/// Basis points as percent.
fn percent(basis_points: u32) -> String {
    if basis_points.is_multiple_of(100) {
        format!("{}", basis_points / 100)
    } else {
        format!("{}.{}", basis_points / 100, basis_points % 100 / 10)
    }
}

fn one_shot(run: View<'_>, missing: &mut Vec<Missing>, context: &mut Context<'_>) -> Option<Step> {
    if run.boolean("once") == Some(false) {
        missing.push(Missing::new(
            "a run on every host is not in this version",
            run.key_span("once"),
            Some("remove `once: false`; there is one host"),
        ));
    }
    for argument in run.items("command") {
        placeholder::check(argument, placeholder::RUN, context);
    }
    Some(Step::Run {
        name: run.text("name")?.to_owned(),
        command: run.texts("command"),
        timeout_ms: run.duration("timeout")?,
    })
}

/// Names of checks from a list or from Argo's form, with where they stand.
pub(super) fn check_names(node: &Node) -> Vec<(String, Span)> {
    let named = |node: &Node| node.as_text().map(|name| (name.to_owned(), node.span));
    match &node.value {
        Value::List(items) => items.iter().filter_map(named).collect(),
        Value::Map(_) => View::new(node)
            .items("templates")
            .iter()
            .filter_map(|template| named(template.get("templateName")?))
            .collect(),
        Value::Scalar(_) => Vec::new(),
    }
}

/// Parts of Argo's form that are understood and not done.
pub(super) fn argo_extras(node: &Node) -> Vec<Missing> {
    let view = View::new(node);
    ["args", "startingStep", "dryRun"]
        .into_iter()
        .filter(|key| view.get(key).is_some())
        .map(|key| {
            let text = format!("`{key}` of an analysis is not in this version");
            Missing::new(text, view.key_span(key), Some("write the values into the check"))
        })
        .collect()
}

/// Two runs of one name in a strategy could not be told apart.
pub(super) fn runs_once(nodes: &[Node], context: &mut Context<'_>) {
    let mut seen: Vec<(&str, Span)> = Vec::new();
    for node in nodes {
        let Some(name) = node.get("run").and_then(|run| run.get("name")) else {
            continue;
        };
        let Some(text) = name.as_text() else {
            continue;
        };
        if let Some((_, first)) = seen.iter().find(|(known, _)| *known == text) {
            let message = format!("two runs are called `{}`", shown(text));
            let diagnostic = Diagnostic::error(Code::Twice, message)
                .at(context.sources, name.span, "again here")
                .see(context.sources, *first, "first here")
                .fix("give the second one another name");
            context.sink.push(diagnostic);
        }
        seen.push((text, name.span));
    }
}
