//! One-shots, and deaths at bad moments.

use std::time::Duration;

use tidegate_core::{Digest, Fence};
use tidegate_ipc::IpcError;
use tidegate_wire::host::{Run, RunEnded};

use crate::support::*;

fn run_of(effect: &str, digest: &Digest, timeout_ms: u64) -> Run {
    Run {
        home: HOME.to_owned(),
        fence: Fence::new(1, 0),
        effect: effect.to_owned(),
        version: "v1".to_owned(),
        digest: digest.clone(),
        service: service(),
        command: vec!["./start".to_owned(), "{version}".to_owned()],
        timeout_ms,
    }
}

async fn ask_run(world: &World, run: &Run) -> Result<RunEnded, IpcError> {
    world.client().post("/v1/run", run, BOUND).await
}

async fn staged(world: &World, script: &str) -> Digest {
    world.claim(1).await.unwrap();
    let artifact = world.script("artifact", script);
    world.stage(&artifact, &["./start".to_owned()]).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_shot_runs_once_and_its_answer_is_repeated() {
    let world = World::start().await;
    let mark = world.folder.path().join("mark");
    let script = format!("echo ran >> {}; echo hello $1; echo bad >&2; exit 4", mark.display());
    let digest = staged(&world, &script).await;
    let run = run_of("home/1", &digest, 10_000);
    let (first, second) = tokio::join!(ask_run(&world, &run), ask_run(&world, &run));
    let first = first.unwrap();
    let RunEnded::Exited { status: 4, tail } = &first else { panic!("{first:?}") };
    assert!(tail.contains("hello v1") && tail.contains("bad"), "{tail}");
    assert_eq!(second.unwrap(), first);
    assert_eq!(ask_run(&world, &run).await.unwrap(), first);
    assert_eq!(std::fs::read_to_string(&mark).unwrap(), "ran\n");
    ask_run(&world, &run_of("home/2", &digest, 10_000)).await.unwrap();
    assert_eq!(std::fs::read_to_string(&mark).unwrap(), "ran\nran\n");
    let missing = Run { command: vec!["./nothing".to_owned()], ..run_of("home/3", &digest, 1) };
    assert_eq!(refusal(ask_run(&world, &missing).await).0, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_shot_that_takes_too_long_is_killed_and_says_so() {
    let world = World::start().await;
    let digest = staged(&world, "echo begun; sleep 1000").await;
    let ended = ask_run(&world, &run_of("home/1", &digest, 300)).await.unwrap();
    assert_eq!(ended, RunEnded::TimedOut { tail: "begun\n".to_owned() });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_shot_survives_the_host_and_runs_once() {
    let mut world = World::start().await;
    let (mark, gate) = (world.folder.path().join("mark"), world.folder.path().join("gate"));
    let script = format!(
        "echo ran >> {}; while [ ! -e {} ]; do sleep 0.02; done; exit 3",
        mark.display(),
        gate.display()
    );
    let digest = staged(&world, &script).await;
    let run = run_of("home/1", &digest, 10_000);
    let (client, asked) = (world.client(), run.clone());
    let waiting: tokio::task::JoinHandle<Result<RunEnded, _>> =
        tokio::spawn(async move { client.post("/v1/run", &asked, BOUND).await });
    until("it runs", async || mark.exists().then_some(())).await;
    world.kill_host();
    assert!(waiting.await.unwrap().is_err());
    world.start_host().await;
    std::fs::write(&gate, "").unwrap();
    let ended = ask_run(&world, &run).await.unwrap();
    assert_eq!(ended, RunEnded::Exited { status: 3, tail: String::new() });
    assert_eq!(std::fs::read_to_string(&mark).unwrap(), "ran\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_shot_whose_shim_is_killed_is_unknown_and_not_run_again() {
    let mut world = World::start().await;
    let mark = world.folder.path().join("mark");
    let digest = staged(&world, &format!("echo ran >> {}; sleep 1000", mark.display())).await;
    let run = run_of("home/1", &digest, 10_000);
    let (client, asked) = (world.client(), run.clone());
    let waiting: tokio::task::JoinHandle<Result<RunEnded, _>> =
        tokio::spawn(async move { client.post("/v1/run", &asked, BOUND).await });
    until("it runs", async || mark.exists().then_some(())).await;
    world.kill_host();
    assert!(waiting.await.unwrap().is_err());
    let folder = std::fs::read_dir(world.home.host().join("runs")).unwrap().next().unwrap();
    kill(shim_pid(&folder.unwrap().path()).unwrap());
    world.start_host().await;
    let ended = ask_run(&world, &run).await.unwrap();
    assert!(matches!(&ended, RunEnded::Unknown { why } if why.contains("shim")), "{ended:?}");
    assert_eq!(std::fs::read_to_string(&mark).unwrap(), "ran\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_a_host_comes_back_to_what_was_asked_for_and_no_more() {
    let mut world = World::start().await;
    world.claim(1).await.unwrap();
    let (one, two) = (world.web("v1", "v1"), world.web("v2", "v2"));
    let command = service().command;
    let first = world.stage(&one, &command).await.unwrap();
    let second = world.stage(&two, &command).await.unwrap();
    let stop = tidegate_core::spec::StopSpec { signal: "SIGTERM".to_owned(), grace_ms: 500 };
    let spec = tidegate_core::spec::ServiceSpec { stop, ..service() };
    let mut seq = 0;
    for round in 0_u64..24 {
        seq += 1;
        let (a, b) = if round % 2 == 0 { (2, 1) } else { (1, 2) };
        let wanted = doc(vec![
            capacity_of("v1", &first, a, spec.clone()),
            capacity_of("v2", &second, b, spec.clone()),
        ]);
        world.capacity(Fence::new(1, seq), &wanted).await.unwrap();
        // At a moment of its own in each round: the steps of a start take a few milliseconds.
        tokio::time::sleep(Duration::from_micros(1_700 * round)).await;
        world.kill_host();
        world.start_host().await;
    }
    world.version("v1", "v1 as wanted", |v| v.ready == 1 && v.running == 1).await;
    world.version("v2", "v2 as wanted", |v| v.ready == 2 && v.running == 2).await;
    let folder = world.folder.path().to_str().unwrap().to_owned();
    until("nobody but the host and three shims runs", async || {
        (processes_of(&folder).len() == 4).then_some(())
    })
    .await;
    assert_eq!(world.switch.count(tidegate_wire::switch::EndpointState::Ready), 3);
}
