//! The messages between client, engine, host and switch: types and versions, no logic beyond the
//! names of files in a home. JSON over HTTP/1.1 on unix sockets. Readers ignore unknown fields, so
//! that neighbours one minor version apart understand each other.

pub mod api;
pub mod error;
pub mod home;
pub mod host;
pub mod switch;

/// The `apiVersion` of every document.
pub const API_VERSION: &str = "tidegate/v1";

/// Version of the messages between our own processes; exchanged with every claim.
pub const PROTOCOL: u32 = 1;

pub use tidegate_core::{Digest, Epoch, Fence, Reason, capacity, counts, spec, traffic};
