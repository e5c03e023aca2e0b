//! What a proxy takes out of a head and puts into it.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Chooses the version for a tester.
pub(crate) const FORCE: HeaderName = HeaderName::from_static("x-tidegate-version");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Hop-by-hop whether `Connection` lists them or not.
const HOP: [HeaderName; 8] = [
    header::CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What no `Connection` header can make us lose: it would change the message itself.
const KEPT: [HeaderName; 4] =
    [header::HOST, header::CONTENT_LENGTH, header::CONTENT_TYPE, header::SET_COOKIE];

/// Removes hop-by-hop headers, those that `Connection` lists included. A length beside a transfer
/// coding goes as well: only one of the two can be true, and a neighbour might believe the other.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let listed: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            .filter(|name| !KEPT.contains(name))
            .collect();
        for name in listed {
            headers.remove(name);
        }
    }
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    for name in HOP {
        headers.remove(name);
    }
}

/// Makes a client's head one of ours to an instance.
pub(crate) fn to_instance(headers: &mut HeaderMap, peer: IpAddr, https: bool, host: &HeaderValue) {
    strip_hop_by_hop(headers);
    headers.remove(header::EXPECT); // answered by us as soon as the instance takes the body
    headers.remove(FORCE);
    headers.insert(header::HOST, host.clone());
    let before: Vec<&str> =
        headers.get_all(FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok()).collect();
    let peer = peer.to_canonical();
    let chain =
        if before.is_empty() { peer.to_string() } else { format!("{}, {peer}", before.join(", ")) };
    if let Ok(chain) = HeaderValue::from_str(&chain) {
        headers.insert(FORWARDED_FOR, chain);
    }
    let proto = if https { "https" } else { "http" };
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(proto));
    headers.insert(FORWARDED_HOST, host.clone());
}

/// Seconds of `Keep-Alive: timeout=N` in an instance's answer.
pub(crate) fn keep_alive_timeout(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(KEEP_ALIVE)?.to_str().ok()?;
    let mut parts = value.split(',').filter_map(|part| part.trim().split_once('='));
    let (_, seconds) = parts.find(|(name, _)| name.eq_ignore_ascii_case("timeout"))?;
    seconds.trim().parse().ok()
}

/// The point in the cookie of this name.
pub(crate) fn cookie_point(headers: &HeaderMap, name: &str) -> Option<u16> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|p| p.split_once('='));
    let (_, value) = pairs.find(|(key, _)| key.trim() == name)?;
    value.trim().parse().ok().filter(|point| *point < 10_000)
}

/// A cookie that keeps its user at this point.
pub(crate) fn set_cookie(name: &str, point: u16, https: bool) -> Option<HeaderValue> {
    let secure = if https { "; Secure" } else { "" };
    let text = format!("{name}={point}; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::from_str(&text).ok()
}

/// Whether the client wants another protocol on this connection. `h2c` is an offer that may be
/// left, as every HTTP/1.1 server does that has no HTTP/2 without TLS.
pub(crate) fn wants_upgrade(headers: &HeaderMap) -> Option<String> {
    let upgrade = headers.get(header::UPGRADE)?.to_str().ok()?;
    let listed = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim().eq_ignore_ascii_case("upgrade"));
    (listed && !upgrade.trim().eq_ignore_ascii_case("h2c")).then(|| upgrade.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn hop_by_hop_headers_go_and_those_that_connection_lists_but_never_the_message_itself() {
        let mut headers = heads(&[
            ("connection", "close, X-Secret,host"),
            ("connection", "x-other"),
            ("x-secret", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("host", "a"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "host"]);
    }

    #[test]
    fn an_instance_learns_client_protocol_and_host() {
        let mut headers = heads(&[
            ("x-forwarded-for", "9.9.9.9"),
            ("x-forwarded-proto", "gopher"),
            ("x-tidegate-version", "v2"),
            ("expect", "100-continue"),
        ]);
        let peer = "::ffff:127.0.0.1".parse().unwrap();
        to_instance(&mut headers, peer, true, &HeaderValue::from_static("shop.example"));
        assert_eq!(headers["x-forwarded-for"], "9.9.9.9, 127.0.0.1");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "shop.example");
        assert_eq!(headers["host"], "shop.example");
        assert!(!headers.contains_key("x-tidegate-version") && !headers.contains_key("expect"));
    }

    #[test]
    fn a_cookie_gives_a_point_only_if_it_is_one() {
        for (cookie, wanted) in [
            ("a=1; tg=42; b=2", Some(42)),
            ("tg=9999", Some(9_999)),
            ("tg=10000", None),
            ("tg=x", None),
            ("xtg=5", None),
            ("tg=", None),
        ] {
            assert_eq!(cookie_point(&heads(&[("cookie", cookie)]), "tg"), wanted, "{cookie}");
        }
        let set = set_cookie("tg", 42, true).unwrap();
        assert!(set.to_str().unwrap().starts_with("tg=42; "));
        assert!(set.to_str().unwrap().ends_with("; Secure"));
    }

    #[test]
    fn an_upgrade_counts_only_if_connection_says_so_and_h2c_is_left() {
        let both = |upgrade, connection| {
            wants_upgrade(&heads(&[("upgrade", upgrade), ("connection", connection)]))
        };
        assert_eq!(both("websocket", "keep-alive, Upgrade").as_deref(), Some("websocket"));
        assert_eq!(both("websocket", "keep-alive"), None);
        assert_eq!(both("h2c", "Upgrade, HTTP2-Settings"), None);
    }

    #[test]
    fn the_keep_alive_timeout_of_an_instance_is_read() {
        let seconds = |value| keep_alive_timeout(&heads(&[("keep-alive", value)]));
        assert_eq!(seconds("timeout=5, max=100"), Some(5));
        assert_eq!(seconds("max=100"), None);
    }
}
