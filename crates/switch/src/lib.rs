//! The data plane: a proxy in a process of its own that splits requests between versions, counts
//! them, and keeps its table through every death of itself and its neighbours.
//!
//! `control` is what it is told (table, endpoints, claims) and says (report, counts); `proxy` is a
//! request's way; `counts` closes seconds and keeps history. Nothing in here knows releases.
#![expect(clippy::disallowed_methods, reason = "a shell: it reads the clock")]

mod control;
mod counts;
mod proxy;
mod run;

pub use control::store::StoreError;
pub use run::{Limits, SwitchConfig, SwitchError, run, run_until};
