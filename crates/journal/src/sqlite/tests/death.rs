//! Death at any instruction, and what a torn WAL leaves.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use super::*;

const CHILD: &str = "TIDEGATE_TEST_COMMITS_IN";

/// Commits for ever, telling each acknowledged sequence; the batch's n-th event has `n` = its own
/// sequence. Does nothing unless it was started as the child of the test below.
#[test]
fn a_child_commits_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let mut journal = SqliteJournal::open(&path, "home").unwrap();
    let epoch = journal.take_over(Epoch(0)).unwrap();
    loop {
        let mut seq = journal.last_seq().unwrap();
        let mut changes = Vec::new();
        for id in 0..1 + seq % 5 {
            seq += 1;
            let id = stream("rollout", &format!("r-{id}"));
            let mut change = rich(&id, journal.head(&id).unwrap().version, seq);
            change.done = journal.pending().unwrap().iter().map(|row| row.id).take(4).collect();
            changes.push(change);
        }
        let mut next = batch(seq, changes);
        next.epoch = epoch;
        let done = journal.commit(&next).unwrap();
        tell(&format!("acknowledged {}", done.last_seq));
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9_and_the_rest_is_a_prefix() {
    let (_folder, path) = place();
    let binary = std::env::current_exe().unwrap();
    let test = "sqlite::tests::death::a_child_commits_until_it_is_killed";
    let mut before = 0;
    for wanted in [1, 2, 3, 5, 8, 13, 40, 7, 150, 4] {
        let mut child = as_child(&binary, test, CHILD, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut acknowledged = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            // The harness' own line may stand before ours.
            let Some((_, seq)) = line.split_once("acknowledged ") else { continue };
            acknowledged.push(seq.parse::<u64>().unwrap());
            if acknowledged.len() == wanted {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let last = *acknowledged.last().unwrap();
        assert!(last > before, "the child has gone on where the last one died");
        // A reader sees it first, then the next owner: both must find the same.
        for by_reader in [true, false] {
            let seen: Box<dyn Reader> = match by_reader {
                true => Box::new(SqliteReader::open(&path).unwrap()),
                false => Box::new(SqliteJournal::open(&path, "home").unwrap()),
            };
            let found = seen.last_seq().unwrap();
            assert!((last..=last + 5).contains(&found), "{last} acknowledged, {found} found");
            let events = seen.read_all(0, usize::MAX).unwrap();
            assert_eq!(events.len() as u64, found, "no holes");
            for (event, seq) in events.iter().zip(1..) {
                assert_eq!(event.seq, seq);
                assert!(event.data.starts_with(&format!("{{\"n\":{seq},")), "{}", event.data);
            }
            assert_eq!(seen.verify().unwrap(), found);
        }
        before = last;
    }
}

/// Copies a journal as the disk would have it after a power failure: without shared memory.
fn copy_of(path: &Path, into: &Path) -> (PathBuf, Vec<u8>) {
    let copy = into.join("journal.db");
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(file::beside(&copy, suffix));
    }
    std::fs::copy(path, &copy).unwrap();
    let wal = std::fs::read(file::beside(path, "-wal")).unwrap();
    (copy, wal)
}

#[test]
fn a_torn_or_flipped_wal_leaves_a_prefix() {
    let (_folder, path) = place();
    let mut journal = owned(&path);
    let id = stream("rollout", "a");
    let mut boundaries = vec![0];
    for n in 0..12 {
        let done = journal.commit(&batch(n, vec![rich(&id, 2 * n, n), rich(&id, 2 * n + 1, n)]));
        boundaries.push(done.unwrap().last_seq);
    }
    let all = journal.read_all(0, usize::MAX).unwrap();
    let into = tempfile::tempdir().unwrap();
    let (_, wal) = copy_of(&path, into.path());
    let mut seen = std::collections::BTreeSet::new();
    let mut look = |bytes: &[u8], what: String| {
        let (copy, _) = copy_of(&path, into.path());
        std::fs::write(file::beside(&copy, "-wal"), bytes).unwrap();
        let journal = SqliteJournal::open(&copy, "not this one").unwrap();
        assert_eq!(journal.home(), "home", "{what}");
        let events = journal.read_all(0, usize::MAX).unwrap();
        assert_eq!(Some(events.as_slice()), all.get(..events.len()), "{what}");
        let last = journal.last_seq().unwrap();
        assert!(boundaries.contains(&last), "half a batch: {last}, {what}");
        assert_eq!(journal.verify().unwrap(), last, "{what}");
        seen.insert(last);
    };
    for cut in (0..wal.len()).step_by(2039).chain([0, 1, 31, 32, 33, wal.len() - 1, wal.len()]) {
        look(&wal[..cut], format!("cut at {cut} of {}", wal.len()));
    }
    for at in (0..wal.len()).step_by(4001) {
        let mut flipped = wal.clone();
        flipped[at] ^= 0x10;
        look(&flipped, format!("flipped at {at} of {}", wal.len()));
    }
    assert!(seen.len() > 6, "the cuts have hit different batches: {seen:?}");
}
