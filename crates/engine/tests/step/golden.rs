//! The rollout's document is the one of the API: written down once, and read by its type.

use serde_json::{Value, json};
use tidegate_wire::api::Rollout;

use crate::specs::{release, with_v1};

/// Readers turn times into texts and add the revision; the rest is as the machine writes it.
fn readable(mut doc: Value) -> Value {
    let text = |value: &Value| if value.is_null() { Value::Null } else { json!(value.to_string()) };
    for key in ["startedAt", "endedAt"] {
        doc[key] = text(&doc[key]);
    }
    if !doc["waiting"].is_null() {
        for key in ["since", "until"] {
            doc["waiting"][key] = text(&doc["waiting"][key]);
        }
    }
    doc["revision"] = json!(17);
    doc
}

#[test]
fn the_document_of_a_rollout_in_its_pause_is_this_one_and_the_api_reads_it() {
    let mut world = with_v1();
    release(&mut world, "v2");
    world.until("production-web-2", "pausing", |doc| doc["step"]["kind"] == "pause");
    let doc = world.rollout("production-web-2");
    let golden: Value =
        serde_json::from_str(include_str!("rollout.json")).expect("the golden file");
    let mut shown = doc.clone();
    // The plan's digest covers the whole environment; that it is one is enough.
    shown["plan"] = json!(doc["plan"].as_str().and_then(|d| d.split(':').next()));
    assert_eq!(shown, golden, "{doc:#}");
    let rollout: Rollout = serde_json::from_value(readable(doc)).expect("the API's form");
    assert_eq!(rollout.id, "production-web-2");
    assert_eq!(rollout.phase, "Paused");
    assert!((rollout.weight.observed - 10.0).abs() < f64::EPSILON);
    assert_eq!(rollout.waiting.map(|w| w.code).as_deref(), Some("pause"));
}

#[test]
fn the_api_reads_the_document_in_every_second_of_a_canary_good_or_bad() {
    for bad in [false, true] {
        let mut world = with_v1();
        if bad {
            world.bad.push("v2".into());
        }
        release(&mut world, "v2");
        for _ in 0..80 {
            world.second();
            let doc = readable(world.rollout("production-web-2"));
            let rollout: Result<Rollout, _> = serde_json::from_value(doc.clone());
            assert!(rollout.is_ok(), "{rollout:?}: {doc:#}");
        }
        assert!(!world.rollout("production-web-2")["endedAt"].is_null());
    }
}
