//! How a host is started, and why it could not be.

use std::ffi::OsString;
use std::path::PathBuf;

use tidegate_wire::home::Home;

/// What a host has to know before it starts.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Where everything lies.
    pub home: Home,
    /// Absolute path of our own binary; shims, switch and engine are started from it.
    pub binary: PathBuf,
    /// Version of the binary, for [`tidegate_wire::host::Claimed`].
    pub version: String,
    /// Arguments that make the binary an engine of this home.
    pub engine: Vec<OsString>,
    /// Arguments that make the binary a switch of this home; none: somebody else keeps a switch
    /// alive on `switch.sock`.
    pub switch: Option<Vec<OsString>>,
    /// First pause in milliseconds before an instance that has ended is started again; doubled
    /// each time up to 5 minutes, forgotten after 10 minutes of running.
    pub restart_after_ms: u64,
    /// Size in bytes at which a log file of an instance is rotated.
    pub log_bytes: u64,
    /// How many files of each log are kept, the one being written included.
    pub log_files: u32,
}

impl HostConfig {
    /// The usual: `BINARY engine --home H`, `BINARY switch --home H`, first restart after 1 s,
    /// three log files of 10 MiB.
    #[must_use]
    pub fn new(home: Home, binary: PathBuf, version: &str) -> Self {
        let role = |name: &str| {
            vec![OsString::from(name), OsString::from("--home"), home.root().as_os_str().to_owned()]
        };
        Self {
            engine: role("engine"),
            switch: Some(role("switch")),
            home,
            binary,
            version: version.to_owned(),
            restart_after_ms: 1_000,
            log_bytes: 10 << 20,
            log_files: 3,
        }
    }
}

/// Why a host does not run. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Another process holds the lock of this home's host.
    #[error("a host of the home {home} is running already (it holds {lock})")]
    Running {
        /// The home.
        home: PathBuf,
        /// The lock file.
        lock: PathBuf,
    },
    /// A file of the host could not be read or written.
    #[error("cannot {what} {path}: {source}; check owner, rights and free space there")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The state is there and is not understood. Starting empty would forget fences.
    #[error(
        "the host's state {path} cannot be read: {why}; start the version of tidegate that wrote \
         it, or restore the file from a backup"
    )]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A socket could not be opened.
    #[error(transparent)]
    Listen(#[from] tidegate_ipc::ListenError),
}

impl HostError {
    pub(crate) fn io(
        what: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}
