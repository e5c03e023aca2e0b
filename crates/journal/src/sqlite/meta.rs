//! The one row that says where the journal stands, and the checksums of rows that no chain covers.

use rusqlite::Connection;
use sha2::{Digest as _, Sha256};

use crate::append::Position;

/// The row of `meta`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) home: String,
    pub(crate) position: Position,
    /// Events dropped by retention: so many sequences are missing.
    pub(crate) dropped: u64,
    /// Grows with every write transaction.
    pub(crate) commits: u64,
}

/// SQLite's integers are signed; everything that we store is below 2^63.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A stored number as ours.
///
/// # Errors
/// As for a value of the wrong type: it was never written like that.
pub(crate) fn unsigned(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// A checksum over a row's columns: finds flipped bytes, not forgery (events have the chain).
pub(crate) fn sum(numbers: &[i64], texts: &[&str]) -> i64 {
    let mut hasher = Sha256::new();
    for number in numbers {
        hasher.update(number.to_be_bytes());
    }
    for text in texts {
        hasher.update((text.len() as u64).to_be_bytes());
        hasher.update(text.as_bytes());
    }
    let hash: [u8; 32] = hasher.finalize().into();
    let [a, b, c, d, e, f, g, h, ..] = hash;
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}

impl Meta {
    /// The journal of a home before its first event.
    pub(crate) fn new(home: &str) -> Self {
        Self { home: home.to_owned(), position: Position::default(), dropped: 0, commits: 0 }
    }

    /// Reads the row; none in a file that has only just been made.
    ///
    /// # Errors
    /// SQLite's; a wrong checksum as a value that cannot be read.
    pub(crate) fn load(connection: &Connection) -> rusqlite::Result<Option<Self>> {
        let mut statement = connection.prepare_cached(
            "SELECT home, epoch, last_seq, last_at, last_outbox, dropped, commits, sum \
             FROM meta WHERE id = 1",
        )?;
        let mut rows = statement.query([])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let meta = Self {
            home: row.get(0)?,
            position: Position {
                epoch: unsigned(row, 1)?,
                last_seq: unsigned(row, 2)?,
                last_at: unsigned(row, 3)?,
                last_outbox: unsigned(row, 4)?,
            },
            dropped: unsigned(row, 5)?,
            commits: unsigned(row, 6)?,
        };
        let stored: i64 = row.get(7)?;
        if stored != meta.sum() {
            return Err(unreadable("the checksum of the journal's own row is wrong"));
        }
        Ok(Some(meta))
    }

    /// Writes the row.
    ///
    /// # Errors
    /// SQLite's.
    pub(crate) fn store(&self, connection: &Connection) -> rusqlite::Result<()> {
        let [epoch, last_seq, last_at, last_outbox, dropped, commits] = self.numbers();
        connection
            .prepare_cached(
                "INSERT INTO meta (id, home, epoch, last_seq, last_at, last_outbox, dropped, \
                 commits, sum) VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
                 ON CONFLICT (id) DO UPDATE SET epoch = ?2, last_seq = ?3, last_at = ?4, \
                 last_outbox = ?5, dropped = ?6, commits = ?7, sum = ?8",
            )?
            .execute((
                &self.home,
                epoch,
                last_seq,
                last_at,
                last_outbox,
                dropped,
                commits,
                self.sum(),
            ))?;
        Ok(())
    }

    fn numbers(&self) -> [i64; 6] {
        let at = &self.position;
        [at.epoch, at.last_seq, at.last_at, at.last_outbox, self.dropped, self.commits].map(signed)
    }

    fn sum(&self) -> i64 {
        sum(&self.numbers(), &[&self.home])
    }
}

/// A stored value that does not hold together, for [`super::file::failed`] to call damage.
pub(crate) fn unreadable(why: impl Into<String>) -> rusqlite::Error {
    let why: String = why.into();
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Null, why.into())
}
