//! The service as a process, asked by the load client: both ends of every bar, against each other.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tidegate_example_service::load::{ErrorClass, Load, LoadOptions, LoadReport, Tally};

const BOUND: Duration = Duration::from_secs(10);

#[expect(clippy::disallowed_methods, reason = "polls a condition with a bound")]
fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    while start.elapsed() < BOUND {
        if let Some(value) = condition() {
            return value;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("not within {BOUND:?}: {what}");
}

struct Service {
    child: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Service {
    fn start(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("address");
        let child = Command::new(env!("CARGO_BIN_EXE_tidegate-example"))
            .args(["serve", "--listen", "127.0.0.1:0", "--version", "v1", "--address-file"])
            .arg(&file)
            .arg("--request-log")
            .arg(folder.path().join("effects"))
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let address = until("the service listens", || {
            std::fs::read_to_string(&file).ok().map(|text| text.parse().unwrap())
        });
        Self { child, address, folder }
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn options(&self) -> LoadOptions {
        LoadOptions {
            rate: 400.0,
            max_requests: 200,
            timeout: Duration::from_secs(5),
            ..LoadOptions::new(self.address, self.folder.path().join("requests.log"))
        }
    }

    fn load(&self, change: impl FnOnce(&mut LoadOptions)) -> LoadReport {
        let mut options = self.options();
        change(&mut options);
        run_to_its_end(options)
    }

    fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }
}

/// The log has its footer only when the load has come to its own bound.
fn run_to_its_end(options: LoadOptions) -> LoadReport {
    let log = options.log.clone();
    let load = Load::start(options).unwrap();
    until("the load ends by itself", || LoadReport::read(&log).ok());
    load.stop().unwrap()
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn effects(folder: &Path) -> usize {
    std::fs::read_to_string(folder.join("effects")).unwrap().lines().count()
}

#[test]
fn every_request_gets_its_answer_and_leaves_one_effect() {
    let service = Service::start(&[]);
    for keep_alive in [true, false] {
        let before = effects(service.folder.path());
        let Tally { requests, failed, by_version, .. } =
            service.load(|options| options.keep_alive = keep_alive).tally();
        assert_eq!((requests, failed, by_version["v1"]), (200, 0, 200));
        assert_eq!(effects(service.folder.path()) - before, 200);
    }
}

#[test]
fn probes_and_version_are_answered_and_unknown_pages_are_not_found() {
    let service = Service::start(&[]);
    for (path, expected) in [
        ("/health", "200 OK"),
        ("/health/ready", "200 OK"),
        ("/version", r#"{"version":"v1"}"#),
        ("/nothing", "404"),
    ] {
        let answer = service.ask("GET", path, "");
        assert!(answer.contains(expected), "{path}: {answer}");
    }
}

#[test]
fn errors_and_cuts_are_seen_as_what_they_are() {
    let service = Service::start(&["--errors", "0.3"]);
    let tally = service.load(|_| ()).tally();
    assert!((30..=90).contains(&tally.by_status["5xx"]), "{tally:?}");
    assert_eq!(tally.failed_by_version["v1"], tally.failed);
    let answer = service.ask("POST", "/behave", r#"{"errors": 0, "cuts": 1}"#);
    assert!(answer.contains("200 OK"), "{answer}");
    let tally = service.load(|options| options.max_requests = 20).tally();
    assert_eq!(tally.by_error[&ErrorClass::Cut], 20, "{tally:?}");
    assert_eq!(tally.failed_by_version["v1"], 20);
}

#[test]
fn a_service_that_refuses_lives_and_is_seen_as_refused() {
    let mut service = Service::start(&[]);
    service.ask("POST", "/behave", r#"{"refuse": true}"#);
    until("nothing listens", || TcpStream::connect(service.address).err());
    let tally = service.load(|options| options.max_requests = 20).tally();
    assert_eq!(tally.by_error[&ErrorClass::Refused], 20, "{tally:?}");
    assert!(service.child.try_wait().unwrap().is_none(), "it ended");
}

#[test]
fn a_slow_service_times_out_and_the_rate_is_kept() {
    let service = Service::start(&["--latency-ms", "2000"]);
    let report = service.load(|options| {
        options.max_requests = 10;
        options.timeout = Duration::from_millis(100);
    });
    assert_eq!(report.tally().by_error[&ErrorClass::Timeout], 10);
    assert!(report.tally().max_lag_us < 1_000_000, "{:?}", report.tally());
}

#[test]
fn it_crashes_when_it_was_told_to() {
    let mut service = Service::start(&["--crash-after", "5"]);
    let tally = service.load(|options| options.max_requests = 20).tally();
    assert_eq!(tally.by_status["2xx"], 5, "{tally:?}");
    assert_eq!(tally.failed, 15);
    until("it is gone", || service.child.try_wait().unwrap());
    let ended = Command::new(env!("CARGO_BIN_EXE_tidegate-example"))
        .args(["serve", "--listen", "127.0.0.1:0", "--version", "v1", "--crash-at-start"])
        .output()
        .unwrap();
    assert!(!ended.status.success());
}

#[test]
fn requests_under_way_are_answered_after_sigterm_and_nobody_is_ready() {
    let mut service = Service::start(&["--lame-duck-ms", "300", "--latency-ms", "400"]);
    let report = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            service.load(|options| {
                options.rate = 1000.0;
                options.max_requests = 16;
            })
        });
        until("all requests are there", || (effects(service.folder.path()) == 16).then_some(()));
        service.terminate();
        until("not ready", || {
            service.ask("GET", "/health/ready", "").contains("503").then_some(())
        });
        load.join().unwrap()
    });
    assert_eq!(report.tally().failed, 0, "{:?}", report.tally());
    let ended = until("it ends", || service.child.try_wait().unwrap());
    assert!(ended.success(), "{ended}");
}

#[test]
fn it_hangs_on_stop_when_it_was_told_to() {
    let mut service = Service::start(&["--hang-on-stop"]);
    service.terminate();
    let tally = service.load(|options| options.max_requests = 20).tally();
    assert_eq!(tally.failed, 0);
    assert!(service.child.try_wait().unwrap().is_none(), "it ended");
    // Told otherwise, the next SIGTERM ends it.
    service.ask("POST", "/behave", r#"{"hangOnStop": false}"#);
    service.terminate();
    until("it ends", || service.child.try_wait().unwrap());
}

#[test]
fn a_kept_connection_that_the_other_end_has_closed_is_not_written_to() {
    // Answers one request on each connection, then closes it without having said so.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    let requests = 30;
    let server = std::thread::spawn(move || {
        for stream in listener.incoming().take(requests) {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                let mut piece = [0; 1024];
                let read = stream.read(&mut piece).unwrap();
                assert_ne!(read, 0, "a connection without a request");
                head.extend_from_slice(&piece[..read]);
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nx-version: v1\r\ncontent-length: 2\r\n\r\nok")
                .unwrap();
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let report = run_to_its_end(LoadOptions {
        rate: 200.0,
        connections: 1,
        posts: false,
        max_requests: u64::try_from(requests).unwrap(),
        ..LoadOptions::new(target, folder.path().join("requests.log"))
    });
    assert_eq!(report.tally().failed, 0, "{:?}", report.tally());
    server.join().unwrap();
}

#[test]
fn the_wrong_version_is_claimed_where_it_was_told_and_memory_grows() {
    let service = Service::start(&["--wrong-version", "v0", "--leak-bytes", "1000000"]);
    assert!(service.ask("GET", "/version", "").contains(r#"{"version":"v0"}"#));
    assert!(service.ask("GET", "/", "").contains("version=v1"));
    service.load(|options| options.max_requests = 100);
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.child.id())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kilobytes > 95_000, "{kilobytes} kB");
}
