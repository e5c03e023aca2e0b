//! The host as processes: real shims and instances, a stand-in for the switch.
#![expect(clippy::disallowed_methods, reason = "tests wait for conditions until a bound")]

mod artifacts;
mod fences;
mod lives;
mod runs;
mod stops;
mod support;
