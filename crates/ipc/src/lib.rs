//! HTTP/1.1 with JSON on unix sockets between our own processes: one place that knows how a socket
//! is named, opened, protected and spoken to.

mod client;
mod listen;
pub mod sockets;

pub use client::{Client, IpcError, Reply};
pub use listen::{ListenError, bind, resolve};
