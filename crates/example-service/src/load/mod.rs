//! The client of demonstrations and bars: open loop, numbered requests, every one of them one line
//! in a raw log, and a report that is computed from that log and from nothing else.
//!
//! It is *careful*: before it writes on a kept connection it looks whether the other end has
//! closed it, and a request of which nothing was sent goes out on a new connection. It never sends
//! a request a second time.

mod client;
mod line;
mod report;

pub use client::{Load, LoadError, LoadOptions, run};
pub use line::{ErrorClass, Line};
pub use report::{LoadReport, Tally};
