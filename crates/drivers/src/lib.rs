//! One folder for each part of the world, beside them the traits that they have in common.
//!
//! * [`process`]: the host and the switch of this machine (`process:local`).
//! * [`check`]: single measurements (`check:http`, `check:tcp`, `check:command`).
//! * [`simulated`]: a platform that does at once what it is told, for measuring and trying out.
//! * [`traits`]: capacity and traffic as the core thinks of them; `tests/conformance.rs` is what
//!   every driver that implements one has to pass.

pub mod check;
pub mod process;
pub mod simulated;
pub mod traits;

pub use check::CheckDriver;
pub use process::{ProcessConfig, ProcessDriver};
pub use simulated::Simulated;
