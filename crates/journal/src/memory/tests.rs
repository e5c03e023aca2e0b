use super::*;
use crate::conformance::{Subject, appends, batch, everything, stream};

struct InMemory;

impl Subject for InMemory {
    type Journal = MemoryJournal;

    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        Ok(Self)
    }

    fn open(&self, home: &str, before: Option<MemoryJournal>) -> Result<MemoryJournal, Error> {
        Ok(before.unwrap_or_else(|| MemoryJournal::new(home)))
    }
}

crate::journal_conformance!(InMemory);

fn owned() -> MemoryJournal {
    let mut journal = MemoryJournal::new("home");
    journal.take_over(Epoch(0)).unwrap();
    journal
}

#[test]
fn a_clone_is_a_snapshot_of_its_own() {
    let a = stream("rollout", "a");
    let mut journal = owned();
    journal.commit(&batch(1, vec![appends(&a, 0, &["one"])])).unwrap();
    let mut copy = journal.clone();
    assert!(Arc::ptr_eq(&journal.kept, &copy.kept), "a clone copies nothing");
    copy.commit(&batch(2, vec![appends(&a, 1, &["two"])])).unwrap();
    assert_eq!((journal.commits(), copy.commits()), (1, 2));
    assert_eq!((journal.last_seq().unwrap(), copy.last_seq().unwrap()), (1, 2));
}

#[test]
fn an_ordered_failure_happens_once_and_where_it_was_ordered() {
    let a = stream("rollout", "a");
    let ids = [a.clone()];
    let cases = [(Fault::BeforeDurable, 1), (Fault::AfterDurable, 2), (Fault::Full, 1)];
    for (fault, durable) in cases {
        let mut journal = owned();
        journal.fail_at(Some(FailAt { commit: 2, fault }));
        journal.commit(&batch(1, vec![appends(&a, 0, &["one"])])).unwrap();
        let before = everything(&journal, &ids).unwrap();
        // A refused batch is none: the order stands.
        assert!(matches!(
            journal.commit(&batch(2, vec![appends(&a, 0, &["x"])])),
            Err(Error::Conflict { .. })
        ));
        let error = journal.commit(&batch(2, vec![appends(&a, 1, &["two"])])).unwrap_err();
        assert_eq!(matches!(error, Error::Full(_)), fault == Fault::Full, "{error}");
        assert_eq!(journal.commits(), durable, "{fault:?}");
        assert_eq!(journal.last_seq().unwrap(), durable, "{fault:?}");
        assert_eq!(everything(&journal, &ids).unwrap() == before, durable == 1, "{fault:?}");
        journal.commit(&batch(2, vec![appends(&a, durable, &["three"])])).unwrap();
        journal.verify().unwrap();
    }
}

#[test]
fn nothing_is_dropped_from_memory() {
    let mut journal = owned();
    let a = stream("rollout", "a");
    journal.commit(&batch(1, vec![appends(&a, 0, &["one"])])).unwrap();
    let policy = Retention { older_than: Some(Timestamp(99)), ..Retention::default() };
    let report = journal.retain(&policy).unwrap();
    assert_eq!(report.streams, 0);
    assert!(report.bytes > 0);
    assert_eq!(journal.last_seq().unwrap(), 1);
}
