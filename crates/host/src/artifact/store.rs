//! The artifacts of a host: `host/artifacts/HEX/`, each whole or absent.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tidegate_core::Digest;
use tidegate_wire::error::{DIGEST_CHANGED, ErrorBody};

use super::{ArtifactError, Sink, read};
use crate::state::Refusal;
use crate::state::files;

/// How many artifacts are kept that no document names.
const KEPT: usize = 10;

/// The folder of all artifacts.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the store and removes what was left half-done.
    pub(crate) fn open(root: PathBuf) -> io::Result<Self> {
        files::private_folder(&root)?;
        for entry in std::fs::read_dir(&root)? {
            let entry = entry?;
            if entry.file_name().as_bytes().starts_with(b".") {
                let _ = files::remove_folder(&entry.path());
            }
        }
        Ok(Self { root })
    }

    /// Where the artifact with this digest lies, or would.
    pub(crate) fn folder(&self, digest: &Digest) -> PathBuf {
        self.root.join(digest.hex())
    }

    /// Whether it is here, whole.
    pub(crate) fn has(&self, digest: &Digest) -> bool {
        digest.as_str().parse::<Digest>().is_ok() && self.folder(digest).is_dir()
    }

    /// Brings the artifact at `path` in. Blocks. Nothing happens if it is here already.
    pub(crate) fn stage(&self, path: &Path, digest: &Digest) -> Result<(), Refusal> {
        if digest.as_str().parse::<Digest>().is_err() {
            return Err(Refusal::new(
                400,
                ErrorBody::new("badRequest", "this is not a digest", "digest")
                    .fix("a digest is sha256: and 64 lower-case hexadecimal digits"),
            ));
        }
        if self.has(digest) {
            // Asked for again: it counts as new when old ones are removed.
            let folder = self.folder(digest);
            let touched =
                File::open(&folder).and_then(|f| f.set_modified(std::time::SystemTime::now()));
            return touched.map_err(|e| Refusal::io("cannot use an artifact", show(&folder), &e));
        }
        let fresh = self.root.join(format!(".{}.{}", digest.short(), crate::process::random_id()));
        let staged = self.unpack(path, digest, &fresh);
        if staged.is_err() {
            let _ = files::remove_folder(&fresh);
        }
        staged
    }

    fn unpack(&self, path: &Path, digest: &Digest, fresh: &Path) -> Result<(), Refusal> {
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(fresh)
            .map_err(|e| Refusal::io("cannot make a folder for an artifact", show(fresh), &e))?;
        let mut disk = Disk { root: fresh.to_owned(), folders: Vec::new() };
        let tree = read(path, &mut disk).map_err(|e| refusal(&e))?;
        let found = tree.digest();
        if found != *digest {
            let body = ErrorBody::new(
                DIGEST_CHANGED,
                format!("the artifact is {found}, not {digest} as when the release was made"),
                show(path),
            )
            .fix("restore the artifact, or release it under a new version");
            return Err(Refusal::new(422, body));
        }
        self.settle(fresh, digest, &disk.folders)
            .map_err(|e| Refusal::io("cannot keep an artifact", show(&self.root), &e))
    }

    fn settle(&self, fresh: &Path, digest: &Digest, folders: &[PathBuf]) -> io::Result<()> {
        for folder in folders.iter().rev() {
            std::fs::set_permissions(folder, Permissions::from_mode(0o555))?;
        }
        // One call for all of its files instead of one for each.
        rustix::fs::syncfs(File::open(fresh)?)?;
        let target = self.folder(digest);
        match std::fs::rename(fresh, &target) {
            Ok(()) => {}
            // Another request has been faster with the same content.
            Err(_) if target.is_dir() => files::remove_folder(fresh)?,
            Err(e) => return Err(e),
        }
        std::fs::set_permissions(&target, Permissions::from_mode(0o555))?;
        files::sync_folder(&self.root)
    }

    /// Removes artifacts that nobody uses, except for the newest few.
    pub(crate) fn sweep(&self, used: &BTreeSet<Digest>) -> io::Result<()> {
        let mut idle = Vec::new();
        for entry in std::fs::read_dir(&self.root)? {
            let entry = entry?;
            let name = entry.file_name();
            let hex = name.to_string_lossy().into_owned();
            if hex.starts_with('.') || used.iter().any(|d| d.hex() == hex) {
                continue;
            }
            idle.push((entry.metadata()?.modified()?, entry.path()));
        }
        idle.sort();
        let surplus = idle.len().saturating_sub(KEPT);
        for (_, path) in idle.into_iter().take(surplus) {
            // By another name first, so that nobody finds half of it.
            let going = self.root.join(format!(".{}", crate::process::random_id()));
            std::fs::rename(&path, &going)?;
            files::remove_folder(&going)?;
        }
        Ok(())
    }
}

/// Writes an artifact's files.
struct Disk {
    root: PathBuf,
    folders: Vec<PathBuf>,
}

impl Disk {
    fn path(&self, name: &[u8]) -> PathBuf {
        self.root.join(OsStr::from_bytes(name))
    }
}

impl Sink for Disk {
    fn folder(&mut self, name: &[u8]) -> io::Result<()> {
        let path = self.path(name);
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        self.folders.push(path);
        Ok(())
    }

    fn file(&mut self, name: &[u8], executable: bool) -> io::Result<Box<dyn io::Write>> {
        let mode = if executable { 0o555 } else { 0o444 };
        let file = File::options().write(true).create_new(true).mode(mode).open(self.path(name))?;
        // Whatever the umask says.
        file.set_permissions(Permissions::from_mode(mode))?;
        Ok(Box::new(file))
    }

    fn link(&mut self, name: &[u8], target: &[u8]) -> io::Result<()> {
        std::os::unix::fs::symlink(OsStr::from_bytes(target), self.path(name))
    }

    fn copy(&mut self, name: &[u8], of: &[u8]) -> io::Result<()> {
        std::fs::hard_link(self.path(of), self.path(name))
    }
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

fn refusal(e: &ArtifactError) -> Refusal {
    let fix = match e {
        ArtifactError::Io { source, path, .. } => {
            return Refusal::io("cannot stage the artifact", show(path), source);
        }
        ArtifactError::Kind { .. } => "name a folder, a .tar.gz or a .tar.zst as the artifact",
        ArtifactError::Entry { .. } => "build the artifact without this entry",
        ArtifactError::Limit { .. } => "build a smaller artifact",
    };
    Refusal::impossible(e.to_string(), "artifact", fix)
}

/// The program of a start command as it can be executed: beneath the artifact's root if it has a
/// slash (an absolute path stays one), else by the `PATH` that instances get.
///
/// # Errors
/// `impossible`.
pub(crate) fn runnable(artifact: &Path, program: &str) -> Result<PathBuf, Refusal> {
    let refuse = |why: String| {
        Err(Refusal::impossible(
            format!("the start command {program} {why}"),
            format!("start command {program}"),
            "correct `command` in tidegate.yaml, or build the artifact with this file in it",
        ))
    };
    if program.is_empty() {
        return refuse("is empty".to_owned());
    }
    if !program.contains('/') {
        let path = std::env::var("PATH").unwrap_or_default();
        return match std::env::split_paths(&path).map(|p| p.join(program)).find(|p| executable(p)) {
            Some(found) => Ok(found),
            None => refuse(format!("is in none of the folders of PATH ({path})")),
        };
    }
    if Path::new(program).components().any(|c| c == std::path::Component::ParentDir) {
        return refuse("leads out of the artifact with \"..\"".to_owned());
    }
    let path = artifact.join(program.strip_prefix("./").unwrap_or(program));
    match std::fs::metadata(&path) {
        Err(e) => refuse(format!("is missing in the artifact: {e}")),
        Ok(meta) if !meta.is_file() => refuse("is not a file".to_owned()),
        Ok(_) if !executable(&path) => {
            refuse("is not executable; set its mode with `chmod +x`".to_owned())
        }
        Ok(_) => Ok(path),
    }
}

fn executable(path: &Path) -> bool {
    // The mode as well: root may execute nothing that has no executable bit, but `access` is not
    // told apart from a folder.
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}
