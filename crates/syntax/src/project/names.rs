//! Names that refer to something: defined, not in a circle, used.

use crate::diagnostic::{Code, Diagnostic, nearest, shown};
use crate::shape::View;
use crate::yaml::{Entry, Node};

use super::context::Context;
use super::{by_name, strategy};

/// Checks what environments refer to.
pub(super) fn references(root: View<'_>, context: &mut Context<'_>) {
    let environments = root.entries("environments");
    for entry in environments {
        let view = View::new(&entry.value);
        if let Some(needs) = view.get("needs") {
            defined(needs, "environment", environments, &[], context);
        }
        if let Some(strategy) = view.get("strategy") {
            let known = root.entries("strategies");
            defined(strategy, "strategy", known, &strategy::BUILT_IN, context);
        }
        for service in view.items("order") {
            defined(service, "service", root.entries("services"), &[], context);
        }
        for job in view.items("beforeTraffic") {
            if let Some(service) = job.get("service") {
                defined(service, "service", root.entries("services"), &[], context);
            }
        }
    }
    cycles(environments, context);
}

/// An error if nothing of that kind has the name.
fn defined(node: &Node, kind: &str, known: &[Entry], built_in: &[&str], context: &mut Context<'_>) {
    let Some(name) = node.as_text() else {
        return;
    };
    if known.iter().any(|entry| &*entry.key == name) || built_in.contains(&name) {
        return;
    }
    let names = known.iter().map(|entry| &*entry.key).chain(built_in.iter().copied());
    let fix = match nearest(name, names.clone()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => {
            let names: Vec<String> = names.take(12).map(shown).collect();
            if names.is_empty() {
                format!("define a {kind} of that name, or remove this")
            } else {
                format!("use one of {}", names.join(", "))
            }
        }
    };
    let message = format!("{kind} `{}` is not defined", shown(name));
    context.error(Code::Undefined, message, node.span, "", fix);
}

/// Environments that need each other in a circle; each circle is said once.
fn cycles(environments: &[Entry], context: &mut Context<'_>) {
    let known = by_name(environments);
    let mut done: Vec<&str> = Vec::new();
    for entry in environments {
        let mut path: Vec<&str> = Vec::new();
        let mut at = Some(entry);
        while let Some(current) = at {
            let name = &*current.key;
            if done.contains(&name) {
                break;
            }
            if let Some(start) = path.iter().position(|known| *known == name) {
                cycle(&known, path.get(start..).unwrap_or_default(), context);
                break;
            }
            path.push(name);
            let needs = current.value.get("needs").and_then(Node::as_text);
            at = needs.and_then(|needs| known.get(needs).copied());
        }
        done.extend(path);
    }
}

fn cycle(
    known: &std::collections::BTreeMap<&str, &Entry>,
    path: &[&str],
    context: &mut Context<'_>,
) {
    let spans = path.iter().filter_map(|name| known.get(name)?.value.get("needs"));
    let mut circle: Vec<String> = path.iter().map(|name| shown(name)).collect();
    circle.extend(circle.first().cloned());
    let message =
        if path.len() == 1 { "environment needs itself" } else { "environments need each other" };
    let mut diagnostic = Diagnostic::error(Code::Cycle, message);
    for (index, node) in spans.enumerate() {
        diagnostic = if index == 0 {
            diagnostic.at(context.sources, node.span, "the circle starts here")
        } else {
            diagnostic.see(context.sources, node.span, "and goes on here")
        };
    }
    let diagnostic =
        diagnostic.note(circle.join(" needs ")).fix("remove one `needs` of the circle");
    context.sink.push(diagnostic);
}

/// Warns of strategies and checks that nothing refers to.
pub(super) fn unused(root: View<'_>, context: &mut Context<'_>) {
    let strategies = root.entries("strategies");
    for entry in strategies {
        let used = root
            .entries("environments")
            .iter()
            .any(|user| user.value.get("strategy").and_then(Node::as_text) == Some(&*entry.key));
        if !used && !entry.value.filled {
            let message = format!("strategy `{}` is never used", shown(&entry.key));
            context.warning(
                Code::Unused,
                message,
                entry.at,
                "",
                "name it in an environment, or remove it",
            );
        }
    }
    let mut mentioned = Vec::new();
    for entry in strategies {
        collect(&entry.value, false, &mut mentioned);
    }
    for entry in root.entries("checks") {
        if !mentioned.contains(&&*entry.key) {
            let message = format!("check `{}` is never used", shown(&entry.key));
            context.warning(
                Code::Unused,
                message,
                entry.at,
                "watches nothing",
                "name it in `analysis` of a strategy, or remove it",
            );
        }
    }
}

/// Names of checks anywhere below a key that ends in `nalysis`.
fn collect<'a>(node: &'a Node, inside: bool, found: &mut Vec<&'a str>) {
    if inside {
        found.extend(node.as_text());
    }
    for item in node.items() {
        collect(item, inside, found);
    }
    for entry in node.entries() {
        let inside = inside || entry.key.to_ascii_lowercase().ends_with("analysis");
        collect(&entry.value, inside, found);
    }
}
