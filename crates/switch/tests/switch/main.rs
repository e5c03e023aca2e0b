//! A whole switch in this process, before instances that misbehave.
#![expect(clippy::disallowed_methods, reason = "tests bound their waits by the clock")]

mod smoke;
mod support;
