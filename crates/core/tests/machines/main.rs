//! The machines as tables: which verb is accepted when, and that nothing ever panics.
#![expect(clippy::expect_used, reason = "tests")]

mod lane;
mod release;
mod rollout;
mod stages;
