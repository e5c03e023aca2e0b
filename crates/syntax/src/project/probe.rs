//! Probes, with Kubernetes' words and defaults.

use tidegate_core::spec::{Probe, ProbeAction, Probes};

use crate::shape::leaf::{PORT, SECONDS, TEXT, THRESHOLD, URL_PATH, ZERO_SECONDS};
use crate::shape::{Field, Object, Shape, View};
use crate::yaml::{Node, Value};

use super::context::{Context, Missing};
use super::placeholder;

static HTTP: Object = Object::new(
    "an HTTP probe",
    &[
        Field::new("path", Shape::Leaf(&URL_PATH), "Path and query.").or("/"),
        Field::new("port", Shape::Leaf(&PORT), "Port other than the instance's own."),
        Field::new("scheme", Shape::Word(&["HTTP"]), "As in Kubernetes; probes speak plain HTTP."),
    ],
);
static TCP: Object = Object::new(
    "a TCP probe",
    &[Field::new("port", Shape::Leaf(&PORT), "Port other than the instance's own.")],
);
static EXEC: Object = Object::new(
    "a command probe",
    &[Field::new("command", Shape::Command, "Exit status 0 is good.").required()],
);
const KINDS: &[&str] = &["http", "tcp", "command", "sql", "httpGet", "tcpSocket", "exec"];

const HTTP_FORMS: &[Shape] = &[Shape::Leaf(&URL_PATH), Shape::Object(&HTTP)];
const TCP_FORMS: &[Shape] = &[Shape::Leaf(&PORT), Shape::Object(&TCP)];
const HTTP_KEY: Field = Field::new(
    "http",
    Shape::Either(HTTP_FORMS),
    "GET of this path; an answer from 200 to 399 is good.",
);
const TCP_KEY: Field = Field::new(
    "tcp",
    Shape::Either(TCP_FORMS),
    "A connection is accepted, at the instance's own port or the one named.",
);
const COMMAND_KEY: Field = Field::new(
    "command",
    Shape::Command,
    "Exit status 0 is good; runs in the artifact's folder with the instance's environment.",
);
const SQL_KEY: Field = Field::new("sql", Shape::Any, "A query. Not in this version.");
const HTTP_GET_KEY: Field =
    Field::new("httpGet", Shape::Object(&HTTP), "Kubernetes' name of `http`.");
const TCP_SOCKET_KEY: Field =
    Field::new("tcpSocket", Shape::Object(&TCP), "Kubernetes' name of `tcp`.");
const EXEC_KEY: Field = Field::new("exec", Shape::Object(&EXEC), "Kubernetes' name of `command`.");
const DELAY_KEY: Field =
    Field::new("initialDelaySeconds", Shape::Leaf(&ZERO_SECONDS), "Before the first try.").or("0");
const PERIOD_KEY: Field =
    Field::new("periodSeconds", Shape::Leaf(&SECONDS), "Between two tries.").or("10");
const TIMEOUT_KEY: Field =
    Field::new("timeoutSeconds", Shape::Leaf(&SECONDS), "Of one try.").or("1");
const SUCCESS_KEY: Field =
    Field::new("successThreshold", Shape::Leaf(&THRESHOLD), "Passes in a row to become good.")
        .or("1");
const FAILURE_KEY: Field =
    Field::new("failureThreshold", Shape::Leaf(&THRESHOLD), "Failures in a row to become bad.")
        .or("3");

static PROBE: Object = Object::new(
    "a probe",
    &[
        HTTP_KEY,
        TCP_KEY,
        COMMAND_KEY,
        SQL_KEY,
        HTTP_GET_KEY,
        TCP_SOCKET_KEY,
        EXEC_KEY,
        DELAY_KEY,
        PERIOD_KEY,
        TIMEOUT_KEY,
        SUCCESS_KEY,
        FAILURE_KEY,
    ],
)
.one_of(KINDS);
static VERSION_PROBE: Object = Object::new(
    "a version probe",
    &[
        HTTP_KEY,
        COMMAND_KEY,
        HTTP_GET_KEY,
        EXEC_KEY,
        Field::new(
            "field",
            Shape::Leaf(&TEXT),
            "Field of the JSON answer that holds the version; none: the whole body.",
        )
        .with(&["http", "httpGet"]),
        DELAY_KEY,
        PERIOD_KEY,
        TIMEOUT_KEY,
        SUCCESS_KEY,
        FAILURE_KEY,
    ],
)
.one_of(&["http", "command", "httpGet", "exec"]);

/// The probes of a service.
pub(crate) static PROBES: Object = Object::new(
    "probes",
    &[
        Field::new(
            "startup",
            Shape::Object(&PROBE),
            "Until it has passed the others wait; failing it restarts the instance.",
        ),
        Field::new("readiness", Shape::Object(&PROBE), "Whether the instance gets requests."),
        Field::new("liveness", Shape::Object(&PROBE), "Failing it restarts the instance."),
        Field::new(
            "version",
            Shape::Object(&VERSION_PROBE),
            "Asked when the instance has started: must answer the version that was asked for.",
        ),
    ],
);

/// The probes of a service; those of an unsupported kind are left out and named.
pub(super) fn probes(service: &str, view: View<'_>, context: &mut Context<'_>) -> Probes {
    let mut one = |key: &str| {
        let probe = view.view(key)?;
        if let Some(sql) = probe.get("sql") {
            let missing = Missing::new(
                "SQL probes are not in this version",
                sql.span,
                Some("use a `command` probe that runs the query"),
            );
            context.unsupported_for(missing, service);
        }
        self::probe(probe, context)
    };
    Probes {
        startup: one("startup"),
        readiness: one("readiness"),
        liveness: one("liveness"),
        version: one("version"),
    }
}

fn probe(view: View<'_>, context: &mut Context<'_>) -> Option<Probe> {
    let seconds = |key: &str| view.whole::<u64>(key).map(|seconds| seconds * 1000);
    Some(Probe {
        action: action(view, context)?,
        initial_delay_ms: seconds("initialDelaySeconds")?,
        period_ms: seconds("periodSeconds")?,
        timeout_ms: seconds("timeoutSeconds")?,
        success_threshold: view.whole("successThreshold")?,
        failure_threshold: view.whole("failureThreshold")?,
    })
}

fn action(view: View<'_>, context: &mut Context<'_>) -> Option<ProbeAction> {
    let field = view.text("field").map(str::to_owned);
    if let Some(http) = view.get("http").or_else(|| view.get("httpGet")) {
        let inner = View::new(http);
        let path = match &http.value {
            Value::Scalar(scalar) => scalar.text.to_string(),
            Value::Map(_) => inner.text("path")?.to_owned(),
            Value::List(_) => return None,
        };
        return Some(ProbeAction::Http { path, port: inner.whole("port"), field });
    }
    if let Some(tcp) = view.get("tcp").or_else(|| view.get("tcpSocket")) {
        let port = match &tcp.value {
            Value::Scalar(_) => view.whole("tcp"),
            Value::Map(_) | Value::List(_) => View::new(tcp).whole("port"),
        };
        return Some(ProbeAction::Tcp { port });
    }
    let command = view.get("command").or_else(|| view.get("exec")?.get("command"))?;
    for argument in command.items() {
        placeholder::check(argument, placeholder::COMMAND, context);
    }
    let command = command.items().iter().filter_map(Node::as_text).map(str::to_owned).collect();
    Some(ProbeAction::Command { command })
}
