//! A command in a process group of its own, in a clean environment.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tidegate_core::Reason;
use tidegate_core::machine::Outcome;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio::time::timeout;

use super::{error, fail, pass};

/// Bytes of output that are kept, from its end.
const TAIL: usize = 4 << 10;
/// How long output is read on after the command has ended: something that it left behind may keep
/// the pipe open for ever.
const LEFTOVER: Duration = Duration::from_millis(200);
/// What a command gets of our environment: programs, the user and the language, nothing secret.
const INHERITED: [&str; 8] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR"];
/// Words in names of variables whose values are never shown.
const SECRET: [&str; 7] = ["SECRET", "TOKEN", "PASSWORD", "PASSWD", "CREDENTIAL", "KEY", "AUTH"];

pub(super) async fn run(
    command: &[String],
    env: &BTreeMap<String, String>,
    folder: &str,
    within: Duration,
) -> Outcome {
    let Some((program, arguments)) = command.split_first() else {
        return Outcome::Refused(Reason::new("unsupported", "the check has no command"));
    };
    let mut output = Tail::default();
    let ended = timeout(within, start(program, arguments, env, folder, &mut output)).await;
    let said = output.said(env);
    match ended {
        Ok(Err(why)) => error("notStarted", format!("cannot start {program} in {folder}: {why}")),
        Err(_) => error("timeout", format!("killed after {} ms{said}", within.as_millis())),
        Ok(Ok(status)) if status.success() => pass(format!("exit status 0{said}"), 0),
        Ok(Ok(status)) => fail("exitStatus", format!("{status}{said}")),
    }
}

async fn start(
    program: &str,
    arguments: &[String],
    env: &BTreeMap<String, String>,
    folder: &str,
    output: &mut Tail,
) -> std::io::Result<ExitStatus> {
    let (reader, writer) = std::io::pipe()?;
    let mut reader = pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .envs(env)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    let mut child = command.spawn()?;
    // Our copies of the pipe's other end would keep it open.
    drop(command);
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let status = {
        let wait = child.wait();
        tokio::pin!(wait);
        loop {
            tokio::select! {
                status = &mut wait => break status?,
                open = output.read(&mut reader) => if !open {
                    break wait.await?;
                },
            }
        }
    };
    group.0 = None;
    let rest = async { while output.read(&mut reader).await {} };
    let _in_time = timeout(LEFTOVER, rest).await;
    Ok(status)
}

/// Ends with everything that it has started, unless it has ended by itself.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0
            && let Err(error) = kill_process_group(pid, Signal::KILL)
        {
            tracing::debug!(%error, "a check's processes were gone already");
        }
    }
}

/// The end of what was printed.
#[derive(Default)]
struct Tail(VecDeque<u8>);

impl Tail {
    /// Reads some; false at the end.
    async fn read(&mut self, reader: &mut pipe::Receiver) -> bool {
        let mut buffer = [0; 4096];
        match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => false,
            Ok(n) => {
                self.0.extend(&buffer[..n]);
                let surplus = self.0.len().saturating_sub(TAIL);
                self.0.drain(..surplus);
                true
            }
        }
    }

    /// For the end of a sentence, without the values of secret variables.
    fn said(mut self, env: &BTreeMap<String, String>) -> String {
        let mut text = String::from_utf8_lossy(self.0.make_contiguous()).trim().to_owned();
        for (name, value) in env {
            let name = name.to_ascii_uppercase();
            if value.len() >= 4 && SECRET.iter().any(|word| name.contains(word)) {
                text = text.replace(value.as_str(), "***");
                // The bound may have cut one in two.
                let cut = (4..value.len()).rev().find(|keep| {
                    value.get(value.len() - keep..).is_some_and(|end| text.starts_with(end))
                });
                if let Some(keep) = cut {
                    text.replace_range(..keep, "***");
                }
            }
        }
        if text.is_empty() { text } else { format!(": {text}") }
    }
}
