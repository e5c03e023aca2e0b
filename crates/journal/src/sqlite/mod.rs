//! The journal in one SQLite file: WAL, `synchronous=FULL`, one writer.
//!
//! * [`SqliteJournal`] is the writer, [`SqliteReader`] reads beside it or from a stopped home.
//! * Events are covered by their chains; rows that no chain covers carry a checksum, so that a
//!   flipped byte is an [`crate::Error::Corrupt`] and never a wrong decision.
//! * Beside the file lies `journal.reserve`: space for an undo on a full disk ([`reserve`]).
//! * [`disk_check`] measures what a flush costs here before anything depends on it.
#![expect(clippy::disallowed_methods, reason = "the disk's self-test measures durations")]

mod disk;
mod file;
mod meta;
mod read;
pub mod reserve;
mod retain;
mod rows;
#[cfg(test)]
mod tests;
mod verify;
mod write;

pub use disk::{DiskReport, disk_check};
pub use read::SqliteReader;
pub use write::SqliteJournal;
