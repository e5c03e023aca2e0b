//! The host as processes: real shims and instances, a stand-in for the switch.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests wait for conditions until a bound, and may fail"
)]

mod artifacts;
mod fences;
mod lives;
mod runs;
mod stops;
mod support;
