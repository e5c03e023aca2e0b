//! The engine: `step(now, inputs) -> outputs`, pure over a synchronous journal, and around it the
//! shell of threads and sockets. Nothing here knows what a rollout is.
//!
//! * [`Engine`] holds the machines' states and turns inputs into one committed batch.
//! * [`effects`] is what a driver has to be.
//! * [`shell`] (committer thread, dispatcher, API, ownership) is the part with clocks and sockets.

pub mod effects;
mod index;
pub mod registry;
pub mod shell;
pub mod step;

pub use registry::Registry;
pub use step::{Engine, Fatal, Input, Outputs, Reply, Request};
