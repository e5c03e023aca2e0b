//! A switch with its home, instances, and clients that count.

pub(crate) mod backend;
pub(crate) mod client;
pub(crate) mod rig;

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// The longest that any test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

static NEXT: AtomicU16 = AtomicU16::new(0);

/// An address that nobody listens on, outside of the range that the kernel gives to clients.
pub(crate) fn free_address() -> SocketAddr {
    let base = 20_000 + u16::try_from(std::process::id() % 97).unwrap() * 100;
    for _ in 0..10_000 {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed) % 3_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port");
}

/// Asks again until it is so.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let started = Instant::now();
    while !ask().await {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
