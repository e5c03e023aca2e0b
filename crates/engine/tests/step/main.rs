//! The pure step with the real machines, a journal in memory and a trivial world.
#![expect(clippy::expect_used, reason = "tests")]

mod canary;
mod corners;
mod golden;
mod specs;
mod world;
