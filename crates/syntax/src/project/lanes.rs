//! Two lanes (environment and service) cannot take the same requests.

use std::collections::HashMap;

use crate::diagnostic::{Code, Diagnostic, shown};
use crate::shape::View;
use crate::shape::leaf;
use crate::source::Span;
use crate::yaml::Entry;

use super::context::Context;

/// Refuses services with the same route, and environments on the same listener.
pub(super) fn distinct(root: View<'_>, context: &mut Context<'_>) {
    same_routes(root.entries("services"), context);
    same_listeners(root.entries("environments"), context);
}

/// Every service is in every environment, so that their routes have to differ.
fn same_routes(services: &[Entry], context: &mut Context<'_>) {
    let mut seen: HashMap<(Option<String>, String), (&Entry, Span)> = HashMap::new();
    for entry in services {
        // Only what the switch serves takes requests.
        if entry.value.get("artifact").is_none() {
            continue;
        }
        let view = View::new(&entry.value);
        let routes = view.items("routes");
        let mut own: Vec<((Option<String>, String), Span)> = routes
            .iter()
            .filter_map(|node| {
                let route = View::new(node);
                let host = route.text("host").map(str::to_ascii_lowercase);
                let path = route.text("path")?;
                let path = if path == "/" { path } else { path.trim_end_matches('/') };
                Some(((host, path.to_owned()), node.span))
            })
            .collect();
        if routes.is_empty() {
            own.push(((None, "/".to_owned()), entry.at));
        }
        for (key, span) in own {
            let title = match &key.0 {
                Some(host) => format!("{}{}", shown(host), shown(&key.1)),
                None => format!("every host, path {}", shown(&key.1)),
            };
            let Some((other, first)) = seen.get(&key) else {
                seen.insert(key, (entry, span));
                continue;
            };
            let (one, two) = (shown(&other.key), shown(&entry.key));
            let diagnostic = Diagnostic::error(Code::SameRoute, "two routes for the same requests")
                .at(context.sources, span, format!("`{two}` takes {title}"))
                .see(context.sources, *first, format!("`{one}` takes them already"))
                .note("each service is in each environment, on one listener")
                .fix(format!("give `{two}` routes of its own: `routes: [{{ path: /{two} }}]`"));
            context.sink.push(diagnostic);
        }
    }
}

/// Two environments on one address and port would take each other's requests.
fn same_listeners(environments: &[Entry], context: &mut Context<'_>) {
    let mut seen: Vec<(std::net::SocketAddr, &Entry, Span)> = Vec::new();
    for entry in environments {
        let process = entry.value.get("platform").and_then(|node| node.get("process"));
        let Some(node) = process.and_then(|node| node.get("listen")) else {
            continue;
        };
        let Some(address) = node.as_scalar().and_then(|scalar| leaf::listen(scalar).ok()) else {
            continue;
        };
        let clash = seen.iter().find(|(other, ..)| {
            let everywhere = other.ip().is_unspecified() || address.ip().is_unspecified();
            other.port() == address.port() && (other.ip() == address.ip() || everywhere)
        });
        if let Some((_, other, first)) = clash {
            let (one, two) = (shown(&other.key), shown(&entry.key));
            let free = address.port().checked_add(1).unwrap_or(8080);
            let diagnostic =
                Diagnostic::error(Code::SameRoute, "two environments on the same listener")
                    .at(context.sources, node.span, format!("`{two}` listens here"))
                    .see(context.sources, *first, format!("`{one}` listens here already"))
                    .fix(format!("use another port, as in `{}:{free}`", bracketed(address)));
            context.sink.push(diagnostic);
        } else {
            seen.push((address, entry, node.span));
        }
    }
}

fn bracketed(address: std::net::SocketAddr) -> String {
    match address.ip() {
        std::net::IpAddr::V4(ip) => ip.to_string(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
    }
}
