//! Bodies on their way through: both are streamed frame by frame, with backpressure.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;

use super::account::Broken;
use super::pool::{self, Conn};
use super::upstream::InFlight;
use crate::counts::micros;

/// How far a client's body has come, for whoever waits for the answer.
#[derive(Debug)]
pub(crate) struct BodyWatch {
    started: Instant,
    /// Microseconds after `started` of the last byte that was handed on.
    last_us: AtomicU64,
    failed: AtomicBool,
    /// The client is the one who is waited for.
    waiting: AtomicBool,
    /// All of it has been handed on.
    ended: AtomicBool,
}

impl BodyWatch {
    /// When the last byte was handed on, or when it all began.
    pub(crate) fn last(&self) -> Instant {
        self.started + std::time::Duration::from_micros(self.last_us.load(Ordering::Relaxed))
    }

    /// The client's connection broke inside the body.
    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// The instance wants more and the client does not send it.
    pub(crate) fn waits_for_client(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// What is sent to an instance.
#[derive(Debug)]
pub(crate) enum UpBody {
    Empty,
    Client(ClientBody),
}

/// A client's body.
#[derive(Debug)]
pub(crate) struct ClientBody {
    inner: Incoming,
    watch: Arc<BodyWatch>,
}

impl UpBody {
    pub(crate) fn new(inner: Incoming) -> Self {
        if inner.is_end_stream() {
            return Self::Empty;
        }
        let watch = Arc::new(BodyWatch {
            started: Instant::now(),
            last_us: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        Self::Client(ClientBody { inner, watch })
    }

    pub(crate) fn watch(&self) -> Option<Arc<BodyWatch>> {
        match self {
            Self::Empty => None,
            Self::Client(body) => Some(Arc::clone(&body.watch)),
        }
    }
}

impl Body for UpBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self::Client(body) = self.get_mut() else { return Poll::Ready(None) };
        let polled = Pin::new(&mut body.inner).poll_frame(cx);
        let watch = &body.watch;
        watch.waiting.store(polled.is_pending(), Ordering::Relaxed);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(Some(Err(_))) => watch.failed.store(true, Ordering::Relaxed),
            Poll::Ready(Some(Ok(_)) | None) => {
                watch.last_us.store(micros(watch.started.elapsed()), Ordering::Relaxed);
                let ended = matches!(polled, Poll::Ready(None)) || body.inner.is_end_stream();
                watch.ended.store(ended, Ordering::Relaxed);
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client(body) => body.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client(body) => body.inner.size_hint(),
        }
    }
}

/// What is sent to a client.
#[derive(Debug)]
pub(crate) enum DownBody {
    /// Our own words.
    Ours(Full<Bytes>),
    /// An instance's answer.
    Instance(Box<InstanceBody>),
}

/// An instance's answer: holds the request under way and the connection until it has ended.
#[derive(Debug)]
pub(crate) struct InstanceBody {
    inner: Incoming,
    open: Option<(InFlight, Conn, Broken)>,
    /// Of the request.
    upload: Option<Arc<BodyWatch>>,
}

impl DownBody {
    pub(crate) fn ours(text: String) -> Self {
        Self::Ours(Full::new(Bytes::from(text)))
    }

    pub(crate) fn instance(
        inner: Incoming,
        under_way: InFlight,
        conn: Conn,
        at: Broken,
        upload: Option<Arc<BodyWatch>>,
    ) -> Self {
        let mut body = InstanceBody { inner, open: Some((under_way, conn, at)), upload };
        if body.inner.is_end_stream() {
            body.end();
        }
        Self::Instance(Box::new(body))
    }
}

impl InstanceBody {
    /// Whole: the connection can carry another request. If the instance has answered without
    /// waiting for all of the request, the rest is not sent any more.
    fn end(&mut self) {
        let Some((under_way, conn, _)) = self.open.take() else { return };
        if self.upload.as_ref().is_none_or(|upload| upload.ended.load(Ordering::Relaxed)) {
            pool::put(under_way.instance(), conn);
        } else {
            conn.cut();
        }
    }
}

impl Body for DownBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let body = match self.get_mut() {
            Self::Ours(full) => {
                return Pin::new(full).poll_frame(cx).map_err(|never| match never {});
            }
            Self::Instance(body) => body,
        };
        let polled = Pin::new(&mut body.inner).poll_frame(cx);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(None) => body.end(),
            Poll::Ready(Some(Err(_))) => {
                if let Some((under_way, _, broken)) = body.open.take() {
                    broken.count(under_way.instance());
                }
            }
            Poll::Ready(Some(Ok(_))) => {
                // The server does not ask again after the last byte.
                if body.inner.is_end_stream() {
                    body.end();
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Ours(full) => full.is_end_stream(),
            Self::Instance(body) => body.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Ours(full) => full.size_hint(),
            Self::Instance(body) => body.inner.size_hint(),
        }
    }
}

/// Retries of requests that had been sent already: 10 % of the requests and three a second, so that
/// a version that fails does not get twice the load for it.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    /// Tenths of a retry, and when it was last filled.
    tenths: Mutex<(u64, Instant)>,
}

impl RetryBudget {
    const MAX: u64 = 1_000;

    pub(crate) fn new() -> Self {
        Self { tenths: Mutex::new((100, Instant::now())) }
    }

    /// A request has come.
    pub(crate) fn earn(&self) {
        let mut tenths = self.tenths.lock().unwrap_or_else(PoisonError::into_inner);
        tenths.0 = (tenths.0 + 1).min(Self::MAX);
    }

    /// Whether one more retry is within the budget.
    pub(crate) fn spend(&self) -> bool {
        let mut tenths = self.tenths.lock().unwrap_or_else(PoisonError::into_inner);
        let gained = micros(tenths.1.elapsed()) * 30 / 1_000_000;
        if gained > 0 {
            *tenths = ((tenths.0 + gained).min(Self::MAX), Instant::now());
        }
        let enough = tenths.0 >= 10;
        if enough {
            tenths.0 -= 10;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_tenth_of_the_requests_after_the_first_ten() {
        let budget = RetryBudget::new();
        let mut spent = (0..1_000).filter(|_| budget.spend()).count();
        assert!((10..=12).contains(&spent), "{spent}");
        for _ in 0..500 {
            budget.earn();
        }
        spent = (0..1_000).filter(|_| budget.spend()).count();
        assert!((49..=53).contains(&spent), "{spent}");
    }
}
