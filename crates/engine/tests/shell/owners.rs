//! Who drives: one, and always one that is alive.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tidegate_core::Epoch;
use tidegate_core::machine::{EffectClass, Outcome};
use tidegate_engine::shell::{self, Ended};

use crate::doubles::{Input, Place, config, until};

/// Not a test by itself: the engine that the others start and kill.
#[test]
fn an_engine_in_a_process_of_its_own() {
    let Some(home) = std::env::var_os("TIDEGATE_TEST_HOME") else { return };
    let config = config(&PathBuf::from(home), Duration::from_secs(60), Epoch(0));
    println!("ended: {:?}", shell::run(config));
}

#[test]
fn a_killed_engine_is_followed_by_one_that_sends_again_with_a_higher_epoch() {
    let place = Place::new();
    let mut first = place.process();
    place.ask_effect("a", "one", EffectClass::StateSetting, &["hang"], 60_000);
    place.ask("b", &Input::Later(700));
    until("the effect is on its way", || {
        place.noted().contains(&"1 1 hang".to_owned()).then_some(())
    });
    first.signal(Signal::KILL);
    first.0.wait().unwrap();

    let second = place.process();
    until("it is sent again", || place.noted().contains(&"2 1 hang".to_owned()).then_some(()));
    until("the timer still fires", || {
        (place.get("/v1/counter/b")["state"]["total"] == 1).then_some(())
    });
    let seqs: Vec<_> = place.events("since=0").iter().map(|e| e["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [1, 2, 3], "no event is lost and none is there twice");
    second.signal(Signal::TERM);
    assert!(second.printed().contains("ended: Ok(Terminated)"));
}

#[test]
fn a_one_shot_that_an_earlier_process_may_have_sent_ends_as_unknown() {
    let place = Place::new();
    let mut first = place.process();
    place.ask_effect("a", "old", EffectClass::OneShot, &["notSent"], 2_000);
    until("tried", || place.noted().contains(&"1 1 notSent".to_owned()).then_some(()));
    first.signal(Signal::KILL);
    first.0.wait().unwrap();
    let _second = place.process();
    place.ask_effect("a", "new", EffectClass::OneShot, &["notSent"], 300);
    let new = place.answer("a", "new");
    assert!(matches!(new, Outcome::Unreachable(_)), "{new:?}");
    let old = place.answer("a", "old");
    assert!(matches!(old, Outcome::Unknown(_)), "{old:?}");
}

#[test]
fn a_second_engine_leaves_a_living_one_alone() {
    let place = Place::new();
    let first = place.process();
    place.ask("a", &Input::Add(1));
    let started = Instant::now();
    let config = config(place.folder.path(), Duration::from_secs(60), Epoch(0));
    let ended = shell::run(config).unwrap();
    assert_eq!(ended, Ended::OtherEngine(Some(first.0.id())));
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    place.ask("a", &Input::Add(1));
    assert_eq!(place.pid(), Some(first.0.id()));
}

#[test]
fn a_stopped_owner_is_ended_and_its_successor_drives_within_five_seconds() {
    let place = Place::new();
    let mut first = place.process();
    place.ask("a", &Input::Add(1));
    first.signal(Signal::STOP);
    let started = Instant::now();
    let second = place.process();
    until("the successor drives", || (place.pid() == Some(second.0.id())).then_some(()));
    place.ask("a", &Input::Add(1));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(started.elapsed() > Duration::from_secs(2), "it was given time to move");
    assert!(first.0.try_wait().unwrap().is_some(), "the stopped one was ended");
    until("the heartbeat shows the new epoch", || {
        let beat = std::fs::read_to_string(place.home().engine_heartbeat()).ok()?;
        beat.starts_with("2 ").then_some(())
    });
}

#[test]
fn an_owner_that_has_been_stopped_for_long_is_ended_within_two_beats() {
    let place = Place::new();
    let first = place.process();
    place.ask("a", &Input::Add(1));
    first.signal(Signal::STOP);
    until("the heartbeat is old", || {
        let written = std::fs::metadata(place.home().engine_heartbeat()).unwrap().modified();
        (written.unwrap().elapsed().unwrap() > Duration::from_secs(4)).then_some(())
    });
    let started = Instant::now();
    let second = place.process();
    until("the successor drives", || (place.pid() == Some(second.0.id())).then_some(()));
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(700), "it was watched for more than a beat: {took:?}");
    assert!(took < Duration::from_millis(2_000), "{took:?}");
}

#[test]
fn of_two_that_start_together_one_drives_and_one_leaves() {
    let place = Place::new();
    let (first, second) = (place.process(), place.process());
    place.ask("a", &Input::Add(1));
    let owner = place.pid().unwrap();
    let (owner, other) = if first.0.id() == owner { (first, second) } else { (second, first) };
    assert!(other.printed().contains("ended: Ok(OtherEngine(Some("));
    owner.signal(Signal::TERM);
    assert!(owner.printed().contains("ended: Ok(Terminated)"));
}
