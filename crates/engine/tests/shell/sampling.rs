//! Samples: durable first, once, and fed again after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::time::Duration;

use rustix::process::Signal;
use tidegate_core::Digest;
use tidegate_core::machine::Watch;
use tidegate_engine::Input as Step;
use tidegate_engine::shell::Ended;
use tidegate_engine::shell::samples::{Store, folder};

use crate::doubles::{Input, Place, counted, second, stream, until};

fn watches() -> BTreeMap<Watch, BTreeSet<tidegate_core::StreamId>> {
    let watch = Watch { target: "t".into(), lane: "test/web".into(), samples: true };
    BTreeMap::from([(watch, BTreeSet::from([stream("a")]))])
}

fn seqs(inputs: &[Step]) -> Vec<u64> {
    inputs
        .iter()
        .flat_map(|input| {
            let Step::Samples { records, .. } = input else { panic!("{input:?}") };
            records.iter().map(|r| r.seq)
        })
        .collect()
}

fn last_digest(inputs: &[Step]) -> Digest {
    match inputs.last() {
        Some(Step::Samples { segment, .. }) => segment.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn samples_reach_the_machine_once_and_again_after_a_kill() {
    let place = Place::new();
    let mut first = place.process();
    place.ask("a", &Input::Watch(true));
    let wanted = |requests: u64| {
        until("counted", || (place.get("/v1/counter/a")["requests"] == requests).then_some(()));
    };
    wanted(23);
    first.signal(Signal::KILL);
    first.0.wait().unwrap();
    let _second = place.process();
    wanted(23);
    until("it watches again", || place.noted().contains(&"2 watch".to_owned()).then_some(()));
    let last = place.events("since=0").pop().unwrap();
    assert_eq!(last["event"], "counter.sampled");
    let folder = folder(&place.home().samples(), &stream("a"));
    let newest = std::fs::read(folder.join("000002.jsonl")).unwrap();
    assert_eq!(last["data"]["segment"], Digest::of(&newest).as_str(), "as sha256sum says");
    assert_eq!(place.get("/v1/counter/a")["requests"], 23, "what comes again is not counted again");
}

#[test]
fn a_store_keeps_what_it_has_got_and_drops_what_it_has() {
    let place = Place::new();
    let root = place.home().samples();
    let mut store = Store::new(root.clone());
    assert!(store.set_watches(watches()).unwrap().is_empty());
    let new = store.add("t", &counted()).unwrap();
    assert_eq!(seqs(&new), [1, 2, 3]);
    assert!(store.add("t", &counted()).unwrap().is_empty());
    assert!(store.add("other", &[second(9, 4, 61, 1)]).unwrap().is_empty());
    // A new life of the switch counts from 1 again.
    let new = store.add("t", &[second(10, 1, 61, 1)]).unwrap();
    assert_eq!(seqs(&new), [1]);

    let mut again = Store::new(root);
    let read = again.set_watches(watches()).unwrap();
    assert_eq!(seqs(&read), [1, 2, 3, 1]);
    assert_eq!(last_digest(&read), last_digest(&new), "the digest goes on where it was");
    assert!(again.set_watches(watches()).unwrap().is_empty(), "read once");
}

#[test]
fn a_torn_end_is_cut_off_and_what_was_before_it_stays() {
    let place = Place::new();
    let root = place.home().samples();
    let mut store = Store::new(root.clone());
    store.set_watches(watches()).unwrap();
    let new = store.add("t", &counted()).unwrap();
    let file = folder(&root, &stream("a")).join("000002.jsonl");
    let whole = std::fs::read(&file).unwrap();
    for torn in [&b"0123456789abcdef {\"switchEpoch\":9"[..], b"garbage\n", b"\xff"] {
        let mut handle = std::fs::OpenOptions::new().append(true).open(&file).unwrap();
        handle.write_all(torn).unwrap();
        let mut again = Store::new(root.clone());
        let read = again.set_watches(watches()).unwrap();
        assert_eq!(seqs(&read), [1, 2, 3]);
        assert_eq!(last_digest(&read), last_digest(&new));
        assert_eq!(std::fs::read(&file).unwrap(), whole);
    }
    // A flipped byte in an older segment costs what is behind it there, and nothing is cut off.
    let older = folder(&root, &stream("a")).join("000001.jsonl");
    let mut bytes = std::fs::read(&older).unwrap();
    let at = bytes.len() - 5;
    bytes[at] ^= 1;
    std::fs::write(&older, &bytes).unwrap();
    let mut again = Store::new(root);
    assert_eq!(seqs(&again.set_watches(watches()).unwrap()), [2, 3]);
    assert_eq!(std::fs::read(&older).unwrap(), bytes);
}

#[test]
fn a_stream_has_a_bound_and_its_oldest_segments_go_first() {
    let place = Place::new();
    let root = place.home().samples();
    let mut store = Store::new(root.clone()).with_bound(2_000);
    store.set_watches(watches()).unwrap();
    for minute in 0..20 {
        let new = store.add("t", &[second(9, minute + 1, minute * 60, 1)]).unwrap();
        assert_eq!(seqs(&new), [minute + 1]);
    }
    let files = std::fs::read_dir(folder(&root, &stream("a"))).unwrap().count();
    assert!(files < 8, "{files}");
    let mut again = Store::new(root);
    let read = again.set_watches(watches()).unwrap();
    assert_eq!(seqs(&read).last(), Some(&20));
}

#[test]
fn watching_ends_with_the_work() {
    let place = Place::new();
    let engine = place.engine(Duration::from_millis(100));
    place.ask("a", &Input::Watch(true));
    until("watched", || place.noted().contains(&"1 watch".to_owned()).then_some(()));
    place.ask("a", &Input::Watch(false));
    assert_eq!(engine.join().unwrap().unwrap(), Ended::Idle);
}

#[test]
fn many_streams_share_one_sync_and_each_has_its_own_segment() {
    let place = Place::new();
    let root = place.home().samples();
    let streams: Vec<_> = (0..20).map(|n| stream(&format!("s/{n}"))).collect();
    let watch = Watch { target: "t".into(), lane: "test/web".into(), samples: true };
    let watches = BTreeMap::from([(watch, streams.iter().cloned().collect::<BTreeSet<_>>())]);
    let mut store = Store::new(root.clone());
    store.set_watches(watches).unwrap();
    assert_eq!(store.add("t", &counted()).unwrap().len(), 20);
    for id in &streams {
        assert!(folder(&root, id).join("000002.jsonl").exists(), "{id}");
    }
}
