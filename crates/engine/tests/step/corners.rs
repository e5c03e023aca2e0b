//! Corners in which the order of things decides.

use serde_json::{Value, json};
use tidegate_core::machine::Outcome;
use tidegate_core::release::stream_id;
use tidegate_core::spec::LostAction;
use tidegate_core::{Reason, StreamId};

use crate::specs::{canary, creation, gate, pause, project, release, weight, with_v1};
use crate::world::{LANE, World};

const R1: &str = "production-web-1";
const R2: &str = "production-web-2";
const R3: &str = "production-web-3";

fn ended(doc: &Value) -> bool {
    !doc["endedAt"].is_null()
}

fn undo() -> Value {
    json!({ "undo": { "to": null, "principal": "ada", "reason": null } })
}

fn by_ada(verb: &str) -> Value {
    json!({ verb: { "principal": "ada" } })
}

fn abort() -> Value {
    json!({ "abort": { "principal": "ada", "reason": null } })
}

#[test]
fn an_undo_stops_the_version_only_when_its_last_request_is_answered() {
    let mut world = with_v1();
    release(&mut world, "v2");
    world.until(R2, "ended", ended);
    world.in_flight("v2", 4);
    world.ask("lane", LANE, undo()).expect("accepted");
    for _ in 0..5 {
        world.second();
    }
    assert_eq!(world.weights(), [("v1".to_owned(), 10_000)]);
    assert_eq!(world.running(), [("v1".to_owned(), 3), ("v2".to_owned(), 3)]);
    world.in_flight("v2", 0);
    assert_eq!(world.running(), [("v1".to_owned(), 3)]);
    world.until(R3, "ended", ended);
}

#[test]
fn a_pause_before_the_first_weight_ends_without_an_instance() {
    let mut world = with_v1();
    let spec = project(vec![pause(5), weight(10)]);
    world.ask("release", &stream_id("web", "v2"), creation("v2", spec)).expect("accepted");
    world.until(R2, "ended", ended);
    assert_eq!(world.rollout(R2)["outcome"], "promoted");
}

#[test]
fn a_rollout_that_was_paused_while_it_baked_and_was_superseded_cannot_be_resumed() {
    let mut world = with_v1();
    release(&mut world, "v2");
    world.until(R2, "baking", |doc| doc["phase"] == "Baking");
    world.ask("rollout", R2, by_ada("pause")).expect("accepted");
    release(&mut world, "v3");
    world.until(R2, "ended", ended);
    assert_eq!(world.ask("rollout", R2, by_ada("resume")).expect_err("over").code, "notPaused");
}

#[test]
fn nothing_of_a_rollout_is_pending_when_it_has_ended() {
    let mut world = with_v1();
    world.unanswered = true;
    release(&mut world, "v2");
    world.until(R2, "ended", ended);
    assert_eq!(world.engine().sizes().1, 0, "its last document was seen, that is enough");
}

#[test]
fn a_version_that_dies_while_it_is_watched_is_taken_back() {
    let mut world = with_v1();
    release(&mut world, "v2");
    world.until(R2, "pausing", |doc| doc["step"]["kind"] == "pause");
    world.never_ready.push("v2".into());
    world.report();
    world.until(R2, "ended", ended);
    assert_eq!(world.rollout(R2)["outcome"], "rolledBack");
    assert_eq!(world.rollout(R2)["reason"]["code"], "progressDeadline");
}

#[test]
fn an_undo_that_is_asked_twice_is_done_once() {
    let mut world = with_v1();
    release(&mut world, "v2");
    world.until(R2, "ended", ended);
    world.stuck.push("capacity");
    world.ask("lane", LANE, undo()).expect("accepted");
    assert_eq!(world.ask("lane", LANE, undo()).expect_err("not twice").code, "undoing");
    world.stuck.clear();
    world.until(R3, "ended", ended);
    assert_eq!(world.weights(), [("v1".to_owned(), 10_000)]);
}

#[test]
fn a_first_release_that_is_taken_back_leaves_no_stable_version() {
    let mut world = World::new();
    release(&mut world, "v1");
    world.until(R1, "baking", |doc| doc["phase"] == "Baking");
    world.ask("rollout", R1, abort()).expect("accepted");
    world.until(R1, "ended", ended);
    assert_eq!(world.lane()["stable"], Value::Null);
    assert_eq!(world.weights(), []);
    assert_eq!(world.running(), []);
}

#[test]
fn a_release_that_waited_and_is_replaced_by_a_newer_one_hears_of_it() {
    let mut world = with_v1();
    release(&mut world, "v2");
    world.until(R2, "at 10 %", |doc| doc["weight"]["observed"] == 10.0);
    world.in_flight("v2", 1);
    release(&mut world, "v3");
    release(&mut world, "v4");
    let v3 = StreamId::new("shop", "release", &stream_id("web", "v3"));
    let view = world.engine().view(&v3).expect("readable").expect("there");
    assert_eq!(view.doc["outcome"], "superseded");
    assert!(!view.open);
    world.in_flight("v2", 0);
    world.until(R3, "ended", ended);
    assert_eq!(world.rollout(R3)["version"], "v4");
    assert!(!world.is_open());
}

#[test]
fn no_fallback_can_put_the_old_version_back_while_it_is_being_stopped() {
    let mut world = with_v1();
    let mut spec = project(canary());
    spec.environments[0].if_engine_lost.bake = LostAction::Rollback;
    world.ask("release", &stream_id("web", "v2"), creation("v2", spec)).expect("accepted");
    world.until(R2, "ended", ended);
    let fallbacks: Vec<_> = world
        .taken
        .iter()
        .filter(|(action, ..)| action == "capacity")
        .map(|(.., doc)| {
            let names: Vec<_> = doc["versions"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|v| v["version"].as_str())
                .collect();
            (names.join("+"), doc["fallback"]["action"]["kind"].as_str().unwrap_or("").to_owned())
        })
        .collect();
    let last: Vec<_> = fallbacks.iter().rev().take(3).rev().cloned().collect();
    let row = |names: &str, kind: &str| (names.to_owned(), kind.to_owned());
    assert_eq!(last, [row("v2+v1", "restore"), row("v2+v1", "stay"), row("v2", "stay")]);
}

#[test]
fn from_an_abort_on_nothing_is_sent_that_brings_the_version_forward() {
    let mut world = with_v1();
    world.stuck = vec!["traffic"];
    release(&mut world, "v2");
    world.until(R2, "shifting", |doc| doc["weight"]["wanted"] == 10.0);
    assert_eq!(world.waiting().len(), 1);
    world.ask("rollout", R2, abort()).expect("accepted");
    world.stuck.clear();
    world.until(R2, "ended", ended);
    let weights: Vec<_> = world
        .taken
        .iter()
        .filter(|(action, ..)| action == "traffic")
        .map(|(.., doc)| doc["weights"][0]["weightBp"].as_u64())
        .collect();
    assert_eq!(weights, [Some(10_000), Some(0)], "v2 never got any");
}

#[test]
fn a_capacity_document_that_is_refused_in_mid_canary_does_not_block_the_way_back() {
    let mut world = with_v1();
    release(&mut world, "v2");
    world.until(R2, "at 10 %", |doc| doc["weight"]["observed"] == 10.0);
    let reason = Reason::new("impossible", "no memory left");
    world.outcomes.insert("capacity".into(), Outcome::Refused(reason));
    world.until(R2, "aborting", |doc| !doc["reason"].is_null());
    world.outcomes.clear();
    world.until(R2, "ended", ended);
    assert_eq!(world.rollout(R2)["outcome"], "rolledBack");
    assert_eq!(world.running(), [("v1".to_owned(), 3)]);
}

#[test]
fn a_full_promotion_of_a_rollout_that_rests_skips_the_step_before_it_began() {
    let mut world = with_v1();
    let spec = project(vec![weight(10), pause(5), weight(50), pause(500)]);
    world.ask("release", &stream_id("web", "v2"), creation("v2", spec)).expect("accepted");
    world.ask("rollout", R2, by_ada("pause")).expect("accepted");
    world.stuck.push("traffic");
    world.ask("rollout", R2, by_ada("resume")).expect("accepted");
    world
        .ask("rollout", R2, json!({ "promote": { "full": false, "principal": "ada" } }))
        .expect("accepted");
    world.stuck.clear();
    world.settle();
    world.until(R2, "at 50 %", |doc| doc["weight"]["observed"] == 50.0);
    assert_eq!(world.rollout(R2)["step"]["kind"], "pause");
}

#[test]
fn a_gate_that_has_passed_is_not_asked_again_in_a_later_step() {
    let mut world = with_v1();
    let mut spec = project(vec![gate(), weight(10), pause(30), gate()]);
    spec.checks[1].interval_ms = 1_000;
    world.ask("release", &stream_id("web", "v2"), creation("v2", spec)).expect("accepted");
    world.until(R2, "ended", ended);
    let asked = world.names(R2).iter().filter(|name| *name == "measureRequested").count();
    assert_eq!(asked, 2);
}

#[test]
fn a_watching_check_is_measured_from_its_first_interval_on_whatever_the_steps_do() {
    let mut world = with_v1();
    let steps = vec![weight(10), pause(6), weight(20), pause(6), weight(30), pause(6)];
    let mut spec = project(steps);
    spec.checks[1].interval_ms = 8_000;
    spec.environments[0].strategy.analysis.push("smoke".into());
    world.ask("release", &stream_id("web", "v2"), creation("v2", spec)).expect("accepted");
    world.until(R2, "at 30 %", |doc| doc["weight"]["observed"] == 30.0);
    assert!(world.names(R2).contains(&"measured".to_owned()));
}

#[test]
fn an_abort_while_a_command_runs_says_that_it_may_have_happened() {
    let mut world = with_v1();
    world.stuck.push("run");
    release(&mut world, "v2");
    world.until(R2, "running", |doc| doc["step"]["kind"] == "run");
    world.ask("rollout", R2, abort()).expect("accepted");
    assert_eq!(world.waiting(), Vec::<String>::new(), "it is not sent any more");
    world.until(R2, "ended", ended);
    let told = world.events.iter().rfind(|e| e.event == "runEnded").expect("said");
    assert_eq!(told.reason.as_ref().map(|r| r.code.as_str()), Some("runUnknown"));
}

#[test]
fn an_undo_that_comes_with_the_end_of_the_rollout_still_happens() {
    let mut world = with_v1();
    release(&mut world, "v2");
    world.until(R2, "cooling", |doc| doc["step"]["kind"] == "retire");
    // The lane hears of both in the same step, the undo first.
    let inputs = [undo(), json!({ "ended": { "rollout": R2, "outcome": "promoted", "left": 0 } })];
    let inputs = inputs
        .into_iter()
        .map(|input| {
            tidegate_engine::Input::Ask(tidegate_engine::Request {
                token: 0,
                stream: StreamId::new("shop", "lane", LANE),
                input,
                if_revision: None,
            })
        })
        .collect();
    world.step(inputs);
    world.settle();
    assert_eq!(world.rollout(R3)["kind"], "undo");
    world.until(R3, "ended", ended);
    assert_eq!(world.lane()["stable"]["version"], "v1");
}
