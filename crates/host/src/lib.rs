//! The supervisor of one machine: instances behind shims, the fence floor, the fallback, and the
//! lives of engine and switch.
//!
//! One binary, three roles: [`run`] is `tidegate host`, [`shim`] is `tidegate shim SPEC`,
//! [`exec_instance`] is `tidegate exec-instance SPEC`. The last two must be reached before any
//! thread or runtime is started. See `docs/design/0004-host.md`.
#![expect(
    clippy::disallowed_methods,
    reason = "a supervisor of processes reads clocks: restarts, probes and silences take time"
)]

mod api;
mod artifact;
mod child;
mod config;
mod engine_watch;
mod fallback;
mod host;
mod instance;
mod process;
mod run;
mod serve;
mod shim;
mod state;
mod switch_link;
mod switch_watch;

pub use artifact::{ArtifactError, artifact_digest};
pub use config::{HostConfig, HostError};
pub use serve::run;
pub use shim::{exec_instance, shim};
