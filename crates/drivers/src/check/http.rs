//! GET, once, without following redirects.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tidegate_core::Reason;
use tidegate_core::machine::Outcome;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::{error, fail, pass};

/// What passes where the check names no statuses.
const GOOD: [(u16, u16); 1] = [(200, 399)];

pub(super) async fn get(url: &str, statuses: &[(u16, u16)], within: Duration) -> Outcome {
    let (uri, address) = match target(url) {
        Ok(target) => target,
        Err(reason) => return Outcome::Refused(reason),
    };
    let started = Instant::now();
    let status = match timeout(within, ask(&uri, &address)).await {
        Ok(Ok(status)) => status,
        Ok(Err(why)) => return error("noAnswer", format!("{url} gives no answer: {why}")),
        Err(_) => {
            let text = format!("{url} gives no answer within {} ms", within.as_millis());
            return error("timeout", text);
        }
    };
    let statuses = if statuses.is_empty() { &GOOD[..] } else { statuses };
    if statuses.iter().any(|(low, high)| (*low..=*high).contains(&status)) {
        pass(format!("{url} answers {status} in {} ms", started.elapsed().as_millis()), status)
    } else {
        fail("status", format!("{url} answers {status}"))
    }
}

/// The URL and the address to connect to.
fn target(url: &str) -> Result<(Uri, String), Reason> {
    let wrong = |why: &str| Reason::new("unsupported", format!("cannot ask {url}: {why}"));
    let uri: Uri = url.parse().map_err(|_| wrong("it is no URL"))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return Err(wrong("HTTPS is not in this version of the check; use a command"));
        }
        Some(_) | None => return Err(wrong("it does not begin with http://")),
    }
    let host = uri.host().ok_or_else(|| wrong("it names no host"))?;
    let address = format!("{host}:{}", uri.port_u16().unwrap_or(80));
    Ok((uri, address))
}

async fn ask(uri: &Uri, address: &str) -> Result<u16, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let authority = uri.authority().map_or(address, http::uri::Authority::as_str);
    // Credentials in a URL are not for the Host header.
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, "tidegate-check")
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    tokio::select! {
        response = sender.send_request(request) => Ok(response?.status().as_u16()),
        Err(why) = connection => Err(why.into()),
    }
}
