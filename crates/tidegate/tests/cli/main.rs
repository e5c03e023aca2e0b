//! The binary as its users meet it.
#![expect(clippy::disallowed_methods, reason = "tests bound their waiting by the clock")]

mod answers;
mod files;
mod lives;
mod stage;
