//! Releases from end to end: real processes, a real switch, a service that nobody here wrote.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tidegate_wire::home::Home;

use crate::stage::{BOUND, Stage, get, signal, wait_for};

/// A client that sends one request after the other and counts.
struct Client {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: JoinHandle<Vec<Option<u16>>>,
}

impl Client {
    fn start(stage: &Stage) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let address = stage.listen;
        let (halt, number) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            let mut answers = Vec::new();
            while !halt.load(Ordering::Relaxed) && answers.len() < 20_000 {
                answers.push(get(address));
                number.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
            answers
        });
        Self { stop, sent, thread }
    }

    fn stop(self) -> Vec<Option<u16>> {
        assert!(self.sent.load(Ordering::Relaxed) > 0);
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn seqs(out: &str) -> Vec<u64> {
    out.lines()
        .map(|line| {
            let event: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            assert_eq!(event["kind"], "Event");
            event["seq"].as_u64().unwrap()
        })
        .collect()
}

#[track_caller]
fn without_gap(seqs: &[u64]) {
    assert!(!seqs.is_empty());
    assert!(seqs.windows(2).all(|w| w[1] == w[0] + 1), "{seqs:?}");
}

#[test]
fn a_good_version_is_promoted_and_a_bad_one_comes_back_by_itself() {
    let stage = Stage::project("{ setWeight: 30 }, { pause: { duration: 1s } }");
    for (version, status) in [("v1", 200), ("v2", 200), ("v3", 500)] {
        stage.version(version, status);
    }
    stage.run(&["release", "v1"]).code(0);
    assert_eq!(stage.get(), Some(200));
    let client = Client::start(&stage);
    let said = stage.run(&["release", "v2", "-o", "jsonl"]).code(0);
    without_gap(&seqs(&said.out));
    let said = stage.run(&["release", "v3"]).code(1);
    assert!(said.out.contains("rolled back"), "{}", said.out);
    let lane = stage.lane();
    assert_eq!(lane["stable"]["version"], "v2");
    assert_eq!(lane["rollout"]["outcome"], "rolledBack");
    let answers = client.stop();
    assert!(answers.iter().all(Option::is_some), "an answer is missing");
    assert!(answers.contains(&Some(500)), "the bad version got no request");

    // The same again is a no-op that says so, with what became of it.
    let said = stage.run(&["release", "v2"]).code(0);
    assert!(said.err.contains("v2"), "{}", said.err);
    // Another content under the same name is refused.
    stage.write("dist/web-v2/more", "x");
    stage.run(&["release", "v2"]).code(2);

    let said = stage.run(&["explain"]).code(0);
    assert!(said.out.contains("going back"), "{}", said.out);
    let history = stage.run(&["history", "-o", "json"]).code(0).json();
    assert_eq!(history["rollouts"].as_array().unwrap().len(), 3);
    assert_eq!(history["rollouts"][0]["version"], "v3");
    let logs = stage.run(&["logs", "web", "--version", "v2"]).code(0);
    assert!(logs.out.contains("GET /"), "{}", logs.out);
    stage.run(&["doctor"]).code(0);
}

#[test]
fn the_engine_may_be_killed_in_mid_canary_and_the_watcher_sees_no_gap() {
    let stage = Stage::project("{ setWeight: 30 }, { pause: {} }");
    stage.version("v1", 200);
    stage.version("v2", 200);
    stage.run(&["release", "v1"]).code(0);
    let client = Client::start(&stage);
    let release = stage.command(&["release", "v2", "-o", "jsonl"]).spawn().unwrap();
    stage.until("v2 is paused", |r| r["version"] == "v2" && r["phase"] == "Paused");
    let before = stage.pid("engine");
    signal(before, Signal::KILL);
    wait_for("another engine", || {
        std::fs::read_to_string(stage.home().join("engine.pid"))
            .is_ok_and(|text| text.trim().parse::<i32>().is_ok_and(|pid| pid != before))
    });
    let said = stage.run(&["promote", "-o", "json"]).code(0);
    assert_eq!(said.json()["kind"], "VerbAccepted");
    let said = stage.finish(release).code(0);
    let seen = seqs(&said.out);
    without_gap(&seen);
    // A second terminal that resumes from a number sees the same from there on.
    let since = seen[seen.len() / 2];
    let again =
        stage.run(&["watch", "production-web-2", "-o", "jsonl", "--since", &since.to_string()]);
    let again = seqs(&again.code(0).out);
    without_gap(&again);
    assert_eq!(again[0], since + 1);
    // The whole story is the same whoever reads it, and whenever.
    let story = || {
        let watch = ["watch", "production-web-2", "-o", "jsonl", "--until", "ended"];
        stage.run(&watch).code(0).out
    };
    assert_eq!(story(), story());
    assert!(client.stop().iter().all(|answer| *answer == Some(200)));
}

#[test]
fn an_interrupt_detaches_and_the_release_goes_on() {
    let stage = Stage::project("{ setWeight: 30 }, { pause: {} }");
    stage.version("v1", 200);
    stage.version("v2", 200);
    stage.run(&["release", "v1", "--until", "ended"]).code(0);
    let client = Client::start(&stage);
    stage.version("v3", 200);
    let child = stage.command(&["release", "v3", "--abort-on-interrupt"]).spawn().unwrap();
    stage.until("v3 is paused", |r| r["version"] == "v3" && r["phase"] == "Paused");
    signal(i32::try_from(child.id()).unwrap(), Signal::INT);
    let said = stage.finish(child).code(1);
    assert!(said.out.contains("rolled back") && said.out.contains("interrupted"), "{}", said.out);
    for kind in [Signal::INT, Signal::TERM, Signal::HUP] {
        let child = stage.command(&["release", "v2"]).spawn().unwrap();
        stage.until("v2 is paused", |r| r["version"] == "v2" && r["phase"] == "Paused");
        signal(i32::try_from(child.id()).unwrap(), kind);
        let said = stage.finish(child).code(130);
        assert!(said.err.contains("tidegate watch") && said.err.contains("tidegate abort"));
    }
    stage.run(&["watch", "--timeout", "1s"]).code(6);
    let lane = stage.lane();
    let revision = lane["rollout"]["revision"].as_u64().unwrap();
    stage.run(&["promote", "--if-revision", &(revision - 1).to_string()]).code(3);
    stage.run(&["pause"]).code(0);
    stage.run(&["resume"]).code(0);
    let said = stage.run(&["abort", "--reason", "not today", "-o", "json"]).code(0);
    assert_eq!(said.json()["outcome"], "rolledBack");
    assert_eq!(stage.lane()["stable"]["version"], "v1");
    stage.run(&["retry", "--no-wait"]).code(0);
    stage.until("v2 is paused again", |r| r["version"] == "v2" && r["phase"] == "Paused");
    stage.run(&["promote", "--full"]).code(0);
    stage.run(&["watch"]).code(0);
    stage.run(&["undo"]).code(0);
    assert_eq!(stage.lane()["stable"]["version"], "v1");
    assert!(client.stop().iter().all(|answer| *answer == Some(200)));
}

#[test]
fn a_home_that_lost_all_its_processes_comes_back_by_watch() {
    let stage = Stage::project("{ setWeight: 30 }, { pause: { duration: 1s } }");
    stage.version("v1", 200);
    stage.version("v2", 200);
    stage.run(&["release", "v1"]).code(0);
    // Without requests there is nothing to judge by, and the release waits for some.
    let client = Client::start(&stage);
    stage.run(&["release", "v2", "--no-wait"]).code(0);
    stage.until("v2 has traffic", |r| r["weight"]["observed"].as_f64() > Some(0.0));
    for role in ["host", "engine", "switch"] {
        signal(stage.pid(role), Signal::KILL);
    }
    let status = stage.run(&["status", "-o", "json"]).code(0).json();
    assert_eq!(status["environments"][0]["rollout"]["version"], "v2");
    stage.run(&["watch"]).code(0);
    let lane = stage.lane();
    assert_eq!(lane["stable"]["version"], "v2");
    assert_eq!(lane["rollout"]["outcome"], "promoted");
    wait_for("v2 serves", || stage.get() == Some(200));
    // Also when nothing is in progress: instances should run, and nobody else would start them.
    stage.run(&["watch", "--until", "ended"]).code(0);
    stage.until("v2 has ended", |r| !r["endedAt"].is_null());
    for role in ["host", "engine", "switch"] {
        signal(stage.pid(role), Signal::KILL);
    }
    stage.run(&["watch"]).code(0);
    wait_for("v2 serves again", || stage.get() == Some(200));
    drop(client.stop());
}

#[test]
fn whoever_dies_while_nothing_is_in_progress_is_started_again() {
    let stage = Stage::project("{ setWeight: 30 }, { pause: { duration: 1s } }");
    stage.version("v1", 200);
    stage.run(&["release", "v1", "--until", "ended"]).code(0);
    let started_again = |role: &str, was: i32| {
        wait_for(role, || living(&stage, role).is_some_and(|pid| pid != was));
    };
    for role in ["host", "switch", "host"] {
        let was = stage.pid(role);
        signal(was, Signal::KILL);
        started_again(role, was);
        wait_for("v1 serves", || stage.get() == Some(200));
    }
    // All three, and then a verb that needs the engine and has nothing to do.
    let were = ["host", "engine", "switch"].map(|role| (role, stage.pid(role)));
    for (_, was) in were {
        signal(was, Signal::KILL);
    }
    stage.run(&["release", "v1"]).code(0);
    for (role, was) in were {
        started_again(role, was);
    }
    wait_for("v1 serves again", || stage.get() == Some(200));
}

/// The process of this role, if it lives.
fn living(stage: &Stage, role: &str) -> Option<i32> {
    let text = std::fs::read_to_string(stage.home().join(format!("{role}.pid"))).ok()?;
    let pid: i32 = text.trim().parse().ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let state = stat.rsplit_once(')')?.1.trim_start().chars().next()?;
    (state != 'Z').then_some(pid)
}

#[test]
fn host_and_switch_write_down_whose_late_word_they_have_refused() {
    let stage = Stage::project("{ setWeight: 50 }");
    stage.version("v1", 200);
    stage.run(&["release", "v1"]).code(0);
    let home = Home::new(stage.home());
    let say = |role: &str, home_of: &str| -> Value {
        let claim = json!({"home": home_of, "epoch": 0, "protocol": 1});
        let body = serde_json::to_vec(&claim).unwrap().into();
        let client = tidegate_ipc::Client::new(&home.socket(role));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let asked = client.request("POST", "/v1/claim", body, BOUND);
        let reply = runtime.block_on(asked).unwrap();
        assert_eq!(reply.status, 409, "{reply:?}");
        serde_json::from_slice(&reply.body).unwrap()
    };
    let refusal = say("host", "another");
    assert_eq!(refusal["error"]["code"], "otherHome");
    let owner = refusal["error"]["on"].as_str().unwrap().strip_prefix("home ").unwrap().to_owned();
    for role in ["host", "switch"] {
        assert_eq!(say(role, &owner)["error"]["code"], "staleFence");
        let log = std::fs::read_to_string(home.log(role)).unwrap();
        let line = log.lines().find(|line| line.contains("staleFence")).unwrap();
        // Who, under which fence, and the floor.
        for word in [owner.as_str(), "fence=epoch 0", "epoch 1", "claim"] {
            assert!(line.contains(word), "{role}: {line}");
        }
    }
}

#[test]
fn the_demo_holds_what_it_promises() {
    let stage = Stage::empty();
    let folder = stage.path("demo");
    let said = stage.run(&["demo", "--keep", folder.to_str().unwrap(), "-o", "json"]).code(0);
    let document = said.json();
    assert_eq!(document["failedNotByBadVersion"], 0);
    assert!(document["client"]["requests"].as_u64().unwrap() > 100);
    assert!(folder.join("requests.log").exists());
    for role in ["engine", "host", "switch"] {
        let pid = std::fs::read_to_string(folder.join(format!("home/{role}.pid")));
        let alive = pid.is_ok_and(|pid| {
            std::fs::read_link(format!("/proc/{}/exe", pid.trim()))
                .is_ok_and(|exe| exe.ends_with("tidegate"))
        });
        assert!(!alive, "{role} was left behind");
    }
}
