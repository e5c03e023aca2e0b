//! Which lane a request belongs to: by listener, then host, then the longest path prefix at a
//! segment border. Routes without a host take what no route with this host takes.

use std::net::SocketAddr;
use std::sync::Arc;

use tidegate_wire::spec::Route;

use super::view::LaneView;

/// The routes of one listener.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    routes: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    host: Option<String>,
    path: String,
    lane: Arc<LaneView>,
}

impl RouteTable {
    pub(crate) fn add(&mut self, routes: &[Route], lane: &Arc<LaneView>) {
        if routes.is_empty() {
            let lane = Arc::clone(lane);
            self.routes.push(Entry { host: None, path: String::new(), lane });
        }
        for route in routes {
            let (host, path) = key(route);
            self.routes.push(Entry { host, path, lane: Arc::clone(lane) });
        }
    }

    /// The most specific first.
    pub(crate) fn sort(&mut self) {
        self.routes.sort_by(|a, b| {
            (b.host.is_some(), b.path.len()).cmp(&(a.host.is_some(), a.path.len()))
        });
    }

    /// `host` in lower case and without a port.
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<&Arc<LaneView>> {
        let found = self.routes.iter().find(|entry| {
            entry.host.as_deref().is_none_or(|wanted| wanted == host) && covers(&entry.path, path)
        });
        found.map(|entry| &entry.lane)
    }
}

/// A route's host and path as they are compared; two routes with the same ones are the same.
pub(crate) fn key(route: &Route) -> (Option<String>, String) {
    let host = route.host.as_ref().map(|host| host.to_ascii_lowercase());
    (host, route.path.trim_end_matches('/').to_owned())
}

fn covers(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The host of an authority: no port, no case, no dot at its end.
pub(crate) fn host_only(authority: &str) -> String {
    let host = match authority.rfind(':') {
        Some(colon) if !authority.get(colon..).is_some_and(|rest| rest.contains(']')) => {
            authority.get(..colon).unwrap_or(authority)
        }
        Some(_) | None => authority,
    };
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// The address of a `listen`: `address:port`, `localhost:port`, or `:port` for all addresses.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub(crate) fn listen_address(listen: &str) -> Result<SocketAddr, String> {
    let full = match listen.rsplit_once(':') {
        Some(("", port)) => format!("0.0.0.0:{port}"),
        Some(("localhost", port)) => format!("127.0.0.1:{port}"),
        Some(_) | None => listen.to_owned(),
    };
    let address: SocketAddr = full.parse().map_err(|_| {
        format!("`{listen}` is not an address to listen on; write it like 127.0.0.1:8080")
    })?;
    if address.port() == 0 {
        return Err(format!("`{listen}` has port 0; name the port that clients use"));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_at_a_segment_border() {
        for (prefix, path, wanted) in [
            ("", "/", true),
            ("", "/x", true),
            ("/api", "/api", true),
            ("/api", "/api/", true),
            ("/api", "/api/x", true),
            ("/api", "/apix", false),
            ("/api", "/", false),
            ("", "*", false),
        ] {
            assert_eq!(covers(prefix, path), wanted, "{prefix} {path}");
        }
    }

    #[test]
    fn a_host_is_compared_without_port_case_and_last_dot() {
        for (authority, host) in [
            ("Example.COM", "example.com"),
            ("example.com:8080", "example.com"),
            ("example.com.:80", "example.com"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(host_only(authority), host);
        }
    }

    #[test]
    fn a_listener_needs_an_address_and_a_port() {
        assert_eq!(listen_address(":80").unwrap().to_string(), "0.0.0.0:80");
        assert_eq!(listen_address("localhost:80").unwrap().to_string(), "127.0.0.1:80");
        assert_eq!(listen_address("[::]:80").unwrap().to_string(), "[::]:80");
        assert!(listen_address("127.0.0.1:0").is_err());
        assert!(listen_address("example.com:80").is_err());
    }
}
