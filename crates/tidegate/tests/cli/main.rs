//! The binary as its users meet it.
#![expect(clippy::disallowed_methods, reason = "tests bound their waiting by the clock")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod answers;
mod examples;
mod files;
mod lives;
mod stage;
