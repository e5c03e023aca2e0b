//! Checks: gates in a step, or a watch over the whole rollout.

use std::collections::BTreeMap;

use tidegate_core::spec::{CheckKind, CheckSpec, CountMetric, CountsLimit, Limit, NoDataPolicy};

use crate::diagnostic::{Code, Diagnostic, nearest, shown};
use crate::shape::leaf::{
    self, BOOL, COUNT, DURATION, LIMIT, POSITIVE_DURATION, STATUS, TARGET, TEXT, URL, ZERO_COUNT,
};
use crate::shape::{Field, Object, Shape, View};
use crate::source::Span;
use crate::yaml::{Entry, Kind, Node, Scalar, Value};

use super::context::{Context, Missing};
use super::{placeholder, service};

static HTTP: Object = Object::new(
    "an HTTP check",
    &[
        Field::new("url", Shape::Leaf(&URL), "URL; {previewUrl} and {version} are filled in.")
            .required(),
        Field::new("status", Shape::List(&Shape::Leaf(&STATUS), 1), "Statuses that pass.")
            .or("[200-399]"),
    ],
);
static TCP: Object = Object::new(
    "a TCP check",
    &[Field::new("address", Shape::Leaf(&TARGET), "host:port.").required()],
);
static PROMETHEUS: Object = Object::new(
    "a Prometheus check",
    &[
        Field::new("address", Shape::Leaf(&TEXT), "Address of the server.").required(),
        Field::new("query", Shape::Leaf(&TEXT), "PromQL; {version} is filled in.").required(),
    ],
);
static SAMPLE: Object = Object::new(
    "a minimum sample",
    &[
        Field::new("query", Shape::Leaf(&TEXT), "PromQL.").required(),
        Field::new("atLeast", Shape::Leaf(&COUNT), "Below it there is no verdict.").required(),
    ],
);
const METRICS: &[&str] = &["errorRate", "errors", "p50", "p95", "p99"];
const NO_DATA: &[&str] = &["hold", "fail", "continue"];
const SOURCE_DOWN: &[&str] = &["hold", "fail"];
const KINDS: &[&str] = &["http", "tcp", "command", "counts", "judge", "prometheus"];
const MEASURED: &[&str] = &["http", "tcp", "command", "prometheus"];
/// One check.
pub(crate) static CHECK: Object = Object::new("a check", &[
    Field::new(
        "http",
        Shape::Either(&[Shape::Leaf(&URL), Shape::Object(&HTTP)]),
        "GET of a URL; {previewUrl} and {version} are filled in.",
    ),
    Field::new(
        "tcp",
        Shape::Either(&[Shape::Leaf(&TARGET), Shape::Object(&TCP)]),
        "A connection is accepted.",
    ),
    Field::new(
        "command",
        Shape::Command,
        "Exit status 0 passes; runs in the folder of the file; {previewUrl} and {version} are \
         filled in.",
    ),
    Field::new("counts", Shape::Word(METRICS), "A limit on the switch's counts of the new version."),
    Field::new(
        "judge",
        Shape::Word(&["errorRate", "latency"]),
        "The statistical judge. Not in this version.",
    ),
    Field::new("prometheus", Shape::Object(&PROMETHEUS), "A query. Not in this version."),
    Field::new("env", service::ENV, "Additional environment of the command.").or("{}").with(&["command"]),
    Field::new(
        "limit",
        Shape::Leaf(&LIMIT),
        "Above it is bad: percent for errorRate, a number for errors, a duration for p50, p95, p99.",
    )
    .with(&["counts", "judge"]),
    Field::new(
        "minimumSample",
        Shape::Either(&[Shape::Leaf(&COUNT), Shape::Object(&SAMPLE)]),
        "Requests in the window below which there is no verdict.",
    )
    .with(&["counts", "prometheus"]),
    Field::new(
        "for",
        Shape::Leaf(&DURATION),
        "How long it must be above the limit without a break; 0s: at once.",
    )
    .or("0s")
    .with(&["counts"]),
    Field::new(
        "interval",
        Shape::Leaf(&POSITIVE_DURATION),
        "Between two measurements.",
    )
    .or("10s"),
    Field::new(
            "count",
            Shape::Leaf(&COUNT),
            "Measurements of a gate; left out: one. A watch measures without end.",
        ),
    Field::new("failureLimit", Shape::Leaf(&ZERO_COUNT), "Failed measurements that are allowed.")
        .or("0"),
    Field::new(
        "consecutiveErrorLimit",
        Shape::Leaf(&ZERO_COUNT),
        "Measurements in a row that could not be made before the source is called down.",
    )
    .or("4"),
    Field::new(
        "noData",
        Shape::Word(NO_DATA),
        "What no data does; never a pass. Left out: hold, but for `counts` continue: the release goes \
         on at the planned time and says what could not be seen.",
    )
    .or("hold")
    .or_beside("counts", "continue"),
    Field::new("sourceDown", Shape::Word(SOURCE_DOWN), "What a source that is down does.").or("hold"),
    Field::new("timeout", Shape::Leaf(&POSITIVE_DURATION), "Of one measurement.")
        .or("30s")
        .with(MEASURED),
    Field::new("successCondition", Shape::Leaf(&TEXT), "Not in this version.")
        .with(&["prometheus"]),
    Field::new("failureCondition", Shape::Leaf(&TEXT), "Not in this version.")
        .with(&["prometheus"]),
    Field::new("inconclusiveLimit", Shape::Any, "Not in this version.").with(&["prometheus"]),
    Field::new("consecutiveSuccessLimit", Shape::Any, "Not in this version."),
    Field::new("initialDelay", Shape::Leaf(&DURATION), "Not in this version."),
    Field::new("dryRun", Shape::Leaf(&BOOL), "Measure and do not decide. Not in this version."),
])
.one_of(KINDS);

/// A check of the file.
#[derive(Debug, Clone)]
pub(crate) struct Mapped {
    /// Its name.
    pub(crate) name: String,
    /// What it is, or what of it this build cannot do; with mistakes in it nothing of both.
    pub(crate) kind: Result<CheckSpec, Vec<Missing>>,
    /// Whether it can only pass when it is used as a gate with its one measurement.
    never_fails_as_gate: bool,
}

/// All checks of the file.
pub(super) fn checks(root: View<'_>, context: &mut Context<'_>) -> Vec<Mapped> {
    root.entries("checks").iter().map(|entry| check(entry, context)).collect()
}

fn check(entry: &Entry, context: &mut Context<'_>) -> Mapped {
    let view = View::new(&entry.value);
    let name = entry.key.to_string();
    let can_fail = traps(view, context);
    let missing = missing(view);
    let kind = kind(view, context);
    let kind = match (missing.is_empty(), kind) {
        (true, Some(kind)) => spec(&name, view, kind).ok_or_else(Vec::new),
        (true | false, _) => Err(missing),
    };
    Mapped { name, kind, never_fails_as_gate: can_fail && gate_never_fails(view) }
}

fn spec(name: &str, view: View<'_>, kind: CheckKind) -> Option<CheckSpec> {
    let policy = |key: &str| match view.text(key) {
        Some("fail") => Some(NoDataPolicy::Fail),
        Some("hold") => Some(NoDataPolicy::Hold),
        Some("continue") => Some(NoDataPolicy::Continue),
        Some(_) | None => None,
    };
    Some(CheckSpec {
        name: name.to_owned(),
        kind,
        interval_ms: view.duration("interval")?,
        count: count(view)?,
        failure_limit: view.whole("failureLimit")?,
        consecutive_error_limit: view.whole("consecutiveErrorLimit")?,
        no_data: policy("noData")?,
        source_down: policy("sourceDown")?,
    })
}

/// What is understood and not done.
fn missing(view: View<'_>) -> Vec<Missing> {
    let table = [
        (
            "judge",
            "the statistical judge is not in this version",
            "use `counts: errorRate` with a `limit`",
        ),
        (
            "prometheus",
            "Prometheus checks are not in this version",
            "use a `command` check that asks Prometheus, or `counts`",
        ),
        (
            "consecutiveSuccessLimit",
            "consecutiveSuccessLimit is not in this version",
            "use `count`",
        ),
        ("initialDelay", "initialDelay is not in this version", "put a `pause` before the step"),
        ("dryRun", "dryRun is not in this version", "remove the check from `analysis`"),
    ];
    table
        .into_iter()
        .filter(|(key, ..)| match *key {
            "dryRun" => view.boolean("dryRun") == Some(true),
            key => view.get(key).is_some(),
        })
        .map(|(key, text, hint)| Missing::new(text, view.key_span(key), Some(hint)))
        .collect()
}

fn kind(view: View<'_>, context: &mut Context<'_>) -> Option<CheckKind> {
    if let Some(http) = view.get("http") {
        return http_kind(view, http, context);
    }
    if let Some(tcp) = view.get("tcp") {
        let node = if tcp.as_scalar().is_some() { tcp } else { tcp.get("address")? };
        let address = node.as_text()?.to_owned();
        return Some(CheckKind::Tcp { address, timeout_ms: view.duration("timeout")? });
    }
    if view.get("command").is_some() {
        return command_kind(view, context);
    }
    if view.get("counts").is_some() {
        return counts_kind(view, context);
    }
    None
}

fn http_kind(view: View<'_>, http: &Node, context: &mut Context<'_>) -> Option<CheckKind> {
    let inner = View::new(http);
    let (node, status) = match &http.value {
        Value::Scalar(_) => (http, vec![(200, 399)]),
        Value::Map(_) => (inner.get("url")?, service::statuses(inner)),
        Value::List(_) => return None,
    };
    placeholder::check(node, placeholder::CHECK, context);
    let all = (100..=599).all(|code| status.iter().any(|(from, to)| (*from..=*to).contains(&code)));
    if all {
        context.error(
            Code::NeverFails,
            "check can never fail",
            inner.span("status"),
            "every status passes",
            "leave out `status`; 200 to 399 pass then",
        );
    }
    let url = node.as_text()?.to_owned();
    Some(CheckKind::Http { url, status, timeout_ms: view.duration("timeout")? })
}

fn command_kind(view: View<'_>, context: &mut Context<'_>) -> Option<CheckKind> {
    for argument in view.items("command") {
        placeholder::check(argument, placeholder::CHECK, context);
    }
    for entry in view.entries("env") {
        placeholder::check(&entry.value, placeholder::CHECK, context);
    }
    let env: BTreeMap<String, String> = service::env(view.entries("env"), context);
    Some(CheckKind::Command {
        command: view.texts("command"),
        env,
        folder: context.input.folder.to_owned(),
        timeout_ms: view.duration("timeout")?,
    })
}

fn counts_kind(view: View<'_>, context: &mut Context<'_>) -> Option<CheckKind> {
    let metric = match view.text("counts")? {
        "errorRate" => CountMetric::ErrorRate,
        "errors" => CountMetric::Errors,
        "p50" => CountMetric::P50,
        "p95" => CountMetric::P95,
        "p99" => CountMetric::P99,
        _ => return None,
    };
    let Some(node) = view.get("limit") else {
        context.error(
            Code::MissingKey,
            "`limit` is missing",
            view.node.span,
            "a check of counts needs it",
            format!("add `limit: {}`", limit_example(metric)),
        );
        return None;
    };
    let limit = limit(metric, node, context)?;
    let minimum_sample = match view.get("minimumSample") {
        Some(sample) if sample.as_scalar().is_some() => view.whole("minimumSample")?,
        Some(sample) => {
            context.error(
                Code::DoesNotApply,
                "a query does not apply here",
                sample.span,
                "the sample of counts is a number of requests",
                "write `minimumSample: 50`",
            );
            return None;
        }
        None => 1,
    };
    let for_ms = view.duration("for")?;
    Some(CheckKind::Counts(CountsLimit { metric, limit, minimum_sample, for_ms }))
}

const fn limit_example(metric: CountMetric) -> &'static str {
    match metric {
        CountMetric::ErrorRate => "5%",
        CountMetric::Errors => "10",
        CountMetric::P50 | CountMetric::P95 | CountMetric::P99 => "300ms",
    }
}

/// The limit of a metric, in the metric's unit.
fn limit(metric: CountMetric, node: &Node, context: &mut Context<'_>) -> Option<Limit> {
    let scalar = node.as_scalar().filter(|scalar| scalar.kind() != Kind::Null)?;
    let wrong = |context: &mut Context<'_>, code: Code, label: &str, fix: String| {
        let message = format!("`{}` is not a limit of this metric", shown(&scalar.text));
        context.error(code, message, node.span, label, fix);
        None
    };
    match metric {
        CountMetric::ErrorRate => match leaf::percent(scalar) {
            Ok(value) if scalar.text.ends_with('%') => rate_limit(value, node, context),
            Ok(_) => {
                let fix = format!("write `{}%`", shown(&scalar.text));
                wrong(context, Code::Percentage, "percent? a share?", fix)
            }
            Err(trouble) => {
                let fix = trouble.fix.unwrap_or_else(|| "write `5%`".to_owned());
                wrong(context, Code::Percentage, &trouble.label, fix)
            }
        },
        CountMetric::Errors => match leaf::whole_in(scalar, "a number of errors", 0, 1 << 40) {
            Ok(value) => Some(Limit::Count(value)),
            Err(trouble) => {
                let fix = "write a whole number; for a share use `counts: errorRate`".to_owned();
                wrong(context, Code::Range, &trouble.label, fix)
            }
        },
        CountMetric::P50 | CountMetric::P95 | CountMetric::P99 => latency(scalar)
            .map(Limit::LatencyUs)
            .or_else(|trouble| {
                let fix = trouble.fix.unwrap_or_else(|| "write `300ms`".to_owned());
                wrong(context, Code::Duration, &trouble.label, fix).ok_or(())
            })
            .ok(),
    }
}

/// Microseconds; a latency without unit is most likely meant in milliseconds.
fn latency(scalar: &Scalar) -> Result<u64, crate::shape::Trouble> {
    let value = leaf::duration(scalar).map_err(|trouble| match scalar.kind() {
        Kind::Whole(number) => trouble.fix(format!("write `{number}ms`")),
        Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text => trouble,
    })?;
    Ok(value.saturating_mul(1000))
}

fn rate_limit(value: u32, node: &Node, context: &mut Context<'_>) -> Option<Limit> {
    if value < crate::FULL_WEIGHT {
        return Some(Limit::RateBp(value));
    }
    context.error(
        Code::NeverFails,
        "check can never fail",
        node.span,
        "no rate is above 100 %",
        "write the share of errors that is still good, as in `5%`",
    );
    None
}

/// Measurements of a gate: one where the file says nothing.
fn count(view: View<'_>) -> Option<u32> {
    if view.get("count").is_none() { Some(1) } else { view.whole("count") }
}

/// Refuses settings with which a check passes whatever it measures, and several measurements
/// without a time between them. False if one was refused, or if they cannot be read.
fn traps(view: View<'_>, context: &mut Context<'_>) -> bool {
    let (Some(count), Some(limit)) = (count(view), view.whole::<u32>("failureLimit")) else {
        return false;
    };
    let blind = view.text("noData") == Some("continue") && view.get("counts").is_none();
    if blind {
        context.error(
            Code::NoDataPass,
            "`noData` cannot be `continue` here",
            view.span("noData"),
            "only a limit on `counts` may see too little and go on",
            "use noData: hold, or noData: fail",
        );
    }
    if view.get("count").is_none() {
        return true;
    }
    if count == 0 {
        return false;
    }
    let mut good = true;
    if count <= limit {
        let diagnostic = Diagnostic::error(Code::NeverFails, "check can never fail")
            .at(
                context.sources,
                view.span("failureLimit"),
                format!("{limit} failures are allowed in {count} measurements"),
            )
            .see(context.sources, view.span("count"), "measured so often")
            .fix(format!("use a failureLimit below {count}, or a count above {limit}"));
        context.sink.push(diagnostic);
        good = false;
    }
    if count > 1 && view.written("interval").is_none() {
        context.error(
            Code::IntervalMissing,
            "interval is missing",
            view.span("count"),
            format!("{count} measurements, how far apart?"),
            "add `interval: 10s`",
        );
        good = false;
    }
    good
}

/// As a gate a check measures once where nothing says how often.
fn gate_never_fails(view: View<'_>) -> bool {
    view.get("count").is_none() && view.whole::<u32>("failureLimit").is_some_and(|limit| limit > 0)
}

/// Refuses checks as gates that can only pass as such.
pub(super) fn gates_can_fail(
    gates: &[(String, Span)],
    checks: &[Mapped],
    context: &mut Context<'_>,
) {
    for (name, span) in gates {
        let never = checks.iter().any(|check| check.name == *name && check.never_fails_as_gate);
        if never {
            let message = format!("check `{}` can never fail as a gate", shown(name));
            context.error(
                Code::NeverFails,
                message,
                *span,
                "measures once, and its failureLimit allows that one to fail",
                format!("add `count` and `interval` to `{}`, or remove failureLimit", shown(name)),
            );
        }
    }
}

/// Refuses names of checks that the file does not define.
pub(super) fn defined(names: &[(String, Span)], checks: &[Mapped], context: &mut Context<'_>) {
    for (name, span) in names {
        if checks.iter().any(|check| check.name == *name) {
            continue;
        }
        let fix = match nearest(name, checks.iter().map(|check| check.name.as_str())) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!(
                "define it: `checks: {{ {}: {{ counts: errorRate, limit: 5% }} }}`",
                shown(name)
            ),
        };
        let message = format!("check `{}` is not defined", shown(name));
        context.error(Code::Undefined, message, *span, "", fix);
    }
}

/// Refuses a watch that is listed twice.
pub(super) fn once(names: &[(String, Span)], context: &mut Context<'_>) {
    for (index, (name, span)) in names.iter().enumerate() {
        let earlier = names.get(..index).unwrap_or_default();
        if earlier.iter().any(|(other, _)| other == name) {
            let message = format!("check `{}` is listed twice", shown(name));
            context.error(Code::Twice, message, *span, "again here", "remove it");
        }
    }
}

/// What this build cannot do of the checks that are used.
pub(super) fn missing_of(names: &[(String, Span)], checks: &[Mapped]) -> Vec<Missing> {
    let used = checks.iter().filter(|check| names.iter().any(|(name, _)| *name == check.name));
    used.filter_map(|check| check.kind.as_ref().err()).flatten().cloned().collect()
}
