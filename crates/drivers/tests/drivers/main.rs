//! The drivers against doubles of their targets, and one conformance suite for each trait.
#![expect(clippy::disallowed_methods, reason = "tests wait with a bound")]
#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]
#![expect(clippy::result_large_err, reason = "a double's refusal is a whole response")]

mod checks;
mod conformance;
mod doubles;
mod process;
mod watching;
