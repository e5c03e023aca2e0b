//! Names of the files in a home. Pure paths; nothing here touches a disk.

use std::path::{Path, PathBuf};

/// Longest path that fits into a `sockaddr_un` with room for the longest socket name.
pub const SOCKET_PATH_MAX: usize = 90;

/// Exit code of an engine whose journal is damaged or of a newer form: another start ends the same
/// way, until somebody has done something about it.
pub const EXIT_JOURNAL: i32 = 65;

/// Where everything of a home lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// A home at this absolute folder.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.root.join("journal.db")
    }

    /// The exclusive lock of the owner.
    #[must_use]
    pub fn engine_lock(&self) -> PathBuf {
        self.root.join("engine.lock")
    }

    /// `EPOCH COUNTER`, rewritten by the owner several times a second.
    #[must_use]
    pub fn engine_heartbeat(&self) -> PathBuf {
        self.root.join("engine.heartbeat")
    }

    /// The socket of `role` (`engine`, `host`, `switch`, `sockets`), or, where the home's path is
    /// too long for a socket, a file of that name which holds the socket's path.
    #[must_use]
    pub fn socket(&self, role: &str) -> PathBuf {
        self.root.join(format!("{role}.sock"))
    }

    /// Process id of `role`, alone.
    #[must_use]
    pub fn pid(&self, role: &str) -> PathBuf {
        self.root.join(format!("{role}.pid"))
    }

    /// Log of `role`.
    #[must_use]
    pub fn log(&self, role: &str) -> PathBuf {
        self.root.join(format!("{role}.log"))
    }

    /// Sample segments, a folder per rollout.
    #[must_use]
    pub fn samples(&self) -> PathBuf {
        self.root.join("samples")
    }

    /// Content-addressed blobs.
    #[must_use]
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// The host's own state.
    #[must_use]
    pub fn host(&self) -> PathBuf {
        self.root.join("host")
    }

    /// The switch's own state.
    #[must_use]
    pub fn switch(&self) -> PathBuf {
        self.root.join("switch")
    }
}
