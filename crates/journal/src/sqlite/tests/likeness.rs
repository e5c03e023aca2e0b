//! Random batches: memory and file answer and hold the same.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::conformance::everything;
use crate::memory::MemoryJournal;
use crate::{Batch, Committed};

/// One change, with versions relative to the right one.
#[derive(Debug, Clone)]
struct Draft {
    stream: u8,
    wrong_by: u64,
    events: Vec<(String, Option<String>)>,
    outgoing: u8,
    done: Vec<u64>,
    timers: Vec<(u8, u64)>,
    drops: Vec<u8>,
    view: Option<bool>,
    snapshot: Option<String>,
    progress: Option<i64>,
}

#[derive(Debug, Clone)]
enum Step {
    Commit { later: u64, back: bool, stale: bool, changes: Vec<Draft> },
    TakeOver(u64),
    OpenAgain,
}

fn drafts() -> impl Strategy<Value = Draft> {
    let rarely = |n: u32| prop_oneof![n => Just(0_u64), 1 => 1..3_u64];
    let events = vec((".{0,40}", proptest::option::of("[a-z\u{0}é]{0,9}")), 0..3);
    let timers = vec((0..3_u8, prop_oneof![0..99_u64, Just(u64::MAX)]), 0..3);
    let rows = (
        proptest::option::of(any::<bool>()),
        proptest::option::of(".{0,9}"),
        proptest::option::of(any::<i64>()),
    );
    (0..4_u8, rarely(30), events, 0..3_u8, vec(0..20_u64, 0..3), timers, vec(0..3_u8, 0..2), rows)
        .prop_map(|(stream, wrong_by, events, outgoing, done, timers, drops, rows)| {
            let (view, snapshot, progress) = rows;
            Draft {
                stream,
                wrong_by,
                events,
                outgoing,
                done,
                timers,
                drops,
                view,
                snapshot,
                progress,
            }
        })
}

fn steps() -> impl Strategy<Value = Step> {
    let seldom = || prop_oneof![20 => Just(false), 1 => Just(true)];
    let commit = (0..5_u64, seldom(), seldom(), vec(drafts(), 0..4))
        .prop_map(|(later, back, stale, changes)| Step::Commit { later, back, stale, changes });
    prop_oneof![12 => commit, 1 => (0..9_u64).prop_map(Step::TakeOver), 1 => Just(Step::OpenAgain)]
}

fn streams() -> [StreamId; 4] {
    [("rollout", "a"), ("rollout", "b"), ("lane", "a"), ("lane", "ß")].map(|(k, i)| stream(k, i))
}

fn written(draft: Draft, versions: &mut [u64; 4]) -> Change {
    let at = usize::from(draft.stream);
    let mut change = Change::new(streams()[at].clone(), versions[at] + draft.wrong_by);
    versions[at] += draft.events.len() as u64;
    for (data, reason) in draft.events {
        let reason = reason.map(|text| crate::Reason::new("code", text));
        change.events.push(NewEvent { event: "e".to_owned(), form: 1, data, reason });
    }
    change.outgoing = (0..draft.outgoing).map(|n| effect(&n.to_string())).collect();
    change.done = draft.done;
    let due = |(key, due): (u8, u64)| (key.to_string(), Timestamp(due));
    change.set_timers = draft.timers.into_iter().map(due).collect();
    change.drop_timers = draft.drops.iter().map(ToString::to_string).collect();
    change.view = draft.view.map(|open| View { open, doc: serde_json::json!([open]) });
    change.snapshot = draft.snapshot;
    change.progress = draft.progress.map(Into::into);
    change
}

/// What can be compared of an answer.
fn told(answer: Result<Committed, Error>) -> String {
    match answer {
        Err(Error::Storage { .. }) => "storage".to_owned(),
        other => format!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn memory_and_file_answer_and_hold_the_same(all in vec(steps(), 1..14)) {
        let (_folder, path) = place();
        let mut file = owned(&path);
        let mut memory = MemoryJournal::new("home");
        memory.take_over(Epoch(0)).unwrap();
        for step in all {
            match step {
                Step::Commit { later, back, stale, changes } => {
                    let mut versions = streams().map(|id| memory.head(&id).unwrap().version);
                    let now = memory.last_at().unwrap().0;
                    let at = if back { now.saturating_sub(1) } else { now + later };
                    let epoch = Epoch(memory.epoch().unwrap().0 - u64::from(stale));
                    let changes =
                        changes.into_iter().map(|draft| written(draft, &mut versions)).collect();
                    let next = Batch { at: Timestamp(at), epoch, changes };
                    prop_assert_eq!(told(memory.commit(&next)), told(file.commit(&next)));
                }
                Step::TakeOver(at_least) => {
                    let at_least = Epoch(at_least);
                    prop_assert_eq!(
                        memory.take_over(at_least).unwrap(),
                        file.take_over(at_least).unwrap()
                    );
                }
                Step::OpenAgain => {
                    drop(file);
                    file = SqliteJournal::open(&path, "other").unwrap();
                }
            }
        }
        let ids = streams();
        prop_assert_eq!(everything(&memory, &ids).unwrap(), everything(&file, &ids).unwrap());
        prop_assert_eq!(memory.verify().unwrap(), file.verify().unwrap());
    }
}
