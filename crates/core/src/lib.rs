//! The rules of Tidegate: state machines, plans, checks. Pure.
//!
//! No I/O, no clock, no randomness, no async, no threads in this crate: time comes in events, as
//! [`time::Timestamp`]. Everything that goes over a wire or into the journal is a serde type with
//! camelCase keys.
//!
//! One shape for every machine ([`machine::Machine`]): `accept` says whether something may happen,
//! `apply` folds an event, `decide` says what to ask of the world. Machines never read each other.

pub mod analysis;
pub mod capacity;
pub mod counts;
pub mod digest;
pub mod fence;
pub mod lane;
pub mod machine;
pub mod plan;
pub mod reason;
pub mod release;
pub mod rollout;
pub mod spec;
pub mod time;
pub mod traffic;

pub use digest::Digest;
pub use fence::{Epoch, Fence};
pub use machine::{Machine, Rejected, StreamId};
pub use reason::Reason;
pub use time::Timestamp;
