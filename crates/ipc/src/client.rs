//! One request, one connection.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// Largest answer that is read (32 MiB).
const ANSWER_MAX: usize = 32 << 20;

/// Speaks to one socket. Cheap to clone; connects anew for each request.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// A status and a body.
#[derive(Debug, Clone)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// The whole body.
    pub body: Bytes,
}

/// Why there is no answer, or which one there is instead of the wanted one.
#[derive(Debug, thiserror::Error)]
pub enum IpcError {
    /// Nobody listens: nothing was sent.
    #[error("{socket} does not answer: {source}")]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// It may have been received; no answer came.
    #[error("no answer from {socket}: {why}")]
    Lost {
        /// The socket.
        socket: PathBuf,
        /// The cause.
        why: String,
    },
    /// An answer with a status that is not 2xx.
    #[error("{socket} refused ({status}): {body}")]
    Status {
        /// The socket.
        socket: PathBuf,
        /// HTTP status.
        status: u16,
        /// The body: an `ErrorDoc` where it comes from us.
        body: String,
    },
    /// An answer that is not the JSON that was expected.
    #[error("{socket} answered what this version does not understand: {why}")]
    Body {
        /// The socket.
        socket: PathBuf,
        /// The cause.
        why: String,
    },
}

impl Client {
    /// A client for the socket that `path` names; see [`crate::resolve`].
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { socket: path.to_owned() }
    }

    /// GET with a JSON answer.
    ///
    /// # Errors
    /// [`IpcError`].
    pub async fn get<R: DeserializeOwned>(
        &self,
        path: &str,
        within: Duration,
    ) -> Result<R, IpcError> {
        let reply = self.request("GET", path, Bytes::new(), within).await?;
        self.parse(&reply)
    }

    /// POST with a JSON body and a JSON answer.
    ///
    /// # Errors
    /// [`IpcError`].
    pub async fn post<T: Serialize + Sync, R: DeserializeOwned>(
        &self,
        path: &str,
        body: &T,
        within: Duration,
    ) -> Result<R, IpcError> {
        let body = serde_json::to_vec(body)
            .map_err(|e| IpcError::Body { socket: self.socket.clone(), why: e.to_string() })?;
        let reply = self.request("POST", path, Bytes::from(body), within).await?;
        self.parse(&reply)
    }

    fn parse<R: DeserializeOwned>(&self, reply: &Reply) -> Result<R, IpcError> {
        if !(200..300).contains(&reply.status) {
            return Err(IpcError::Status {
                socket: self.socket.clone(),
                status: reply.status,
                body: String::from_utf8_lossy(&reply.body).into_owned(),
            });
        }
        serde_json::from_slice(&reply.body)
            .map_err(|e| IpcError::Body { socket: self.socket.clone(), why: e.to_string() })
    }

    /// Any request; the answer whole, whatever its status.
    ///
    /// # Errors
    /// [`IpcError::Connect`] if nothing was sent, [`IpcError::Lost`] if that is not known.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        body: Bytes,
        within: Duration,
    ) -> Result<Reply, IpcError> {
        let lost = |why: String| IpcError::Lost { socket: self.socket.clone(), why };
        let exchange = async {
            let response = self.open(method, path, body).await?;
            let status = response.status().as_u16();
            let limited = http_body_util::Limited::new(response.into_body(), ANSWER_MAX);
            let body = limited.collect().await.map_err(|e| lost(e.to_string()))?.to_bytes();
            Ok(Reply { status, body })
        };
        tokio::time::timeout(within, exchange)
            .await
            .unwrap_or_else(|_| Err(lost(format!("nothing within {} ms", within.as_millis()))))
    }

    /// Sends a request and returns with the head; the body may be endless.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub async fn open(
        &self,
        method: &str,
        path: &str,
        body: Bytes,
    ) -> Result<http::Response<Incoming>, IpcError> {
        let lost = |why: String| IpcError::Lost { socket: self.socket.clone(), why };
        let real = crate::resolve(&self.socket);
        let stream = UnixStream::connect(&real)
            .await
            .map_err(|source| IpcError::Connect { socket: self.socket.clone(), source })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| lost(e.to_string()))?;
        tokio::spawn(connection);
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, "tidegate")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|e| lost(e.to_string()))?;
        sender.send_request(request).await.map_err(|e| lost(e.to_string()))
    }
}
