//! A whole switch in this process, before instances that misbehave.
#![expect(clippy::disallowed_methods, reason = "tests bound their waits by the clock")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may end by a panic")]

mod clients;
mod control;
mod counting;
mod cutover;
mod handover;
mod outcomes;
mod pools;
mod routing;
mod shares;
mod smoke;
mod support;
