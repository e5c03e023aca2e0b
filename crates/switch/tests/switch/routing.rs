//! Which lane a request is for, and what a head looks like on either side.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::ServerName;
use tidegate_wire::Fence;
use tidegate_wire::spec::{Route, TlsSpec};
use tidegate_wire::switch::EndpointState::Ready;
use tidegate_wire::switch::Table;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::backend::{Backend, Behaviour};
use super::support::client::{Browser, raw};
use super::support::rig::{Rig, endpoint};

fn route(host: Option<&str>, path: &str) -> Route {
    Route { host: host.map(str::to_owned), path: path.into(), tls: None }
}

async fn lane(rig: &Rig, name: &str, routes: Vec<Route>) -> Backend {
    let backend = Backend::good(name).await;
    rig.endpoints_of(name, vec![endpoint(name, "v1", backend.address, Ready)]).await;
    let mut doc = rig.doc(&[("v1", 10_000)]);
    doc.lane = name.into();
    doc.routes = routes;
    rig.apply(doc).await;
    backend
}

#[tokio::test]
async fn host_comes_before_path_and_the_longest_prefix_wins() {
    let rig = Rig::start().await;
    let _all = [
        lane(&rig, "p/shop", vec![route(Some("Shop.example"), "/")]).await,
        lane(&rig, "p/api", vec![route(Some("shop.example"), "/api"), route(None, "/api/v2")])
            .await,
        lane(&rig, "p/any", vec![route(None, "/any")]).await,
    ];
    let mut browser = Browser::new(rig.listen);
    for (host, path, wanted) in [
        ("shop.example", "/", "p/shop"),
        ("SHOP.example:8080", "/apix", "p/shop"),
        ("shop.example", "/api", "p/api"),
        ("shop.example.", "/api/x?y=/any", "p/api"),
        ("shop.example", "/any", "p/shop"),
        ("other.example", "/any/thing", "p/any"),
        ("other.example", "/api/v2/x", "p/api"),
    ] {
        let answer = browser.send("GET", path, &[("host", host)], "").await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, wanted), "{host} {path}");
    }
    for (host, path) in [("other.example", "/"), ("other.example", "/anything")] {
        let answer = browser.send("GET", path, &[("host", host)], "").await.unwrap();
        assert_eq!(answer.status, 404);
        assert!(answer.body.starts_with("tidegate: no route for host other.example"));
    }
    assert_eq!(rig.report().await.refused, 2);
}

#[tokio::test]
async fn two_lanes_that_want_the_same_requests_are_refused_and_nothing_changes() {
    let rig = Rig::start().await;
    let _shop = lane(&rig, "p/shop", vec![route(Some("shop.example"), "/")]).await;
    let mut doc = rig.doc(&[("v1", 10_000)]);
    doc.lane = "p/thief".into();
    doc.routes = vec![route(Some("SHOP.example"), "/")];
    let fence = Fence::new(1, rig.next());
    let table = Table { home: "home-1".into(), fence, doc, shut: false };
    let (status, why) = rig.send_table(&table).await.unwrap_err();
    assert_eq!(status, 422);
    assert!(why.contains("impossible") && why.contains("p/shop and p/thief"), "{why}");
    assert_eq!(rig.report().await.lanes.len(), 1);
}

#[tokio::test]
async fn heads_are_cleaned_on_the_way_to_the_instance_and_back() {
    let rig = Rig::start().await;
    let backend = lane(&rig, "p/web", Vec::new()).await;
    let sent = format!(
        "POST http://shop.example/echo?q=1 HTTP/1.1\r\nhost: {}\r\nconnection: close, x-secret\r\n\
         x-secret: 1\r\nkeep-alive: 1\r\nte: trailers\r\nproxy-connection: x\r\n\
         transfer-encoding: chunked\r\nx-forwarded-for: 9.9.9.9\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        rig.listen
    );
    let answer = raw(rig.listen, sent.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hi"), "{answer}");
    assert!(!answer.to_lowercase().contains("x-tidegate"));
    let head = backend.heads().remove(0);
    assert_eq!(head.uri.to_string(), "/echo?q=1");
    for gone in ["x-secret", "keep-alive", "te", "proxy-connection", "connection"] {
        assert!(!head.headers.contains_key(gone), "{gone}");
    }
    assert_eq!(head.headers["host"], "shop.example");
    assert_eq!(head.headers["x-forwarded-for"], "9.9.9.9, 127.0.0.1");
    assert_eq!(head.headers["x-forwarded-proto"], "http");
    assert_eq!(head.headers["x-forwarded-host"], "shop.example");

    let rig = Rig::start().await;
    let text = "HTTP/1.1 200 OK\r\nconnection: x-inner\r\nx-inner: 1\r\nkeep-alive: timeout=9\r\n\
                x-outer: 1\r\ncontent-length: 0\r\n\r\n";
    let backend = Backend::start("v1", Behaviour::Raw(text)).await;
    rig.endpoints(&[("a", "v1", backend.address, Ready)]).await;
    rig.weights(&[("v1", 10_000)]).await;
    let answer = Browser::new(rig.listen).get("/").await.unwrap();
    assert!(answer.headers.contains_key("x-outer"));
    assert!(!answer.headers.contains_key("x-inner") && !answer.headers.contains_key("keep-alive"));
}

#[tokio::test]
async fn upgrades_and_tunnels_are_refused_with_a_reason() {
    let rig = Rig::start().await;
    let backend = lane(&rig, "p/web", Vec::new()).await;
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
    let mut browser = Browser::new(rig.listen);
    let answer = browser.send("GET", "/", &upgrade, "").await.unwrap();
    assert_eq!(answer.status, 501);
    assert!(answer.body.contains("websocket is not supported"), "{}", answer.body);
    let answer =
        raw(rig.listen, b"CONNECT x:1 HTTP/1.1\r\nhost: x:1\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 501"), "{answer}");
    assert_eq!(rig.report().await.refused, 2);
    assert!(backend.heads().is_empty());
}

fn certificate(folder: &Path, name: &str) -> TlsSpec {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let files = TlsSpec {
        certificate: folder.join(format!("{name}.pem")).display().to_string(),
        key: folder.join(format!("{name}.key")).display().to_string(),
    };
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    files
}

/// Asks for `name`, trusting only the certificate in the file.
async fn over_tls(address: SocketAddr, name: &str, trusted: &TlsSpec) -> Result<String, String> {
    use rustls_pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    let pem = rustls_pki_types::CertificateDer::from_pem_file(&trusted.certificate).unwrap();
    roots.add(pem).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let name_of = ServerName::try_from(name.to_owned()).unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut tls = connector.connect(name_of, stream).await.map_err(|error| error.to_string())?;
    let ask = format!("GET / HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n");
    tls.write_all(ask.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tls.read_to_string(&mut answer).await.map_err(|error| error.to_string())?;
    Ok(answer)
}

#[tokio::test]
async fn tls_takes_the_certificate_of_the_name_and_a_new_one_with_the_next_table() {
    let rig = Rig::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (certificate(folder.path(), "a.example"), certificate(folder.path(), "b.example"));
    let secured = |host: &str, tls: &TlsSpec| {
        vec![Route { tls: Some(tls.clone()), ..route(Some(host), "/") }]
    };
    let first = lane(&rig, "p/a", secured("a.example", &a)).await;
    let _second = lane(&rig, "p/b", secured("b.example", &b)).await;
    for (name, files, wanted) in [("a.example", &a, "p/a"), ("b.example", &b, "p/b")] {
        let answer = over_tls(rig.listen, name, files).await.unwrap();
        assert!(answer.ends_with(wanted), "{answer}");
    }
    assert!(over_tls(rig.listen, "a.example", &b).await.is_err());
    assert_eq!(first.heads()[0].headers["x-forwarded-proto"], "https");

    let old = folder.path().join("old.pem");
    std::fs::copy(&a.certificate, &old).unwrap();
    let a = certificate(folder.path(), "a.example");
    let mut doc = rig.doc(&[("v1", 10_000)]);
    doc.lane = "p/a".into();
    doc.routes = secured("a.example", &a);
    rig.apply(doc.clone()).await;
    assert!(over_tls(rig.listen, "a.example", &a).await.is_ok());
    let before = TlsSpec { certificate: old.display().to_string(), key: a.key.clone() };
    assert!(over_tls(rig.listen, "a.example", &before).await.is_err());

    // New routes need a certificate that works; weights move and users are served without.
    std::fs::write(&a.key, "no key").unwrap();
    doc.seed += 1;
    rig.apply(doc.clone()).await;
    assert!(rig.report().await.trouble[0].contains("a.example.key"));
    assert!(over_tls(rig.listen, "a.example", &a).await.is_ok());
    doc.routes.push(Route { path: "/more".into(), ..doc.routes[0].clone() });
    let fence = Fence::new(1, rig.next());
    let table = Table { home: "home-1".into(), fence, doc, shut: false };
    let (status, why) = rig.send_table(&table).await.unwrap_err();
    assert!(status == 422 && why.contains("a.example.key"), "{why}");
    assert!(over_tls(rig.listen, "a.example", &a).await.is_ok());
}
