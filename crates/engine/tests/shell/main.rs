//! The real shell, over its socket, with a small counting machine and a driver that does as it is
//! told. Processes that have to die are this test binary once more.
#![expect(clippy::disallowed_methods, reason = "tests wait with a bound")]
#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

mod dispatch;
mod doubles;
mod life;
mod owners;
mod sampling;
