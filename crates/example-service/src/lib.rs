//! The two ends of every demonstration and test: a small HTTP service that can be told to
//! misbehave ([`serve`]), and a careful client that accounts for every request ([`load`]).
//!
//! Neither knows anything of Tidegate: what they say about a release is said from outside.
#![expect(clippy::disallowed_methods, reason = "a shell: service and client measure real time")]

pub mod behaviour;
pub mod load;
mod server;

pub use behaviour::Behaviour;
pub use server::{Options, ServeError, serve};
