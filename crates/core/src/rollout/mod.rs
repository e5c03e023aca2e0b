//! The rollout: one version on its way into one lane, and back if need be.

mod types;

pub use types::*;
