//! What the switch is told: fences, homes, endpoints, files.

use std::time::Duration;

use tidegate_wire::switch::EndpointState::{NotReady, Ready};
use tidegate_wire::switch::{Endpoints, Table};
use tidegate_wire::{Epoch, Fence};

use super::support::PATIENCE;
use super::support::backend::Backend;
use super::support::client::Browser;
use super::support::rig::{LANE, Rig, endpoint};

fn table(rig: &Rig, epoch: u64, seq: u64, new: u32) -> Table {
    let doc = rig.doc(&[("v2", new), ("v1", 10_000 - new)]);
    Table { home: "home-1".into(), fence: Fence::new(epoch, seq), doc, shut: false }
}

#[tokio::test]
async fn fences_hold_over_a_restart() {
    let mut rig = Rig::start().await;
    assert_eq!(rig.claim("home-1", 3).await.unwrap().epoch, Epoch(3));
    for round in 0..2 {
        let stale = |result: Result<_, (u16, String)>| result.unwrap_err();
        assert_eq!(rig.claim("home-1", 2).await.unwrap_err(), 409);
        assert_eq!(rig.claim("home-2", 9).await.unwrap_err(), 409);
        if round == 0 {
            rig.send_table(&table(&rig, 3, 5, 100)).await.unwrap();
        }
        rig.send_table(&table(&rig, 3, 5, 100)).await.unwrap();
        let (status, why) = stale(rig.send_table(&table(&rig, 3, 5, 200)).await);
        assert!(status == 409 && why.starts_with("staleFence"), "{why}");
        let (_, why) = stale(rig.send_table(&table(&rig, 3, 4, 100)).await);
        assert!(why.contains("floor 3.5"), "{why}");
        let (_, why) = stale(rig.send_table(&table(&rig, 2, 9, 100)).await);
        assert!(why.contains("epoch 2 is over"), "{why}");
        let other = Table { home: "home-2".into(), ..table(&rig, 9, 9, 0) };
        let (status, why) = stale(rig.send_table(&other).await);
        assert!(status == 409 && why.starts_with("otherHome") && why.contains("home-1"), "{why}");
        let report = rig.report().await;
        assert_eq!((report.epoch, report.lanes[0].fence), (Epoch(3), Some(Fence::new(3, 5))));
        assert_eq!(report.lanes[0].versions[0].weight_bp, 100);
        rig.leave().await.unwrap().unwrap();
        rig.launch().await;
    }
}

#[tokio::test]
async fn a_fallback_shuts_the_lane_for_its_epoch_and_no_other_lane() {
    let mut rig = Rig::start().await;
    rig.send_table(&table(&rig, 1, 5, 100)).await.unwrap();
    let fallback = Table { shut: true, ..table(&rig, 1, 9, 0) };
    rig.send_table(&fallback).await.unwrap();
    rig.send_table(&fallback).await.unwrap();
    rig.leave().await.unwrap().unwrap();
    rig.launch().await;
    let (status, why) = rig.send_table(&table(&rig, 1, 10, 100)).await.unwrap_err();
    assert!(status == 409 && why.contains("fallback"), "{why}");
    assert_eq!(rig.report().await.lanes[0].fence, Some(Fence::new(1, 9)));
    let mut other = table(&rig, 1, 11, 100);
    other.doc.lane = "prod/other".into();
    other.doc.listen = super::support::free_address().to_string();
    rig.send_table(&other).await.unwrap();
    rig.send_table(&table(&rig, 2, 1, 100)).await.unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_impossible_names_its_holder_and_changes_nothing() {
    let rig = Rig::start().await;
    let backend = Backend::good("v1").await;
    rig.endpoints(&[("a", "v1", backend.address, Ready)]).await;
    rig.weights(&[("v1", 10_000)]).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut moved = table(&rig, 1, rig.next(), 0);
    moved.doc.listen = taken.local_addr().unwrap().to_string();
    let (status, why) = rig.send_table(&moved).await.unwrap_err();
    assert_eq!(status, 422);
    let holder = format!("process {}", std::process::id());
    assert!(why.contains(&moved.doc.listen) && why.contains(&holder), "{why}");
    assert_eq!(Browser::new(rig.listen).get("/").await.unwrap().body, "v1");
    drop(taken);
    rig.send_table(&moved).await.unwrap();
    assert_eq!(Browser::new(moved.doc.listen.parse().unwrap()).get("/").await.unwrap().body, "v1");
    assert!(Browser::new(rig.listen).get("/").await.is_err(), "the old address is closed");
}

#[tokio::test]
async fn a_restarted_switch_serves_before_the_host_speaks() {
    let mut rig = Rig::start().await;
    let backend = Backend::good("v1").await;
    rig.endpoints(&[("a", "v1", backend.address, Ready)]).await;
    rig.weights(&[("v1", 10_000)]).await;
    rig.leave().await.unwrap().unwrap();
    rig.launch().await;
    assert_eq!(Browser::new(rig.listen).get("/").await.unwrap().body, "v1");
}

#[tokio::test]
async fn a_torn_table_is_replaced_by_the_last_good_one_and_never_by_nothing() {
    let mut rig = Rig::start().await;
    let backend = Backend::good("v1").await;
    rig.endpoints(&[("a", "v1", backend.address, Ready)]).await;
    rig.weights(&[("v1", 10_000)]).await;
    rig.weights(&[("v1", 10_000), ("v2", 0)]).await;
    rig.leave().await.unwrap().unwrap();
    let whole = std::fs::read(rig.file("table.json")).unwrap();
    for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
        std::fs::write(rig.file("table.json"), &whole[..cut]).unwrap();
        rig.launch().await;
        assert_eq!(Browser::new(rig.listen).get("/").await.unwrap().body, "v1", "cut at {cut}");
        assert!(rig.report().await.trouble[0].contains("using the one before"));
        rig.leave().await.unwrap().unwrap();
    }
    std::fs::write(rig.file("table.before.json"), "{}").unwrap();
    let config = tidegate_switch::SwitchConfig::new(rig.home());
    let error = tidegate_switch::run_until(config, std::future::pending()).await.unwrap_err();
    assert!(error.to_string().contains("does not start without the table"), "{error}");
}

#[tokio::test]
async fn the_newest_word_of_the_living_host_wins() {
    let rig = Rig::start().await;
    let backend = Backend::good("v1").await;
    rig.weights(&[("v1", 10_000)]).await;
    let say = async |life: &str, seq: u64, state| {
        let message = Endpoints {
            life: life.into(),
            seq,
            lane: LANE.into(),
            endpoints: vec![endpoint("a", "v1", backend.address, state)],
        };
        let path = "/v1/endpoints";
        rig.client.post::<_, serde_json::Value>(path, &message, PATIENCE).await.unwrap();
        rig.report().await.lanes[0].versions[0].usable
    };
    assert_eq!(say("one", 2, Ready).await, 1);
    assert_eq!(say("one", 1, NotReady).await, 1, "an older word");
    assert_eq!(say("one", 3, NotReady).await, 0);
    assert_eq!(say("two", 1, Ready).await, 1);
    assert_eq!(say("one", 9, NotReady).await, 1, "a late word of a dead host");
}

#[tokio::test]
async fn a_second_switch_of_the_same_home_does_not_start() {
    let rig = Rig::start().await;
    let pid = std::fs::read_to_string(rig.home().pid("switch")).unwrap();
    assert_eq!(pid.trim(), std::process::id().to_string());
    let config = tidegate_switch::SwitchConfig::new(rig.home());
    let error = tidegate_switch::run_until(config, std::future::pending()).await.unwrap_err();
    assert!(error.to_string().contains("another switch"), "{error}");
}

#[tokio::test]
async fn a_report_waits_for_what_changes_and_not_for_every_request() {
    let rig = Rig::start().await;
    let backend = Backend::good("v1").await;
    rig.endpoints(&[("a", "v1", backend.address, Ready)]).await;
    rig.weights(&[("v1", 10_000)]).await;
    let before = rig.report().await.revision;
    let mut browser = Browser::new(rig.listen);
    for _ in 0..20 {
        browser.get("/").await.unwrap();
    }
    assert_eq!(rig.observe(before, Duration::from_millis(50)).await.revision, before);
    let (report, ()) = tokio::join!(rig.observe(before, PATIENCE), async {
        rig.weights(&[("v2", 0), ("v1", 10_000)]).await;
    });
    assert!(report.revision > before);
}

#[tokio::test]
async fn a_message_that_is_not_in_the_contract_is_refused() {
    let rig = Rig::start().await;
    for (path, body, status) in
        [("/v1/table", "{}", 422), ("/v1/table", "nonsense", 400), ("/v1/nothing", "{}", 404)]
    {
        let reply = rig.client.request("POST", path, body.into(), PATIENCE).await.unwrap();
        assert_eq!(reply.status, status, "{path} {body}");
    }
    let mut sent = table(&rig, 1, 1, 0);
    sent.doc.weights[0].weight_bp = 7;
    let (status, why) = rig.send_table(&sent).await.unwrap_err();
    assert!(status == 422 && why.contains("10000"), "{why}");
}

#[tokio::test]
async fn a_lane_whose_port_was_taken_while_no_switch_ran_is_trouble_and_holds_up_nobody() {
    let mut rig = Rig::start().await;
    let backend = Backend::good("v1").await;
    rig.endpoints(&[("a", "v1", backend.address, Ready)]).await;
    rig.weights(&[("v1", 10_000)]).await;
    let mut other = table(&rig, 1, rig.next(), 0);
    other.doc.lane = "prod/other".into();
    other.doc.listen = super::support::free_address().to_string();
    rig.send_table(&other).await.unwrap();
    rig.leave().await.unwrap().unwrap();
    let thief = std::net::TcpListener::bind(&other.doc.listen).unwrap();
    rig.launch().await;
    assert!(rig.report().await.trouble[0].contains(&other.doc.listen));
    rig.weights(&[("v2", 0), ("v1", 10_000)]).await;
    assert_eq!(Browser::new(rig.listen).get("/").await.unwrap().body, "v1");
    other.fence.seq = rig.next();
    other.doc.seed += 1;
    rig.send_table(&other).await.unwrap();
    assert!(rig.report().await.trouble[0].contains(&other.doc.listen));
    drop(thief);
    rig.weights(&[("v1", 10_000)]).await;
    assert!(rig.report().await.trouble.is_empty());
    assert_eq!(Browser::new(other.doc.listen.parse().unwrap()).get("/").await.unwrap().status, 503);
}
