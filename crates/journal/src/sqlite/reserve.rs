//! Space kept for an undo on a full disk.
//!
//! `journal.reserve` beside the journal holds 1 MiB of incompressible bytes, so that it takes real
//! blocks on every filesystem. When a commit answers [`crate::Error::Full`], the owner gives the
//! file up ([`super::SqliteJournal::release_reserve`]) and commits what leads back: an undo is a
//! few events and effects, some tens of KiB of WAL. The next opening with room takes it again.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::file::{folder_of, storage, sync_folder};
use crate::Error;

/// Bytes in the reserve.
pub const RESERVE_BYTES: usize = 1024 * 1024;

/// The file's name beside the journal.
pub const RESERVE_FILE: &str = "journal.reserve";

/// The reserve of one journal.
#[derive(Debug, Clone)]
pub(crate) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    /// The one that belongs to the journal in this file.
    pub(crate) fn beside(journal: &Path) -> Self {
        Self { path: folder_of(journal).join(RESERVE_FILE) }
    }

    /// Whether it is there in full.
    pub(crate) fn held(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|found| found.len() >= RESERVE_BYTES as u64)
    }

    /// Takes the space; leaves nothing half done.
    ///
    /// # Errors
    /// [`Error::Storage`] when there is no room for it.
    pub(crate) fn hold(&mut self) -> Result<(), Error> {
        if self.held() {
            return Ok(());
        }
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.path)
            .and_then(|mut file| {
                file.write_all(&incompressible())?;
                file.sync_all()?;
                sync_folder(folder_of(&self.path))
            });
        written.map_err(|error| {
            let _ = std::fs::remove_file(&self.path);
            storage(&self.path, "reserving space for an undo", error)
        })
    }

    /// Gives the space up; `false` if there was none.
    ///
    /// # Errors
    /// [`Error::Storage`] if the file cannot be removed.
    pub(crate) fn release(&mut self) -> Result<bool, Error> {
        match std::fs::remove_file(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(storage(&self.path, "releasing the space for an undo", error)),
        }
    }
}

/// Bytes that a compressing filesystem cannot make smaller (xorshift64).
fn incompressible() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(RESERVE_BYTES);
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    while bytes.len() < RESERVE_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}
