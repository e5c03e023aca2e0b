//! Artifacts: folders and archives, addressed by the digest of the tree that they are.
//!
//! The digest is the SHA-256 of a canonical manifest (see [`tree::Tree::digest`]), so a folder and
//! an archive of it have the same one, and owner, times and most of the mode do not matter.

mod archive;
mod decode;
mod folder;
mod store;
mod tree;

use std::io;
use std::path::{Path, PathBuf};

use tidegate_core::Digest;

pub(crate) use store::{Store, runnable};

/// Most entries of an artifact.
pub(crate) const MAX_ENTRIES: usize = 100_000;
/// Most bytes of all files together.
pub(crate) const MAX_BYTES: u64 = 4 << 30;
/// Deepest path.
pub(crate) const MAX_DEPTH: usize = 64;
/// Below this size an archive may have any compression ratio.
pub(crate) const RATIO_FREE_BYTES: u64 = 10 << 20;
/// Largest ratio of unpacked to packed bytes above that.
pub(crate) const MAX_RATIO: u64 = 100;

/// Why something is not an artifact, or could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Neither a folder nor a `.tar.gz` or `.tar.zst`.
    #[error("{path} is neither a folder nor a .tar.gz or .tar.zst archive")]
    Kind {
        /// The path.
        path: PathBuf,
    },
    /// Something in it must not be in an artifact.
    #[error("{path}: the entry {entry} {why}")]
    Entry {
        /// The artifact.
        path: PathBuf,
        /// The entry in it, made printable.
        entry: String,
        /// Why it is refused.
        why: String,
    },
    /// It is larger than an artifact may be.
    #[error("{path} {why}")]
    Limit {
        /// The artifact.
        path: PathBuf,
        /// Which limit.
        why: String,
    },
    /// A file could not be read or written.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl ArtifactError {
    pub(crate) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source }
    }

    fn entry(path: &Path, entry: &[u8], why: impl Into<String>) -> Self {
        Self::Entry { path: path.to_owned(), entry: printable(entry), why: why.into() }
    }

    fn limit(path: &Path, why: impl Into<String>) -> Self {
        Self::Limit { path: path.to_owned(), why: why.into() }
    }
}

/// A name from outside, fit for a message.
fn printable(name: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(name).escape_debug().to_string();
    if text.len() > 200 {
        text = text.chars().take(200).collect();
        text.push('…');
    }
    format!("\"{text}\"")
}

/// The digest of the artifact at `path`: a folder, or a `.tar.gz` or `.tar.zst` archive, which is
/// read through and not unpacked. Symbolic links are part of it and are not followed.
///
/// # Errors
/// [`ArtifactError`]: not an artifact, an entry that is refused (absolute, `..`, a link that leads
/// out, a device, set-user-id, a duplicate), larger than the limits, or not readable.
pub fn artifact_digest(path: &Path) -> Result<Digest, ArtifactError> {
    Ok(read(path, &mut Discard)?.digest())
}

/// Where the files of an artifact go while it is read.
pub(crate) trait Sink {
    /// A folder; its parent has been named before.
    fn folder(&mut self, name: &[u8]) -> io::Result<()>;
    /// A file; the bytes follow by the writer.
    fn file(&mut self, name: &[u8], executable: bool) -> io::Result<Box<dyn io::Write>>;
    /// A symbolic link.
    fn link(&mut self, name: &[u8], target: &[u8]) -> io::Result<()>;
    /// Another name of a file that has been written.
    fn copy(&mut self, name: &[u8], of: &[u8]) -> io::Result<()>;
}

/// Keeps nothing: for a digest alone.
struct Discard;

impl Sink for Discard {
    fn folder(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
    fn file(&mut self, _: &[u8], _: bool) -> io::Result<Box<dyn io::Write>> {
        Ok(Box::new(io::sink()))
    }
    fn link(&mut self, _: &[u8], _: &[u8]) -> io::Result<()> {
        Ok(())
    }
    fn copy(&mut self, _: &[u8], _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// Reads an artifact into `sink` and says what tree it is.
pub(crate) fn read(path: &Path, sink: &mut dyn Sink) -> Result<tree::Tree, ArtifactError> {
    let meta = std::fs::metadata(path).map_err(|e| ArtifactError::io("read", path, e))?;
    if meta.is_dir() {
        return folder::read(path, sink);
    }
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let packing = if name.ends_with(b".tar.gz") {
        decode::Packing::Gzip
    } else if name.ends_with(b".tar.zst") {
        decode::Packing::Zstandard
    } else {
        return Err(ArtifactError::Kind { path: path.to_owned() });
    };
    if !meta.is_file() {
        return Err(ArtifactError::Kind { path: path.to_owned() });
    }
    archive::read(path, packing, sink)
}
