//! Bad homes, journals and disks.

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tidegate_example_service::Behaviour;

use super::Case;
use super::circumstances::{case, nothing, promoted, release};
use crate::stage::{Project, Ran, Signal, Stage, alive, free_address, kill, wait_until};

/// All of them.
pub(super) const CASES: &[Case] = &[
    case(
        "journal from a newer version, looked at",
        newer_journal,
        |s| s.tidegate(&["status"]),
        5,
        &["journalNewer", "form 100000", "version of Tidegate"],
    ),
    case(
        "journal from a newer version, released into",
        newer_journal,
        |s| release(s, "v1"),
        5,
        &["journalNewer", "form 100000", "version of Tidegate"],
    ),
    case(
        "journal with a flipped byte, looked at",
        flipped,
        |s| s.tidegate(&["status"]),
        5,
        &["journalDamaged", "damaged"],
    ),
    case(
        "journal with a flipped byte, released into",
        flipped,
        |s| release(s, "v2"),
        5,
        &["journalDamaged", "damaged"],
    ),
    case(
        "journal with a flipped byte under a canary",
        flipped_in_canary,
        engine_once,
        5,
        &["journalDamaged", "damaged"],
    ),
    case("journal that is another file", no_journal, |s| release(s, "v2"), 5, &["journal"]),
    case("home that is a file", home_is_a_file, |s| release(s, "v1"), 5, &["homeNotWritable"]),
    case(
        "read-only home",
        nothing,
        read_only_home,
        5,
        &["homeNotWritable", "home", "read-only|permission"],
    ),
    case("home that others can write", open_home, |s| release(s, "v1"), 3, &["homeOpen", "chmod"]),
    case("disk full", nothing, full_disk, 5, &["diskFull", "space", "home", "make room"]),
    case(
        "disk full in mid-canary: the way back is open",
        three_versions,
        full_in_canary,
        0,
        &["diskFull", "rolled back: v2", "abort ended with 0", "production web  v1"],
    ),
    case("two homes for one host", second_home, of_second_home, 3, &["belongs to the home h-"]),
];

fn home_is_a_file(stage: &Stage) -> Result<()> {
    Ok(std::fs::write(stage.home(), "not a folder")?)
}

fn open_home(stage: &Stage) -> Result<()> {
    std::fs::create_dir(stage.home())?;
    Ok(std::fs::set_permissions(stage.home(), std::fs::Permissions::from_mode(0o777))?)
}

/// As a user who may not write there. Root may write everywhere, so the folder is mounted read-only
/// where this runs as root, in a mount namespace of its own.
fn read_only_home(stage: &Stage) -> Result<Ran> {
    std::fs::create_dir(stage.home())?;
    let line = "mount --bind home home && mount -o remount,ro,bind home && exec $T release v1";
    in_namespace(stage, line)
}

/// A home of 256 kB that is full but for a few pages.
fn full_disk(stage: &Stage) -> Result<Ran> {
    std::fs::create_dir(stage.home())?;
    let line = "mount -t tmpfs -o size=256k,mode=700 none home && \
                head -c 250000 /dev/zero >home/filler && exec $T release v1";
    in_namespace(stage, line)
}

/// A canary that waits for a person, with all traffic to be given back.
const WAITING: &str = "
      steps:
        - setWeight: 25
        - pause: {}";

fn three_versions(stage: &Stage) -> Result<()> {
    std::fs::create_dir(stage.home())?;
    stage.write_project(&Project { canary: WAITING.into(), bake: "0s".into() })?;
    stage.artifact("v2", &Behaviour::default())?;
    stage.artifact("v3", &Behaviour::default())
}

/// The disk fills up while a canary waits; what is asked then is a release, which is refused, and
/// the way back, which is not.
fn full_in_canary(stage: &Stage) -> Result<Ran> {
    let line = "mount -t tmpfs -o size=12m,mode=700 none home || exit 90\n\
        $T release v1 --until ended --quiet || exit 91\n\
        $T release v2 --no-wait --quiet || exit 92\n\
        for n in $(seq 100); do $T status | grep -q 'Paused  step 2' && break; sleep 0.1; done\n\
        cat /dev/zero >home/filler 2>/dev/null\n\
        $T release v3 && exit 93\n\
        $T abort; echo \"abort ended with $?\"\n\
        $T status\n\
        cat home/*.log | grep panicked && exit 94\n\
        exit 0";
    in_namespace(stage, line)
}

/// Runs a line of shell in a mount namespace of its own; `$T` is the program.
fn in_namespace(stage: &Stage, line: &str) -> Result<Ran> {
    let started = Instant::now();
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "timeout", "60", "sh", "-c", line])
        .current_dir(stage.folder())
        .env("T", &stage.binaries().tidegate)
        .env("HOME", stage.folder())
        .env("NO_COLOR", "1")
        .output()
        .context("cannot start unshare")?;
    // What is left runs on a home that nobody else can see.
    stage.clear()?;
    Ok(Ran {
        typed: line.to_owned(),
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: started.elapsed(),
    })
}

/// A home that nobody drives: all its processes are gone.
fn stopped_home(stage: &Stage) -> Result<()> {
    promoted(stage)?;
    for role in ["engine", "host", "switch"] {
        if let Some(pid) = stage.pid(role) {
            kill(pid, Signal::KILL);
            wait_until(Duration::from_secs(5), role, || (!alive(pid)).then_some(()))?;
        }
    }
    stage.clear()
}

fn newer_journal(stage: &Stage) -> Result<()> {
    stopped_home(stage)?;
    in_journal(stage, "pragma user_version=100000")
}

fn no_journal(stage: &Stage) -> Result<()> {
    stopped_home(stage)?;
    stage.artifact("v2", &Behaviour::default())?;
    for end in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(stage.home().join(format!("journal.db{end}")));
    }
    Ok(std::fs::write(stage.home().join("journal.db"), "dear diary\n".repeat(1000))?)
}

/// Carries out a statement in the journal, by somebody who is not us, and leaves all of it in the
/// one file.
fn in_journal(stage: &Stage, statement: &str) -> Result<()> {
    let script = "import sqlite3,sys\n\
        c=sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); c.commit()\n\
        c.execute('pragma wal_checkpoint(truncate)'); c.close()\n";
    let journal = stage.home().join("journal.db");
    let status = Command::new("python3").args(["-c", script]).arg(journal).arg(statement).status();
    if !status.context("python3 has to write the journal")?.success() {
        bail!("python3 could not write the journal");
    }
    Ok(())
}

fn flipped(stage: &Stage) -> Result<()> {
    stopped_home(stage)?;
    stage.artifact("v2", &Behaviour::default())?;
    flip(stage, b"sha256:")
}

/// Flips a bit of the last place in the file that says this, ten bytes on.
fn flip(stage: &Stage, words: &[u8]) -> Result<()> {
    in_journal(stage, "select 1")?;
    let path = stage.home().join("journal.db");
    let mut file = std::fs::File::options().read(true).write(true).open(&path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let place = bytes.windows(words.len()).rposition(|part| part == words);
    let place = place.context("the journal does not say it")? + 10;
    let byte = bytes.get(place).copied().unwrap_or_default() ^ 1;
    file.seek(SeekFrom::Start(u64::try_from(place)?))?;
    Ok(file.write_all(&[byte])?)
}

/// A canary waits for a person, the engine has been killed and the host will start the next one,
/// which finds damage.
fn flipped_in_canary(stage: &Stage) -> Result<()> {
    promoted(stage)?;
    stage.write_project(&Project { canary: WAITING.into(), bake: "0s".into() })?;
    stage.artifact("v2", &Behaviour::default())?;
    let ran = stage.tidegate(&["release", "v2", "--no-wait"])?;
    if ran.code != 0 {
        bail!("not accepted: {ran}");
    }
    wait_until(Duration::from_secs(20), "a canary that waits", || {
        let environment = stage.environment("production").ok()?;
        (environment["rollout"]["phase"] == "Paused").then_some(())
    })?;
    let (host, engine) = (stage.living("host", None)?, stage.living("engine", None)?);
    kill(host, Signal::STOP);
    kill(engine, Signal::KILL);
    wait_until(Duration::from_secs(5), "the end of the engine", || (!alive(engine)).then_some(()))?;
    flip(stage, b"trafficObserved")?;
    kill(host, Signal::CONT);
    Ok(())
}

/// Asks for something that needs an engine; nobody may start one again and again meanwhile.
fn engine_once(stage: &Stage) -> Result<Ran> {
    let started = Instant::now();
    let ran = stage.tidegate(&["promote", "production-web-2"])?;
    let over = Duration::from_secs(5);
    wait_until(over + Duration::from_secs(1), "some seconds", || {
        (started.elapsed() >= over).then_some(())
    })?;
    let log = std::fs::read_to_string(stage.home().join("host.log"))?;
    let starts = log.lines().filter(|line| line.contains("the engine is started again")).count();
    if starts > 2 {
        bail!(
            "the host has started {starts} engines within {} s on a damaged journal",
            over.as_secs()
        );
    }
    Ok(ran)
}

/// Another home whose host and switch are those of the first one.
fn second_home(stage: &Stage) -> Result<()> {
    promoted(stage)?;
    let second = stage.folder().join("second");
    std::fs::create_dir(&second)?;
    std::fs::set_permissions(&second, std::fs::Permissions::from_mode(0o700))?;
    for role in ["host", "switch"] {
        let name = format!("{role}.sock");
        let socket = stage.home().join(&name);
        std::fs::write(second.join(name), socket.as_os_str().as_encoded_bytes())?;
    }
    let text = Project::default().text(stage);
    let text = text.replace(&stage.address().to_string(), &free_address()?.to_string());
    stage.write("second.yaml", &text)
}

fn of_second_home(stage: &Stage) -> Result<Ran> {
    stage.tidegate(&["release", "v1", "--file", "second.yaml", "--home", "second"])
}
