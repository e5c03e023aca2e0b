//! What the demo plays on: a temporary project with four versions of a small service.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tidegate_wire::home::Home;

/// The bad version.
pub(super) const BAD: &str = "v3";

/// This binary in the demo's folder.
const BINARY: &str = "tidegate";

/// Versions with the flags that they are started with.
const VERSIONS: [(&str, &str); 4] = [("v1", ""), ("v2", ""), (BAD, " --errors 0.5"), ("v4", "")];

/// An address that nobody listens on, if possible below the ports that the system gives out by
/// itself: one of those could be somebody's by the time that the switch opens it.
fn free_address() -> io::Result<SocketAddr> {
    let start = std::process::id() % 8_000;
    for offset in 0..200 {
        let port = u16::try_from(10_000 + (start + offset) % 8_000).unwrap_or(0);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return listener.local_addr();
        }
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// This binary under a name of the demo's own: the one that it was started by may be replaced while
/// the acts are played, by the next build or an upgrade.
fn own_binary(folder: &Path) -> io::Result<PathBuf> {
    let (from, to) = (std::env::current_exe()?, folder.join(BINARY));
    if std::fs::hard_link(&from, &to).is_err() {
        // Another file system, or a file of somebody else's.
        std::fs::copy(&from, &to)?;
    }
    Ok(to)
}

/// A folder with everything in it.
#[derive(Debug)]
pub(super) struct Stage {
    /// The folder.
    pub(super) folder: PathBuf,
    /// Our own binary.
    pub(super) binary: PathBuf,
    /// Where clients connect.
    pub(super) listen: SocketAddr,
}

impl Stage {
    /// Makes the folder and fills it.
    ///
    /// # Errors
    /// If it exists already or cannot be written.
    pub(super) fn build(folder: &Path) -> io::Result<Self> {
        std::fs::DirBuilder::new().mode(0o700).create(folder)?;
        let folder = folder.canonicalize()?;
        let binary = own_binary(&folder)?;
        let listen = free_address()?;
        let stage = Self { folder, binary, listen };
        std::fs::write(stage.file(), stage.project())?;
        for (version, flags) in VERSIONS {
            stage.version(version, flags)?;
        }
        Ok(stage)
    }

    /// The project file.
    pub(super) fn file(&self) -> PathBuf {
        self.folder.join("tidegate.yaml")
    }

    /// The home.
    pub(super) fn home(&self) -> Home {
        Home::new(self.folder.join("home"))
    }

    /// The client's raw log.
    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("requests.log")
    }

    fn project(&self) -> String {
        format!(
            r#"version: 1
project: demo
home: home
services:
  web:
    artifact: dist/web-{{version}}
    command: [./web, --listen, "{{address}}", --version, "{{version}}"]
    instances: 2
    stop: {{ grace: 5s }}
    probes:
      readiness: {{ http: /health/ready, periodSeconds: 1 }}
      version: {{ http: /version, field: version }}
environments:
  production:
    platform: {{ process: {{ listen: "{}" }} }}
    strategy: quick
    bake: 2s
strategies:
  quick:
    canary:
      steps:
        - setWeight: 20
        - pause: {{ duration: 4s }}
        - setWeight: 50
        - pause: {{ duration: 3s }}
      analysis: [errors]
      scaleDownDelay: 1s
checks:
  errors: {{ counts: errorRate, limit: 5%, minimumSample: 20, for: 2s }}
"#,
            self.listen
        )
    }

    /// A version is a folder with a start script: it runs this binary as the example service.
    fn version(&self, version: &str, flags: &str) -> io::Result<()> {
        use std::io::Write;
        let folder = self.folder.join("dist").join(format!("web-{version}"));
        std::fs::create_dir_all(&folder)?;
        let mut script = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(folder.join("web"))?;
        let binary = self.binary.to_string_lossy().replace('\'', r"'\''");
        write!(script, "#!/bin/sh\n# web {version}\nexec '{binary}' demo-service \"$@\"{flags}\n")
    }
}
