//! A full disk, the reserve, and giving history away.

use super::*;
use crate::Retention;

#[test]
fn a_full_disk_is_told_apart_and_the_next_small_batch_may_fit() {
    let (_folder, path) = place();
    let mut journal = owned(&path);
    let id = stream("rollout", "a");
    journal.commit(&batch(1, vec![rich(&id, 0, 1)])).unwrap();
    let pages: i64 =
        journal.reader.connection.pragma_query_value(None, "page_count", |r| r.get(0)).unwrap();
    journal.reader.connection.pragma_update(None, "max_page_count", pages + 2).unwrap();
    let mut large = rich(&id, 1, 2);
    large.snapshot = Some("x".repeat(100_000));
    let refused = journal.commit(&batch(2, vec![large]));
    assert!(matches!(refused, Err(Error::Full(_))), "{refused:?}");
    assert_eq!(journal.last_seq().unwrap(), 1);
    journal.commit(&batch(2, vec![rich(&id, 1, 2)])).unwrap();
    assert_eq!(journal.verify().unwrap(), 2);
}

#[test]
fn after_another_failure_nothing_more_is_written() {
    let (_folder, path) = place();
    let mut journal = owned(&path);
    let id = stream("rollout", "a");
    journal.commit(&batch(1, vec![rich(&id, 0, 1)])).unwrap();
    let fail = "CREATE TEMP TRIGGER fails BEFORE INSERT ON main.events \
                BEGIN SELECT RAISE(FAIL, 'as ordered'); END";
    journal.reader.connection.execute_batch(fail).unwrap();
    assert!(journal.commit(&batch(2, vec![rich(&id, 1, 2)])).is_err());
    journal.reader.connection.execute_batch("DROP TRIGGER fails").unwrap();
    assert_eq!(journal.last_seq().unwrap(), 1);
    let error = journal.commit(&batch(2, vec![rich(&id, 1, 2)])).unwrap_err();
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("open the journal anew"), "{why}");
    drop(journal);
    let mut journal = owned(&path);
    let mut next = batch(2, vec![rich(&id, 1, 2)]);
    next.epoch = Epoch(2);
    journal.commit(&next).unwrap();
}

#[test]
fn the_reserve_is_real_space_and_comes_back() {
    use std::os::unix::fs::MetadataExt as _;
    let (folder, path) = place();
    let mut journal = owned(&path);
    assert!(journal.reserve_held());
    let found = std::fs::metadata(folder.path().join(reserve::RESERVE_FILE)).unwrap();
    assert_eq!(found.len(), reserve::RESERVE_BYTES as u64);
    assert!(found.blocks() * 512 >= found.len(), "{} blocks", found.blocks());
    assert!(journal.release_reserve().unwrap());
    assert!(!journal.release_reserve().unwrap(), "there is only one");
    assert!(!journal.reserve_held());
    drop(journal);
    assert!(owned(&path).reserve_held());
}

const CHILD: &str = "TIDEGATE_TEST_FILLS";

/// Fills a small filesystem and undoes on it. Does nothing unless it was started as the child of
/// the test below.
#[test]
fn a_child_undoes_on_a_full_disk() {
    let Some(folder) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let path = folder.join("journal.db");
    let id = stream("rollout", "a");
    let mut journal = owned(&path);
    journal.commit(&batch(1, vec![rich(&id, 0, 0)])).unwrap();
    fill(&folder);
    let mut version = 1;
    let full = loop {
        match journal.commit(&batch(1, vec![rich(&id, version, version)])) {
            Ok(_) => version += 1,
            Err(error) => break error,
        }
        assert!(version < 10_000, "the disk does not become full");
    };
    assert!(matches!(&full, Error::Full(place) if place.contains("full")), "{full}");
    assert_eq!(journal.last_seq().unwrap(), version);
    assert!(journal.release_reserve().unwrap());
    for _ in 0..10 {
        journal.commit(&batch(2, vec![rich(&id, version, version)])).unwrap();
        version += 1;
    }
    assert_eq!(journal.verify().unwrap(), version);
    // Through a death on a full disk: opening gives up the reserve if it has to.
    drop(journal);
    std::fs::remove_file(folder.join("ballast")).unwrap();
    drop(SqliteJournal::open(&path, "home").unwrap());
    fill(&folder);
    let journal = SqliteJournal::open(&path, "home").unwrap();
    assert!(!journal.reserve_held(), "there was no other space");
    // And the taking over does, if only then the disk becomes full.
    std::fs::remove_file(folder.join("ballast")).unwrap();
    drop(journal);
    let mut journal = SqliteJournal::open(&path, "home").unwrap();
    assert!(journal.reserve_held());
    fill(&folder);
    let epoch = journal.take_over(Epoch(0)).unwrap();
    assert!(!journal.reserve_held(), "there was no other space");
    let mut undo = batch(3, vec![rich(&id, version, version)]);
    undo.epoch = epoch;
    assert_eq!(journal.commit(&undo).unwrap().last_seq, version + 1);
    tell("undone on a full disk");
}

/// Takes all the space that is left.
fn fill(folder: &Path) {
    let mut ballast = std::fs::File::create(folder.join("ballast")).unwrap();
    let page = [7_u8; 4096];
    loop {
        if let Err(error) = ballast.write_all(&page) {
            assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
            return;
        }
    }
}

#[test]
fn an_undo_commits_on_a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mounted = folder.path().join("full");
    std::fs::create_dir(&mounted).unwrap();
    let binary = std::env::current_exe().unwrap();
    let test = "sqlite::tests::space::a_child_undoes_on_a_full_disk";
    let child = as_child(&binary, test, CHILD, &mounted);
    let mount =
        "mount -t tmpfs -o size=4m tmpfs \"$1\" || { echo no-mount; exit 0; }; shift; exec \"$@\"";
    // A mount of our own needs user namespaces; where the system forbids them this is as far as
    // it can be tried, and the test with a page limit above stands alone.
    let told = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"])
        .arg(&mounted)
        .arg(child.get_program())
        .args(child.get_args())
        .env(CHILD, &mounted)
        .output();
    let Ok(told) = told else { return };
    let out = String::from_utf8_lossy(&told.stdout);
    let err = String::from_utf8_lossy(&told.stderr);
    if out.contains("no-mount") || err.contains("unshare") {
        return;
    }
    assert!(out.contains("undone on a full disk"), "{out}\n{err}");
}

/// A finished stream with this many events.
fn finished(journal: &mut SqliteJournal, id: &StreamId, events: u64, at: u64) {
    let mut changes = Vec::new();
    for n in 0..events {
        let mut change = rich(id, n, n);
        change.outgoing.clear();
        change.set_timers.clear();
        change.view = Some(View { open: n + 1 < events, doc: serde_json::json!({"n": n}) });
        changes.push(change);
    }
    journal.commit(&batch(at, changes)).unwrap();
}

#[test]
fn finished_streams_go_to_the_archive_and_can_go_on() {
    let (folder, path) = place();
    let archive = folder.path().join("archive.jsonl");
    // What a crash has left there must not swallow a line of ours.
    std::fs::write(&archive, "{\"half\":").unwrap();
    let mut journal = owned(&path);
    let [old, open, busy, timed, bare, stale, young] =
        ["old", "open", "busy", "timed", "bare", "stale", "young"].map(|id| stream("rollout", id));
    finished(&mut journal, &old, 40, 10);
    journal.commit(&batch(10, vec![rich(&open, 0, 0)])).unwrap();
    // Each of these lacks one thing that would let it go.
    let mut outstanding = rich(&busy, 0, 1);
    outstanding.set_timers.clear();
    let mut waiting = rich(&timed, 0, 1);
    waiting.outgoing.clear();
    let mut idle = rich(&bare, 0, 1);
    idle.outgoing.clear();
    idle.set_timers.clear();
    let mut behind = idle.clone();
    behind.stream = stale.clone();
    idle.snapshot = None;
    journal.commit(&batch(10, vec![outstanding, waiting, idle, behind])).unwrap();
    journal.commit(&batch(10, vec![appends(&stale, 1, &["after its snapshot"])])).unwrap();
    finished(&mut journal, &young, 3, 99);
    let events = journal.read_stream(&old, 0, 100).unwrap();
    let before = journal.retain(&Retention::default()).unwrap();
    let all = Retention { older_than: Some(Timestamp(50)), ..Retention::default() };
    assert_eq!(journal.retain(&all).unwrap().streams, 0, "without an archive nothing goes");

    let policy = Retention { archive: Some(archive.clone()), ..all };
    let report = journal.retain(&policy).unwrap();
    assert_eq!(report.streams, 1, "only what is finished, idle, with a snapshot, and old");
    assert!(report.bytes < before.bytes, "{report:?} after {before:?}");
    let text = std::fs::read_to_string(&archive).unwrap();
    let lines: Vec<crate::Envelope> =
        text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, events);
    assert_eq!(journal.head(&old).unwrap().version, 40);
    assert!(journal.snapshot(&old).unwrap().is_some() && journal.view(&old).unwrap().is_some());
    let error = journal.read_stream(&old, 0, 1).unwrap_err();
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("archive"), "{why}");
    assert_eq!(journal.read_stream(&old, 40, 1).unwrap(), []);
    assert_eq!(journal.verify().unwrap(), 9);

    journal.commit(&batch(100, vec![rich(&old, 40, 40)])).unwrap();
    let next = journal.read_stream(&old, 40, 9).unwrap();
    let last = events.last().map(|event| &event.hash);
    assert_eq!(
        next.first().map(|e| e.hash.clone()),
        next.first().map(|e| crate::chain::link(last, e))
    );
    assert_eq!(journal.verify().unwrap(), 10);
    drop(journal);
    assert_eq!(SqliteReader::open(&path).unwrap().verify().unwrap(), 10);
}

#[test]
fn a_limit_of_size_lets_the_oldest_go_first() {
    let (folder, path) = place();
    let mut journal = owned(&path);
    let ids: Vec<StreamId> = (0..6).map(|n| stream("rollout", &n.to_string())).collect();
    for (id, at) in ids.iter().zip(1..) {
        finished(&mut journal, id, 300, at);
    }
    let full = journal.retain(&Retention::default()).unwrap().bytes;
    let policy = Retention {
        max_bytes: Some(full / 2),
        archive: Some(folder.path().join("archive.jsonl")),
        ..Retention::default()
    };
    let report = journal.retain(&policy).unwrap();
    assert!(report.bytes <= full / 2, "{report:?} of {full}");
    assert!((2..6).contains(&report.streams), "{report:?}");
    let gone = usize::try_from(report.streams).unwrap();
    for (at, id) in ids.iter().enumerate() {
        assert_eq!(journal.read_stream(id, 0, 9).is_err(), at < gone, "{id}");
    }
    assert_eq!(journal.retain(&policy).unwrap().streams, 0, "it is small enough now");
}
