//! Effects through the real dispatcher, with a driver that does as it is told.

use std::time::{Duration, Instant};

use tidegate_core::Epoch;
use tidegate_core::machine::{EffectClass, Outcome};
use tidegate_engine::shell::Ended;

use crate::doubles::{Input, Place, until};

const SET: EffectClass = EffectClass::StateSetting;

#[test]
fn an_effect_is_tried_until_it_is_decided() {
    let place = Place::new();
    let engine = place.engine(Duration::from_millis(100));
    place.ask_effect("a", "one", SET, &["again", "notSent", "again", "done"], 30_000);
    let outcome = place.answer("a", "one");
    assert_eq!(outcome, Outcome::Applied(serde_json::json!({ "epoch": 1 })));
    let tries: Vec<_> = place.noted().into_iter().filter(|l| l.starts_with("1 1 ")).collect();
    assert_eq!(tries, ["1 1 again", "1 1 notSent", "1 1 again", "1 1 done"]);
    assert_eq!(engine.join().unwrap().unwrap(), Ended::Idle);
}

#[test]
fn a_deadline_ends_the_trying_by_class() {
    let place = Place::new();
    let _engine = place.engine(Duration::from_millis(100));
    let started = Instant::now();
    place.ask_effect("a", "set", SET, &["again"], 400);
    place.ask_effect("a", "hung", SET, &["hang"], 400);
    place.ask_effect("a", "shot", EffectClass::OneShot, &["again"], 400);
    place.ask_effect("a", "held", EffectClass::OneShot, &["hang"], 400);
    place.ask_effect("a", "kept", EffectClass::OneShot, &["notSent"], 400);
    place.ask_effect("a", "read", EffectClass::Read, &["again"], 400);
    for (key, unknown) in [
        ("set", false),
        ("hung", false),
        ("shot", true),
        ("held", true),
        ("kept", false),
        ("read", false),
    ] {
        match place.answer("a", key) {
            Outcome::Unknown(reason) => assert!(unknown, "{key}: {reason}"),
            Outcome::Unreachable(reason) => {
                assert!(!unknown, "{key}: {reason}");
                assert!(reason.text.contains("set at fake:one"), "{reason}");
            }
            other @ (Outcome::Applied(_) | Outcome::Refused(_) | Outcome::Failed(_)) => {
                panic!("{key}: {other:?}")
            }
        }
    }
    assert!(started.elapsed() >= Duration::from_millis(400), "not before the deadline");
}

#[test]
fn a_forgotten_effect_is_tried_no_more() {
    let place = Place::new();
    let engine = place.engine(Duration::from_millis(100));
    place.ask_effect("a", "old", SET, &["again"], 30_000);
    place.ask_effect("a", "new", SET, &["again", "done"], 30_000);
    let outcome = place.answer("a", "new");
    assert!(matches!(outcome, Outcome::Applied(_)), "a newer one does not wait: {outcome:?}");
    place.ask("a", &Input::Forget("old".into()));
    assert_eq!(engine.join().unwrap().unwrap(), Ended::Idle, "nothing is open any more");
}

#[test]
fn a_newer_effect_waits_for_an_older_attempt_for_a_moment_only() {
    let place = Place::new();
    let _engine = place.engine(Duration::from_millis(100));
    place.ask_effect("a", "old", SET, &["hang"], 30_000);
    place.ask_effect("a", "new", SET, &["done"], 30_000);
    let outcome = place.answer("a", "new");
    assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    let noted = place.noted();
    let at = |line: &str| noted.iter().position(|l| l == line).unwrap();
    assert!(at("1 1 hang") < at("1 2 done"), "{noted:?}");
    place.ask("a", &Input::Forget("old".into()));
}

#[test]
fn an_owner_that_is_superseded_ends_and_comes_back_above_it() {
    let place = Place::new();
    let engine = place.engine(Duration::from_secs(60));
    place.ask_effect("a", "one", SET, &["41"], 30_000);
    let ended = engine.join().unwrap().unwrap();
    assert_eq!(ended, Ended::Superseded(Epoch(41)));
    let engine = place.engine_at(Duration::from_secs(60), Epoch(42));
    until("it is sent again", || place.noted().contains(&"42 1 41".to_owned()).then_some(()));
    assert_eq!(engine.join().unwrap().unwrap(), Ended::Superseded(Epoch(41)));
}
