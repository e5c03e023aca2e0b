//! What an artifact is made of, its rules, and its digest.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

use sha2::{Digest as _, Sha256};
use tidegate_core::Digest;

use super::{ArtifactError, MAX_BYTES, MAX_DEPTH, MAX_ENTRIES};

/// First line of a manifest; another form of manifest gets another one.
const FORM: &[u8] = b"tidegate-tree-1\n";

/// One thing in an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Folder,
    File { executable: bool, length: u64, sha256: [u8; 32] },
    Link { target: Vec<u8> },
}

/// A tree by path; paths are relative, with `/`, without `.` and `..`.
#[derive(Debug)]
pub(crate) struct Tree {
    artifact: std::path::PathBuf,
    nodes: BTreeMap<Vec<u8>, Node>,
    bytes: u64,
}

impl Tree {
    pub(crate) fn new(artifact: &Path) -> Self {
        Self { artifact: artifact.to_owned(), nodes: BTreeMap::new(), bytes: 0 }
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// SHA-256 over the form's line and then, for each path in the order of its bytes: a letter
    /// (`d`, `f`, `x` for an executable file, `l`), the length of the path as 8 bytes (lowest
    /// first), the path, and for a file its length (8 bytes) and the SHA-256 of its content, for a
    /// link the length (8 bytes) and bytes of its target.
    pub(crate) fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        hash.update(FORM);
        for (name, node) in &self.nodes {
            let letter: &[u8] = match node {
                Node::Folder => b"d",
                Node::File { executable: false, .. } => b"f",
                Node::File { executable: true, .. } => b"x",
                Node::Link { .. } => b"l",
            };
            hash.update(letter);
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
            match node {
                Node::Folder => {}
                Node::File { length, sha256, .. } => {
                    hash.update(length.to_le_bytes());
                    hash.update(sha256);
                }
                Node::Link { target } => {
                    hash.update((target.len() as u64).to_le_bytes());
                    hash.update(target);
                }
            }
        }
        Digest::from_sha256(hash.finalize().into())
    }

    /// Adds a folder that may be there already. Returns the folders (parents first) that are new.
    pub(crate) fn add_folder(&mut self, name: &[u8]) -> Result<Vec<Vec<u8>>, ArtifactError> {
        let new = self.add_parents(name)?;
        match self.nodes.get(name) {
            Some(Node::Folder) => Ok(new),
            Some(Node::File { .. } | Node::Link { .. }) => Err(self.refuse(name, "is there twice")),
            None => {
                self.insert(name.to_owned(), Node::Folder)?;
                Ok(new.into_iter().chain([name.to_owned()]).collect())
            }
        }
    }

    /// Adds the folders above `name`; see [`Tree::add_folder`].
    pub(crate) fn add_parents(&mut self, name: &[u8]) -> Result<Vec<Vec<u8>>, ArtifactError> {
        let mut new = Vec::new();
        for end in name.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at) {
            let part = name.get(..end).unwrap_or_default();
            match self.nodes.get(part) {
                Some(Node::Folder) => {}
                Some(Node::File { .. } | Node::Link { .. }) => {
                    return Err(self.refuse(name, "lies beneath something that is not a folder"));
                }
                None => {
                    self.insert(part.to_owned(), Node::Folder)?;
                    new.push(part.to_owned());
                }
            }
        }
        Ok(new)
    }

    /// Adds a file or link under a name that is not there yet.
    pub(crate) fn add(&mut self, name: &[u8], node: Node) -> Result<(), ArtifactError> {
        if self.nodes.contains_key(name) {
            return Err(self.refuse(name, "is there twice"));
        }
        if let Node::Link { target } = &node {
            self.check_link(name, target)?;
        }
        if let Node::File { length, .. } = node {
            self.count(length)?;
        }
        self.insert(name.to_owned(), node)
    }

    /// Whether so many bytes more would still be fine.
    pub(crate) fn count(&mut self, length: u64) -> Result<(), ArtifactError> {
        self.bytes = self.bytes.saturating_add(length);
        if self.bytes > MAX_BYTES {
            return Err(ArtifactError::limit(
                &self.artifact,
                format!("holds more than {} GiB", MAX_BYTES >> 30),
            ));
        }
        Ok(())
    }

    fn insert(&mut self, name: Vec<u8>, node: Node) -> Result<(), ArtifactError> {
        if self.nodes.len() >= MAX_ENTRIES {
            return Err(ArtifactError::limit(
                &self.artifact,
                format!("holds more than {MAX_ENTRIES} entries"),
            ));
        }
        self.nodes.insert(name, node);
        Ok(())
    }

    pub(crate) fn refuse(&self, name: &[u8], why: &str) -> ArtifactError {
        ArtifactError::entry(&self.artifact, name, why)
    }

    /// A name as it is kept: relative, without `.` parts. `None` is the root itself.
    pub(crate) fn clean_name(&self, name: &[u8]) -> Result<Option<Vec<u8>>, ArtifactError> {
        if name.contains(&0) {
            return Err(self.refuse(name, "has a zero byte in its name"));
        }
        if name.first() == Some(&b'/') {
            return Err(self.refuse(name, "is an absolute path"));
        }
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in name.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(self.refuse(name, "leads out of the artifact with \"..\"")),
                _ => parts.push(part),
            }
        }
        if parts.len() > MAX_DEPTH {
            return Err(self.refuse(name, &format!("is deeper than {MAX_DEPTH} folders")));
        }
        Ok((!parts.is_empty()).then(|| parts.join(&b'/')))
    }

    /// A link must stay inside. `..` is allowed at the beginning only: there it climbs real folders
    /// and can be counted; after a name it would climb from wherever another link leads.
    fn check_link(&self, name: &[u8], target: &[u8]) -> Result<(), ArtifactError> {
        let out = |why: &str| Err(self.refuse(name, why));
        if target.is_empty() || target.contains(&0) {
            return out("is a link without a proper target");
        }
        if target.first() == Some(&b'/') {
            return out("is a link to an absolute path");
        }
        let depth = name.iter().filter(|b| **b == b'/').count();
        let mut climbed = 0_usize;
        let mut below = false;
        for part in target.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." if below => return out("is a link with \"..\" after a name"),
                b".." => climbed += 1,
                _ => below = true,
            }
        }
        if climbed > depth { out("is a link that leads out of the artifact") } else { Ok(()) }
    }
}

/// Copies a file's bytes and says how many they were and their SHA-256; stops above `most`.
pub(crate) fn copy_hashing(
    from: &mut dyn Read,
    to: &mut dyn Write,
    most: u64,
) -> std::io::Result<(u64, [u8; 32])> {
    let mut hash = Sha256::new();
    let mut length = 0_u64;
    let mut chunk = vec![0_u8; 64 << 10];
    loop {
        let n = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let part = chunk.get(..n).unwrap_or_default();
        length += n as u64;
        if length > most {
            break;
        }
        hash.update(part);
        to.write_all(part)?;
    }
    to.flush()?;
    Ok((length, hash.finalize().into()))
}
