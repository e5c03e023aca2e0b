//! Opening and finding sockets of a home.

use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Longest path that a `sockaddr_un` takes, with a margin.
const SOCKET_PATH_MAX: usize = 100;

/// A socket that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the socket {path}: {source}")]
pub struct ListenError {
    path: PathBuf,
    source: io::Error,
}

/// Listens at `path` (mode 0600). A stale socket there is replaced: the caller owns the home. Where
/// the path is too long, a short one under `$XDG_RUNTIME_DIR`, `/run/user/UID` or the temporary
/// folder is used and its name is written into the file `path`.
///
/// # Errors
/// [`ListenError`] with the path.
pub fn bind(path: &Path) -> Result<UnixListener, ListenError> {
    let wrap = |source| ListenError { path: path.to_owned(), source };
    let real = if path.as_os_str().len() <= SOCKET_PATH_MAX {
        path.to_owned()
    } else {
        let short = short_path(path).map_err(wrap)?;
        let fresh = path.with_extension("sock.new");
        std::fs::write(&fresh, short.as_os_str().as_encoded_bytes()).map_err(wrap)?;
        std::fs::rename(&fresh, path).map_err(wrap)?;
        short
    };
    match std::fs::symlink_metadata(&real) {
        Ok(meta) if meta.file_type().is_socket() => std::fs::remove_file(&real).map_err(wrap)?,
        Ok(_) if real == path => std::fs::remove_file(&real).map_err(wrap)?,
        Ok(_) | Err(_) => {}
    }
    let listener = UnixListener::bind(&real).map_err(wrap)?;
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o600)).map_err(wrap)?;
    Ok(listener)
}

/// The socket that `path` names: itself, or the one whose name it holds.
#[must_use]
pub fn resolve(path: &Path) -> PathBuf {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() => std::fs::read_to_string(path)
            .map_or_else(|_| path.to_owned(), |t| PathBuf::from(t.trim())),
        Ok(_) | Err(_) => path.to_owned(),
    }
}

/// A short path for a socket, the same for the same `path`, in a folder that only we can enter.
fn short_path(path: &Path) -> io::Result<PathBuf> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let uid = rustix::process::getuid().as_raw();
    let base = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|dir| dir.is_dir() && dir.as_os_str().len() < 40)
        .unwrap_or_else(|| PathBuf::from(format!("/tmp/tidegate-{uid}")));
    let mut hasher = DefaultHasher::new();
    path.parent().hash(&mut hasher);
    let folder = base.join(format!("tidegate-{:016x}", hasher.finish()));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let meta = std::fs::symlink_metadata(&folder)?;
    if !meta.is_dir() || meta.uid() != uid || meta.mode() & 0o077 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} is not a folder of ours with mode 0700", folder.display()),
        ));
    }
    Ok(folder.join(path.file_name().unwrap_or_default()))
}
