//! Strategies: how a release goes out.

use std::collections::BTreeMap;

use tidegate_core::spec::{Canary, Step};

use crate::diagnostic::Code;
use crate::shape::leaf::{COUNT, DURATION, NAME, POSITIVE_DURATION};
use crate::shape::{Field, Object, Shape, View};
use crate::source::Span;
use crate::yaml::{Entry, Node};

use super::check::{self, Mapped};
use super::context::{Context, Missing};
use super::environment::Dependents;
use super::step::{self, CHECKS, OPTIONAL_CHECKS, STEP, Steps};

/// Strategies that an environment can name without a definition, beside [`DEFAULT`].
pub(crate) const BUILT_IN: [&str; 3] = ["rolling", "blueGreen", "linear"];
/// The strategy of an environment that names none.
pub(crate) const DEFAULT: &str = "default";
/// What it is.
const DEFAULT_STRATEGY: &str = "\
canary:
  steps:
    - setWeight: 10
    - pause: { duration: 30s }
    - setWeight: 50
    - pause: { duration: 30s }
";

static RULE_OUT: Object = Object::new(
    "ruleOut",
    &[
        Field::new("ratio", Shape::Leaf(&COUNT), "How many times worse has to be ruled out.")
            .required(),
        Field::new("within", Shape::Leaf(&POSITIVE_DURATION), "At most so long.").required(),
        Field::new("else", Shape::Word(&["promote", "hold", "rollback"]), "What then.")
            .or("promote"),
    ],
);
static STICKINESS: Object = Object::new(
    "stickiness",
    &[Field::new(
        "cookie",
        Shape::Leaf(&NAME),
        "Name of the cookie that keeps a user on one version.",
    )
    .required()],
);
static CANARY: Object = Object::new(
    "a canary",
    &[
        Field::new(
            "steps",
            Shape::List(&Shape::Object(&STEP), 1),
            "In order; the promotion to all traffic follows the last one.",
        )
        .required(),
        Field::new(
            "analysis",
            OPTIONAL_CHECKS,
            "Checks that watch from the first shifted request to the end of the bake window.",
        )
        .or("[]"),
        Field::new("ruleOut", Shape::Object(&RULE_OUT), "Wait for evidence. Not in this version."),
        Field::new(
            "progressDeadline",
            Shape::Leaf(&POSITIVE_DURATION),
            "Aborts a rollout in which nothing has moved for so long while something should.",
        )
        .or("10m"),
        Field::new(
            "scaleDownDelay",
            Shape::Leaf(&DURATION),
            "How long the old version runs on after the bake window.",
        )
        .or("30s"),
        Field::new("stickiness", Shape::Object(&STICKINESS), "Keeps users on one version."),
        Field::new(
            "over",
            Shape::Word(&["requests", "hosts"]),
            "What a weight is a share of. `hosts` is not in this version.",
        )
        .or("requests"),
    ],
);
static BLUE_GREEN: Object = Object::new(
    "a blue/green strategy",
    &[
        Field::new("prePromotionAnalysis", CHECKS, "Gates before the switch."),
        Field::new("postPromotionAnalysis", CHECKS, "Gates after the switch."),
        Field::new("autoPromotionEnabled", Shape::Any, "Of Argo Rollouts."),
        Field::new("scaleDownDelay", Shape::Leaf(&DURATION), "How long the old version runs on."),
    ],
);
static ROLLING: Object = Object::new(
    "a rolling strategy",
    &[
        Field::new("maxSurge", Shape::Any, "Instances above the wanted number."),
        Field::new("maxUnavailable", Shape::Any, "Instances below the wanted number."),
    ],
);
static HOSTS: Object = Object::new(
    "hosts",
    &[
        Field::new("batch", Shape::Leaf(&COUNT), "Hosts at a time.").or("1"),
        Field::new("wait", Shape::Leaf(&DURATION), "Between two batches.").or("10s"),
        Field::new("onFailure", Shape::Word(&["allBack", "hold"]), "What then.").or("allBack"),
    ],
);
static STRATEGY_OBJECT: Object = Object::new(
    "a strategy",
    &[
        Field::new("canary", Shape::Object(&CANARY), "Step by step, watched."),
        Field::new("blueGreen", Shape::Object(&BLUE_GREEN), "All at once. Not in this version."),
        Field::new(
            "rolling",
            Shape::Object(&ROLLING),
            "Instance by instance. Not in this version.",
        ),
        Field::new("linear", Shape::Any, "In equal steps. Not in this version."),
        Field::new("hosts", Shape::Object(&HOSTS), "Host by host. Not in this version."),
    ],
)
.one_of(&["canary", "blueGreen", "rolling", "linear"]);
/// One strategy: its settings, or the word for one without settings.
pub(crate) static STRATEGY: Shape =
    Shape::Either(&[Shape::Word(&BUILT_IN), Shape::Object(&STRATEGY_OBJECT)]);

/// The project with the built-in strategy, if an environment uses it and the file has none.
pub(super) fn with_default(root: &Node) -> Node {
    let environments = root.get("environments").map_or(&[][..], Node::entries);
    let used = environments.iter().any(|entry| {
        !entry.value.entries().is_empty()
            && entry.value.get("strategy").is_none_or(|node| node.as_text() == Some(DEFAULT))
    });
    let strategies = root.get("strategies");
    let wrong =
        strategies.is_some_and(|node| node.as_scalar().is_some() || !node.items().is_empty());
    if !used || wrong || strategies.is_some_and(|node| node.get(DEFAULT).is_some()) {
        return root.clone();
    }
    let Some(strategy) = crate::shape::default_node(DEFAULT_STRATEGY, root.span) else {
        return root.clone();
    };
    let mut named = strategies.map_or(&[][..], Node::entries).to_vec();
    named.push(Entry { key: DEFAULT.into(), at: root.span, value: strategy });
    let named = Node::map(named, strategies.map_or(root.span, |node| node.span));
    let mut entries: Vec<Entry> =
        root.entries().iter().filter(|entry| &*entry.key != "strategies").cloned().collect();
    entries.push(Entry { key: "strategies".into(), at: root.span, value: named });
    Node::map(entries, root.span)
}

/// The strategies of a file by their name.
#[derive(Debug, Default)]
pub(crate) struct Strategies {
    by_name: BTreeMap<String, Strategy>,
}

#[derive(Debug)]
struct Strategy {
    /// None: of a kind that this build cannot do.
    canary: Option<Canary>,
    missing: Vec<Missing>,
}

impl Strategies {
    /// The canary of that name.
    pub(super) fn canary(&self, name: &str) -> Option<Canary> {
        self.by_name.get(name)?.canary.clone()
    }

    /// Names what this build cannot do, with the environments that use it.
    pub(super) fn say_unsupported(
        &self,
        root: View<'_>,
        dependents: &Dependents<'_>,
        context: &mut Context<'_>,
    ) {
        let environments = root.entries("environments");
        let users = |name: &str| -> Vec<&str> {
            environments
                .iter()
                .filter(|entry| View::new(&entry.value).text("strategy") == Some(name))
                .map(|entry| &*entry.key)
                .collect()
        };
        for (name, strategy) in &self.by_name {
            for missing in &strategy.missing {
                context.unsupported_in(missing.clone(), dependents.touched(&users(name)));
            }
        }
        for entry in environments {
            let view = View::new(&entry.value);
            let Some(name) = view.text("strategy").filter(|name| BUILT_IN.contains(name)) else {
                continue;
            };
            if !self.by_name.contains_key(name) {
                let missing = kind_missing(name, view.span("strategy"));
                context.unsupported_in(missing, dependents.touched(&[&entry.key]));
            }
        }
    }
}

/// That a kind of strategy is not in this version.
fn kind_missing(kind: &str, span: Span) -> Missing {
    Missing::new(
        format!("the strategy {kind} is not in this version"),
        span,
        Some("use a `canary` with setWeight and pause steps"),
    )
}

/// All strategies of the file.
pub(super) fn strategies(
    root: View<'_>,
    checks: &[Mapped],
    context: &mut Context<'_>,
) -> Strategies {
    let entries = root.entries("strategies").iter();
    let by_name =
        entries.map(|entry| (entry.key.to_string(), strategy(entry, checks, context))).collect();
    Strategies { by_name }
}

fn strategy(entry: &Entry, checks: &[Mapped], context: &mut Context<'_>) -> Strategy {
    let view = View::new(&entry.value);
    let mut missing = Vec::new();
    if let Some(kind) = entry.value.as_text() {
        missing.push(kind_missing(kind, entry.value.span));
    }
    for kind in BUILT_IN {
        if view.get(kind).is_some() {
            missing.push(kind_missing(kind, view.key_span(kind)));
        }
    }
    if view.get("hosts").is_some() {
        let text = "releases host by host are not in this version";
        missing.push(Missing::new(text, view.key_span("hosts"), Some("remove `hosts`")));
    }
    if let Some(blue_green) = view.view("blueGreen") {
        for key in ["prePromotionAnalysis", "postPromotionAnalysis"] {
            let names = blue_green.get(key).map(step::check_names).unwrap_or_default();
            check::defined(&names, checks, context);
        }
    }
    let canary = view.view("canary");
    let canary = canary.and_then(|view| canary_of(&entry.key, view, checks, &mut missing, context));
    Strategy { canary, missing }
}

fn canary_of(
    name: &str,
    view: View<'_>,
    checks: &[Mapped],
    missing: &mut Vec<Missing>,
    context: &mut Context<'_>,
) -> Option<Canary> {
    if view.get("ruleOut").is_some() {
        missing.push(Missing::new(
            "ruleOut needs the statistical judge, which is not in this version",
            view.key_span("ruleOut"),
            Some("remove it; checks of the kind `counts` decide at once"),
        ));
    }
    if view.text("over") == Some("hosts") {
        let text = "weights over hosts are not in this version";
        missing.push(Missing::new(text, view.span("over"), Some("use `over: requests`")));
    }
    let Steps { steps, missing: more, gates } = step::steps(view.items("steps"), context);
    missing.extend(more);
    step::runs_once(view.items("steps"), context);
    no_weight_to_pause(view, &steps, context);
    check::gates_can_fail(&gates, checks, context);
    let analysis = view.get("analysis")?;
    missing.extend(step::argo_extras(analysis));
    let watches = step::check_names(analysis);
    check::once(&watches, context);
    for names in [&gates, &watches] {
        check::defined(names, checks, context);
        missing.extend(check::missing_of(names, checks));
    }
    let usable = |name: &String| checks.iter().any(|c| c.name == *name && c.kind.is_ok());
    let steps = steps.into_iter().filter_map(|step| only_usable(step, &usable)).collect();
    Some(Canary {
        name: name.to_owned(),
        steps,
        analysis: watches.into_iter().map(|(name, _)| name).filter(usable).collect(),
        progress_deadline_ms: view.duration("progressDeadline")?,
        scale_down_delay_ms: view.duration("scaleDownDelay")?,
        sticky_cookie: view
            .view("stickiness")
            .and_then(|view| view.text("cookie").map(str::to_owned)),
    })
}

/// A step without the checks that this build cannot do; releases are refused for those anyway, so
/// that this only keeps names in the spec from leading nowhere.
fn only_usable(step: Step, usable: &dyn Fn(&String) -> bool) -> Option<Step> {
    match step {
        Step::Analysis { checks } => {
            let checks: Vec<String> = checks.into_iter().filter(usable).collect();
            (!checks.is_empty()).then_some(Step::Analysis { checks })
        }
        Step::SetWeight { .. } | Step::Pause { .. } | Step::Run { .. } => Some(step),
    }
}

/// A canary that never takes a share of the requests sees nothing before the promotion.
fn no_weight_to_pause(view: View<'_>, steps: &[Step], context: &mut Context<'_>) {
    let shares = steps.iter().any(|step| match step {
        Step::SetWeight { weight_bp } => *weight_bp > 0,
        Step::Pause { .. } | Step::Analysis { .. } | Step::Run { .. } => false,
    });
    let tried = view.items("steps").iter().any(|node| node.get("setWeight").is_some());
    if !shares && !tried && !steps.is_empty() {
        context.warning(
            Code::NoShare,
            "canary takes no share of the requests",
            view.key_span("steps"),
            "goes from nothing to all at once",
            "add `- setWeight: 10` and a pause",
        );
    }
}
