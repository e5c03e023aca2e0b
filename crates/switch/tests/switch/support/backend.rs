//! Instances: one that works, and all the ways not to.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// What it does with requests.
#[derive(Debug, Clone)]
pub(crate) enum Behaviour {
    /// Answers its name, after this time, closing connections that are idle for that time.
    Good { work: Duration, idle: Duration },
    /// Answers this status.
    Status(u16),
    /// Accepts and closes at once.
    Closes,
    /// Takes the request and closes without a word.
    Swallows,
    /// Never answers.
    Silent,
    /// Answers what is not HTTP.
    Garbage,
    /// Promises more body than it sends.
    CutsBody,
    /// Sends a head that is larger than any.
    HugeHead,
    /// Sends these bytes as its whole answer to each request, then keeps the connection.
    Raw(&'static str),
    /// Answers, closes a connection that is idle for so long, and from three quarters of that on
    /// closes it at the very moment in which a request comes: the race, made certain.
    Races(Duration),
    /// Answers after it was released.
    Held(Arc<Notify>),
}

/// An instance.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    name: String,
    behaviour: Behaviour,
    /// How often each request id was seen.
    ids: Mutex<BTreeMap<String, u32>>,
    heads: Mutex<Vec<http::request::Parts>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Backend {
    pub(crate) async fn start(name: &str, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            behaviour,
            ids: Mutex::default(),
            heads: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            tasks: Mutex::default(),
        });
        let inner = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                inner.connections.fetch_add(1, Ordering::SeqCst);
                inner.open.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(&inner);
                let counted = Counted(Arc::clone(&inner));
                let task = tokio::spawn(async move {
                    let _counted = counted;
                    serve(shared, stream).await;
                });
                inner.tasks.lock().unwrap().push(task.abort_handle());
            }
        });
        Self { address, shared, task: task.abort_handle() }
    }

    pub(crate) async fn good(name: &str) -> Self {
        let idle = Duration::from_secs(60);
        Self::start(name, Behaviour::Good { work: Duration::ZERO, idle }).await
    }

    /// As SIGKILL would: the listener and all connections are gone at once.
    pub(crate) fn kill(&self) {
        self.task.abort();
        for task in self.shared.tasks.lock().unwrap().drain(..) {
            task.abort();
        }
    }

    pub(crate) fn seen(&self) -> BTreeMap<String, u32> {
        self.shared.ids.lock().unwrap().clone()
    }

    pub(crate) fn heads(&self) -> Vec<http::request::Parts> {
        self.shared.heads.lock().unwrap().clone()
    }

    /// Connections ever.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections now.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }
}

struct Counted(Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn serve(shared: Arc<Shared>, mut stream: TcpStream) {
    let raw = match &shared.behaviour {
        Behaviour::Closes => return,
        Behaviour::Swallows => {
            let _ = read_head(&mut stream).await;
            return;
        }
        Behaviour::Silent => {
            let mut sink = vec![0; 1 << 16];
            while stream.read(&mut sink).await.is_ok_and(|count| count > 0) {}
            return;
        }
        Behaviour::Garbage => "BLAH BLAH\r\n\r\n".to_owned(),
        Behaviour::CutsBody => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_owned(),
        Behaviour::HugeHead => {
            format!("HTTP/1.1 200 OK\r\nx-huge: {}\r\n\r\n", "x".repeat(200_000))
        }
        Behaviour::Raw(text) => {
            while read_head(&mut stream).await {
                if stream.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
            return;
        }
        Behaviour::Races(idle) => return race(&shared, *idle, stream).await,
        Behaviour::Good { .. } | Behaviour::Status(_) | Behaviour::Held(_) => {
            return serve_http(shared, stream).await;
        }
    };
    if read_head(&mut stream).await {
        let _ = stream.write_all(raw.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

async fn race(shared: &Shared, idle: Duration, mut stream: TcpStream) {
    let mut since = None;
    loop {
        let head = tokio::time::timeout(idle, head_of(&mut stream)).await;
        let Ok(Some(head)) = head else { return };
        if since.is_some_and(|since: Instant| since.elapsed() >= idle * 3 / 4) {
            return;
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let value = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned())
        };
        *shared.ids.lock().unwrap().entry(value("x-id:").unwrap()).or_default() += 1;
        let length = value("content-length:").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        since = Some(Instant::now());
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nv1").await.is_err() {
            return;
        }
    }
}

async fn read_head(stream: &mut TcpStream) -> bool {
    head_of(stream).await.is_some()
}

async fn head_of(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte).await {
            Ok(1) => head.push(byte[0]),
            Ok(_) | Err(_) => return None,
        }
    }
    Some(head)
}

async fn serve_http(shared: Arc<Shared>, stream: TcpStream) {
    let idle = if let Behaviour::Good { idle, .. } = shared.behaviour {
        idle
    } else {
        Duration::from_secs(60)
    };
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    if let Some(id) = parts.headers.get("x-id") {
        let id = id.to_str().unwrap().to_owned();
        *shared.ids.lock().unwrap().entry(id).or_default() += 1;
    }
    if shared.heads.lock().unwrap().len() < 1_000 {
        shared.heads.lock().unwrap().push(parts.clone());
    }
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let mut status = 200;
    if let Behaviour::Good { work, .. } = &shared.behaviour
        && !work.is_zero()
    {
        tokio::time::sleep(*work).await;
    } else if let Behaviour::Status(code) = &shared.behaviour {
        status = *code;
    } else if let Behaviour::Held(released) = &shared.behaviour {
        released.notified().await;
    }
    let text = if parts.uri.path() == "/echo" { body } else { shared.name.clone().into() };
    Response::builder().status(status).body(Full::new(text)).unwrap()
}
