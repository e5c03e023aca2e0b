//! The service: `/` and `/work` are its work, `/health`, `/health/ready` and `/version` what
//! probes ask, `/behave` how it is told to misbehave.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg32;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::behaviour::Behaviour;

/// Bytes of a request's body that are read; more is answered with 413.
const BODY_MAX: usize = 1 << 20;

/// How to serve.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(long)]
    pub listen: SocketAddr,
    /// The version that it says it is.
    #[arg(long)]
    pub version: String,
    /// A file that gets one line for every request to `/` and `/work`, before it is answered:
    /// request id, method, path, version, process id. For counting effects.
    #[arg(long, env = "EXAMPLE_REQUEST_LOG")]
    pub request_log: Option<PathBuf>,
    /// A file that gets the address that it listens on.
    #[arg(long)]
    pub address_file: Option<PathBuf>,
    /// Milliseconds after SIGTERM in which it still accepts connections, not ready any more.
    #[arg(long, default_value_t = 0)]
    pub lame_duck_ms: u64,
    /// Milliseconds after that for requests under way; then it ends all the same.
    #[arg(long, default_value_t = 30_000)]
    pub drain_ms: u64,
    /// Seed of the choices (which request fails, how slow it is).
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// How it misbehaves.
    #[command(flatten)]
    pub behaviour: Behaviour,
}

impl Options {
    /// A service that behaves, at this address and of this version.
    pub fn new(listen: SocketAddr, version: impl Into<String>) -> Self {
        Self {
            listen,
            version: version.into(),
            request_log: None,
            address_file: None,
            lame_duck_ms: 0,
            drain_ms: 30_000,
            seed: 0,
            behaviour: Behaviour::default(),
        }
    }
}

/// Why it does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It was told to.
    #[error("crash at start, as told")]
    CrashAtStart,
    /// The address is taken or not of this machine.
    #[error("cannot listen on {0}: {1}; choose another address")]
    Listen(SocketAddr, #[source] io::Error),
    /// A file cannot be opened or written.
    #[error("cannot write {0}: {1}")]
    File(PathBuf, #[source] io::Error),
    /// The system gives no signal handler.
    #[error("cannot wait for signals: {0}")]
    Signal(#[source] io::Error),
}

struct Service {
    options: Options,
    behaviour: Mutex<Behaviour>,
    rng: Mutex<Pcg32>,
    requests: AtomicU64,
    leaked: Mutex<VecDeque<Vec<u8>>>,
    log: Option<Mutex<File>>,
    stopping: watch::Sender<bool>,
    refuse: Notify,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves until SIGTERM or SIGINT and all requests under way are answered.
///
/// # Errors
/// [`ServeError`] when it cannot start, or was told to crash.
pub async fn serve(options: Options) -> Result<(), ServeError> {
    let mut term = signal(SignalKind::terminate()).map_err(ServeError::Signal)?;
    let mut int = signal(SignalKind::interrupt()).map_err(ServeError::Signal)?;
    if options.behaviour.crash_at_start {
        return Err(ServeError::CrashAtStart);
    }
    tokio::time::sleep(Duration::from_millis(options.behaviour.start_delay_ms)).await;
    let listener = if options.behaviour.refuse { None } else { Some(bind(&options).await?) };
    let log = match &options.request_log {
        None => None,
        Some(path) => Some(Mutex::new(
            File::options()
                .create(true)
                .append(true)
                .open(path)
                .map_err(|error| ServeError::File(path.clone(), error))?,
        )),
    };
    let (lame_duck, drain) = (options.lame_duck_ms, options.drain_ms);
    let service = Arc::new(Service {
        behaviour: Mutex::new(options.behaviour.clone()),
        rng: Mutex::new(Pcg32::seed_from_u64(options.seed)),
        requests: AtomicU64::new(0),
        leaked: Mutex::new(VecDeque::new()),
        log,
        stopping: watch::Sender::new(false),
        refuse: Notify::new(),
        options,
    });
    let mut connections = JoinSet::new();
    let (last_words, stop_accepting) = watch::channel(false);
    let stopped = async {
        stop_signal(&service, &mut term, &mut int).await;
        service.stopping.send_replace(true);
        tokio::time::sleep(Duration::from_millis(lame_duck)).await;
    };
    tokio::select! {
        () = accept(&service, listener, &mut connections, &stop_accepting) => {}
        () = stopped => {}
    }
    last_words.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(Duration::from_millis(drain), drained).await;
    Ok(())
}

async fn bind(options: &Options) -> Result<TcpListener, ServeError> {
    let listen = |error| ServeError::Listen(options.listen, error);
    let listener = TcpListener::bind(options.listen).await.map_err(listen)?;
    if let Some(path) = &options.address_file {
        let address = listener.local_addr().map_err(listen)?;
        // Renamed into place, so that a reader never sees half an address.
        let part = path.with_extension("part");
        std::fs::write(&part, address.to_string())
            .and_then(|()| std::fs::rename(&part, path))
            .map_err(|error| ServeError::File(path.clone(), error))?;
    }
    Ok(listener)
}

async fn stop_signal(service: &Service, term: &mut Signal, int: &mut Signal) {
    loop {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        if !locked(&service.behaviour).hang_on_stop {
            return;
        }
    }
}

async fn accept(
    service: &Arc<Service>,
    mut listener: Option<TcpListener>,
    connections: &mut JoinSet<()>,
    stop: &watch::Receiver<bool>,
) {
    loop {
        while connections.try_join_next().is_some() {}
        let Some(open) = &listener else { return std::future::pending().await };
        tokio::select! {
            accepted = open.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(Arc::clone(service), stream, stop.clone()));
                }
                // Out of descriptors, or the peer is gone already: the next one may do.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            () = service.refuse.notified() => listener = None,
        }
    }
}

async fn connection(service: Arc<Service>, stream: TcpStream, mut stop: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let answer = service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, std::convert::Infallible>(service.answer(request).await) }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => {}
    }
    // Answers what is under way, says `connection: close`, and closes what is idle.
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

impl Service {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body = match http_body_util::Limited::new(body, BODY_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => return self.plain(StatusCode::PAYLOAD_TOO_LARGE, "body too large\n"),
        };
        match (&head.method, head.uri.path()) {
            (_, "/health") => self.plain(StatusCode::OK, "live\n"),
            (_, "/health/ready") => {
                if *self.stopping.borrow() || locked(&self.behaviour).unready {
                    self.plain(StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
                } else {
                    self.plain(StatusCode::OK, "ready\n")
                }
            }
            (_, "/version") => {
                let wrong = locked(&self.behaviour).wrong_version.clone();
                let version = wrong.unwrap_or_else(|| self.options.version.clone());
                self.plain(StatusCode::OK, serde_json::json!({ "version": version }).to_string())
            }
            (&Method::POST, "/behave") => self.behave(&body),
            (_, "/" | "/work") => self.work(&head, body.len()).await,
            _ => self.plain(StatusCode::NOT_FOUND, "no such page\n"),
        }
    }

    fn behave(&self, change: &[u8]) -> Response<Body> {
        let mut behaviour = locked(&self.behaviour);
        match behaviour.changed(change) {
            Ok(changed) => {
                if changed.refuse {
                    self.refuse.notify_one();
                }
                *behaviour = changed;
                self.plain(StatusCode::OK, "so be it\n")
            }
            Err(error) => self.plain(StatusCode::BAD_REQUEST, format!("{error}\n")),
        }
    }

    async fn work(&self, head: &http::request::Parts, body_len: usize) -> Response<Body> {
        let behaviour = locked(&self.behaviour).clone();
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        if behaviour.crash_after.is_some_and(|after| number >= after) {
            std::process::abort();
        }
        if behaviour.leak_bytes > 0 {
            // Written to, so that it is really taken.
            locked(&self.leaked).push_back(vec![1; behaviour.leak_bytes]);
        }
        let id = request_id(head);
        if let Err(error) = self.note(head, &id) {
            let text = format!("request log: {error}\n");
            return self.plain(StatusCode::INTERNAL_SERVER_ERROR, text);
        }
        tokio::time::sleep(Duration::from_millis(self.delay_ms(head, &behaviour))).await;
        let status = if self.chance(behaviour.errors) {
            StatusCode::from_u16(behaviour.error_status)
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        } else {
            StatusCode::OK
        };
        let text = format!(
            "version={} n={id} bytes={body_len} pid={}\n",
            self.options.version,
            std::process::id()
        );
        let mut response = self.plain(status, text);
        if let Ok(id) = http::HeaderValue::from_str(&id) {
            response.headers_mut().insert("x-request-id", id);
        }
        if self.chance(behaviour.cuts) {
            response.body_mut().cut = true;
        }
        response
    }

    fn delay_ms(&self, head: &http::request::Parts, behaviour: &Behaviour) -> u64 {
        let mut delay = behaviour.latency_ms;
        if behaviour.jitter_ms > 0 {
            let drawn = u64::from(locked(&self.rng).next_u32());
            delay += drawn % (behaviour.jitter_ms + 1);
        }
        if self.chance(behaviour.slow) {
            delay += behaviour.slow_ms;
        }
        delay + query(head, "ms").and_then(|ms| ms.parse::<u64>().ok()).unwrap_or(0).min(60_000)
    }

    fn chance(&self, share: f64) -> bool {
        share > 0.0 && f64::from(locked(&self.rng).next_u32()) < share * f64::from(u32::MAX)
    }

    /// One write per line, so that lines of several processes do not mix.
    fn note(&self, head: &http::request::Parts, id: &str) -> io::Result<()> {
        let Some(log) = &self.log else { return Ok(()) };
        let (method, path) = (&head.method, head.uri.path());
        let line =
            format!("{id} {method} {path} {} {}\n", self.options.version, std::process::id());
        locked(log).write_all(line.as_bytes())
    }

    fn plain(&self, status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
        let mut response =
            Response::new(Body { text: Some(text.into()), cut: false, flushed: false });
        *response.status_mut() = status;
        if let Ok(version) = http::HeaderValue::from_str(&self.options.version) {
            response.headers_mut().insert("x-version", version);
        }
        response
    }
}

fn request_id(head: &http::request::Parts) -> String {
    let header = head.headers.get("x-request-id").and_then(|id| id.to_str().ok());
    let id = header.or_else(|| query(head, "n")).unwrap_or("-");
    id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect()
}

fn query<'a>(head: &'a http::request::Parts, name: &str) -> Option<&'a str> {
    let pairs = head.uri.query()?.split('&');
    pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, v)| v)
}

/// A text, or the first half of one and then a broken connection.
struct Body {
    text: Option<Bytes>,
    cut: bool,
    flushed: bool,
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let cut = self.cut;
        match self.text.take() {
            Some(text) if cut => {
                let half = text.slice(..text.len() / 2);
                Poll::Ready(Some(Ok(Frame::data(half))))
            }
            Some(text) => Poll::Ready(Some(Ok(Frame::data(text)))),
            // Once round the loop, so that the head and the half are on the wire before the end.
            None if cut && !self.flushed => {
                self.flushed = true;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            None if cut => Poll::Ready(Some(Err(io::Error::other("cut, as told")))),
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        let length = self.text.as_ref().map_or(0, Bytes::len);
        http_body::SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX))
    }
}
