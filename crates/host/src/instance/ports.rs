//! Ports of instances.

use std::collections::BTreeSet;
use std::net::TcpListener;

/// Where ports are looked for first: below the range from which the kernel takes the ports of
/// outgoing connections. In that range a client's connection could take the port between now and
/// the moment in which the instance listens.
const QUIET: std::ops::Range<u16> = 20_000..32_000;
/// Tries there before the kernel is asked for any free port.
const TRIES: u16 = 200;

/// A port that is free now and is not in `taken`.
pub(crate) fn free(taken: &BTreeSet<u16>) -> std::io::Result<u16> {
    let width = u64::from(QUIET.end - QUIET.start);
    let first = u16::try_from(crate::process::random_u64() % width).unwrap_or_default();
    for n in 0..TRIES {
        let port = QUIET.start + (first + n) % (QUIET.end - QUIET.start);
        if !taken.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    for _ in 0..TRIES {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        if !taken.contains(&port) {
            return Ok(port);
        }
    }
    Err(std::io::Error::other("no free port for an instance"))
}
