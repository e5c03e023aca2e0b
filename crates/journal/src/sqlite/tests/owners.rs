//! Several processes at one journal.

use super::*;

#[test]
fn a_second_owner_supersedes_the_first() {
    let (_folder, path) = place();
    let id = stream("rollout", "a");
    let mut first = owned(&path);
    first.commit(&batch(1, vec![rich(&id, 0, 1)])).unwrap();
    let mut second = SqliteJournal::open(&path, "home").unwrap();
    assert_eq!(second.take_over(Epoch(0)).unwrap(), Epoch(2));
    let refused = first.commit(&batch(2, vec![rich(&id, 1, 2)]));
    assert!(matches!(refused, Err(Error::NotOwner { mine: 1, actual: 2 })), "{refused:?}");
    let mut own = batch(2, vec![rich(&id, 1, 2)]);
    own.epoch = Epoch(2);
    second.commit(&own).unwrap();
    assert_eq!(first.last_seq().unwrap(), 2);
    assert_eq!(second.verify().unwrap(), 2);
}

#[test]
fn what_another_process_has_appended_is_a_conflict_and_not_overwritten() {
    let (_folder, path) = place();
    let (a, b) = (stream("rollout", "a"), stream("rollout", "b"));
    let mut first = owned(&path);
    first.commit(&batch(1, vec![rich(&a, 0, 1)])).unwrap();
    // A defect: the same epoch twice. The heads in memory must not be trusted.
    let mut second = SqliteJournal::open(&path, "home").unwrap();
    second.commit(&batch(2, vec![rich(&a, 1, 2), rich(&b, 0, 3)])).unwrap();
    let refused = first.commit(&batch(3, vec![rich(&a, 1, 4)]));
    assert!(matches!(refused, Err(Error::Conflict { expected: 1, actual: 2, .. })), "{refused:?}");
    let done = first.commit(&batch(3, vec![rich(&b, 1, 4)])).unwrap();
    assert_eq!(done.events.first().map(|event| (event.seq, event.version)), Some((4, 2)));
    assert_eq!(first.verify().unwrap(), 4);
}

#[test]
fn a_commit_waits_for_another_writers_lock() {
    let (_folder, path) = place();
    let id = stream("rollout", "a");
    let mut journal = owned(&path);
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    journal.reader.connection.busy_timeout(std::time::Duration::ZERO).unwrap();
    let refused = journal.commit(&batch(1, vec![rich(&id, 0, 1)]));
    assert!(matches!(refused, Err(Error::Storage { .. })), "{refused:?}");
    journal.reader.connection.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
    let committer = std::thread::spawn(move || journal.commit(&batch(1, vec![rich(&id, 0, 1)])));
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(committer.join().unwrap().unwrap().last_seq, 1);
}

#[test]
fn a_reader_beside_a_writer_sees_whole_batches_only() {
    let (_folder, path) = place();
    let ids: Vec<StreamId> = (0..4).map(|n| stream("rollout", &n.to_string())).collect();
    let mut journal = owned(&path);
    let reader = SqliteReader::open(&path).unwrap();
    let writing = std::thread::spawn(move || {
        for n in 0..60 {
            journal.commit(&batch(n, ids.iter().map(|id| rich(id, n, n)).collect())).unwrap();
        }
    });
    let mut seen = 0;
    while seen < 240 {
        let events = reader.read_all(seen, usize::MAX).unwrap();
        assert_eq!(events.len() % 4, 0, "half a batch");
        seen += events.len() as u64;
        reader.read_stream(&stream("rollout", "3"), 0, usize::MAX).unwrap();
        assert!(!writing.is_finished() || reader.last_seq().unwrap() == 240, "the writer failed");
    }
    writing.join().unwrap();
    assert_eq!(reader.verify().unwrap(), 240);
}

const CHILD: &str = "TIDEGATE_TEST_READS_IN";

/// Reads what it was told to and tells what it has found. Does nothing unless it was started as
/// the child of the test below.
#[test]
fn a_child_without_rights_reads() {
    let Some(path) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    match SqliteReader::open(&path).and_then(|reader| reader.verify()) {
        Ok(events) => tell(&format!("found {events}")),
        Err(error) => tell(&format!("refused {error}: {:?}", std::error::Error::source(&error))),
    }
}

/// Reads as a user who may not write in that folder.
fn read_without_rights(folder: &Path, path: &Path) -> String {
    let binary = std::env::current_exe().unwrap();
    let test = "sqlite::tests::owners::a_child_without_rights_reads";
    let set = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let bin = folder.parent().unwrap().join("bin");
    std::fs::copy(&binary, &bin).unwrap();
    set(&bin, 0o755);
    for entry in std::fs::read_dir(folder).unwrap() {
        set(&entry.unwrap().path(), 0o644);
    }
    set(folder.parent().unwrap(), 0o755);
    set(folder, 0o555);
    let mut command = as_child(&bin, test, CHILD, path);
    // The superuser can write anywhere, so the child becomes nobody.
    let superuser = std::fs::write(folder.join("probe"), "").is_ok();
    if superuser {
        std::fs::remove_file(folder.join("probe")).unwrap();
        std::os::unix::process::CommandExt::uid(&mut command, 65534);
    }
    let told = command.output().unwrap();
    set(folder, 0o755);
    String::from_utf8(told.stdout).unwrap()
}

#[test]
fn a_stopped_home_is_read_in_a_folder_that_cannot_be_written() {
    let above = tempfile::tempdir().unwrap();
    // A name that has to be quoted in a URI.
    let folder = above.path().join("100% ? #home");
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("journal.db");
    let id = stream("rollout", "a");
    let mut journal = owned(&path);
    journal.commit(&batch(1, vec![rich(&id, 0, 1), rich(&id, 1, 2)])).unwrap();
    journal.close().unwrap();
    let told = read_without_rights(&folder, &path);
    assert!(told.contains("found 2"), "{told}");
}

#[test]
fn commits_that_are_only_in_the_wal_are_not_silently_left_out() {
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("home");
    let (_other, running) = place();
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("journal.db");
    let mut journal = owned(&running);
    journal.commit(&batch(1, vec![rich(&stream("rollout", "a"), 0, 1)])).unwrap();
    std::fs::copy(&running, &path).unwrap();
    std::fs::copy(file::beside(&running, "-wal"), file::beside(&path, "-wal")).unwrap();
    let told = read_without_rights(&folder, &path);
    assert!(told.contains("refused") && told.contains("copy both files"), "{told}");
}
