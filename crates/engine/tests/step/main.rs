//! The pure step with the real machines, a journal in memory and a trivial world.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod canary;
mod specs;
mod world;
