//! What a flush costs on this disk, and whether it can be believed.

use std::fs::OpenOptions;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Instant;

use super::file::storage;
use crate::Error;

/// How many flushes are measured.
const ROUNDS: u32 = 64;

/// A median below so many microseconds means that nothing reaches a disk.
const IMPLAUSIBLE_MICROS: u64 = 20;

/// A p99 above so many microseconds delays every decision that a rollout takes.
const SLOW_MICROS: u64 = 50_000;

/// What was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskReport {
    /// How many 4 KiB writes with `fdatasync`.
    pub rounds: u32,
    /// Their median, in microseconds.
    pub median_micros: u64,
    /// Their 99th percentile, in microseconds.
    pub p99_micros: u64,
    /// One sentence for a person, if the disk is too slow or too fast to be true.
    pub warning: Option<String>,
}

/// Measures some tens of small durable writes in this folder; leaves nothing behind.
///
/// # Errors
/// [`Error::Full`]; [`Error::Storage`] if the folder cannot be written.
pub fn disk_check(folder: &Path) -> Result<DiskReport, Error> {
    let path = folder.join(format!(".disk-check-{}", std::process::id()));
    let measured = measure(&path);
    let _ = std::fs::remove_file(&path);
    match measured {
        Ok(mut micros) => {
            micros.sort_unstable();
            let at = |share: usize| micros.get(micros.len() * share / 100).copied().unwrap_or(0);
            Ok(judge(at(50), at(99)))
        }
        Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
            Err(Error::Full(folder.display().to_string()))
        }
        Err(error) => Err(storage(folder, "measuring the disk", error)),
    }
}

/// The duration of each round in microseconds.
fn measure(path: &Path) -> std::io::Result<Vec<u64>> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let page = [0x5A_u8; 4096];
    // As in a WAL that is used again: the blocks are there, only their content changes.
    for _ in 0..ROUNDS {
        file.write_all(&page)?;
    }
    file.sync_all()?;
    file.seek(SeekFrom::Start(0))?;
    let mut micros = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        file.write_all(&page)?;
        file.sync_data()?;
        micros.push(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    Ok(micros)
}

fn judge(median_micros: u64, p99_micros: u64) -> DiskReport {
    let warning = if median_micros < IMPLAUSIBLE_MICROS {
        Some(format!(
            "a flush takes {median_micros} µs here: it does not reach a disk, so a power failure \
             can lose decisions that were acted upon; put the home on a real disk"
        ))
    } else if p99_micros > SLOW_MICROS {
        Some(format!(
            "a flush takes up to {} ms here: every decision waits for it; put the home on a \
             faster disk",
            p99_micros / 1000
        ))
    } else {
        None
    };
    DiskReport { rounds: ROUNDS, median_micros, p99_micros, warning }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_too_fast_or_too_slow_is_warned_of() {
        assert!(judge(19, 100).warning.is_some_and(|text| text.contains("does not reach a disk")));
        assert!(judge(500, 50_001).warning.is_some_and(|text| text.contains("50 ms")));
        assert_eq!(judge(20, 50_000).warning, None);
    }

    #[test]
    fn a_folder_is_measured_and_left_clean() {
        let folder = tempfile::tempdir().unwrap();
        let report = disk_check(folder.path()).unwrap();
        assert_eq!(report.rounds, ROUNDS);
        assert!(report.median_micros <= report.p99_micros && report.p99_micros > 0);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error_with_its_path() {
        let error = disk_check(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    }
}
