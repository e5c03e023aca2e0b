//! Who may say what, and what happens when nobody says anything.

use std::process::Stdio;
use std::time::{Duration, Instant};

use tidegate_core::capacity::{Fallback, FallbackAction};
use tidegate_core::spec::ErrorSpec;
use tidegate_core::traffic::{LaneTraffic, TrafficDoc};
use tidegate_core::{Epoch, Fence};
use tidegate_wire::error::{IMPOSSIBLE, OTHER_HOME, STALE_FENCE};
use tidegate_wire::home::EXIT_JOURNAL;
use tidegate_wire::host::{Claim, Claimed};

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn only_the_highest_epoch_of_the_first_home_is_heard_also_after_a_restart() {
    let mut world = World::start().await;
    let (status, doc) = refusal(world.contact(1, false).await);
    assert_eq!((status, doc.error.code.as_str()), (409, OTHER_HOME));
    assert_eq!(world.claim(3).await.unwrap().epoch, Epoch(3));
    world.claim(3).await.unwrap();
    world.contact(3, false).await.unwrap();
    world.kill_host();
    world.start_host().await;
    for answer in [world.claim(2).await.map(|_| ()), world.contact(2, true).await] {
        let (status, doc) = refusal(answer);
        assert_eq!((status, doc.error.code.as_str()), (409, STALE_FENCE));
        assert_eq!(doc.error.on, "epoch 3");
    }
    let other = Claim { home: "home-2".to_owned(), epoch: Epoch(9), protocol: 1 };
    let answer: Result<Claimed, _> = world.client().post("/v1/claim", &other, BOUND).await;
    let (status, doc) = refusal(answer);
    assert_eq!((status, doc.error.code.as_str()), (409, OTHER_HOME));
    assert!(doc.error.message.contains("home-1"), "{}", doc.error.message);
    world.claim(4).await.unwrap();
    assert_eq!(world.report().await.epoch, Epoch(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_needs_a_higher_fence_or_is_the_same_again() {
    let mut world = World::start().await;
    let first = world.up(0).await;
    let digest = first.versions[0].digest.clone();
    let second = doc(vec![capacity_of("v1b", &digest, 0, service())]);
    world.capacity(Fence::new(1, 5), &second).await.unwrap();
    world.kill_host();
    world.start_host().await;
    assert_eq!(world.capacity(Fence::new(1, 5), &second).await.unwrap().fence, Fence::new(1, 5));
    for (fence, body) in [((1, 5), &first), ((1, 4), &second), ((1, 4), &first), ((0, 9), &first)] {
        let (status, doc) = refusal(world.capacity(Fence::new(fence.0, fence.1), body).await);
        assert_eq!((status, doc.error.code.as_str()), (409, STALE_FENCE), "{fence:?}");
        assert_eq!(doc.error.on.starts_with("epoch"), fence.0 == 0, "{}", doc.error.on);
    }
    let (status, answer) = refusal(world.capacity(Fence::new(1, u64::MAX), &first).await);
    assert_eq!((status, answer.error.code.as_str()), (422, IMPOSSIBLE));
    let missing = tidegate_core::Digest::of(b"not staged");
    let unknown = doc(vec![capacity_of("v9", &missing, 1, service())]);
    let (status, answer) = refusal(world.capacity(Fence::new(1, 6), &unknown).await);
    assert_eq!((status, answer.error.code.as_str()), (422, IMPOSSIBLE));
    assert!(answer.error.message.contains("not on this host"));
    let lane = world.lane("as before", |_| true).await;
    assert_eq!(lane.fence, Some(Fence::new(1, 5)));
    world.capacity(Fence::new(2, 1), &first).await.unwrap();
    assert_eq!(world.report().await.epoch, Epoch(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_host_of_a_home_ends_and_says_why() {
    let world = World::start().await;
    let second = world.spawn_host(Stdio::piped()).wait_with_output().unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("is running already"), "{said}");
    world.report().await;
}

fn restore(after_ms: u64) -> Fallback {
    let traffic = TrafficDoc {
        lane: LANE.to_owned(),
        listen: "127.0.0.1:1".to_owned(),
        routes: Vec::new(),
        weights: Vec::new(),
        sticky_cookie: None,
        errors: ErrorSpec { status: Vec::new(), timeout_ms: 1 },
        seed: 7,
    };
    let rollout = "r-1".to_owned();
    Fallback { after_ms, action: FallbackAction::Restore { rollout, seq: 9, traffic } }
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_restores_the_traffic_shuts_the_epoch_and_a_new_owner_opens_it() {
    let mut world = World::start().await;
    let mut wanted = world.up(1).await;
    world.switch.said.lock().unwrap().refuses_tables = true;
    wanted.fallback = restore(300);
    world.capacity(Fence::new(1, 2), &wanted).await.unwrap();
    let tried = async || (world.switch.said.lock().unwrap().tables.len() >= 2).then_some(());
    until("the switch is asked again and again", tried).await;
    // Decided, so shut, though the switch has not taken it; and that survives the host.
    let (status, doc) = refusal(world.contact(1, true).await);
    assert_eq!((status, doc.error.code.as_str()), (409, STALE_FENCE));
    assert_eq!(world.lane("not yet", |_| true).await.fallback_applied, None);
    world.kill_host();
    world.switch.said.lock().unwrap().refuses_tables = false;
    world.start_host().await;
    let lane = world.lane("applied", |lane| lane.fallback_applied.is_some()).await;
    let report = lane.fallback_applied.unwrap();
    assert_eq!((report.rollout.as_str(), report.fence), ("r-1", Fence::new(1, 9)));
    assert!(report.silence_ms >= 300);
    {
        let said = world.switch.said.lock().unwrap();
        let table = said.tables.last().unwrap();
        assert_eq!((table.fence, table.shut, table.doc.seed), (Fence::new(1, 9), true, 7));
    }
    for answer in [world.claim(1).await.map(|_| ()), world.contact(1, true).await] {
        assert_eq!(refusal(answer).1.error.code, STALE_FENCE);
    }
    let (_, doc) = refusal(world.capacity(Fence::new(1, 20), &wanted).await);
    assert_eq!(doc.error.on, "epoch 1");
    world.claim(2).await.unwrap();
    let lane = world.lane("still reported", |_| true).await;
    assert!(lane.fallback_applied.is_some());
    wanted.fallback.after_ms = 600_000;
    world.capacity(Fence::new(2, 21), &wanted).await.unwrap();
    assert_eq!(world.lane("cleared", |_| true).await.fallback_applied, None);
    assert_eq!(world.version("v1", "untouched", |v| v.ready == 1).await.restarts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn contact_holds_the_fallback_off_and_a_switch_that_knows_better_ends_it() {
    let world = World::start().await;
    let mut wanted = world.up(0).await;
    wanted.fallback = restore(400);
    world.capacity(Fence::new(1, 2), &wanted).await.unwrap();
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(1_200) {
        world.contact(1, true).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(world.switch.said.lock().unwrap().tables.is_empty());
    // An answer of 409 with our fence in force is a yes …
    {
        let mut said = world.switch.said.lock().unwrap();
        said.outdated = true;
        said.lanes = vec![LaneTraffic {
            lane: LANE.to_owned(),
            fence: Some(Fence::new(1, 9)),
            versions: Vec::new(),
        }];
    }
    world.lane("applied", |lane| lane.fallback_applied.is_some()).await;
    // … with another one in force it is a no, once.
    world.claim(2).await.unwrap();
    world.capacity(Fence::new(2, 3), &wanted).await.unwrap();
    let seen = world.version("v1", "refused", |v| v.trouble.is_some()).await;
    assert!(seen.trouble.unwrap().contains("refused the fallback"));
    assert_eq!(world.switch.said.lock().unwrap().tables.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn staying_is_only_reported_and_forgotten_when_somebody_is_heard() {
    let world = World::start().await;
    let mut wanted = world.up(1).await;
    wanted.fallback = Fallback { after_ms: 200, action: FallbackAction::Stay };
    world.capacity(Fence::new(1, 2), &wanted).await.unwrap();
    // As long as no work is open silence is nothing to speak of; then it is.
    world.contact(1, true).await.unwrap();
    world
        .version("v1", "stayed", |v| v.trouble.as_deref().is_some_and(|t| t.contains("stays")))
        .await;
    world.contact(1, true).await.unwrap();
    let lane = world.lane("heard", |lane| lane.versions[0].trouble.is_none()).await;
    assert_eq!(lane.fallback_applied, None);
    assert!(world.switch.said.lock().unwrap().tables.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_is_started_again_while_work_is_open_and_only_then() {
    let world = World::start().await;
    world.claim(1).await.unwrap();
    let started = || {
        let path = world.home.root().join("engine.started");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|pid| pid.parse().unwrap()).collect::<Vec<i32>>()
    };
    world.contact(1, false).await.unwrap();
    assert!(started().is_empty());
    world.contact(1, true).await.unwrap();
    until("an engine runs", async || (started().len() == 1).then_some(())).await;
    world.contact(1, true).await.unwrap();
    kill(started()[0]);
    until("another engine runs", async || (started().len() == 2).then_some(())).await;
    // It lives, and its heartbeat stands still.
    world.contact(1, true).await.unwrap();
    until("a successor is started", async || (started().len() == 3).then_some(())).await;
    world.contact(1, false).await.unwrap();
    kill(started()[1]);
    kill(started()[2]);
    world.contact(1, false).await.unwrap();
    assert_eq!(started().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_ends_by_itself_is_started_less_and_less_often() {
    let world = World::start().await;
    world.claim(1).await.unwrap();
    std::fs::write(world.home.root().join("engine.ends"), "5").unwrap();
    let starts = || {
        let path = world.home.root().join("engine.started");
        std::fs::read_to_string(path).unwrap_or_default().lines().count()
    };
    let begun = Instant::now();
    world.contact(1, true).await.unwrap();
    until("it is tried again", async || (starts() >= 5).then_some(())).await;
    // 100, 200, 400 and 800 ms.
    assert!(begun.elapsed() >= Duration::from_millis(1_500), "{:?}", begun.elapsed());
    assert!(starts() == 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_cannot_read_its_journal_is_not_started_again_and_again() {
    let world = World::start().await;
    world.claim(1).await.unwrap();
    let ends = EXIT_JOURNAL.to_string();
    std::fs::write(world.home.root().join("engine.ends"), ends).unwrap();
    let starts = || {
        let path = world.home.root().join("engine.started");
        std::fs::read_to_string(path).unwrap_or_default().lines().count()
    };
    world.contact(1, true).await.unwrap();
    until("it is tried", async || (starts() == 1).then_some(())).await;
    let begun = Instant::now();
    let again = async || (starts() > 1 || begun.elapsed() > Duration::from_secs(2)).then_some(());
    until("two seconds or another start", again).await;
    assert_eq!(starts(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_is_kept_alive_taken_over_and_told_everything_again() {
    let mut world = World::quiet(&["--with-switch"]);
    world.start_host().await;
    let started = || {
        let path = world.home.root().join("switch.started");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|pid| pid.parse().unwrap()).collect::<Vec<i32>>()
    };
    let home = world.home.clone();
    until("a switch runs", async || home.pid("switch").exists().then_some(())).await;
    let first = started()[0];
    kill(first);
    until("another switch runs", async || (started().len() == 2).then_some(())).await;
    let second = started()[1];
    until("it says so", async || {
        (std::fs::read_to_string(home.pid("switch")).ok()? == second.to_string()).then_some(())
    })
    .await;
    // The sockets are held for it.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let path = home.socket("sockets");
    let stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    tidegate_ipc::sockets::deposit(&stream, &address, std::os::fd::AsFd::as_fd(&listener)).unwrap();
    let held = tidegate_ipc::sockets::take_all(&path).unwrap();
    assert_eq!(held.len(), 1);
    world.kill_host();
    world.start_host().await;
    let after: Vec<i32> = {
        let text = std::fs::read_to_string(home.root().join("switch.started")).unwrap();
        text.lines().map(|pid| pid.parse().unwrap()).collect()
    };
    assert_eq!(after.len(), 2, "the living switch was taken over");
}
