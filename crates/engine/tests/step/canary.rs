//! A canary from the first release to its end, and every way back.

use serde_json::json;

use crate::specs::{release, with_v1};
use crate::world::{LANE, World};

const R2: &str = "production-web-2";
const R3: &str = "production-web-3";

fn outcome(world: &World, rollout: &str) -> String {
    world.rollout(rollout)["outcome"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn the_first_release_gets_all_traffic_without_steps() {
    let world = with_v1();
    assert_eq!(outcome(&world, "production-web-1"), "promoted");
    assert_eq!(world.weights(), [("v1".to_owned(), 10_000)]);
    assert_eq!(world.running(), [("v1".to_owned(), 3)]);
    assert_eq!(world.ran.len(), 1, "the run step ran once");
    assert_eq!(world.lane()["stable"]["version"], "v1");
}

#[test]
fn a_good_version_goes_step_by_step_to_all_traffic_and_the_old_one_goes() {
    let mut world = with_v1();
    release(&mut world, "v2");
    world.until(R2, "at 10 %", |doc| doc["weight"]["observed"] == 10.0);
    assert_eq!(world.running(), [("v1".to_owned(), 3), ("v2".to_owned(), 1)]);
    world.until(R2, "at 50 %", |doc| doc["weight"]["observed"] == 50.0);
    assert_eq!(world.running(), [("v1".to_owned(), 3), ("v2".to_owned(), 2)]);
    world.until(R2, "baking", |doc| doc["phase"] == "Baking");
    assert_eq!(world.weights(), [("v2".to_owned(), 10_000)]);
    assert_eq!(world.running(), [("v1".to_owned(), 3), ("v2".to_owned(), 3)]);
    assert_eq!(world.lane()["stable"]["version"], "v2", "stable as soon as it has all traffic");
    world.until(R2, "ended", |doc| !doc["endedAt"].is_null());
    assert_eq!(outcome(&world, R2), "promoted");
    assert_eq!(world.running(), [("v2".to_owned(), 3)]);
    assert_eq!(world.ran, ["run-1", "run-1"], "each rollout ran it once");
    assert!(!world.is_open(), "nothing is left to do");
    assert_eq!(world.dropped, Vec::<String>::new());
    world.verify();
}

#[test]
fn a_bad_version_is_taken_back_by_the_limit_on_counts() {
    let mut world = with_v1();
    world.bad.push("v2".into());
    release(&mut world, "v2");
    world.until(R2, "ended", |doc| !doc["endedAt"].is_null());
    assert_eq!(outcome(&world, R2), "rolledBack");
    let doc = world.rollout(R2);
    assert_eq!(doc["reason"]["code"], "checkFailed", "{doc:#}");
    assert_eq!(world.weights(), [("v1".to_owned(), 10_000)]);
    assert_eq!(world.running(), [("v1".to_owned(), 3)]);
    assert_eq!(world.lane()["stable"]["version"], "v1");
    assert!(!world.is_open());
    world.verify();
}

#[test]
fn an_undo_while_baking_takes_it_back_and_forgets_the_version() {
    let mut world = with_v1();
    release(&mut world, "v2");
    world.until(R2, "baking", |doc| doc["phase"] == "Baking");
    world
        .ask("lane", LANE, json!({ "undo": { "to": null, "principal": "ada", "reason": null } }))
        .expect("accepted");
    world.until(R2, "ended", |doc| !doc["endedAt"].is_null());
    assert_eq!(outcome(&world, R2), "rolledBack");
    assert_eq!(world.weights(), [("v1".to_owned(), 10_000)]);
    assert_eq!(world.lane()["stable"]["version"], "v1");
    assert_eq!(world.lane()["kept"], json!([]));
}

#[test]
fn an_undo_after_the_end_puts_the_kept_version_back() {
    let mut world = with_v1();
    release(&mut world, "v2");
    world.until(R2, "ended", |doc| !doc["endedAt"].is_null());
    world
        .ask("lane", LANE, json!({ "undo": { "to": null, "principal": "ada", "reason": null } }))
        .expect("accepted");
    world.until(R3, "ended", |doc| !doc["endedAt"].is_null());
    assert_eq!(world.rollout(R3)["kind"], "undo");
    assert_eq!(outcome(&world, R3), "promoted");
    assert_eq!(world.weights(), [("v1".to_owned(), 10_000)]);
    assert_eq!(world.running(), [("v1".to_owned(), 3)]);
    assert_eq!(world.lane()["stable"]["version"], "v1");
    assert_eq!(world.lane()["kept"][0]["version"], "v2");
}

#[test]
fn a_retry_goes_out_again_and_its_earlier_errors_do_not_count() {
    let mut world = with_v1();
    world.bad.push("v2".into());
    release(&mut world, "v2");
    world.until(R2, "ended", |doc| !doc["endedAt"].is_null());
    world.bad.clear();
    world.ask("lane", LANE, json!({ "retry": { "principal": "ada" } })).expect("accepted");
    world.until(R3, "ended", |doc| !doc["endedAt"].is_null());
    assert_eq!(world.rollout(R3)["kind"], "retry");
    assert_eq!(outcome(&world, R3), "promoted");
    let again = world.ask("lane", LANE, json!({ "retry": { "principal": "ada" } }));
    assert_eq!(again.unwrap_err().code, "promoted");
}

#[test]
fn a_newer_release_supersedes_one_in_mid_canary_and_one_that_bakes() {
    let mut world = with_v1();
    release(&mut world, "v2");
    world.until(R2, "at 10 %", |doc| doc["weight"]["observed"] == 10.0);
    release(&mut world, "v3");
    world.until(R2, "ended", |doc| !doc["endedAt"].is_null());
    assert_eq!(outcome(&world, R2), "superseded");
    world.until(R3, "baking", |doc| doc["phase"] == "Baking");
    release(&mut world, "v4");
    world.until(R3, "ended", |doc| !doc["endedAt"].is_null());
    assert_eq!(outcome(&world, R3), "promoted", "its bake window only ended early");
    world.until("production-web-4", "ended", |doc| !doc["endedAt"].is_null());
    assert_eq!(world.running(), [("v4".to_owned(), 3)]);
    assert!(!world.is_open());
}

#[test]
fn pause_resume_promote_and_abort_do_what_they_say() {
    let mut world = with_v1();
    release(&mut world, "v2");
    world.until(R2, "pausing", |doc| doc["step"]["kind"] == "pause");
    world.ask("rollout", R2, json!({ "pause": { "principal": "ada" } })).expect("accepted");
    for _ in 0..60 {
        world.second();
    }
    assert_eq!(world.rollout(R2)["step"]["kind"], "pause", "nothing is counted meanwhile");
    world.ask("rollout", R2, json!({ "resume": { "principal": "ada" } })).expect("accepted");
    world
        .ask("rollout", R2, json!({ "promote": { "full": false, "principal": "ada" } }))
        .expect("accepted");
    assert_eq!(world.rollout(R2)["weight"]["observed"], 50.0, "one step was skipped");
    world
        .ask("rollout", R2, json!({ "promote": { "full": true, "principal": "ada" } }))
        .expect("accepted");
    assert_eq!(world.rollout(R2)["phase"], "Baking");
    let abort = json!({ "abort": { "principal": "ada", "reason": "ugly" } });
    world.ask("rollout", R2, abort.clone()).expect("accepted");
    world.until(R2, "ended", |doc| !doc["endedAt"].is_null());
    assert_eq!(outcome(&world, R2), "rolledBack");
    assert_eq!(world.ask("rollout", R2, abort).unwrap_err().code, "aborted");
}

#[test]
fn a_promote_and_an_abort_with_the_same_revision_have_one_winner() {
    let mut world = with_v1();
    release(&mut world, "v2");
    world.until(R2, "pausing", |doc| doc["step"]["kind"] == "pause");
    let stream = tidegate_core::StreamId::new("shop", "rollout", R2);
    let revision = world.engine().revision(&stream).expect("readable");
    let promote = json!({ "promote": { "full": false, "principal": "ada" } });
    world.ask_at("rollout", R2, promote, Some(revision)).expect("the first one wins");
    let abort = json!({ "abort": { "principal": "bob", "reason": null } });
    let late = world.ask_at("rollout", R2, abort, Some(revision)).unwrap_err();
    assert_eq!(late.code, "revisionChanged");
}

#[test]
fn a_restart_every_eight_seconds_changes_nothing() {
    for bad in [false, true] {
        let mut world = with_v1();
        if bad {
            world.bad.push("v2".into());
        }
        release(&mut world, "v2");
        for _ in 0..30 {
            world.restart();
            world.settle();
            for _ in 0..8 {
                world.second();
            }
        }
        let expected = if bad { "rolledBack" } else { "promoted" };
        assert_eq!(outcome(&world, R2), expected, "{:#}", world.rollout(R2));
        assert!(!world.is_open());
        world.verify();
    }
}
