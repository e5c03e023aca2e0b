//! Reading an archive from anywhere: nothing in it is trusted.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use tar::{Archive, Entry, EntryType};

use super::decode::{Packing, TooMuch, unpack};
use super::tree::{Node, Tree, copy_hashing};
use super::{ArtifactError, MAX_BYTES, Sink};

/// Set-user-id and set-group-id.
const SET_ID: u32 = 0o6000;

pub(crate) fn read(
    path: &Path,
    packing: Packing,
    sink: &mut dyn Sink,
) -> Result<Tree, ArtifactError> {
    let io = |e: io::Error| too_much(path, e);
    let file = File::open(path).map_err(io)?;
    let mut archive = Archive::new(unpack(file, packing).map_err(io)?);
    let mut reading = Reading { tree: Tree::new(path), folded: BTreeSet::new(), sink, path };
    for entry in archive.entries().map_err(io)? {
        reading.entry(&mut entry.map_err(io)?)?;
    }
    // To the end, so that the packing's checksums are compared.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(io)?;
    Ok(reading.tree)
}

/// A limit that was hit below the archive reader, else a read error.
fn too_much(path: &Path, e: io::Error) -> ArtifactError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = e.get_ref().map(|c| c as _);
    while let Some(error) = cause {
        if let Some(TooMuch(why)) = error.downcast_ref() {
            return ArtifactError::limit(path, why.clone());
        }
        // An io::Error inside another error hides its own cause behind `get_ref`.
        cause = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as _),
            None => error.source(),
        };
    }
    let _ = e.source();
    ArtifactError::io("read", path, e)
}

struct Reading<'a> {
    tree: Tree,
    /// Names without case: two that differ in case only are refused, because what an archive is
    /// must not depend on where it is unpacked.
    folded: BTreeSet<String>,
    sink: &'a mut dyn Sink,
    path: &'a Path,
}

impl Reading<'_> {
    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), ArtifactError> {
        let raw = entry.path_bytes().into_owned();
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        if raw.contains(&b'\\') {
            return Err(self.tree.refuse(&raw, "has a backslash in its name"));
        }
        let Some(name) = self.tree.clean_name(&raw)? else {
            return if kind == EntryType::Directory {
                Ok(())
            } else {
                Err(self.tree.refuse(&raw, "has no name"))
            };
        };
        let folder = kind == EntryType::Directory;
        let new =
            if folder { self.tree.add_folder(&name)? } else { self.tree.add_parents(&name)? };
        for folder in new {
            self.fold(&folder)?;
            self.sink.folder(&folder).map_err(|e| too_much(self.path, e))?;
        }
        if folder {
            Ok(())
        } else if kind.is_file() || kind.is_contiguous() {
            self.file(&name, entry)
        } else if kind.is_symlink() {
            self.link(&name, entry)
        } else if kind.is_hard_link() {
            self.hard_link(&name, entry)
        } else if kind.is_character_special() || kind.is_block_special() || kind.is_fifo() {
            Err(self.tree.refuse(&name, "is a device or pipe"))
        } else {
            Err(self.tree.refuse(&name, "is of a kind that artifacts do not have"))
        }
    }

    fn fold(&mut self, name: &[u8]) -> Result<(), ArtifactError> {
        if self.folded.insert(String::from_utf8_lossy(name).to_lowercase()) {
            return Ok(());
        }
        Err(self.tree.refuse(name, "is there twice, or in another mix of capitals"))
    }

    fn file<R: Read>(
        &mut self,
        name: &[u8],
        entry: &mut Entry<'_, R>,
    ) -> Result<(), ArtifactError> {
        let io = |e: io::Error| too_much(self.path, e);
        let mode = entry.header().mode().map_err(io)?;
        if mode & SET_ID != 0 {
            return Err(self.tree.refuse(name, "has set-user-id or set-group-id"));
        }
        self.fold(name)?;
        if self.tree.get(name).is_some() {
            return Err(self.tree.refuse(name, "is there twice"));
        }
        let io = |e: io::Error| too_much(self.path, e);
        let executable = mode & 0o100 != 0;
        let mut out = self.sink.file(name, executable).map_err(io)?;
        let (length, sha256) = copy_hashing(entry, &mut out, MAX_BYTES).map_err(io)?;
        self.tree.add(name, Node::File { executable, length, sha256 })
    }

    fn link<R: Read>(&mut self, name: &[u8], entry: &Entry<'_, R>) -> Result<(), ArtifactError> {
        let target = entry.link_name_bytes().unwrap_or_default().into_owned();
        self.fold(name)?;
        self.tree.add(name, Node::Link { target: target.clone() })?;
        self.sink.link(name, &target).map_err(|e| too_much(self.path, e))
    }

    /// Becomes a file of its own with the same content.
    fn hard_link<R: Read>(
        &mut self,
        name: &[u8],
        entry: &Entry<'_, R>,
    ) -> Result<(), ArtifactError> {
        let target = entry.link_name_bytes().unwrap_or_default().into_owned();
        let target = self.tree.clean_name(&target)?.unwrap_or_default();
        let node = match self.tree.get(&target) {
            Some(node @ Node::File { .. }) => node.clone(),
            Some(Node::Folder | Node::Link { .. }) | None => {
                return Err(self.tree.refuse(name, "is a hard link to no file before it"));
            }
        };
        self.fold(name)?;
        self.tree.add(name, node)?;
        self.sink.copy(name, &target).map_err(|e| too_much(self.path, e))
    }
}
