//! Services: what one instance is and how it is judged healthy.

use std::collections::BTreeMap;

use tidegate_core::spec::{ErrorSpec, Resources, Route, ServiceSpec, StopSpec, TlsSpec};

use crate::diagnostic::{Code, shown};
use crate::shape::leaf::{
    self, ANY_SCALAR, BOOL, CPUS, DURATION, HOST, INSTANCES, NAME, PORT, POSITIVE_DURATION, SIZE,
    STATUS, TEXT, URL_PATH, VARIABLE,
};
use crate::shape::{Field, Object, Shape, View};
use crate::yaml::{Entry, Node, Value};

use super::context::{Context, Missing};
use super::{placeholder, probe};

static FROM_ENV: Object = Object::new(
    "a value from the environment",
    &[Field::new(
        "env",
        Shape::Leaf(&VARIABLE),
        "Name of the variable of the one who runs Tidegate.",
    )
    .required()],
);
/// Environment variables: text, numbers and truth values, or `{env: NAME}`.
pub(crate) const ENV: Shape =
    Shape::Map(&VARIABLE, &Shape::Either(&[Shape::Leaf(&ANY_SCALAR), Shape::Object(&FROM_ENV)]));
static RESOURCES: Object = Object::new(
    "resources",
    &[
        Field::new("memory", Shape::Leaf(&SIZE), "Most memory of one instance."),
        Field::new(
            "cpus",
            Shape::Leaf(&CPUS),
            "Most processor time of one instance, in processors.",
        ),
    ],
);
const SIGNALS: &[&str] =
    &["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH"];
static STOP: Object = Object::new(
    "a stop",
    &[
        Field::new("signal", Shape::Word(SIGNALS), "Signal that asks an instance to end.")
            .or("SIGTERM"),
        Field::new("grace", Shape::Leaf(&DURATION), "From the signal to SIGKILL.").or("30s"),
    ],
);
static TLS_FILES: Object = Object::new(
    "TLS",
    &[
        Field::new("certificate", Shape::Leaf(&TEXT), "PEM file with the certificate chain.")
            .required(),
        Field::new("key", Shape::Leaf(&TEXT), "PEM file with the private key.").required(),
    ],
);
static ROUTE: Object = Object::new(
    "a route",
    &[
        Field::new("host", Shape::Leaf(&HOST), "Host name; left out: any."),
        Field::new("path", Shape::Leaf(&URL_PATH), "Path prefix, at the borders of segments.")
            .or("/"),
        Field::new(
            "tls",
            Shape::Either(&[Shape::Word(&["auto"]), Shape::Object(&TLS_FILES)]),
            "Certificate files; `auto` (a certificate of an ACME authority) is not in this version.",
        ),
    ],
);
static ERRORS: Object = Object::new(
    "errors",
    &[
        Field::new(
            "status",
            Shape::List(&Shape::Leaf(&STATUS), 1),
            "Statuses that are the service's fault.",
        )
        .or("[5xx]"),
        Field::new(
            "timeout",
            Shape::Leaf(&POSITIVE_DURATION),
            "No head of a response within this time is an error of its own.",
        )
        .or("60s"),
    ],
);
/// One service.
pub(crate) static SERVICE: Object = Object::new(
    "a service",
    &[
        Field::new(
            "artifact",
            Shape::Leaf(&TEXT),
            "Folder, .tar.gz or .tar.zst with `{version}` in its path; the release is its digest.",
        ),
        Field::new("image", Shape::Leaf(&TEXT), "Container image. Not in this version."),
        Field::new(
            "command",
            Shape::Command,
            "Program and arguments; {address} {port} {instance} {version} {digest} are filled in.",
        ),
        Field::new("instances", Shape::Leaf(&INSTANCES), "How many run at full weight.").or("1"),
        Field::new("env", ENV, "Environment variables.").or("{}"),
        Field::new(
            "secrets",
            Shape::List(&Shape::Leaf(&VARIABLE), 0),
            "Names of secrets; the values come from the secret store.",
        )
        .or("[]"),
        Field::new("resources", Shape::Object(&RESOURCES), "Limits of one instance.").or("{}"),
        Field::new("stop", Shape::Object(&STOP), "How one instance is stopped.").or("{}"),
        Field::new("probes", Shape::Object(&probe::PROBES), "How an instance is judged.").or("{}"),
        Field::new(
            "routes",
            Shape::List(&Shape::Object(&ROUTE), 0),
            "Which requests are this service's; none: all on the environment's listener.",
        )
        .or("[]"),
        Field::new("errors", Shape::Object(&ERRORS), "What counts as this service's fault.")
            .or("{}"),
        Field::new(
            "versionVariable",
            Shape::Leaf(&VARIABLE),
            "Variable of the Compose file with the image. Not in this version.",
        ),
        Field::new("role", Shape::Leaf(&NAME), "Hosts with this role run it. Not in this version."),
        Field::new("port", Shape::Leaf(&PORT), "The container's port. Not in this version."),
        Field::new("stateful", Shape::Leaf(&BOOL), "Never rolled. Not in this version."),
    ],
);
/// `compose:`.
pub(crate) static COMPOSE: Object = Object::new(
    "compose",
    &[
        Field::new("files", Shape::List(&Shape::Leaf(&TEXT), 1), "Compose files.").required(),
        Field::new("envFile", Shape::Leaf(&TEXT), "File with variables."),
        Field::new("profiles", Shape::List(&Shape::Leaf(&NAME), 0), "Profiles."),
    ],
);

/// All services that this build can run; the others are named as unsupported.
pub(super) fn services(root: View<'_>, context: &mut Context<'_>) -> Vec<ServiceSpec> {
    let compose = root.entries("compose");
    let entries = root.entries("services");
    if !compose.is_empty() {
        let without: Vec<String> = entries
            .iter()
            .filter(|entry| entry.value.get("artifact").is_none())
            .map(|entry| entry.key.to_string())
            .collect();
        let missing = Missing::new(
            "Compose files are not in this version",
            root.key_span("compose"),
            Some("give each service an `artifact` and a `command`"),
        );
        // It touches the services that have nothing else to run from; all where that is none.
        context.unsupported_for_all(missing, without);
    }
    entries.iter().filter_map(|entry| service(entry, !compose.is_empty(), context)).collect()
}

fn service(entry: &Entry, composed: bool, context: &mut Context<'_>) -> Option<ServiceSpec> {
    let view = View::new(&entry.value);
    let name = &*entry.key;
    if !matches!(entry.value.value, Value::Map(_)) {
        return None;
    }
    container_words(name, view, context);
    let env = env(view.entries("env"), context);
    for value in view.entries("env") {
        placeholder::none(&value.value, context);
    }
    let secrets = view.texts("secrets");
    secrets_once(view, context);
    let probes = view.view("probes").map(|view| probe::probes(name, view, context));
    let routes = routes(name, view, context);
    let command = command(view, context);
    let artifact = artifact(name, entry, composed, context)?;
    if view.get("command").is_none() {
        context.error(
            Code::MissingKey,
            format!("service `{}` has no command", shown(name)),
            entry.at,
            "what starts an instance?",
            "add `command: [./program, --port, \"{port}\"]`",
        );
        return None;
    }
    Some(ServiceSpec {
        name: name.to_owned(),
        artifact,
        command,
        instances: view.whole("instances")?,
        env,
        secrets,
        resources: resources(view.view("resources")?),
        stop: stop(view.view("stop")?)?,
        probes: probes?,
        routes,
        errors: errors(view.view("errors")?)?,
    })
}

/// Keys that only mean something for containers.
fn container_words(name: &str, view: View<'_>, context: &mut Context<'_>) {
    for (key, text) in [
        ("image", "containers are not in this version"),
        ("versionVariable", "containers are not in this version"),
        ("role", "roles of hosts are not in this version"),
        ("port", "fixed ports of containers are not in this version"),
    ] {
        if view.get(key).is_some() {
            let hint = match key {
                "port" => "use `{port}` in `command`",
                "role" => "remove it; everything runs on the machine of the home",
                _ => "use `artifact` and `command` on the process platform",
            };
            let missing = Missing::new(text, view.key_span(key), Some(hint));
            context.unsupported_for(missing, name);
        }
    }
    if view.boolean("stateful") == Some(true) {
        let missing = Missing::new(
            "stateful services are not in this version",
            view.key_span("stateful"),
            Some("remove the service from the file; nothing touches it then"),
        );
        context.unsupported_for(missing, name);
    }
}

/// The artifact's path. None, with an error where nothing says what the service is.
fn artifact(
    name: &str,
    entry: &Entry,
    composed: bool,
    context: &mut Context<'_>,
) -> Option<String> {
    let view = View::new(&entry.value);
    let Some(node) = view.get("artifact") else {
        let other = ["image", "versionVariable", "stateful"];
        if !composed && !other.iter().any(|key| view.get(key).is_some()) {
            context.error(
                Code::MissingKey,
                format!("service `{}` has no artifact", shown(name)),
                entry.at,
                "what is released?",
                format!("add `artifact: \"dist/{}-{{version}}\"`", shown(name)),
            );
        }
        return None;
    };
    if view.get("image").is_some() {
        context.error(
            Code::ExactlyOne,
            "`artifact` and `image` exclude each other",
            view.key_span("image"),
            "this one too",
            "remove one of the two",
        );
    }
    placeholder::check(node, placeholder::ARTIFACT, context);
    let path = node.as_text()?;
    // Other braces are a mistake of their own.
    if !path.contains('{') && leaf::is_text(node) {
        context.warning(
            Code::ArtifactWithoutVersion,
            "artifact without {version}",
            node.span,
            "every version is read from the same path",
            "put `{version}` into the path, so that an older version can be released again",
        );
    }
    Some(path.to_owned())
}

fn command(view: View<'_>, context: &mut Context<'_>) -> Vec<String> {
    for argument in view.items("command") {
        placeholder::check(argument, placeholder::COMMAND, context);
    }
    view.texts("command")
}

/// Environment variables with `{env: NAME}` resolved.
pub(super) fn env(entries: &[Entry], context: &mut Context<'_>) -> BTreeMap<String, String> {
    let mut result = BTreeMap::new();
    for entry in entries {
        let value = match &entry.value.value {
            Value::Scalar(scalar) => Some(scalar.text.to_string()),
            Value::Map(_) => from_environment(&entry.value, context),
            Value::List(_) => None,
        };
        if let Some(value) = value {
            result.insert(entry.key.to_string(), value);
        }
    }
    result
}

fn from_environment(node: &Node, context: &mut Context<'_>) -> Option<String> {
    let variable = node.get("env")?;
    let name = variable.as_text()?;
    let value = (context.input.variable)(name);
    if value.is_none() {
        context.error(
            Code::EnvironmentVariable,
            format!("environment variable {} is not set", shown(name)),
            variable.span,
            "not set here",
            format!("set it: `export {}=…`", shown(name)),
        );
    }
    value
}

fn secrets_once(view: View<'_>, context: &mut Context<'_>) {
    let mut seen: BTreeMap<&str, ()> = BTreeMap::new();
    for node in view.items("secrets") {
        let Some(name) = node.as_text() else {
            continue;
        };
        let clash = view.get("env").is_some_and(|env| env.get(name).is_some());
        if seen.insert(name, ()).is_some() || clash {
            let what = if clash { "is in `env` too" } else { "is listed twice" };
            context.error(
                Code::Twice,
                format!("secret `{}` {what}", shown(name)),
                node.span,
                "",
                "remove one of the two",
            );
        }
    }
}

fn resources(view: View<'_>) -> Resources {
    let scalar = |key: &str| view.get(key).and_then(Node::as_scalar);
    Resources {
        memory_bytes: scalar("memory").and_then(|scalar| leaf::size(scalar).ok()),
        cpu_millis: scalar("cpus").and_then(|scalar| leaf::cpus(scalar).ok()),
    }
}

fn stop(view: View<'_>) -> Option<StopSpec> {
    Some(StopSpec { signal: view.text("signal")?.to_owned(), grace_ms: view.duration("grace")? })
}

fn errors(view: View<'_>) -> Option<ErrorSpec> {
    Some(ErrorSpec { status: statuses(view), timeout_ms: view.duration("timeout")? })
}

/// The ranges of a list of statuses.
pub(super) fn statuses(view: View<'_>) -> Vec<(u16, u16)> {
    let scalars = view.items("status").iter().filter_map(Node::as_scalar);
    scalars.filter_map(|scalar| leaf::status(scalar).ok()).collect()
}

fn routes(service: &str, view: View<'_>, context: &mut Context<'_>) -> Vec<Route> {
    let mut result = Vec::new();
    for node in view.items("routes") {
        let route = View::new(node);
        let tls = match route.get("tls") {
            Some(tls) if tls.as_scalar().is_some() => {
                let missing = Missing::new(
                    "automatic certificates are not in this version",
                    tls.span,
                    Some("use `tls: { certificate: …, key: … }` or leave it out"),
                );
                context.unsupported_for(missing, service);
                None
            }
            Some(tls) => tls_files(View::new(tls), context),
            None => None,
        };
        if let Some(path) = route.text("path") {
            let host = route.text("host").map(str::to_ascii_lowercase);
            result.push(Route { host, path: path.to_owned(), tls });
        }
    }
    result
}

fn tls_files(view: View<'_>, context: &Context<'_>) -> Option<TlsSpec> {
    let absolute = |path: &str| {
        if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{}/{path}", context.input.folder.trim_end_matches('/'))
        }
    };
    Some(TlsSpec {
        certificate: absolute(view.text("certificate")?),
        key: absolute(view.text("key")?),
    })
}
