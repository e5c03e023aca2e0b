//! One try to get an answer from one instance.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Proxy;
use super::body::{BodyWatch, UpBody};
use super::headers::keep_alive_timeout;
use super::pool::{Conn, ConnInfo};
use super::upstream::{InFlight, Instance};
use crate::counts::{Outcome, micros};

/// Instances are on this machine or near it.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// An instance that refused a connection comes last for so long.
const SUSPECT_MS: u64 = 500;
/// Largest head that an instance may answer with.
const HEAD_MAX: usize = 64 << 10;

/// What a try came to.
pub(crate) enum Tried {
    Head(Box<Head>),
    /// Not a byte of the request has left: it can be sent to anybody.
    Unsent {
        message: Box<Request<UpBody>>,
        reused: bool,
        why: String,
    },
    /// It was sent, or part of it.
    Lost {
        outcome: Outcome,
        reused: bool,
        why: String,
    },
    /// The client broke off inside its body.
    ClientGone,
    /// The client did not send its body in time.
    ClientSlow,
}

/// An answer's head, and what its body needs.
pub(crate) struct Head {
    pub(crate) response: Response<Incoming>,
    pub(crate) under_way: InFlight,
    pub(crate) conn: Conn,
    pub(crate) latency_us: u64,
}

/// How a try is made.
pub(crate) struct Terms<'a> {
    /// Only on a connection that has carried nothing yet.
    pub(crate) fresh: bool,
    /// It could be sent again if the connection turned out to be closed.
    pub(crate) repeatable: bool,
    pub(crate) timeout: Duration,
    pub(crate) watch: Option<&'a BodyWatch>,
}

impl Proxy {
    pub(crate) async fn attempt(
        &self,
        under_way: InFlight,
        message: Request<UpBody>,
        terms: &Terms<'_>,
    ) -> Tried {
        let instance = under_way.instance();
        let pooled = if terms.fresh { None } else { instance.pool.take(terms.repeatable) };
        let mut conn = match pooled {
            Some(conn) => conn,
            None => match connect(instance, terms.timeout.min(CONNECT_MAX)).await {
                Ok(conn) => conn,
                Err(why) => {
                    let until = self.clock.now_ms() + SUSPECT_MS;
                    instance.suspect_until_ms.store(until, Ordering::Relaxed);
                    return Tried::Unsent { message: Box::new(message), reused: false, why };
                }
            },
        };
        let started = Instant::now();
        let result = {
            let mut sending = pin!(conn.sender.try_send_request(message));
            loop {
                let since = terms.watch.map_or(started, |watch| watch.last().max(started));
                let deadline = tokio::time::Instant::from_std(since + terms.timeout);
                if let Ok(result) = tokio::time::timeout_at(deadline, sending.as_mut()).await {
                    break result;
                }
                let last = terms.watch.map_or(started, |watch| watch.last().max(started));
                if last.elapsed() < terms.timeout {
                    continue; // the upload has gone on meanwhile
                }
                if terms.watch.is_some_and(BodyWatch::waits_for_client) {
                    return Tried::ClientSlow;
                }
                let why = format!("no answer within {} ms", terms.timeout.as_millis());
                return Tried::Lost { outcome: Outcome::Timeout, reused: conn.reused, why };
            }
        };
        match result {
            Ok(response) => {
                let since = terms.watch.map_or(started, |watch| watch.last().max(started));
                let latency_us = micros(since.elapsed());
                head(response, under_way, conn, latency_us)
            }
            Err(mut error) => {
                let reused = conn.reused;
                if let Some(message) = error.take_message() {
                    let (message, why) = (Box::new(message), chain(error.error()));
                    return Tried::Unsent { message, reused, why };
                }
                if terms.watch.is_some_and(BodyWatch::failed) {
                    return Tried::ClientGone;
                }
                let error = error.into_error();
                let outcome = if error.is_parse() { Outcome::Protocol } else { Outcome::Connect };
                Tried::Lost { outcome, reused, why: chain(&error) }
            }
        }
    }
}

fn head(response: Response<Incoming>, under_way: InFlight, mut conn: Conn, us: u64) -> Tried {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let why = "it switches protocols without having been asked to".to_owned();
        return Tried::Lost { outcome: Outcome::Protocol, reused: conn.reused, why };
    }
    conn.reusable = is_reusable(&response);
    if let Some(seconds) = keep_alive_timeout(response.headers()) {
        under_way.instance().pool.learn_close(Duration::from_secs(seconds));
    }
    Tried::Head(Box::new(Head { response, under_way, conn, latency_us: us }))
}

/// Whether the instance keeps the connection after this answer.
fn is_reusable(response: &Response<Incoming>) -> bool {
    let headers = response.headers();
    let closes = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim().eq_ignore_ascii_case("close"));
    let ends = hyper::body::Body::is_end_stream(response.body())
        || headers.contains_key(CONTENT_LENGTH)
        || headers.contains_key(TRANSFER_ENCODING);
    response.version() == Version::HTTP_11 && ends && !closes
}

async fn connect(instance: &Arc<Instance>, within: Duration) -> Result<Conn, String> {
    let connecting = TcpStream::connect(instance.address);
    let stream = match tokio::time::timeout(within, connecting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("no connection within {} ms", within.as_millis())),
    };
    // Without it small messages wait for acknowledgements; it is no reason to refuse.
    let _ = stream.set_nodelay(true);
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| chain(&error))?;
    let info = Arc::new(ConnInfo::default());
    let (weak, seen) = (Arc::downgrade(instance), Arc::clone(&info));
    let driver = tokio::spawn(async move {
        // How it ended is told to whoever waits for an answer.
        let _ = connection.await;
        if let Some(instance) = weak.upgrade() {
            instance.pool.ended(&seen);
        }
    });
    // Set once: the connection is new.
    let _ = info.driver.set(driver.abort_handle());
    Ok(Conn { sender, info, reused: false, reusable: true })
}

/// An error with its causes.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
