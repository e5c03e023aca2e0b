//! The client itself.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::line::{ErrorClass, FOOTER, HEADER, Line};
use super::report::LoadReport;

/// Bytes of an answer that are read; a longer one is a failure.
const ANSWER_MAX: usize = 1 << 20;

/// Connections that may turn out closed, with nothing sent, before a request is given up.
const FRESH_TRIES: u32 = 8;

/// What to send.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Where to.
    pub target: SocketAddr,
    /// The `Host` header.
    pub host: String,
    /// The path; `?n=NUMBER` is added.
    pub path: String,
    /// Requests per second, sent when due whatever became of those before.
    pub rate: f64,
    /// At most so many connections; a request that finds none free waits, and its line says so.
    pub connections: usize,
    /// Keep connections, or open one for every request.
    pub keep_alive: bool,
    /// Make every second request a POST.
    pub posts: bool,
    /// For one request: connecting, sending and reading the whole answer.
    pub timeout: Duration,
    /// Stop by itself after so many requests.
    pub max_requests: u64,
    /// Stop by itself after so long.
    pub max_time: Duration,
    /// The raw log; overwritten.
    pub log: PathBuf,
}

impl LoadOptions {
    /// 100 requests a second on 16 kept connections, half of them POST, for at most an hour.
    pub fn new(target: SocketAddr, log: impl Into<PathBuf>) -> Self {
        Self {
            target,
            host: target.to_string(),
            path: "/".into(),
            rate: 100.0,
            connections: 16,
            keep_alive: true,
            posts: true,
            timeout: Duration::from_secs(10),
            max_requests: 1_000_000,
            max_time: Duration::from_secs(3600),
            log: log.into(),
        }
    }
}

/// Why a load says nothing.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The raw log cannot be written, read or believed.
    #[error("raw log {0}: {1}")]
    Log(PathBuf, String),
    /// The options make no sense, or the system gives no thread.
    #[error("load client: {0}")]
    Client(String),
}

/// A load that runs on a thread of its own until it is stopped (or dropped).
#[derive(Debug)]
pub struct Load {
    log: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), LoadError>>>,
}

impl Load {
    /// Starts sending.
    ///
    /// # Errors
    /// [`LoadError`] when the log cannot be opened or the system gives no thread.
    pub fn start(options: LoadOptions) -> Result<Self, LoadError> {
        let (stop, stopped) = oneshot::channel();
        let log = options.log.clone();
        // Emptied before this returns: an earlier run's log must not be taken for this one's.
        File::create(&log).map_err(|error| LoadError::Log(log.clone(), error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| LoadError::Client(format!("no runtime: {error}")))?;
        let work = move || {
            runtime.block_on(run(options, async {
                let _ = stopped.await;
            }))
        };
        let thread = std::thread::Builder::new()
            .name("load".into())
            .spawn(work)
            .map_err(|error| LoadError::Client(format!("no thread: {error}")))?;
        Ok(Self { log, stop: Some(stop), thread: Some(thread) })
    }

    /// Sends no more, waits for what is under way (at most the timeout), and counts the log.
    ///
    /// # Errors
    /// [`LoadError`] when the log cannot be believed.
    pub fn stop(mut self) -> Result<LoadReport, LoadError> {
        self.end()?;
        LoadReport::read(&self.log)
    }

    fn end(&mut self) -> Result<(), LoadError> {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(ended)) => ended,
            Some(Err(_)) => Err(LoadError::Client("the thread panicked".into())),
            None => Ok(()),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// Sends until `stop` is ready or a bound of the options is reached, then waits for the answers.
///
/// # Errors
/// [`LoadError`] when the log cannot be written.
pub async fn run(options: LoadOptions, stop: impl Future<Output = ()>) -> Result<(), LoadError> {
    if !(options.rate > 0.0 && options.rate.is_finite()) || options.connections == 0 {
        return Err(LoadError::Client("rate and connections have to be above 0".into()));
    }
    let (lines, writer) = start_log(&options.log)?;
    let (max_requests, max_time) = (options.max_requests, options.max_time);
    let gap = Duration::from_secs_f64(1.0 / options.rate);
    let client = Arc::new(Client::new(options, lines));
    let mut under_way = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    let mut n = 0_u64;
    let start = Instant::now();
    while n < max_requests {
        let after = gap.mul_f64(n as f64);
        if after > max_time {
            break;
        }
        tokio::select! {
            biased;
            () = &mut stop => break,
            () = tokio::time::sleep_until((start + after).into()) => {}
        }
        let one = Arc::clone(&client);
        let due_us = client.clock.us(start + after);
        under_way.spawn(async move { one.request(n, due_us).await });
        while under_way.try_join_next().is_some() {}
        n += 1;
    }
    while under_way.join_next().await.is_some() {}
    drop(client);
    // All senders are gone, so the writer comes to its end.
    tokio::task::spawn_blocking(move || writer.join())
        .await
        .map_err(|error| LoadError::Client(error.to_string()))?
        .map_err(|_| LoadError::Client("the log's thread panicked".into()))?
}

type Writer = JoinHandle<Result<(), LoadError>>;

fn start_log(path: &Path) -> Result<(Sender<Line>, Writer), LoadError> {
    let failed = |error: io::Error| LoadError::Log(path.to_owned(), error.to_string());
    let mut file = BufWriter::new(File::create(path).map_err(failed)?);
    writeln!(file, "{HEADER}").map_err(failed)?;
    let (sender, lines) = std::sync::mpsc::channel();
    let path = path.to_owned();
    let write = move || {
        write_log(&mut file, &lines).map_err(|error| LoadError::Log(path, error.to_string()))
    };
    let writer = std::thread::Builder::new().name("load-log".into()).spawn(write);
    Ok((sender, writer.map_err(|error| LoadError::Client(format!("no thread: {error}")))?))
}

fn write_log(file: &mut BufWriter<File>, lines: &Receiver<Line>) -> io::Result<()> {
    let mut sent = 0_u64;
    loop {
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => {
                writeln!(file, "{line}")?;
                sent += 1;
            }
            Err(RecvTimeoutError::Timeout) => file.flush()?,
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    writeln!(file, "{FOOTER}{sent}")?;
    file.flush()
}

/// Unix time that only moves forward.
struct Clock {
    start: Instant,
    start_us: u64,
}

impl Clock {
    fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            start: Instant::now(),
            start_us: u64::try_from(since.as_micros()).unwrap_or(u64::MAX),
        }
    }

    fn us(&self, at: Instant) -> u64 {
        let passed = at.saturating_duration_since(self.start).as_micros();
        self.start_us.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    fn now_us(&self) -> u64 {
        self.us(Instant::now())
    }
}

/// A kept connection.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// A second handle on the socket, to look for a FIN without waiting for the event loop.
    socket: std::net::TcpStream,
    _counted: Counted,
}

/// One open connection in the count of them; also when its request is given up half-way.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    async fn open(target: SocketAddr, counted: Counted) -> io::Result<Self> {
        let stream = TcpStream::connect(target).await?;
        stream.set_nodelay(true)?;
        let stream = stream.into_std()?;
        let socket = stream.try_clone()?;
        let io = TokioIo::new(TcpStream::from_std(stream)?);
        let (sender, connection) =
            hyper::client::conn::http1::handshake(io).await.map_err(io::Error::other)?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Self { sender, socket, _counted: counted })
    }

    /// Whether nothing has come in: no FIN, no reset, no bytes that nobody asked for.
    fn quiet(&self) -> bool {
        match self.socket.peek(&mut [0]) {
            Ok(_) => false,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    async fn usable(&mut self) -> bool {
        self.sender.ready().await.is_ok() && self.quiet()
    }
}

/// How a request ended: status, version, or the class of the failure.
struct Ended {
    status: u16,
    version: Option<String>,
    error: Option<ErrorClass>,
}

impl Ended {
    const fn failed(error: ErrorClass) -> Self {
        Self { status: 0, version: None, error: Some(error) }
    }
}

struct Client {
    options: LoadOptions,
    clock: Clock,
    lines: Sender<Line>,
    free: Semaphore,
    open: Arc<AtomicUsize>,
    idle: Mutex<VecDeque<Connection>>,
}

impl Client {
    fn new(options: LoadOptions, lines: Sender<Line>) -> Self {
        Self {
            free: Semaphore::new(options.connections),
            open: Arc::new(AtomicUsize::new(0)),
            idle: Mutex::new(VecDeque::new()),
            clock: Clock::new(),
            lines,
            options,
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, VecDeque<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn request(&self, n: u64, due_us: u64) {
        let method = if self.options.posts && n % 2 == 1 { "POST" } else { "GET" };
        // Never closed, so this cannot fail; without a permit there would simply be no limit.
        let _permit = self.free.acquire().await;
        let sent_us = AtomicU64::new(self.clock.now_us());
        let ended = timeout(self.options.timeout, self.exchange(n, method, &sent_us)).await;
        let Ended { status, version, error } = ended.unwrap_or(Ended::failed(ErrorClass::Timeout));
        let _ = self.lines.send(Line {
            n,
            sent_us: sent_us.into_inner(),
            answered_us: self.clock.now_us(),
            status: if error.is_some() { 0 } else { status },
            version: version.unwrap_or_else(|| "-".into()),
            method,
            error,
            due_us,
        });
    }

    async fn exchange(&self, n: u64, method: &str, sent_us: &AtomicU64) -> Ended {
        let Ok(mut request) = self.build(n, method) else {
            return Ended::failed(ErrorClass::Other);
        };
        for _ in 0..FRESH_TRIES {
            let mut connection = match self.connection().await {
                Ok(connection) => connection,
                Err(error) => return Ended::failed(class_of_connect(&error)),
            };
            sent_us.store(self.clock.now_us(), Ordering::Relaxed);
            match connection.sender.try_send_request(request).await {
                Ok(response) => {
                    let ended = read(n, response).await;
                    if ended.error.is_none() && self.options.keep_alive {
                        self.idle().push_back(connection);
                    }
                    return ended;
                }
                Err(mut error) => match error.take_message() {
                    // Nothing of it was sent: this is not a second try.
                    Some(unsent) => request = unsent,
                    None => return Ended::failed(class_of(error.error())),
                },
            }
        }
        Ended::failed(ErrorClass::Closed)
    }

    fn build(&self, n: u64, method: &str) -> Result<Request<Full<Bytes>>, http::Error> {
        let body =
            if method == "POST" { Bytes::from(format!("request {n}")) } else { Bytes::new() };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}?n={n}", self.options.path))
            .header("host", &self.options.host)
            .header("x-request-id", n);
        if !self.options.keep_alive {
            request = request.header("connection", "close");
        }
        request.body(Full::new(body))
    }

    /// A kept connection that is known to be open, or a new one: new ones first until there are as
    /// many as allowed, so that the load really uses them all.
    async fn connection(&self) -> io::Result<Connection> {
        while self.options.keep_alive
            && self.open.load(Ordering::Relaxed) >= self.options.connections
        {
            let Some(mut kept) = self.idle().pop_front() else { break };
            if kept.usable().await {
                return Ok(kept);
            }
        }
        Connection::open(self.options.target, Counted::new(&self.open)).await
    }
}

async fn read(n: u64, response: Response<Incoming>) -> Ended {
    let (head, body) = response.into_parts();
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let named = header("x-version").map(word);
    if header("x-request-id").is_some_and(|id| id != n.to_string()) {
        return Ended { status: 0, version: named, error: Some(ErrorClass::Mixed) };
    }
    match Limited::new(body, ANSWER_MAX).collect().await {
        Ok(body) => {
            let version = named.or_else(|| version_in(&body.to_bytes()));
            Ended { status: head.status.as_u16(), version, error: None }
        }
        Err(_) => Ended { status: 0, version: named, error: Some(ErrorClass::Cut) },
    }
}

/// `version=WORD` anywhere in a text: how a page that we did not write says its version.
fn version_in(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let (_, rest) = text.split_once("version=")?;
    Some(word(rest))
}

/// The leading characters that a version's name may have.
fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).take(80).collect()
}

fn io_cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        cause = error.source();
    }
    None
}

fn class_of_connect(error: &io::Error) -> ErrorClass {
    if error.kind() == io::ErrorKind::ConnectionReset {
        ErrorClass::Reset
    } else {
        ErrorClass::Refused
    }
}

fn class_of(error: &hyper::Error) -> ErrorClass {
    let kind = io_cause(error).map(io::Error::kind);
    if error.is_parse() {
        ErrorClass::Protocol
    } else if matches!(kind, Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)) {
        ErrorClass::Reset
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        ErrorClass::Closed
    } else {
        ErrorClass::Other
    }
}

#[cfg(test)]
mod tests {
    use super::version_in;

    #[test]
    fn a_version_is_found_in_a_page() {
        assert_eq!(version_in(b"<p>version=v1.2-a</p>").as_deref(), Some("v1.2-a"));
        assert_eq!(version_in(b"<p>hello</p>"), None);
    }
}
