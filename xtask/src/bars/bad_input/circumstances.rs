//! Bad arguments, artifacts, homes and machines.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tidegate_example_service::Behaviour;

use super::{Case, Expected};
use crate::stage::{Project, Ran, Signal, Stage, alive, kill, wait_until};

const fn case(
    name: &'static str,
    make: fn(&Stage) -> Result<()>,
    type_: fn(&Stage) -> Result<Ran>,
    codes: &'static [i32],
    words: &'static [&'static str],
) -> Case {
    Case { name, make, type_, expected: Expected { codes, words } }
}

/// All of them.
pub(super) const CASES: &[Case] = &[
    case(
        "no tidegate.yaml",
        no_file,
        |s| s.tidegate(&["validate"]),
        &[2],
        &["tidegate.yaml", "init"],
    ),
    case("unknown verb", nothing, |s| s.tidegate(&["relase", "v1"]), &[2], &["relase"]),
    case("unknown flag", nothing, |s| s.tidegate(&["plan", "v1", "--too", "x"]), &[2], &["--too"]),
    case("unknown environment", nothing, to_nowhere, &[2], &["nowhere", "production"]),
    case("version with a slash", nothing, |s| release(s, "../v1"), &[2], &["version|../v1"]),
    case("version that was not built", nothing, |s| release(s, "v9"), &[2], &["dist/web-v9"]),
    case(
        "verb without a rollout",
        nothing,
        |s| s.tidegate(&["promote"]),
        &[3],
        &["progress|rollout"],
    ),
    case("unknown rollout", promoted, |s| s.tidegate(&["explain", "r-none"]), &[2], &["r-none"]),
    case(
        "digest that changed",
        changed,
        |s| release(s, "v1"),
        &[2],
        &["v1", "digest|another|changed"],
    ),
    case("undo to a version that never was", promoted, undo_to_v9, &[3], &["v9"]),
    case("if-revision that is not", promoted, old_revision, &[3], &["revision|rollout"]),
    case("archive with ..", escaping, |s| release(s, "v2"), &[2], &["..|outside"]),
    case("archive that is cut", cut_archive, |s| release(s, "v2"), &[2], &["web-v2"]),
    case("start command missing", no_start, |s| release(s, "v1"), &[2, 3], &["run.sh"]),
    case(
        "start command not executable",
        not_executable,
        |s| release(s, "v1"),
        &[2, 3],
        &["run.sh", "execut"],
    ),
    case("port in use", nothing, port_in_use, &[3], &["in use|busy|address"]),
    case(
        "journal from a newer version",
        newer_journal,
        |s| s.tidegate(&["status"]),
        &[5],
        &["newer|version"],
    ),
    case(
        "journal with a flipped byte",
        flipped,
        |s| release(s, "v2"),
        &[5],
        &["journal", "damaged"],
    ),
    case("home that is a file", home_is_a_file, |s| release(s, "v1"), &[5], &["home"]),
    case(
        "home without write permission",
        nothing,
        read_only_home,
        &[5],
        &["home", "permission|read-only|write"],
    ),
    case("disk full", nothing, full_disk, &[5], &["space|full"]),
    case(
        "output of an unknown kind",
        nothing,
        |s| s.tidegate(&["status", "-o", "xml"]),
        &[2],
        &["xml", "json"],
    ),
];

fn nothing(_: &Stage) -> Result<()> {
    Ok(())
}

fn release(stage: &Stage, version: &str) -> Result<Ran> {
    stage.tidegate(&["release", version, "--to", "production"])
}

fn to_nowhere(stage: &Stage) -> Result<Ran> {
    stage.tidegate(&["release", "v1", "--to", "nowhere"])
}

fn undo_to_v9(stage: &Stage) -> Result<Ran> {
    stage.tidegate(&["undo", "--to", "v9"])
}

fn old_revision(stage: &Stage) -> Result<Ran> {
    stage.tidegate(&["abort", "--if-revision", "1"])
}

fn no_file(stage: &Stage) -> Result<()> {
    Ok(std::fs::remove_file(stage.folder().join("tidegate.yaml"))?)
}

fn artifact(stage: &Stage, version: &str) -> PathBuf {
    stage.folder().join(format!("dist/web-{version}"))
}

/// A home in which v1 is promoted and nothing is open.
fn promoted(stage: &Stage) -> Result<()> {
    stage.write_project(&Project { bake: "0s".into(), ..Project::default() })?;
    let arguments = ["release", "v1", "--to", "production", "--until", "ended"];
    let ran = stage.tidegate(&arguments)?;
    if ran.code != 0 {
        bail!("the home cannot be made ready: {ran}");
    }
    Ok(())
}

fn changed(stage: &Stage) -> Result<()> {
    promoted(stage)?;
    stage.artifact("v1", &Behaviour { latency_ms: 1, ..Behaviour::default() })
}

/// Both files in the archive are written by hand: `tar` would not make the first one.
fn escaping(stage: &Stage) -> Result<()> {
    stage.write_project(&Project::default())?;
    archive_artifact(stage)?;
    let script = "import io,sys,tarfile\n\
        t=tarfile.open(sys.argv[1],'w:gz')\n\
        for name in ('run.sh','../../escaped'):\n\
        \u{20} i=tarfile.TarInfo(name); i.size=1; i.mode=0o755; t.addfile(i,io.BytesIO(b'x'))\n\
        t.close()\n";
    let archive = artifact(stage, "v2").with_extension("tar.gz");
    let status = Command::new("python3").args(["-c", script]).arg(archive).status();
    let status = status.context("python3 has to make the archive")?;
    if !status.success() {
        bail!("python3 could not make the archive: {status}");
    }
    Ok(())
}

fn cut_archive(stage: &Stage) -> Result<()> {
    escaping(stage)?;
    let path = artifact(stage, "v2").with_extension("tar.gz");
    let bytes = std::fs::read(&path)?;
    Ok(std::fs::write(&path, &bytes[..bytes.len() / 2])?)
}

/// The project takes `dist/web-VERSION.tar.gz`.
fn archive_artifact(stage: &Stage) -> Result<()> {
    let text = Project::default().text(stage);
    let text = text.replace("dist/web-{version}", "dist/web-{version}.tar.gz");
    stage.write("tidegate.yaml", &text)
}

fn no_start(stage: &Stage) -> Result<()> {
    Ok(std::fs::remove_file(artifact(stage, "v1").join("run.sh"))?)
}

fn not_executable(stage: &Stage) -> Result<()> {
    let path = artifact(stage, "v1").join("run.sh");
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))?)
}

fn port_in_use(stage: &Stage) -> Result<Ran> {
    let _taken = TcpListener::bind(stage.address())?;
    release(stage, "v1")
}

fn home_is_a_file(stage: &Stage) -> Result<()> {
    Ok(std::fs::write(stage.home(), "not a folder")?)
}

/// As a user who may not write there. Root may write everywhere, so the folder is mounted read-only
/// where this runs as root, in a mount namespace of its own.
fn read_only_home(stage: &Stage) -> Result<Ran> {
    std::fs::create_dir(stage.home())?;
    in_namespace(stage, "mount --bind home home && mount -o remount,ro,bind home")
}

/// A home of 256 kB that is full but for a few pages.
fn full_disk(stage: &Stage) -> Result<Ran> {
    std::fs::create_dir(stage.home())?;
    let fill =
        "mount -t tmpfs -o size=256k,mode=700 none home && head -c 250000 /dev/zero >home/filler";
    in_namespace(stage, fill)
}

/// Releases v1 after `prepare`, in a mount namespace that ends with it.
fn in_namespace(stage: &Stage, prepare: &str) -> Result<Ran> {
    let program = stage.binaries().tidegate.display();
    let line = format!("{prepare} && exec {program} release v1 --to production");
    let started = std::time::Instant::now();
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &line])
        .current_dir(stage.folder())
        .env("HOME", stage.folder())
        .env("NO_COLOR", "1")
        .output()
        .context("cannot start unshare")?;
    Ok(Ran {
        typed: "release v1 --to production".into(),
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

/// One byte of the last event in the file that names a digest.
fn flipped(stage: &Stage) -> Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    stopped_home(stage)?;
    stage.artifact("v2", &Behaviour::default())?;
    in_journal(stage, "select 1")?;
    let path = stage.home().join("journal.db");
    let mut file = std::fs::File::options().read(true).write(true).open(&path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let place = bytes.windows(7).rposition(|part| part == b"sha256:");
    let place = place.context("no digest in the journal")? + 10;
    let byte = bytes.get(place).copied().unwrap_or_default() ^ 1;
    file.seek(SeekFrom::Start(u64::try_from(place)?))?;
    Ok(file.write_all(&[byte])?)
}
