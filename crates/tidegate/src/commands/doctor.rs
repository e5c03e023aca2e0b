//! `doctor`: what would be in the way of a release, each finding with its fix.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;
use tidegate_core::spec::{Platform, ProjectSpec};
use tidegate_journal::Reader;
use tidegate_journal::sqlite::disk_check;
use tidegate_wire::home::{Home, SOCKET_PATH_MAX};

use super::{Context, block_on};
use crate::cli::Output;
use crate::client::Engine;
use crate::exit::{Exit, Failure};
use crate::output::{DIM, GREEN, RED, YELLOW, printable};
use crate::{clock, home, project, roles, source};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Grade {
    Good,
    Warning,
    Blocks,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    check: &'static str,
    grade: Grade,
    text: String,
    fix: Option<String>,
}

#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn good(&mut self, check: &'static str, text: impl Into<String>) {
        self.0.push(Finding { check, grade: Grade::Good, text: text.into(), fix: None });
    }

    fn warning(&mut self, check: &'static str, text: impl Into<String>, fix: impl Into<String>) {
        let fix = Some(fix.into());
        self.0.push(Finding { check, grade: Grade::Warning, text: text.into(), fix });
    }

    fn blocks(&mut self, check: &'static str, text: impl Into<String>, fix: impl Into<String>) {
        let fix = Some(fix.into());
        self.0.push(Finding { check, grade: Grade::Blocks, text: text.into(), fix });
    }
}

/// Looks.
pub(super) fn run(context: &Context) -> Result<Exit, Failure> {
    let mut findings = Findings::default();
    let spec = file(context, &mut findings);
    match context.place() {
        Ok(place) => {
            let home = &place.home;
            if folder(home, &mut findings) {
                journal(home, &mut findings);
            }
            sockets(home, &mut findings);
            processes(home, &mut findings)?;
            if let Some(spec) = &spec {
                ports(home, spec, &mut findings);
                secrets(home, spec, &mut findings);
            }
        }
        Err(failure) => {
            for report in failure.errors {
                findings.blocks("home", report.body.message, report.body.fix.join("; or "));
            }
        }
    }
    cgroup(&mut findings);
    let blocked = findings.0.iter().any(|finding| finding.grade == Grade::Blocks);
    print(context, &findings, blocked);
    Ok(if blocked { Exit::Refused } else { Exit::Done })
}

fn print(context: &Context, findings: &Findings, blocked: bool) {
    let printer = &context.printer;
    if printer.output != Output::Text {
        printer.document(&serde_json::json!({
            "apiVersion": tidegate_wire::API_VERSION,
            "kind": "Doctor",
            "version": roles::VERSION,
            "blocked": blocked,
            "findings": findings.0,
        }));
        return;
    }
    for finding in &findings.0 {
        let mark = match finding.grade {
            Grade::Good => format!("{GREEN}ok{GREEN:#}      "),
            Grade::Warning => format!("{YELLOW}warning{YELLOW:#} "),
            Grade::Blocks => format!("{RED}blocks{RED:#}  "),
        };
        printer.answer(&format!("{mark} {}: {}", finding.check, printable(&finding.text)));
        if let Some(fix) = &finding.fix {
            printer.answer(&format!("         {DIM}fix:{DIM:#} {}", printable(fix)));
        }
    }
}

fn file(context: &Context, findings: &mut Findings) -> Option<ProjectSpec> {
    let path = project::path(&context.common);
    if context.common.file.is_none() && !path.exists() {
        findings.warning("file", "no tidegate.yaml here", "`tidegate init` writes one");
        return None;
    }
    match project::load(&context.common) {
        Ok(loaded) => {
            findings.good("file", format!("{} is valid", loaded.name));
            for item in &loaded.spec().unsupported {
                let fix = item.hint.clone().unwrap_or_else(|| "remove it".to_owned());
                findings.warning("file", format!("{} ({})", item.text, item.at), fix);
            }
            Some(loaded.project.spec)
        }
        Err(failure) => {
            let first = failure.errors.first().map(|report| report.body.message.clone());
            findings.blocks(
                "file",
                first.unwrap_or_default(),
                "`tidegate validate` shows them all",
            );
            None
        }
    }
}

/// Whether the folder is there and can be used.
fn folder(home: &Home, findings: &mut Findings) -> bool {
    let root = home.root();
    let shown = root.display();
    match std::fs::metadata(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let parent = root.ancestors().find(|path| path.exists());
            match parent.map(home::writable) {
                Some(Ok(())) => {
                    findings.good("home", format!("{shown} will be made by the first release"));
                }
                Some(Err(error)) => findings.blocks(
                    "home",
                    format!("{shown} cannot be made: {error}"),
                    "name another home with --home, or make it for this user",
                ),
                None => findings.blocks("home", format!("{shown} has no root"), "check --home"),
            }
            false
        }
        Err(error) => {
            findings.blocks("home", format!("{shown}: {error}"), "give this user the right to it");
            false
        }
        Ok(_) => match home::writable(root) {
            Err(error) => {
                findings.blocks(
                    "home",
                    format!("{shown} cannot be written: {error}"),
                    "make room or give this user the right; looking still works",
                );
                true
            }
            Ok(()) => {
                findings.good("home", format!("{shown} is writable"));
                match disk_check(root) {
                    Ok(report) => match report.warning {
                        Some(text) => {
                            findings.warning("disk", text, "put the home on another disk");
                        }
                        None => findings.good(
                            "disk",
                            format!(
                                "a flush takes {} µs (99 of 100 below {} µs)",
                                report.median_micros, report.p99_micros
                            ),
                        ),
                    },
                    Err(error) => findings.blocks("disk", error.to_string(), "make room there"),
                }
                true
            }
        },
    }
}

fn journal(home: &Home, findings: &mut Findings) {
    let fix = "keep the folder as it is, and put a copy of the home from before in its place";
    match source::journal(home) {
        Ok(None) => findings.good("journal", "nothing has been released here yet"),
        Ok(Some(reader)) => {
            match reader.verify() {
                Ok(events) => findings.good("journal", format!("{events} events, all chains hold")),
                Err(error) => findings.blocks("journal", error.to_string(), fix),
            }
            let ahead = reader.last_at().map_or(0, |at| at.0.saturating_sub(clock::now_ms()));
            if ahead > 5_000 {
                findings.warning(
                    "clock",
                    format!("it is {} s behind the last entry of the journal", ahead / 1000),
                    "set the machine's clock; timers wait until it has caught up",
                );
            } else {
                findings.good("clock", "not behind the journal");
            }
        }
        Err(failure) => {
            for report in failure.errors {
                let text = format!("{}: {}", report.body.message, report.body.cause.join(": "));
                findings.blocks("journal", text, report.body.fix.join("; or "));
            }
        }
    }
}

fn sockets(home: &Home, findings: &mut Findings) {
    let path = home.socket("switch");
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        let real = tidegate_ipc::resolve(&path);
        findings.good(
            "sockets",
            format!(
                "the home's path is long: sockets are in a short one, {}",
                if real == path {
                    "made at the start".to_owned()
                } else {
                    real.display().to_string()
                }
            ),
        );
    } else {
        findings.good("sockets", "they fit into the home");
    }
}

fn processes(home: &Home, findings: &mut Findings) -> Result<(), Failure> {
    let engine = block_on(async { Ok(Engine::find(home).await) })?;
    match &engine {
        Some((_, status)) => {
            let version = status.version.clone().unwrap_or_default();
            if version == roles::VERSION {
                findings.good("engine", format!("running, version {version}"));
            } else {
                findings.warning(
                    "engine",
                    format!("it has version {version}, this binary has {}", roles::VERSION),
                    "end the engine's process; the next verb starts the new one",
                );
            }
        }
        None if home::living(home, "engine").is_some() => findings.warning(
            "engine",
            "its process lives and does not answer",
            "any verb that needs it starts a successor, which takes over",
        ),
        None => findings.good("engine", "not running; verbs start it"),
    }
    let serving = match source::journal(home) {
        Ok(Some(reader)) => {
            source::environments(&reader).is_ok_and(|all| all.iter().any(|e| e.stable.is_some()))
        }
        Ok(None) | Err(_) => false,
    };
    for role in ["host", "switch"] {
        match (home::living(home, role), serving) {
            (Some(pid), _) => findings.good(role, format!("running, process {pid}")),
            (None, false) => findings.good(role, "not running; the first release starts it"),
            (None, true) => findings.blocks(
                role,
                "not running: nothing serves and nothing is restarted",
                "`tidegate watch` brings it back",
            ),
        }
    }
    Ok(())
}

fn ports(home: &Home, spec: &ProjectSpec, findings: &mut Findings) {
    // A switch of this home holds its ports itself.
    let ours = home::living(home, "switch").is_some();
    for environment in &spec.environments {
        let Platform::Process { listen } = &environment.platform;
        let Ok(address) = listen.parse::<SocketAddr>() else {
            findings.blocks("ports", format!("{listen} is no address"), "write ADDRESS:PORT");
            continue;
        };
        match TcpListener::bind(address) {
            Ok(_) => findings.good("ports", format!("{address} of {} is free", environment.name)),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && ours => {
                findings.good("ports", format!("{address} of {} is served", environment.name));
            }
            Err(error) => findings.blocks(
                "ports",
                format!("{address} of {} cannot be opened: {error}", environment.name),
                "end what holds it, or take another `listen:`",
            ),
        }
    }
}

fn secrets(home: &Home, spec: &ProjectSpec, findings: &mut Findings) {
    for service in &spec.services {
        for name in &service.secrets {
            let places =
                [home.host().join("secrets").join(name), home.root().join("secrets").join(name)];
            let found = places.iter().find(|path| path.exists());
            match found {
                None => findings.blocks(
                    "secrets",
                    format!("{name} of {} is missing", service.name),
                    format!("write its value to {} (mode 600)", places[1].display()),
                ),
                Some(path) if is_open(path) => findings.blocks(
                    "secrets",
                    format!("{} can be read by others", path.display()),
                    format!("chmod 600 {}", path.display()),
                ),
                Some(_) => findings.good("secrets", format!("{name} of {} is there", service.name)),
            }
        }
    }
}

fn is_open(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o077 != 0)
}

/// Whether limits of memory and cores can be put in force.
fn cgroup(findings: &mut Findings) {
    let root = Path::new("/sys/fs/cgroup");
    let controllers = std::fs::read_to_string(root.join("cgroup.controllers"));
    let fix = "run the host as a user with a delegated cgroup, or leave `resources:` out";
    match controllers {
        Ok(_) => {
            let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            let path = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
            let folder = root.join(path.trim_start_matches('/'));
            match rustix::fs::access(&folder, rustix::fs::Access::WRITE_OK) {
                Ok(()) => findings.good("limits", "cgroup v2, writable"),
                Err(_) => findings.warning(
                    "limits",
                    "memory and cores cannot be limited: cgroup v2 is not writable",
                    fix,
                ),
            }
        }
        Err(_) => match rustix::fs::access(root.join("memory"), rustix::fs::Access::WRITE_OK) {
            Ok(()) => findings.good("limits", "cgroup v1, writable"),
            Err(_) => {
                findings.warning("limits", "memory and cores cannot be limited: no cgroup", fix);
            }
        },
    }
}
