//! Reading a folder.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::tree::{Node, Tree, copy_hashing};
use super::{ArtifactError, MAX_BYTES, Sink};

/// Set-user-id and set-group-id.
const SET_ID: u32 = 0o6000;

pub(crate) fn read(root: &Path, sink: &mut dyn Sink) -> Result<Tree, ArtifactError> {
    let mut tree = Tree::new(root);
    walk(root, &[], &mut tree, sink)?;
    Ok(tree)
}

fn walk(
    root: &Path,
    below: &[u8],
    tree: &mut Tree,
    sink: &mut dyn Sink,
) -> Result<(), ArtifactError> {
    let folder = root.join(OsStr::from_bytes(below));
    let io = |e| ArtifactError::io("read", &folder, e);
    for entry in std::fs::read_dir(&folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let mut name = below.to_vec();
        if !name.is_empty() {
            name.push(b'/');
        }
        name.extend_from_slice(entry.file_name().as_bytes());
        let Some(name) = tree.clean_name(&name)? else { continue };
        let path = entry.path();
        let at = |e| ArtifactError::io("read", &path, e);
        let meta = std::fs::symlink_metadata(&path).map_err(at)?;
        if meta.is_dir() {
            tree.add_folder(&name)?;
            sink.folder(&name).map_err(at)?;
            walk(root, &name, tree, sink)?;
        } else if meta.is_symlink() {
            let target = std::fs::read_link(&path).map_err(at)?.into_os_string();
            tree.add(&name, Node::Link { target: target.as_bytes().to_vec() })?;
            sink.link(&name, target.as_bytes()).map_err(at)?;
        } else if meta.is_file() {
            file(&path, &name, tree, sink)?;
        } else {
            return Err(tree.refuse(&name, "is a device, pipe or socket"));
        }
    }
    Ok(())
}

fn file(
    path: &Path,
    name: &[u8],
    tree: &mut Tree,
    sink: &mut dyn Sink,
) -> Result<(), ArtifactError> {
    let at = |e| ArtifactError::io("read", path, e);
    // Whatever took the place of the file since it was looked at: a link is not followed, a pipe
    // does not block.
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or_default();
    let mut open = File::options().read(true).custom_flags(flags).open(path).map_err(at)?;
    let meta = open.metadata().map_err(at)?;
    if !meta.is_file() {
        return Err(tree.refuse(name, "changed while it was read"));
    }
    if meta.mode() & SET_ID != 0 {
        return Err(tree.refuse(name, "has set-user-id or set-group-id"));
    }
    let executable = meta.mode() & 0o100 != 0;
    let mut out = sink.file(name, executable).map_err(at)?;
    let (length, sha256) = copy_hashing(&mut open, &mut out, MAX_BYTES).map_err(at)?;
    tree.add(name, Node::File { executable, length, sha256 })
}
