//! Connections of clients: accepted, limited in time, and let go gently when this process leaves.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use super::Proxy;
use super::body::DownBody;
use super::forward::Entrance;
use super::tls::TlsCell;
use crate::run::Limits;

/// Largest head of a request.
const HEAD_MAX: usize = 64 << 10;
/// How much of an unread request is read and thrown away so that the answer is not lost in a reset.
const DISCARD_MAX: usize = 256 << 10;

/// Accepts until the task is dropped or the process leaves. Every connection holds `alive`.
pub(crate) async fn accept(
    proxy: Arc<Proxy>,
    listener: TcpListener,
    address: SocketAddr,
    tls: Arc<TlsCell>,
    alive: mpsc::Sender<()>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let entrance = Entrance { listener: address, peer: peer.ip(), https: false };
                let (proxy, tls, alive) = (Arc::clone(&proxy), tls.load(), alive.clone());
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    match tls {
                        None => serve(proxy, entrance, stream).await,
                        Some(config) => {
                            let acceptor = tokio_rustls::TlsAcceptor::from(config);
                            let shake =
                                tokio::time::timeout(proxy.limits.head, acceptor.accept(stream));
                            if let Ok(Ok(stream)) = shake.await {
                                serve(proxy, Entrance { https: true, ..entrance }, stream).await;
                            }
                        }
                    }
                    drop(alive);
                });
            }
            Err(error) => {
                // Of one connection, or for want of descriptors: give others time to end.
                tracing::warn!(%address, %error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve<S: Stream>(proxy: Arc<Proxy>, entrance: Entrance, stream: S) {
    let marks = Arc::new(Marks::default());
    let io = TokioIo::new(ClientIo::new(stream, Arc::clone(&marks), proxy.limits));
    let mut leaving = proxy.leaving.subscribe();
    let (inner, seen) = (Arc::clone(&proxy), Arc::clone(&marks));
    let service = service_fn(move |request| {
        seen.busy.store(true, Ordering::Relaxed);
        let (proxy, marks) = (Arc::clone(&inner), Arc::clone(&seen));
        async move {
            let response = proxy.handle(entrance, request).await;
            Ok::<_, Infallible>(response.map(|inner| Held { inner, marks }))
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_buf_size(HEAD_MAX)
            .serve_connection(io, service)
    );
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = async { drop(leaving.wait_for(|leaving| *leaving).await) } => {
            // An idle client may be just about to send: closing now would lose its request.
            match tokio::time::timeout(proxy.linger, connection.as_mut()).await {
                Ok(result) => result,
                Err(_) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    if let Err(error) = result
        && (error.is_parse() || marks.slow.load(Ordering::Relaxed))
    {
        proxy.refused.add();
        tracing::debug!(peer = %entrance.peer, %error, "a client sent what is not a request");
    }
}

/// What a connection's stream and its service tell each other.
#[derive(Debug, Default)]
struct Marks {
    /// A request is being answered: the client may be silent.
    busy: AtomicBool,
    /// A head did not come in time.
    slow: AtomicBool,
}

/// An answer's body; the connection is busy until it is dropped.
struct Held {
    inner: DownBody,
    marks: Arc<Marks>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.marks.busy.store(false, Ordering::Relaxed);
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl Stream for TcpStream {}
impl Stream for tokio_rustls::server::TlsStream<TcpStream> {}

/// A client's stream with limits in time. One timer per connection that is only looked at when it
/// fires: what was done meanwhile moves it on.
struct ClientIo<S> {
    stream: S,
    marks: Arc<Marks>,
    limits: Limits,
    timer: Pin<Box<Sleep>>,
    /// When the wait for a head began: at the end of the last answer, or with its first byte.
    since: Instant,
    head_begun: bool,
    stuck: Option<Instant>,
    discarded: usize,
    shut: bool,
}

impl<S: Stream> ClientIo<S> {
    fn new(stream: S, marks: Arc<Marks>, limits: Limits) -> Self {
        let now = Instant::now();
        Self {
            stream,
            marks,
            limits,
            timer: Box::pin(tokio::time::sleep_until(now + limits.idle)),
            since: now,
            head_begun: false,
            stuck: None,
            discarded: 0,
            shut: false,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        if let Some(stuck) = self.stuck {
            return Some(stuck + self.limits.stuck);
        }
        if self.marks.busy.load(Ordering::Relaxed) {
            return None;
        }
        Some(self.since + if self.head_begun { self.limits.head } else { self.limits.idle })
    }

    /// Ready when the client has had its time.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let deadline = self.deadline();
            let soon = deadline.is_some_and(|deadline| deadline < self.timer.deadline());
            if soon && let Some(deadline) = deadline {
                self.timer.as_mut().reset(deadline);
            }
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            match deadline {
                Some(deadline) if deadline <= now => return Poll::Ready(()),
                Some(deadline) => self.timer.as_mut().reset(deadline),
                None => self.timer.as_mut().reset(now + self.limits.idle),
            }
        }
    }
}

fn timed_out(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<S: Stream> AsyncRead for ClientIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if polled.is_ready() {
            if !this.marks.busy.load(Ordering::Relaxed) && !this.head_begun {
                this.head_begun = true;
                this.since = Instant::now();
            }
            return polled;
        }
        if this.marks.busy.load(Ordering::Relaxed) {
            // The head is whole; the next one has not begun.
            this.head_begun = false;
            this.since = Instant::now();
        }
        match this.poll_time(cx) {
            Poll::Ready(()) => {
                this.marks.slow.store(this.head_begun, Ordering::Relaxed);
                Poll::Ready(Err(timed_out("the client is too slow")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: Stream> ClientIo<S> {
    fn wrote<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stuck = None;
            self.head_begun = false;
            self.since = Instant::now();
            return polled;
        }
        self.stuck.get_or_insert_with(Instant::now);
        match self.poll_time(cx) {
            Poll::Ready(()) => Poll::Ready(Err(timed_out("the client takes nothing"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: Stream> AsyncWrite for ClientIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Closes our side, then takes what the client was still sending for a while: a close with
    /// unread bytes is a reset, and a reset may overtake the answer.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.shut {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.shut = true;
            this.timer.as_mut().reset(Instant::now() + Duration::from_secs(2));
        }
        let mut space = [0_u8; 4096];
        while this.discarded < DISCARD_MAX {
            let mut buf = ReadBuf::new(&mut space);
            match Pin::new(&mut this.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    this.discarded += buf.filled().len();
                }
                Poll::Ready(Ok(()) | Err(_)) => break,
                Poll::Pending => {
                    ready!(this.timer.as_mut().poll(cx));
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}
