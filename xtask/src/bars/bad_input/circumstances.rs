//! Bad arguments and artifacts.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use tidegate_example_service::Behaviour;

use super::{Case, Expected};
use crate::stage::{Project, Ran, Stage};

pub(super) const fn case(
    name: &'static str,
    make: fn(&Stage) -> Result<()>,
    type_: fn(&Stage) -> Result<Ran>,
    code: i32,
    words: &'static [&'static str],
) -> Case {
    Case { name, make, type_, expected: Expected { code, words } }
}

/// All of them.
pub(super) const CASES: &[Case] = &[
    case("no tidegate.yaml", no_file, |s| s.tidegate(&["validate"]), 2, &["tidegate.yaml", "init"]),
    case("unknown verb", nothing, |s| s.tidegate(&["relase", "v1"]), 2, &["relase"]),
    case("unknown flag", nothing, |s| s.tidegate(&["plan", "v1", "--too", "x"]), 2, &["--too"]),
    case("unknown environment", nothing, to_nowhere, 2, &["nowhere", "production"]),
    case("undefined service", nothing, of_nobody, 2, &["nobody", "web"]),
    case("version with a slash", nothing, |s| release(s, "../v1"), 2, &["version|../v1"]),
    case("version that was not built", nothing, |s| release(s, "v9"), 2, &["dist/web-v9"]),
    case("verb without a rollout", nothing, |s| s.tidegate(&["promote"]), 3, &["progress|rollout"]),
    case("unknown rollout", promoted, |s| s.tidegate(&["explain", "r-none"]), 2, &["r-none"]),
    case(
        "digest that changed",
        changed,
        |s| release(s, "v1"),
        2,
        &["v1", "digest|another|changed"],
    ),
    case("undo to a version that never was", promoted, undo_to_v9, 3, &["v9"]),
    case("if-revision that is not", promoted, old_revision, 3, &["revision|rollout"]),
    case("archive with ..", escaping, |s| release(s, "v2"), 2, &["..|outside"]),
    case("archive with an absolute path", absolute, |s| release(s, "v2"), 2, &["web-v2", "/"]),
    case("archive with a link that leads out", linked, |s| release(s, "v2"), 2, &["web-v2", "out"]),
    case("archive that is cut", cut_archive, |s| release(s, "v2"), 2, &["web-v2"]),
    case("start command missing", no_start, |s| release(s, "v1"), 2, &["startCommand", "run.sh"]),
    case(
        "start command not executable",
        not_executable,
        |s| release(s, "v1"),
        2,
        &["startCommand", "run.sh", "execut"],
    ),
    case("port in use", nothing, port_in_use, 3, &["in use|busy|address"]),
    case(
        "output of an unknown kind",
        nothing,
        |s| s.tidegate(&["status", "-o", "xml"]),
        2,
        &["xml", "json"],
    ),
];

pub(super) fn nothing(_: &Stage) -> Result<()> {
    Ok(())
}

pub(super) fn release(stage: &Stage, version: &str) -> Result<Ran> {
    stage.tidegate(&["release", version, "--to", "production"])
}

fn to_nowhere(stage: &Stage) -> Result<Ran> {
    stage.tidegate(&["release", "v1", "--to", "nowhere"])
}

fn of_nobody(stage: &Stage) -> Result<Ran> {
    stage.tidegate(&["release", "v1", "--service", "nobody"])
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
pub(super) fn promoted(stage: &Stage) -> Result<()> {
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

/// An archive with a start command and one more entry, by hand: `tar` would not make that one.
fn archive_with(stage: &Stage, entry: &str) -> Result<()> {
    stage.write_project(&Project::default())?;
    archive_artifact(stage)?;
    let script = "import io,sys,tarfile\n\
        t=tarfile.open(sys.argv[1],'w:gz')\n\
        def add(name,link=None):\n\
        \u{20} i=tarfile.TarInfo(name); i.size=0 if link else 1; i.mode=0o755\n\
        \u{20} i.type=tarfile.SYMTYPE if link else tarfile.REGTYPE; i.linkname=link or ''\n\
        \u{20} t.addfile(i,io.BytesIO(b'x'))\n\
        add('run.sh'); add(*sys.argv[2].split(' -> '))\n\
        t.close()\n";
    let archive = artifact(stage, "v2").with_extension("tar.gz");
    let status = Command::new("python3").args(["-c", script]).arg(archive).arg(entry).status();
    let status = status.context("python3 has to make the archive")?;
    if !status.success() {
        bail!("python3 could not make the archive: {status}");
    }
    Ok(())
}

fn escaping(stage: &Stage) -> Result<()> {
    archive_with(stage, "../../escaped")
}

fn absolute(stage: &Stage) -> Result<()> {
    archive_with(stage, "/tmp/escaped")
}

fn linked(stage: &Stage) -> Result<()> {
    archive_with(stage, "link -> ../../..")
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
    let ran = release(stage, "v1")?;
    if !stage.processes().is_empty() {
        bail!("it was refused after something was started: {ran}");
    }
    Ok(ran)
}
