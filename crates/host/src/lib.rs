//! The supervisor of one machine: instances behind shims, the fence floor, the fallback, and the
//! lives of engine and switch.
//!
//! One binary, three roles: [`run`] is `tidegate host`, [`shim`] is `tidegate shim SPEC`,
//! [`exec_instance`] is `tidegate exec-instance SPEC`. The last two must be reached before any
//! thread or runtime is started. See `docs/design/0004-host.md`.

mod artifact;
mod config;
mod process;
mod shim;
mod state;

pub use artifact::{ArtifactError, artifact_digest};
pub use config::{HostConfig, HostError};
pub use shim::{exec_instance, shim};
