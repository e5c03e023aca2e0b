//! One file of samples: JSON lines.
//!
//! The first line is a header that names stream, serial, minute and the digest of the segment
//! before it, so that the digest of a segment stands for all before it as well. Every further line
//! is `CHECK JSON`: CHECK is the first 16 digits of the SHA-256 of the file up to the end of this
//! line's JSON (the check of this line left out). The digest of a segment "up to a line" is the
//! SHA-256 of the file's bytes up to the end of that line: `sha256sum` of the file's head tells it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tidegate_core::counts::SecondRecord;
use tidegate_core::{Digest, StreamId};

use super::SampleError;

/// Digits of a line's check.
const CHECK: usize = 16;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    form: u16,
    stream: String,
    serial: u64,
    minute: u64,
    previous: Option<Digest>,
}

/// A segment that is written to.
#[derive(Debug)]
pub struct Segment {
    path: PathBuf,
    file: File,
    hash: Sha256,
    /// Its number within the stream, from 1.
    pub serial: u64,
    /// The minute of the switch's clock that it holds, in minutes since 1970.
    pub minute: u64,
    /// Its length.
    pub bytes: u64,
}

/// The file of a serial.
#[must_use]
pub fn path(folder: &Path, serial: u64) -> PathBuf {
    folder.join(format!("{serial:06}.jsonl"))
}

/// The serials in a folder, ascending; none where there is no folder.
///
/// # Errors
/// [`SampleError`] if the folder cannot be read.
pub fn list(folder: &Path) -> Result<Vec<u64>, SampleError> {
    let failed = |source| SampleError::new("cannot read", folder, source);
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut serials = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        if let Some(serial) = name.to_str().and_then(|n| n.strip_suffix(".jsonl")?.parse().ok()) {
            serials.push(serial);
        }
    }
    serials.sort_unstable();
    Ok(serials)
}

impl Segment {
    /// Begins a segment: the folder, the file and its header.
    ///
    /// # Errors
    /// [`SampleError`] if they cannot be made durable.
    pub fn create(
        folder: &Path,
        stream: &StreamId,
        serial: u64,
        minute: u64,
        previous: Option<&Digest>,
    ) -> Result<Self, SampleError> {
        make_folder(folder)?;
        let path = path(folder, serial);
        let failed = |source| SampleError::new("cannot write", &path, source);
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        // An attempt that found no space may have left a piece of a header.
        file.set_len(0).map_err(failed)?;
        let header = Header {
            form: 1,
            stream: stream.to_string(),
            serial,
            minute,
            previous: previous.cloned(),
        };
        let mut line = serde_json::to_vec(&header).map_err(|e| failed(e.into()))?;
        line.push(b'\n');
        let mut hash = Sha256::new();
        hash.update(&line);
        let bytes = line.len() as u64;
        (&file).write_all(&line).map_err(failed)?;
        sync_folder(folder)?;
        Ok(Self { path, file, hash, serial, minute, bytes })
    }

    /// Reads a segment up to its last whole line. The last one of a stream is cut off there, since
    /// it goes on being written; damage in an older one is evidence and stays as it is. None if
    /// the last one has no header: the process died while it was made.
    ///
    /// # Errors
    /// [`SampleError`] if it cannot be read or truncated.
    pub fn open(
        folder: &Path,
        serial: u64,
        last: bool,
    ) -> Result<Option<(Self, Vec<SecondRecord>)>, SampleError> {
        let path = path(folder, serial);
        let failed = |source| SampleError::new("cannot read", &path, source);
        let content = std::fs::read(&path).map_err(failed)?;
        let mut lines = content.split_inclusive(|byte| *byte == b'\n');
        let head = lines.next().unwrap_or_default();
        let Ok(header) = serde_json::from_slice::<Header>(head) else {
            if !last {
                tracing::error!(segment = %path.display(), "a sample segment is damaged at its head");
                return Ok(None);
            }
            tracing::warn!(segment = %path.display(), "a sample segment without a header is removed");
            std::fs::remove_file(&path).map_err(failed)?;
            return Ok(None);
        };
        let mut hash = Sha256::new();
        hash.update(head);
        let mut bytes = head.len() as u64;
        let mut records = Vec::new();
        for line in lines {
            let Some(record) = read_line(&hash, line) else { break };
            hash.update(line);
            bytes += line.len() as u64;
            records.push(record);
        }
        let file = OpenOptions::new().read(true).append(true).open(&path).map_err(failed)?;
        let dropped = content.len() as u64 - bytes;
        if dropped > 0 && !last {
            tracing::error!(segment = %path.display(), dropped, "a sample segment is damaged");
        } else if dropped > 0 {
            tracing::warn!(
                segment = %path.display(), dropped,
                "the torn end of a sample segment is cut off"
            );
            file.set_len(bytes).map_err(failed)?;
        }
        let minute = header.minute;
        Ok(Some((Self { path, file, hash, serial, minute, bytes }, records)))
    }

    /// Appends records; not durable before [`Segment::sync`]. On an error the file is as before.
    ///
    /// # Errors
    /// [`SampleError`].
    pub fn append(&mut self, records: &[SecondRecord]) -> Result<(), SampleError> {
        let failed = |source| SampleError::new("cannot write", &self.path, source);
        let mut hash = self.hash.clone();
        let mut text = Vec::with_capacity(records.len() * 256);
        for record in records {
            let json = serde_json::to_vec(record).map_err(|e| failed(e.into()))?;
            let start = text.len();
            text.extend_from_slice(check(&hash, &json).as_bytes());
            text.push(b' ');
            text.extend_from_slice(&json);
            text.push(b'\n');
            hash.update(&text[start..]);
        }
        if let Err(error) = (&self.file).write_all(&text) {
            // What was written of it must not stay in the middle of the file.
            self.file.set_len(self.bytes).map_err(failed)?;
            return Err(failed(error));
        }
        self.hash = hash;
        self.bytes += text.len() as u64;
        Ok(())
    }

    /// Makes everything in it durable.
    ///
    /// # Errors
    /// [`SampleError`]: nobody knows then what is on the disk, so the process must end.
    pub fn sync(&self) -> Result<(), SampleError> {
        self.file.sync_data().map_err(|source| SampleError::new("cannot sync", &self.path, source))
    }

    /// SHA-256 of the file as it is.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::from_sha256(self.hash.clone().finalize().into())
    }
}

/// The check of a line behind everything that was hashed so far.
fn check(before: &Sha256, json: &[u8]) -> String {
    let mut hash = before.clone();
    hash.update(json);
    let digest = Digest::from_sha256(hash.finalize().into());
    let digits = digest.as_str().strip_prefix("sha256:").unwrap_or_default();
    digits.chars().take(CHECK).collect()
}

/// The record of a line; none if the line is torn or not what was written.
fn read_line(before: &Sha256, line: &[u8]) -> Option<SecondRecord> {
    let line = line.strip_suffix(b"\n")?;
    let (found, json) = line.split_at_checked(CHECK)?;
    let json = json.strip_prefix(b" ")?;
    if check(before, json).as_bytes() != found {
        return None;
    }
    serde_json::from_slice(json).ok()
}

/// Makes the folder and everything above it that is missing, durably.
fn make_folder(folder: &Path) -> Result<(), SampleError> {
    if folder.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| SampleError::new("cannot make", folder, source))?;
    // Project, kind and id: at most three of them are new, and the folder of samples itself.
    folder.ancestors().skip(1).take(4).try_for_each(sync_folder)
}

fn sync_folder(folder: &Path) -> Result<(), SampleError> {
    File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(|source| SampleError::new("cannot sync", folder, source))
}
