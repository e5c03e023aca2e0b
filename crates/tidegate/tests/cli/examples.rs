//! The folders under `examples/` with the programs that they name, by the commands of their pages,
//! under a client that numbers its requests.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tidegate_example_service::load::{Line, Load, LoadOptions, LoadReport};

use crate::stage::{Said, Stage, wait_for};

/// The steps' times of `examples/000` are divided by this in the copy; nothing else is.
const SHORTER: u64 = 10;

/// Requests that have to be seen in the 10 % step before its share is judged.
const SHARE_OF: u64 = 2_000;

/// Whether a program is here. Where not, the test is left out and says so; in CI it fails.
fn have(program: &str, package: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    if std::env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
        return true;
    }
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!in_ci, "{program} is missing (Debian: {package}), and in CI nothing is left out");
    // Past the harness, which would swallow what a passing test prints.
    let _ = writeln!(
        std::io::stderr(),
        "LEFT OUT: {} needs {program} (Debian: {package})",
        std::thread::current().name().unwrap_or("a test"),
    );
    false
}

/// The commands of the example's page that are Tidegate's or the example's own, in their order.
fn page(stage: &Stage) -> Vec<String> {
    let text = std::fs::read_to_string(stage.path("README.md")).unwrap();
    let ours = |line: &&str| line.starts_with("tidegate ") || line.starts_with("./");
    text.split("```")
        .skip(1)
        .step_by(2)
        .flat_map(str::lines)
        .filter(ours)
        .map(|line| line.split(['#', ';']).next().unwrap_or_default().trim().to_owned())
        .collect()
}

fn words(line: &str) -> Vec<&str> {
    line.strip_prefix("tidegate ").unwrap().split_whitespace().collect()
}

/// A line of the page.
fn run(stage: &Stage, line: &str) -> Said {
    stage.run(&words(line))
}

/// A line of the page that releases, answered as events.
fn release(stage: &Stage, line: &str, code: i32) -> Vec<Value> {
    events(&stage.run(&[&words(line)[..], &["-o", "jsonl"]].concat()).code(code))
}

fn events(said: &Said) -> Vec<Value> {
    said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The texts of the checks that saw too little.
fn blind(events: &[Value]) -> Vec<&Value> {
    events.iter().filter(|event| event["data"]["verdict"] == "noData").collect()
}

fn start(stage: &Stage, change: impl FnOnce(&mut LoadOptions)) -> Load {
    let mut options = LoadOptions::new(stage.listen, log(stage));
    options.max_requests = 50_000;
    change(&mut options);
    Load::start(options).unwrap()
}

fn log(stage: &Stage) -> PathBuf {
    stage.path("requests.log")
}

#[track_caller]
fn nothing_failed_but_by(report: &LoadReport, bad: &[&str]) {
    let failures = report.failures_not_answered_by(bad);
    assert!(failures.is_empty(), "{} failed: {:?}", failures.len(), failures.first());
    let unnamed = report.lines.iter().find(|line| line.version == "-");
    assert!(unnamed.is_none(), "answered by nobody knows whom: {unnamed:?}");
}

fn answered_by(report: &LoadReport, version: &str) -> usize {
    report.lines.iter().filter(|line| line.answered_by(version)).count()
}

#[test]
fn nginx_goes_from_one_site_to_the_next_and_back_without_a_failed_request() {
    if !have("nginx", "nginx-light") {
        return;
    }
    let stage = Stage::example("nginx");
    let page = page(&stage);
    let [plan, first, second, undo] = &page[..] else { panic!("{page:?}") };
    assert!(run(&stage, plan).code(0).out.contains("2 of v1 ready"));
    run(&stage, first).code(0);
    assert_eq!(stage.lane()["stable"]["version"], "v1");
    let load = start(&stage, |_| {});
    let seen = release(&stage, second, 0);
    assert_eq!(blind(&seen), Vec::<&Value>::new());
    assert_eq!(stage.lane()["stable"]["version"], "v2");
    run(&stage, undo).code(0);
    assert_eq!(stage.lane()["stable"]["version"], "v1");
    let report = load.stop().unwrap();
    nothing_failed_but_by(&report, &[]);
    assert!(answered_by(&report, "v1") > 100 && answered_by(&report, "v2") > 100);
    assert_eq!(report.lines.last().unwrap().version, "v1");
    stage.end();
}

/// A version that brings a folder named `http`: `python3 -m http.server` takes that one instead of
/// the library's, and it answers every page but the probe's with 500.
const SHADOW: &str = r#"import socketserver, sys
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        path = self.rfile.readline().split()[1]
        while self.rfile.readline().strip():
            pass
        good = path.startswith(b"/version.txt")
        head, body = (b"200 OK", b"v3\n") if good else (b"500 Sorry", b"version=v3\n")
        self.wfile.write(b"HTTP/1.0 " + head + b"\r\n\r\n" + body)
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

#[test]
fn a_python_server_goes_out_comes_back_and_a_bad_version_of_it_comes_back_by_itself() {
    if !have("python3", "python3") {
        return;
    }
    let stage = Stage::example("python");
    let page = page(&stage);
    let [first, second, undo] = &page[..] else { panic!("{page:?}") };
    run(&stage, first).code(0);
    // The page says so: this server answers POST with 501.
    let load = start(&stage, |options| options.posts = false);
    assert_eq!(blind(&release(&stage, second, 0)), Vec::<&Value>::new());
    assert_eq!(stage.lane()["stable"]["version"], "v2");
    run(&stage, undo).code(0);
    assert_eq!(stage.lane()["stable"]["version"], "v1");
    stage.write("dist/pages-v3/http/__init__.py", "");
    stage.write("dist/pages-v3/http/server.py", SHADOW);
    let said = stage.run(&["release", "v3", "--to", "production"]).code(1);
    assert!(said.out.contains("rolled back"), "{}", said.out);
    let lane = stage.lane();
    assert_eq!(lane["stable"]["version"], "v1");
    assert_eq!(lane["rollout"]["outcome"], "rolledBack");
    let report = load.stop().unwrap();
    nothing_failed_but_by(&report, &["v3"]);
    assert!(answered_by(&report, "v2") > 10);
    let bad = report.lines.iter().filter(|line| line.answered_by("v3"));
    assert!(bad.clone().count() > 0 && bad.clone().all(Line::failed));
    assert_eq!(report.lines.last().unwrap().version, "v1");
    stage.end();
}

/// Divides the times of the document's stage. Its probes' period, time-out and thresholds stay.
fn shorten(stage: &Stage) {
    let times = [
        ("initialDelaySeconds: ", 10, "\n"),
        ("initialDelaySeconds: ", 30, "\n"),
        ("duration: ", 60, "s }"),
        ("bake: ", 300, "s\n"),
    ];
    stage.rewrite("tidegate.yaml", "bake: 5m\n", "bake: 300s\n");
    for (key, value, unit) in times {
        let short = format!("{key}{}{unit}", value / SHORTER);
        stage.rewrite("tidegate.yaml", &format!("{key}{value}{unit}"), &short);
    }
}

fn build(stage: &Stage, line: &str) {
    let status = Command::new("/bin/sh")
        .args(["-c", line])
        .current_dir(stage.path("."))
        .stdout(std::process::Stdio::null())
        .status();
    assert!(status.unwrap().success(), "{line}");
}

/// Microseconds of Unix time of the first event of this name with this weight.
fn at_us(events: &[Value], name: &str, weight_bp: u64) -> u64 {
    let event = events
        .iter()
        .find(|event| {
            event["event"].as_str().is_some_and(|event| event.ends_with(name))
                && event["data"]["weightBp"] == weight_bp
        })
        .unwrap_or_else(|| panic!("{name} {weight_bp}: {events:#?}"));
    let at: jiff::Timestamp = event["at"].as_str().unwrap().parse().unwrap();
    u64::try_from(at.as_microsecond()).unwrap()
}

#[test]
fn document_000_gets_ten_percent_then_all_and_its_bad_version_comes_back_by_itself() {
    if !have("python3", "python3") {
        return;
    }
    let stage = Stage::example("000");
    shorten(&stage);
    let page = page(&stage);
    let [good, better, bad, first, second, third] = &page[..] else { panic!("{page:?}") };
    for line in [good, better, bad] {
        build(&stage, line);
    }
    run(&stage, first).code(0);
    assert_eq!(stage.get(), Some(404), "another host than the document's");
    let load = start(&stage, |options| {
        options.host = "api.ecommerce.com".into();
        options.path = "/api/auth/me".into();
        options.rate = 400.0;
    });
    let release_line = [&words(second)[..], &["-o", "jsonl"]].concat();
    let child = stage.command(&release_line).spawn().unwrap();
    // The step is held until enough is seen, however slow this machine is.
    stage.until("1.1.0 has 10 %", |r| r["version"] == "1.1.0" && r["weight"]["observed"] == 10.0);
    stage.run(&["pause"]).code(0);
    stage.until("enough is seen at 10 %", |r| {
        let of = |which: &str| r["counts"][which]["requests"].as_u64().unwrap_or(0);
        of("stable") + of("canary") > SHARE_OF * 5 / 4
    });
    stage.run(&["resume"]).code(0);
    let seen = events(&stage.finish(child).code(0));
    assert_eq!(blind(&seen), Vec::<&Value>::new());
    assert_eq!(stage.lane()["stable"]["version"], "1.1.0");
    let said = run(&stage, third).code(1);
    assert!(said.out.contains("rolled back"), "{}", said.out);
    let lane = stage.lane();
    assert_eq!(lane["stable"]["version"], "1.1.0");
    assert_eq!(lane["rollout"]["outcome"], "rolledBack");
    // What is sent from here on is all 1.1.0's.
    let before = std::fs::metadata(log(&stage)).unwrap().len();
    wait_for("more requests", || std::fs::metadata(log(&stage)).unwrap().len() > before + 4_096);
    let report = load.stop().unwrap();
    nothing_failed_but_by(&report, &["1.2.0"]);
    assert_eq!(report.lines.last().unwrap().version, "1.1.0");
    assert!(answered_by(&report, "1.2.0") > 0);

    let (from, to) =
        (at_us(&seen, "trafficObserved", 1_000), at_us(&seen, "trafficWanted", 10_000));
    let inside = |line: &&Line| line.sent_us >= from && line.answered_us <= to;
    let step: Vec<&Line> = report.lines.iter().filter(inside).collect();
    let all = step.len() as u64;
    let canary = step.iter().filter(|line| line.answered_by("1.1.0")).count() as u64;
    assert!(all >= SHARE_OF, "{all} requests in the 10 % step");
    // 9 % to 11 %.
    assert!((all * 9..=all * 11).contains(&(canary * 100)), "{canary} of {all}");
    stage.end();
}
