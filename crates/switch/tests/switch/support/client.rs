//! A client with one connection: it numbers its requests, never retries, and says what it got.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::PATIENCE;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

pub(crate) struct Browser {
    address: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
    pub(crate) cookie: Option<String>,
    pub(crate) sent: u64,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) id: String,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Browser {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, sender: None, cookie: None, sent: 0 }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Answer, String> {
        self.send("GET", path, &[], "").await
    }

    pub(crate) async fn post(&mut self, path: &str, body: &str) -> Result<Answer, String> {
        self.send("POST", path, &[], body).await
    }

    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Answer, String> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed).to_string();
        let mut request = Request::builder().method(method).uri(path).header("x-id", &id);
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request = request.header("host", self.address.to_string());
        }
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", cookie);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        let exchange = tokio::time::timeout(PATIENCE, self.exchange(request));
        let answer = exchange.await.unwrap_or_else(|_| Err("no answer in time".into()));
        if answer.is_err() {
            self.sender = None;
        }
        let (status, headers, body) = answer?;
        Ok(Answer { id, status, headers, body })
    }

    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<(u16, HeaderMap, String), String> {
        let mut kept = self.sender.take();
        if let Some(sender) = &mut kept
            && sender.ready().await.is_err()
        {
            kept = None;
        }
        let mut sender = match kept {
            Some(sender) => sender,
            None => {
                let stream = TcpStream::connect(self.address).await;
                let stream = stream.map_err(|error| format!("connect: {error}"))?;
                let _ = stream.set_nodelay(true);
                let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
                tokio::spawn(connection);
                sender
            }
        };
        self.sent += 1;
        let response = sender.send_request(request).await.map_err(|error| format!("{error:?}"))?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| format!("body: {error:?}"))?.to_bytes();
        self.sender = Some(sender);
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok((parts.status.as_u16(), parts.headers, body))
    }
}

/// Sends bytes and returns what comes back until the other side closes.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    read.expect("the other side closes").ok();
    String::from_utf8_lossy(&answer).into_owned()
}
