//! What every journal has to do, as tests: [`crate::journal_conformance!`] makes one `#[test]` of
//! each case for a [`Subject`].

use serde_json::json;
use tidegate_core::machine::EffectClass;
use tidegate_core::{Epoch, Reason, StreamId, Timestamp};

use crate::{
    Batch, Change, Effect, Error, Head, Journal, NewEvent, Outgoing, Reader, Snapshot, View, chain,
};

/// What a case answers: anything unexpected is an error, anything wrong a failed assertion.
pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A kind of journal under test.
pub trait Subject: Sized {
    /// The journal.
    type Journal: Journal;

    /// A new place for one journal.
    ///
    /// # Errors
    /// If there is no room for it.
    fn new() -> Result<Self, Box<dyn std::error::Error>>;

    /// The journal in that place, made with this home where there is none; `before` is what an
    /// earlier call has returned.
    ///
    /// # Errors
    /// As of the journal.
    fn open(&self, home: &str, before: Option<Self::Journal>) -> Result<Self::Journal, Error>;
}

/// A stream of the project `shop`.
#[must_use]
pub fn stream(kind: &str, id: &str) -> StreamId {
    StreamId::new("shop", kind, id)
}

/// An event with a reason and some data.
#[must_use]
pub fn event(name: &str) -> NewEvent {
    NewEvent {
        event: name.to_owned(),
        form: 3,
        data: format!("{{\"name\": \"{name}\",  \"ä\":1}}"),
        reason: Some(Reason::new("because", "it was asked for")),
    }
}

/// An effect for a driver.
#[must_use]
pub fn effect(key: &str) -> Outgoing {
    Outgoing::Effect(Effect {
        key: key.to_owned(),
        target: "process:local".to_owned(),
        action: "traffic".to_owned(),
        class: EffectClass::StateSetting,
        seq: 7,
        payload: json!({"weights": [1, 2], "kind": "x"}),
        deadline_ms: 5000,
    })
}

/// A change that appends these events.
#[must_use]
pub fn appends(stream: &StreamId, expected_version: u64, names: &[&str]) -> Change {
    let events = names.iter().map(|name| event(name)).collect();
    Change { events, ..Change::new(stream.clone(), expected_version) }
}

/// A batch of epoch 1.
#[must_use]
pub fn batch(at: u64, changes: Vec<Change>) -> Batch {
    Batch { at: Timestamp(at), epoch: Epoch(1), changes }
}

fn owned<S: Subject>(subject: &S) -> Result<S::Journal, Error> {
    let mut journal = subject.open("home-1", None)?;
    assert_eq!(journal.take_over(Epoch(0))?, Epoch(1));
    Ok(journal)
}

/// All that can be read, for comparing two journals or two moments.
///
/// # Errors
/// As of the journal.
pub fn everything(journal: &impl Reader, streams: &[StreamId]) -> Result<String, Error> {
    use std::fmt::Write as _;
    let mut text = String::new();
    let at = (journal.epoch()?, journal.last_seq()?, journal.last_at()?);
    let _ = writeln!(text, "{} {at:?}", journal.home());
    let _ = writeln!(text, "{:#?}", journal.read_all(0, usize::MAX)?);
    let _ = writeln!(text, "{:#?}\n{:#?}", journal.pending()?, journal.timers()?);
    for kind in ["rollout", "lane"] {
        let (open, all) = (journal.views(kind, true, 3)?, journal.views(kind, false, 1000)?);
        let _ = writeln!(text, "{open:#?}\n{all:#?}");
    }
    for id in streams {
        let _ = writeln!(text, "{id} {:?}", journal.head(id)?);
        let _ = writeln!(text, "{:#?}", journal.read_stream(id, 0, usize::MAX)?);
        let _ = writeln!(text, "{:?} {:?}", journal.snapshot(id)?, journal.progress(id)?);
        let _ = writeln!(text, "{:?}", journal.view(id)?);
    }
    Ok(text)
}

/// A new journal is empty.
///
/// # Errors
/// What the journal answers.
pub fn a_new_journal_is_empty<S: Subject>() -> Outcome {
    let subject = S::new()?;
    let journal = subject.open("home-1", None)?;
    assert_eq!(journal.home(), "home-1");
    assert_eq!((journal.epoch()?, journal.last_seq()?), (Epoch(0), 0));
    assert_eq!(journal.last_at()?, Timestamp(0));
    let id = stream("rollout", "r-1");
    assert_eq!(journal.head(&id)?, Head::default());
    assert_eq!(journal.read_stream(&id, 0, 10)?, []);
    assert_eq!(journal.read_all(0, 10)?, []);
    assert_eq!((journal.pending()?, journal.timers()?), (Vec::new(), Vec::new()));
    assert_eq!(journal.view(&id)?, None);
    assert_eq!(journal.snapshot(&id)?, None);
    assert_eq!(journal.progress(&id)?, None);
    assert_eq!(journal.verify()?, 0);
    Ok(())
}

/// Events come back byte for byte, chained and numbered.
///
/// # Errors
/// What the journal answers.
pub fn events_come_back_as_they_were_committed<S: Subject>() -> Outcome {
    let subject = S::new()?;
    let mut journal = owned(&subject)?;
    let (a, b) = (stream("rollout", "a"), stream("lane", "b"));
    let mut bare = event("bare");
    bare.reason = None;
    bare.data = String::new();
    let mut second = appends(&b, 0, &["three"]);
    second.events.push(bare);
    let done = journal.commit(&batch(10, vec![appends(&a, 0, &["one", "two"]), second]))?;
    assert_eq!(done.last_seq, 4);
    assert_eq!(done.events.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(done.events.iter().map(|e| e.version).collect::<Vec<_>>(), [1, 2, 1, 2]);
    assert_eq!(journal.read_all(0, 100)?, done.events);
    assert_eq!(journal.read_all(1, 2)?, done.events.get(1..3).unwrap_or_default());
    assert_eq!(journal.read_all(4, 2)?, []);
    assert_eq!(journal.read_stream(&a, 0, 100)?, done.events.get(..2).unwrap_or_default());
    assert_eq!(journal.read_stream(&a, 1, 100)?, done.events.get(1..2).unwrap_or_default());
    assert_eq!(journal.read_stream(&a, 0, 1)?, done.events.get(..1).unwrap_or_default());
    assert_eq!(journal.read_stream(&a, 2, 100)?, []);
    assert_eq!(journal.read_stream(&a, 9, 100)?, []);
    let [one, two, three, bare] = done.events.as_slice() else { return Err("not four".into()) };
    assert_eq!((one.at, one.epoch, one.form), (Timestamp(10), Epoch(1), 3));
    assert_eq!(one.data, event("one").data);
    assert_eq!(one.hash, chain::link(None, one));
    assert_eq!(two.hash, chain::link(Some(&one.hash), two));
    assert_eq!(three.hash, chain::link(None, three));
    assert_eq!((bare.data.as_str(), &bare.reason), ("", &None));
    assert_eq!(journal.head(&a)?, Head { version: 2, hash: Some(two.hash.clone()) });
    assert_eq!((journal.last_seq()?, journal.last_at()?), (4, Timestamp(10)));
    assert_eq!(journal.verify()?, 4);
    Ok(())
}

/// One batch may change the same stream several times.
///
/// # Errors
/// What the journal answers.
pub fn a_stream_may_occur_twice_in_a_batch<S: Subject>() -> Outcome {
    let subject = S::new()?;
    let mut journal = owned(&subject)?;
    let (a, b) = (stream("rollout", "a"), stream("rollout", "b"));
    let mut first = appends(&a, 0, &["one"]);
    first.view = Some(View { open: true, doc: json!(1) });
    first.snapshot = Some("at one".to_owned());
    let mut last = appends(&a, 1, &["three", "four"]);
    last.view = Some(View { open: true, doc: json!(2) });
    let done = journal.commit(&batch(1, vec![first, appends(&b, 0, &["two"]), last]))?;
    assert_eq!(done.events.iter().map(|e| e.version).collect::<Vec<_>>(), [1, 1, 2, 3]);
    assert_eq!(journal.head(&a)?.version, 3);
    let view = journal.view(&a)?.ok_or("no view")?;
    assert_eq!((view.version, view.view.doc), (3, json!(2)));
    let snapshot = Snapshot { version: 1, state: "at one".to_owned() };
    assert_eq!(journal.snapshot(&a)?, Some(snapshot));
    let wrong = journal.commit(&batch(2, vec![appends(&a, 3, &["x"]), appends(&a, 3, &["y"])]));
    assert!(matches!(wrong, Err(Error::Conflict { expected: 3, actual: 4, .. })), "{wrong:?}");
    assert_eq!(journal.verify()?, 4);
    Ok(())
}

/// A refused batch leaves nothing behind, whichever of its changes was wrong.
///
/// # Errors
/// What the journal answers.
pub fn a_batch_is_committed_whole_or_not_at_all<S: Subject>() -> Outcome {
    let subject = S::new()?;
    let mut journal = owned(&subject)?;
    let (a, b) = (stream("rollout", "a"), stream("rollout", "b"));
    let mut seen = appends(&a, 0, &["one"]);
    seen.outgoing = vec![effect("e-1")];
    let done = journal.commit(&batch(5, vec![seen]))?;
    let ids: Vec<u64> = done.pending.iter().map(|row| row.id).collect();
    let streams = [a.clone(), b.clone()];
    let before = everything(&journal, &streams)?;
    let mut good = appends(&a, 1, &["two"]);
    good.outgoing = vec![effect("e-2")];
    good.done = ids;
    good.set_timers = vec![("t".to_owned(), Timestamp(9))];
    good.view = Some(View { open: true, doc: json!({}) });
    good.progress = Some(json!(1));
    good.snapshot = Some("{}".to_owned());
    let refused = journal.commit(&batch(6, vec![good.clone(), appends(&b, 1, &["x"])]));
    let Err(Error::Conflict { stream, expected: 1, actual: 0 }) = refused else {
        return Err(format!("{refused:?}").into());
    };
    assert_eq!(stream, b);
    assert_eq!(everything(&journal, &streams)?, before);
    let done = journal.commit(&batch(6, vec![good]))?;
    assert_eq!(done.events.first().map(|e| (e.seq, e.version)), Some((2, 2)));
    assert_eq!(done.pending.first().map(|row| row.id), Some(2));
    Ok(())
}

/// Compare-and-append in both directions.
///
/// # Errors
/// What the journal answers.
pub fn a_stream_at_another_version_is_a_conflict<S: Subject>() -> Outcome {
    let subject = S::new()?;
    let mut journal = owned(&subject)?;
    let a = stream("rollout", "a");
    journal.commit(&batch(1, vec![appends(&a, 0, &["one", "two"])]))?;
    for expected in [0, 1, 3] {
        let refused = journal.commit(&batch(2, vec![appends(&a, expected, &["x"])]));
        assert!(matches!(refused, Err(Error::Conflict { actual: 2, .. })), "{refused:?}");
        let idle = journal.commit(&batch(2, vec![Change::new(a.clone(), expected)]));
        assert!(matches!(idle, Err(Error::Conflict { actual: 2, .. })), "{idle:?}");
    }
    assert_eq!(journal.last_seq()?, 2);
    journal.commit(&batch(2, vec![appends(&a, 2, &["three"])]))?;
    Ok(())
}

/// Epochs only grow, and only the last owner writes.
///
/// # Errors
/// What the journal answers.
pub fn only_the_last_owner_commits<S: Subject>() -> Outcome {
    let subject = S::new()?;
    let mut journal = owned(&subject)?;
    let a = stream("rollout", "a");
    journal.commit(&batch(1, vec![appends(&a, 0, &["one"])]))?;
    assert_eq!(journal.take_over(Epoch(0))?, Epoch(2));
    assert_eq!(journal.take_over(Epoch(9))?, Epoch(9));
    assert_eq!(journal.take_over(Epoch(3))?, Epoch(10));
    assert_eq!(journal.epoch()?, Epoch(10));
    for mine in [0, 1, 9, 11] {
        let mut late = batch(2, vec![appends(&a, 1, &["x"])]);
        late.epoch = Epoch(mine);
        let refused = journal.commit(&late);
        assert!(matches!(refused, Err(Error::NotOwner { actual: 10, .. })), "{refused:?}");
    }
    let mut own = batch(2, vec![appends(&a, 1, &["two"])]);
    own.epoch = Epoch(10);
    journal.commit(&own)?;
    assert_eq!(journal.verify()?, 2);
    assert!(journal.take_over(Epoch(u64::MAX)).is_err(), "an epoch that cannot be stored");
    assert_eq!(journal.epoch()?, Epoch(10));
    Ok(())
}

/// Time never goes backwards.
///
/// # Errors
/// What the journal answers.
pub fn time_does_not_go_backwards<S: Subject>() -> Outcome {
    let subject = S::new()?;
    let mut journal = owned(&subject)?;
    let a = stream("rollout", "a");
    journal.commit(&batch(100, vec![appends(&a, 0, &["one"])]))?;
    assert!(journal.commit(&batch(99, vec![appends(&a, 1, &["x"])])).is_err());
    assert!(journal.commit(&batch(u64::MAX, vec![appends(&a, 1, &["x"])])).is_err());
    journal.commit(&batch(100, vec![appends(&a, 1, &["two"])]))?;
    journal.commit(&batch(200, Vec::new()))?;
    assert_eq!(journal.last_at()?, Timestamp(200));
    assert!(journal.commit(&batch(199, Vec::new())).is_err());
    Ok(())
}

/// The outbox keeps what is not done, in order, and numbers never come again.
///
/// # Errors
/// What the journal answers.
pub fn the_outbox_keeps_what_is_not_done<S: Subject>() -> Outcome {
    let subject = S::new()?;
    let mut journal = owned(&subject)?;
    let (a, b) = (stream("rollout", "a"), stream("lane", "b"));
    let send = Outgoing::Send { to: b.clone(), input: json!({"kind": "begin", "n": 1}) };
    let mut first = Change::new(a.clone(), 0);
    first.outgoing = vec![effect("e-1"), send];
    let mut second = Change::new(b.clone(), 0);
    second.outgoing = vec![effect("e-2")];
    let made = journal.commit(&batch(1, vec![first, second]))?;
    assert_eq!(made.pending.iter().map(|row| row.id).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(made.pending.last().map(|row| &row.stream), Some(&b));
    assert_eq!(journal.pending()?, made.pending);
    // Done by another stream than the one that asked; twice is once; the unknown is done.
    let mut receives = Change::new(b.clone(), 0);
    receives.done = vec![2, 3, 3, 77];
    journal.commit(&batch(2, vec![receives]))?;
    assert_eq!(journal.pending()?, made.pending.get(..1).unwrap_or_default());
    let mut more = Change::new(a, 0);
    more.done = vec![1, 4];
    more.outgoing = vec![effect("e-3")];
    let made = journal.commit(&batch(3, vec![more]))?;
    assert_eq!(made.pending.first().map(|row| row.id), Some(4), "no number comes twice");
    assert_eq!(journal.pending()?, made.pending, "its own row is not yet known to a batch");
    Ok(())
}

/// Timers are set, moved, dropped.
///
/// # Errors
/// What the journal answers.
pub fn timers_are_set_moved_and_dropped<S: Subject>() -> Outcome {
    let subject = S::new()?;
    let mut journal = owned(&subject)?;
    let (a, b) = (stream("rollout", "a"), stream("rollout", "b"));
    let timer = |key: &str, due| (key.to_owned(), Timestamp(due));
    let seen = |journal: &S::Journal| -> Result<Vec<(u64, String, String)>, Error> {
        let timers = journal.timers()?;
        Ok(timers.into_iter().map(|t| (t.due.0, t.stream.id, t.key)).collect())
    };
    let mut first = Change::new(a.clone(), 0);
    first.set_timers = vec![timer("x", 30), timer("y", 20)];
    let mut second = Change::new(b, 0);
    second.set_timers = vec![timer("x", 10), timer("never", u64::MAX)];
    journal.commit(&batch(1, vec![first, second]))?;
    let due = |list: &[(u64, &str, &str)]| -> Vec<(u64, String, String)> {
        list.iter().map(|(at, id, key)| (*at, (*id).to_owned(), (*key).to_owned())).collect()
    };
    let never = u64::MAX / 2;
    let all = [(10, "b", "x"), (20, "a", "y"), (30, "a", "x"), (never, "b", "never")];
    assert_eq!(seen(&journal)?, due(&all));
    let mut moves = Change::new(a, 0);
    moves.set_timers = vec![timer("x", 5)];
    moves.drop_timers = vec!["x".to_owned(), "y".to_owned(), "unknown".to_owned()];
    journal.commit(&batch(2, vec![moves]))?;
    let left = [(5, "a", "x"), (10, "b", "x"), (never, "b", "never")];
    assert_eq!(seen(&journal)?, due(&left), "dropped first, then set");
    Ok(())
}

/// Views by kind, newest first, open ones alone if wanted.
///
/// # Errors
/// What the journal answers.
pub fn views_are_listed_by_kind_newest_first<S: Subject>() -> Outcome {
    let subject = S::new()?;
    let mut journal = owned(&subject)?;
    let with_view = |kind: &str, id: &str, version, open| {
        let mut change = appends(&stream(kind, id), version, &["x"]);
        change.view = Some(View { open, doc: json!({"id": id, "nested": [null, true]}) });
        change
    };
    let ids = |rows: Vec<crate::ViewRow>| -> Vec<String> {
        rows.into_iter().map(|row| row.stream.id).collect()
    };
    journal.commit(&batch(1, vec![with_view("rollout", "a", 0, true)]))?;
    let both = vec![with_view("rollout", "b", 0, true), with_view("rollout", "c", 0, false)];
    journal.commit(&batch(2, both))?;
    journal.commit(&batch(3, vec![with_view("lane", "l", 0, true)]))?;
    assert_eq!(ids(journal.views("rollout", false, 10)?), ["c", "b", "a"]);
    journal.commit(&batch(4, vec![with_view("rollout", "a", 1, true)]))?;
    assert_eq!(ids(journal.views("rollout", false, 10)?), ["a", "c", "b"]);
    assert_eq!(ids(journal.views("rollout", false, 2)?), ["a", "c"]);
    assert_eq!(ids(journal.views("rollout", true, 10)?), ["a", "b"]);
    assert_eq!(ids(journal.views("lane", true, 10)?), ["l"]);
    assert_eq!(ids(journal.views("release", false, 10)?), Vec::<String>::new());
    journal.commit(&batch(5, vec![with_view("rollout", "b", 1, false)]))?;
    assert_eq!(ids(journal.views("rollout", true, 10)?), ["a"]);
    let row = journal.view(&stream("rollout", "a"))?.ok_or("no view")?;
    assert_eq!((row.version, row.view.open), (2, true));
    assert_eq!(row.view.doc, json!({"id": "a", "nested": [null, true]}));
    Ok(())
}

/// Snapshots and progress: the last one wins; progress leaves no event.
///
/// # Errors
/// What the journal answers.
pub fn snapshots_and_progress_are_the_last_ones<S: Subject>() -> Outcome {
    let subject = S::new()?;
    let mut journal = owned(&subject)?;
    let a = stream("rollout", "a");
    let mut first = appends(&a, 0, &["one"]);
    first.snapshot = Some("first".to_owned());
    first.progress = Some(json!({"healthyMs": 1}));
    journal.commit(&batch(1, vec![first]))?;
    let mut second = appends(&a, 1, &["two", "three"]);
    second.snapshot = Some("second".to_owned());
    journal.commit(&batch(2, vec![second]))?;
    let snapshot = Snapshot { version: 3, state: "second".to_owned() };
    assert_eq!(journal.snapshot(&a)?, Some(snapshot));
    assert_eq!(journal.progress(&a)?, Some(json!({"healthyMs": 1})));
    let mut third = Change::new(a.clone(), 3);
    third.progress = Some(json!(null));
    let done = journal.commit(&batch(3, vec![third]))?;
    assert_eq!((done.last_seq, done.events), (3, Vec::new()));
    assert_eq!(journal.progress(&a)?, Some(json!(null)));
    assert_eq!(journal.head(&a)?.version, 3);
    Ok(())
}

/// Names are compared whole and byte for byte.
///
/// # Errors
/// What the journal answers.
pub fn streams_with_similar_names_are_apart<S: Subject>() -> Outcome {
    let subject = S::new()?;
    let mut journal = owned(&subject)?;
    let names = [("a", "b", "c"), ("a", "b", "C"), ("a", "b/c", ""), ("", "", ""), ("%", "_", "'")];
    let ids: Vec<StreamId> = names.iter().map(|(p, k, i)| StreamId::new(p, k, i)).collect();
    for id in &ids {
        journal.commit(&batch(1, vec![appends(id, 0, &["one"])]))?;
    }
    for id in &ids {
        let events = journal.read_stream(id, 0, 10)?;
        assert_eq!(events.iter().map(|e| &e.stream).collect::<Vec<_>>(), [id]);
    }
    assert_eq!(journal.verify()?, 5);
    Ok(())
}

/// What was committed is there after the journal was dropped and opened again.
///
/// # Errors
/// What the journal answers.
pub fn all_of_it_is_there_after_opening_again<S: Subject>() -> Outcome {
    let subject = S::new()?;
    let mut journal = owned(&subject)?;
    let (a, b) = (stream("rollout", "a"), stream("lane", "b"));
    let mut full = appends(&a, 0, &["one", "two"]);
    full.outgoing = vec![effect("e-1")];
    full.set_timers = vec![("t".to_owned(), Timestamp(9))];
    full.view = Some(View { open: true, doc: json!({"x": 1}) });
    full.snapshot = Some("{}".to_owned());
    full.progress = Some(json!(7));
    journal.commit(&batch(1, vec![full, appends(&b, 0, &["three"])]))?;
    let streams = [a.clone(), b];
    let before = everything(&journal, &streams)?;
    let mut journal = subject.open("another home", Some(journal))?;
    assert_eq!(everything(&journal, &streams)?, before);
    assert_eq!(journal.home(), "home-1", "a journal keeps its identity");
    assert_eq!(journal.take_over(Epoch(0))?, Epoch(2));
    let mut next = batch(2, vec![appends(&a, 2, &["four"])]);
    next.epoch = Epoch(2);
    let done = journal.commit(&next)?;
    assert_eq!(done.events.first().map(|e| (e.seq, e.version)), Some((4, 3)));
    assert_eq!(journal.verify()?, 4);
    Ok(())
}

/// Makes a `#[test]` of each case for this [`Subject`].
#[macro_export]
macro_rules! journal_conformance {
    ($subject:ty) => {
        $crate::journal_conformance!($subject:
            a_new_journal_is_empty,
            events_come_back_as_they_were_committed,
            a_stream_may_occur_twice_in_a_batch,
            a_batch_is_committed_whole_or_not_at_all,
            a_stream_at_another_version_is_a_conflict,
            only_the_last_owner_commits,
            time_does_not_go_backwards,
            the_outbox_keeps_what_is_not_done,
            timers_are_set_moved_and_dropped,
            views_are_listed_by_kind_newest_first,
            snapshots_and_progress_are_the_last_ones,
            streams_with_similar_names_are_apart,
            all_of_it_is_there_after_opening_again,
        );
    };
    ($subject:ty: $($case:ident,)*) => {
        $(#[test]
        fn $case() -> $crate::conformance::Outcome {
            $crate::conformance::$case::<$subject>()
        })*
    };
}
