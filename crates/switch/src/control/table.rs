//! Whether a table can be carried out as it is, beside the tables of the other lanes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use tidegate_wire::error::{ErrorBody, IMPOSSIBLE};
use tidegate_wire::spec::TlsSpec;
use tidegate_wire::switch::{Endpoints, Table};
use tidegate_wire::traffic::{FULL_WEIGHT, TrafficDoc};

use super::store::Durable;
use crate::proxy::route::{key, listen_address};
use crate::proxy::tls;

/// A refusal with `impossible` (for HTTP 422).
pub(crate) fn impossible(message: impl Into<String>, on: &str) -> Box<ErrorBody> {
    Box::new(ErrorBody::new(IMPOSSIBLE, message, on))
}

/// What listens where.
pub(crate) type Wanted = BTreeMap<SocketAddr, Tls>;

/// How a listener speaks.
#[derive(Debug)]
pub(crate) enum Tls {
    Plain,
    With(Arc<ServerConfig>),
    /// Its certificates cannot be used now: those in force stay, and without any it is not opened.
    Keep,
}

/// Checks what can be seen from the document alone.
///
/// # Errors
/// `impossible`, saying what is wrong.
pub(crate) fn check(table: &Table) -> Result<(), Box<ErrorBody>> {
    let doc = &table.doc;
    let wrong = |text: String| Err(impossible(text, &doc.lane));
    if doc.lane.is_empty() {
        return wrong("the table names no lane".to_owned());
    }
    listen_address(&doc.listen).map_err(|why| impossible(why, &doc.lane))?;
    let sum = doc.weights.iter().try_fold(0_u32, |sum, one| sum.checked_add(one.weight_bp));
    if !matches!(sum, Some(0 | FULL_WEIGHT)) {
        let text = format!("the weights add up to neither 0 nor {FULL_WEIGHT} basis points");
        return wrong(text);
    }
    for (index, one) in doc.weights.iter().enumerate() {
        let mut before = doc.weights.iter().take(index);
        if before.any(|other| other.version == one.version && other.digest == one.digest) {
            return wrong(format!("version {} has two weights", one.version));
        }
    }
    if let Some(name) = &doc.sticky_cookie {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(token) {
            return wrong(format!("`{name}` cannot be the name of a cookie"));
        }
    }
    if doc.errors.timeout_ms == 0 {
        return wrong("the time for an answer is 0 ms".to_owned());
    }
    for route in &doc.routes {
        if !route.path.starts_with('/') {
            return wrong(format!("the path `{}` of a route does not begin with /", route.path));
        }
        if route.host.as_ref().is_some_and(|host| host.is_empty() || host.contains(['/', ':', '*']))
        {
            let host = route.host.clone().unwrap_or_default();
            return wrong(format!("`{host}` is not a host name; wildcards are not supported"));
        }
    }
    Ok(())
}

/// Checks the endpoints of a host.
///
/// # Errors
/// `impossible`, naming the instance and its address.
pub(crate) fn check_endpoints(message: &Endpoints) -> Result<(), Box<ErrorBody>> {
    for one in &message.endpoints {
        if one.address.parse::<SocketAddr>().is_err() {
            let text = format!("`{}` of {} is not address:port", one.address, one.instance);
            return Err(impossible(text, &message.lane));
        }
    }
    Ok(())
}

/// The listener on which a new table must not fail: the one that it asks for. None where it leaves
/// listener and routes as they are: weights must move, and an undo must work, whatever has become
/// of a port or a certificate meanwhile.
pub(crate) fn must_open(before: Option<&TrafficDoc>, doc: &TrafficDoc) -> Option<SocketAddr> {
    let same = before.is_some_and(|one| one.listen == doc.listen && one.routes == doc.routes);
    if same { None } else { listen_address(&doc.listen).ok() }
}

/// What all lanes together want to listen on, and what is wrong with listeners other than `must`.
/// Certificates are read from their files.
///
/// # Errors
/// `impossible`, of the listener `must`: two lanes want the same requests, it would need TLS and
/// none at the same time, or a certificate cannot be used. `on` is the lane that asks for it.
pub(crate) fn wanted(
    state: &Durable,
    must: Option<SocketAddr>,
    on: &str,
) -> Result<(Wanted, Vec<String>), Box<ErrorBody>> {
    let mut lanes: BTreeMap<SocketAddr, Vec<&TrafficDoc>> = BTreeMap::new();
    for lane in state.lanes.values() {
        let address = listen_address(&lane.doc.listen).map_err(|why| impossible(why, on))?;
        lanes.entry(address).or_default().push(&lane.doc);
    }
    let (mut wanted, mut trouble) = (Wanted::new(), Vec::new());
    for (address, docs) in lanes {
        let tls = match listener(address, &docs) {
            Ok(tls) => tls,
            Err((why, fix)) if must == Some(address) => {
                return Err(impossible(why, on).fix(fix).into());
            }
            Err((why, _)) => {
                trouble.push(format!("{address}: {why}"));
                Tls::Keep
            }
        };
        wanted.insert(address, tls);
    }
    Ok((wanted, trouble))
}

/// What is wrong with a listener, and what to do about it.
type Wrong = (String, &'static str);

fn listener(address: SocketAddr, docs: &[&TrafficDoc]) -> Result<Tls, Wrong> {
    let mut owners = BTreeMap::new();
    let mut secured: Vec<(Option<String>, &TlsSpec)> = Vec::new();
    let mut plain = false;
    for doc in docs {
        let keys: Vec<_> = doc.routes.iter().map(key).collect();
        for id in if keys.is_empty() { vec![(None, String::new())] } else { keys } {
            match owners.entry(id) {
                Entry::Vacant(free) => drop(free.insert(&doc.lane)),
                Entry::Occupied(taken) => {
                    let (host, path) = taken.key();
                    let host = host.as_deref().unwrap_or("any host");
                    let (other, lane) = (taken.get(), &doc.lane);
                    let text = format!("{other} and {lane} both want {host} {path}/ on {address}");
                    return Err((text, "give the services different hosts, paths or listeners"));
                }
            }
        }
        plain |= doc.routes.is_empty();
        for route in &doc.routes {
            match &route.tls {
                Some(files) => secured.push((key(route).0, files)),
                None => plain = true,
            }
        }
    }
    if plain && !secured.is_empty() {
        let text = format!("{address} would have routes with TLS and routes without");
        return Err((text, "use one listener for each"));
    }
    match tls::config(secured.into_iter()) {
        Ok(Some(config)) => Ok(Tls::With(config)),
        Ok(None) => Ok(Tls::Plain),
        Err(why) => Err((why, "give PEM files that the switch can read")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::store::DurableLane;
    use tidegate_wire::spec::{ErrorSpec, Route};
    use tidegate_wire::traffic::VersionWeight;
    use tidegate_wire::{Digest, Fence};

    fn doc(lane: &str, listen: &str, routes: &[(Option<&str>, &str)]) -> TrafficDoc {
        let route = |(host, path): &(Option<&str>, &str)| Route {
            host: host.map(str::to_owned),
            path: (*path).to_owned(),
            tls: None,
        };
        TrafficDoc {
            lane: lane.into(),
            listen: listen.into(),
            routes: routes.iter().map(route).collect(),
            weights: vec![VersionWeight {
                version: "v1".into(),
                digest: Digest::default(),
                weight_bp: 10_000,
            }],
            sticky_cookie: None,
            errors: ErrorSpec { status: vec![(500, 599)], timeout_ms: 1_000 },
            seed: 0,
        }
    }

    fn checked(change: impl FnOnce(&mut TrafficDoc)) -> Result<(), String> {
        let mut doc = doc("prod/web", "127.0.0.1:80", &[]);
        change(&mut doc);
        let table = Table { home: "h".into(), fence: Fence::new(1, 1), doc, shut: false };
        check(&table).map_err(|error| error.message)
    }

    #[test]
    fn a_document_that_cannot_be_carried_out_is_refused_with_what_is_wrong() {
        assert_eq!(checked(|_| {}), Ok(()));
        assert_eq!(checked(|doc| doc.weights.clear()), Ok(()));
        let route = |path: &str, host: Option<&str>| Route {
            host: host.map(str::to_owned),
            path: path.into(),
            tls: None,
        };
        type Change = Box<dyn FnOnce(&mut TrafficDoc)>;
        let cases: [(Change, &str); 9] = [
            (Box::new(|doc| doc.lane.clear()), "no lane"),
            (Box::new(|doc| doc.listen = "nowhere".into()), "127.0.0.1:8080"),
            (Box::new(|doc| doc.weights[0].weight_bp = 9_999), "10000"),
            (Box::new(|doc| doc.weights[0].weight_bp = 20_000), "10000"),
            (
                Box::new(|doc| {
                    doc.weights[0].weight_bp = 5_000;
                    doc.weights.push(doc.weights[0].clone());
                }),
                "two weights",
            ),
            (Box::new(|doc| doc.sticky_cookie = Some("a b".into())), "cookie"),
            (Box::new(|doc| doc.errors.timeout_ms = 0), "0 ms"),
            (Box::new(move |doc| doc.routes = vec![route("x", None)]), "begin with /"),
            (Box::new(move |doc| doc.routes = vec![route("/", Some("*.x"))]), "wildcards"),
        ];
        for (change, wanted) in cases {
            let message = checked(change).unwrap_err();
            assert!(message.contains(wanted), "{message}");
        }
    }

    #[test]
    fn two_lanes_may_share_a_listener_but_not_a_route() {
        let both = |a: TrafficDoc, b: TrafficDoc| {
            let mut state = Durable::default();
            for doc in [a, b] {
                let fence = Fence::new(1, 1);
                let digest = Digest::default();
                let lane = DurableLane { fence, floor: fence, digest, doc };
                state.lanes.insert(lane.doc.lane.clone(), lane);
            }
            let must = must_open(None, &state.lanes["b"].doc);
            wanted(&state, must, "b").map(|(all, _)| all.len()).map_err(|error| error.message)
        };
        let web = || doc("a", ":80", &[(Some("Shop.example"), "/")]);
        assert_eq!(both(web(), doc("b", ":80", &[(Some("shop.example"), "/api")])), Ok(1));
        assert_eq!(both(web(), doc("b", ":80", &[])), Ok(1));
        assert_eq!(both(web(), doc("b", ":81", &[(Some("shop.example"), "/")])), Ok(2));
        let clash = both(web(), doc("b", ":80", &[(Some("shop.example"), "/")])).unwrap_err();
        assert!(clash.contains("a and b both want shop.example / on 0.0.0.0:80"), "{clash}");
        assert!(both(doc("a", ":80", &[]), doc("b", ":80", &[(None, "/")])).is_err());
    }
}
