//! A project in a temporary folder, the binary in it, and the end of every process that it starts.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Nothing here takes longer; a test that waits for more has failed.
pub(crate) const BOUND: Duration = Duration::from_secs(40);

/// A folder with a project, and a home.
pub(crate) struct Stage {
    folder: tempfile::TempDir,
    pub(crate) listen: SocketAddr,
}

/// What a process said.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Said {
    /// The document on stdout.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|e| panic!("{e}: {}\n{}", self.out, self.err))
    }

    /// The document on stderr.
    pub(crate) fn error(&self) -> Value {
        serde_json::from_str(&self.err).unwrap_or_else(|e| panic!("{e}: {}", self.err))
    }

    /// With this exit code, or the test fails showing everything.
    #[track_caller]
    pub(crate) fn code(self, wanted: i32) -> Self {
        assert_eq!(self.code, Some(wanted), "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }
}

/// An address that nobody listens on, below the ports that the system gives out by itself: one of
/// those could be somebody's by the time that the switch opens it.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 8_000).unwrap();
    (0..8_000)
        .map(|_| 10_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 8_000)
        .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
        .find(|address| TcpListener::bind(address).is_ok())
        .unwrap()
}

/// A service of Python's standard library: answers every GET with a status that its file holds.
const SERVICE: &str = r#"#!/usr/bin/env python3
import http.server, pathlib, sys
status = int(pathlib.Path(__file__).with_name("status").read_text())
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        code = 200 if self.path == "/health" else status
        body = pathlib.Path(__file__).with_name("version").read_bytes()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
host, port = sys.argv[1].rsplit(":", 1)
http.server.ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
"#;

impl Stage {
    /// An empty folder.
    pub(crate) fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, listen: free_address() }
    }

    /// A project of one service and one environment with these steps.
    pub(crate) fn project(steps: &str) -> Self {
        let stage = Self::empty();
        let text = format!(
            r#"version: 1
project: shop
services:
  web:
    artifact: dist/web-{{version}}
    command: [./web, "{{address}}"]
    instances: 1
    stop: {{ grace: 2s }}
    probes: {{ readiness: {{ http: /health, periodSeconds: 1 }} }}
environments:
  production:
    platform: {{ process: {{ listen: "{}" }} }}
    strategy: quick
    bake: 1s
strategies:
  quick:
    canary:
      steps: [{steps}]
      analysis: [errors]
      scaleDownDelay: 1s
checks:
  errors: {{ counts: errorRate, limit: 5%, minimumSample: 10 }}
"#,
            stage.listen
        );
        stage.write("tidegate.yaml", &text);
        stage
    }

    /// A copy of `examples/NAME` as it is, but for a port that is free.
    pub(crate) fn example(name: &str) -> Self {
        let stage = Self::empty();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
        copy(&from, stage.folder.path());
        stage.rewrite("tidegate.yaml", "127.0.0.1:8080", &stage.listen.to_string());
        stage
    }

    /// Replaces the only place that reads `old` in a file.
    #[track_caller]
    pub(crate) fn rewrite(&self, name: &str, old: &str, new: &str) {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        assert_eq!(text.matches(old).count(), 1, "{old:?} in {name}:\n{text}");
        self.write(name, &text.replace(old, new));
    }

    /// Ends everything, and fails if a process that belongs to this folder is left.
    pub(crate) fn end(self) {
        let folder = self.folder.path().to_owned();
        drop(self);
        wait_for("no process of the folder is left", || !has_processes(&folder));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.path("home")
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// A version that answers everything but its probe with this status.
    pub(crate) fn version(&self, version: &str, status: u16) {
        let folder = format!("dist/web-{version}");
        self.write(&format!("{folder}/web"), SERVICE);
        self.write(&format!("{folder}/status"), &status.to_string());
        self.write(&format!("{folder}/version"), version);
        let program = self.path(&format!("{folder}/web"));
        std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The binary in this folder, with a clean environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.folder.path())
            .env("TZ", "UTC")
            .env("TIDEGATE_HOME", self.home())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a verb to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        self.finish(self.command(arguments).spawn().unwrap())
    }

    /// Waits for a process, with a bound.
    pub(crate) fn finish(&self, mut child: Child) -> Said {
        let mut streams = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let out = std::thread::spawn(move || read(&mut streams.0));
        let err = std::thread::spawn(move || read(&mut streams.1));
        let mut status = None;
        wait_for("a verb ends", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        let (out, err) = (out.join().unwrap(), err.join().unwrap());
        Said { code: status.unwrap().code(), out, err }
    }

    /// `status -o json`, only the environment's part.
    pub(crate) fn lane(&self) -> Value {
        let status = self.run(&["status", "-o", "json"]).code(0).json();
        status["environments"].get(0).cloned().unwrap_or(Value::Null)
    }

    /// Waits until the rollout's document is as wanted.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let mut good = false;
        let begun = Instant::now();
        while begun.elapsed() < BOUND {
            last = self.lane();
            good = wanted(&last["rollout"]);
            if good {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(good, "waited in vain: {what}\n{last:#}\n{}", self.logs());
        last["rollout"].clone()
    }

    /// What is in `ROLE.pid`.
    pub(crate) fn pid(&self, role: &str) -> i32 {
        let text = std::fs::read_to_string(self.home().join(format!("{role}.pid"))).unwrap();
        text.trim().parse().unwrap()
    }

    /// The logs of the roles, for failures.
    pub(crate) fn logs(&self) -> String {
        ["engine", "host", "switch"]
            .map(|role| {
                let path = self.home().join(format!("{role}.log"));
                let text = std::fs::read_to_string(path).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                format!("{role}: {}", lines[lines.len().saturating_sub(15)..].join("\n"))
            })
            .join("\n")
    }

    /// One GET through the switch; the status, none if there was no answer.
    pub(crate) fn get(&self) -> Option<u16> {
        get(self.listen)
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Whether a process runs in this folder or was given a path in it.
fn has_processes(folder: &Path) -> bool {
    let name = folder.to_str().unwrap();
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let runs_in = std::fs::read_link(entry.path().join("cwd"));
        String::from_utf8_lossy(&words).contains(name)
            || runs_in.is_ok_and(|runs_in| runs_in.starts_with(folder))
    })
}

fn read(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

pub(crate) fn get(address: SocketAddr) -> Option<u16> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.split_whitespace().nth(1)?.parse().ok()
}

/// Waits for a condition, with a bound.
#[track_caller]
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < BOUND, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a signal to a process that this test has started, by its id.
pub(crate) fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, signal);
}

impl Drop for Stage {
    fn drop(&mut self) {
        use rustix::process::Signal;
        let ours = |pid: i32| {
            std::fs::read_link(format!("/proc/{pid}/exe"))
                .is_ok_and(|exe| exe == Path::new(env!("CARGO_BIN_EXE_tidegate")))
        };
        // Each of them restarts others, so all at once and again until none is left.
        let mut quiet = 0;
        let begun = Instant::now();
        while quiet < 3 && begun.elapsed() < Duration::from_secs(10) {
            quiet += 1;
            for role in ["engine", "host", "switch"] {
                let text = std::fs::read_to_string(self.home().join(format!("{role}.pid")));
                if let Ok(Ok(pid)) = text.map(|text| text.trim().parse::<i32>())
                    && ours(pid)
                {
                    signal(pid, Signal::KILL);
                    quiet = 0;
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let folders = std::fs::read_dir(self.home().join("host/instances"));
        for entry in folders.into_iter().flatten().flatten() {
            let Ok(bytes) = std::fs::read(entry.path().join("status.json")) else { continue };
            let Ok(status) = serde_json::from_slice::<Value>(&bytes) else { continue };
            if let Some(shim) = status["shim"]["pid"].as_i64().and_then(|p| i32::try_from(p).ok())
                && ours(shim)
            {
                signal(shim, Signal::TERM);
                let begun = Instant::now();
                while ours(shim) && begun.elapsed() < Duration::from_secs(5) {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }
}
