//! Measurements: pass, fail, and what could not be measured.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::{Value, json};
use tidegate_core::machine::Outcome;
use tidegate_core::spec::CheckKind;
use tidegate_drivers::check::measure;

use crate::doubles::until;

async fn check(kind: &CheckKind) -> Outcome {
    measure(&json!({ "check": kind })).await
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Applied(_) => "pass",
        Outcome::Failed(_) => "fail",
        Outcome::Unreachable(_) => "error",
        Outcome::Refused(_) => "refused",
        Outcome::Unknown(_) => "unknown",
    }
}

fn text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Applied(value) => value["detail"].as_str().unwrap().to_owned(),
        Outcome::Failed(reason)
        | Outcome::Unreachable(reason)
        | Outcome::Refused(reason)
        | Outcome::Unknown(reason) => reason.text.clone(),
    }
}

#[tokio::test]
async fn http_statuses_pass_or_fail_and_no_answer_is_neither() {
    let router = Router::new()
        .route("/good", get(|| async { "yes" }))
        .route("/moved", get(|| async { StatusCode::FOUND }))
        .route("/gone", get(|| async { StatusCode::GONE }))
        .route("/bad", get(|| async { StatusCode::INTERNAL_SERVER_ERROR }))
        .route("/hangs", get(|| async { std::future::pending::<()>().await }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (url, status, wanted) in [
        (format!("http://{address}/good?x=1"), vec![], "pass"),
        (format!("http://{address}/moved"), vec![], "pass"),
        (format!("http://{address}/bad"), vec![], "fail"),
        (format!("http://{address}/gone"), vec![(200, 299), (410, 410)], "pass"),
        (format!("http://{address}/good"), vec![(201, 299)], "fail"),
        (format!("http://{address}/hangs"), vec![], "error"),
        (format!("http://{closed}/"), vec![], "error"),
        ("https://127.0.0.1/".to_owned(), vec![], "refused"),
        ("ftp://127.0.0.1/".to_owned(), vec![], "refused"),
        ("not a url".to_owned(), vec![], "refused"),
    ] {
        let outcome = check(&CheckKind::Http { url: url.clone(), status, timeout_ms: 500 }).await;
        assert_eq!(word(&outcome), wanted, "{url}: {outcome:?}");
        assert!(text(&outcome).contains(&url), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_port_that_refuses_fails_and_one_that_is_not_there_is_an_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap().to_string();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (address, wanted) in
        [(open, "pass"), (closed.to_string(), "fail"), ("no-such-name.invalid:1".into(), "error")]
    {
        let outcome = check(&CheckKind::Tcp { address, timeout_ms: 5_000 }).await;
        assert_eq!(word(&outcome), wanted, "{outcome:?}");
    }
}

fn command(script: &str, env: &[(&str, &str)], timeout_ms: u64) -> CheckKind {
    let env: BTreeMap<_, _> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let command = vec!["sh".into(), "-c".into(), script.into()];
    CheckKind::Command { command, env, folder: "/".into(), timeout_ms }
}

#[tokio::test]
async fn a_commands_exit_status_decides_and_its_last_words_are_kept() {
    let outcome = check(&command("pwd; echo to stderr >&2", &[], 10_000)).await;
    assert_eq!(word(&outcome), "pass");
    assert!(text(&outcome).contains("/\nto stderr"), "{outcome:?}");
    let outcome = check(&command("echo broken; exit 3", &[], 10_000)).await;
    assert_eq!(word(&outcome), "fail");
    assert!(text(&outcome).contains('3') && text(&outcome).contains("broken"), "{outcome:?}");
    let outcome = check(&command("seq 1 20000; echo end", &[], 10_000)).await;
    let said = text(&outcome);
    assert!(said.ends_with("end") && said.len() < 5_000, "{} bytes", said.len());
    let missing = CheckKind::Command {
        command: vec!["/no/such/program".into()],
        env: BTreeMap::new(),
        folder: "/".into(),
        timeout_ms: 1_000,
    };
    assert_eq!(word(&check(&missing).await), "error");
    assert_eq!(word(&measure(&Value::Null).await), "refused");
}

#[tokio::test]
async fn a_command_sees_its_own_environment_only_and_secrets_are_masked() {
    let env = [("TARGET", "http://x"), ("API_TOKEN", "hunter2hunter2")];
    let outcome = check(&command("env; echo $API_TOKEN", &env, 10_000)).await;
    let said = text(&outcome);
    assert!(said.contains("TARGET=http://x") && said.contains("PATH="), "{said}");
    assert!(!said.contains("CARGO"), "{said}");
    assert!(!said.contains("hunter2") && said.contains("API_TOKEN=***"), "{said}");
    let cut = "printf hunter2hunter2; head -c 4089 /dev/zero | tr '\\0' x";
    let said = text(&check(&command(cut, &env, 10_000)).await);
    assert!(!said.contains("hunter2"), "{}", &said[..40]);
}

#[tokio::test]
async fn a_command_that_hangs_is_killed_with_everything_that_it_has_started() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("sleep 300 & echo $! > {}; wait", file.display());
    let started = Instant::now();
    let outcome = check(&command(&script, &[], 1_000)).await;
    assert_eq!(word(&outcome), "error", "{outcome:?}");
    assert!(started.elapsed() < Duration::from_secs(10));
    let pid: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
    until("its child is gone", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        // A zombie waits for whoever adopts it; it does nothing any more.
        stat.map_or(true, |stat| stat.contains(") Z "))
    })
    .await;
}

#[tokio::test]
async fn what_a_command_leaves_behind_does_not_delay_its_answer() {
    let started = Instant::now();
    let outcome = check(&command("sleep 3 & echo done", &[], 10_000)).await;
    assert_eq!(word(&outcome), "pass", "{outcome:?}");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}
