//! Commands that are typed.

use std::fmt;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Pid, Signal, Stage, kill};

/// A command that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// What was typed, without the program.
    pub typed: String,
    /// Exit code; 128 + number for a signal.
    pub code: i32,
    /// Its answer.
    pub stdout: String,
    /// Progress, hints and diagnostics.
    pub stderr: String,
    /// From start to exit.
    pub took: Duration,
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { typed, code, stdout, stderr, took } = self;
        write!(
            f,
            "`tidegate {typed}` ended with {code} after {:.1} s\nstdout: {}\nstderr: {}",
            took.as_secs_f64(),
            stdout.trim_end(),
            stderr.trim_end()
        )
    }
}

/// The command line of the binary under test on a stage: no colour, and nothing of the user's own
/// homes and settings.
pub(super) fn command(stage: &Stage, arguments: &[&str]) -> Command {
    let mut command = Command::new(&stage.binaries.tidegate);
    command.args(arguments);
    prepare(&mut command, stage);
    command
}

fn prepare(command: &mut Command, stage: &Stage) {
    command
        .current_dir(stage.folder())
        .env("NO_COLOR", "1")
        .env("HOME", stage.folder())
        .env("XDG_STATE_HOME", stage.folder().join("state"))
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("TIDEGATE_HOME")
        .env_remove("CI");
}

pub(super) fn run(stage: &Stage, arguments: &[&str], bound: Duration) -> Result<Ran> {
    Background::start(stage, arguments)?.end(bound)
}

/// A command that runs. Killed when it is dropped; what it has detached lives on.
#[derive(Debug)]
pub struct Background {
    typed: String,
    child: Child,
    started: Instant,
    // Files, not pipes: a detached process that kept a pipe open would keep the reader waiting.
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Background {
    pub(super) fn start(stage: &Stage, arguments: &[&str]) -> Result<Self> {
        Self::spawn(stage, command(stage, arguments), arguments.join(" "))
    }

    /// The same in a terminal of its own: `script` opens one, and when it is killed the terminal
    /// is closed as by a closed window.
    ///
    /// # Errors
    /// When `script` is not there or cannot be started.
    pub fn in_terminal(stage: &Stage, arguments: &[&str]) -> Result<Self> {
        let typed = arguments.join(" ");
        let line = format!("exec {} {typed}", stage.binaries.tidegate.display());
        let mut command = Command::new("script");
        command.args(["-q", "-f", "-e", "-c", &line, "/dev/null"]);
        prepare(&mut command, stage);
        command.env("TERM", "xterm").stdin(Stdio::piped());
        Self::spawn(stage, command, typed)
    }

    fn spawn(stage: &Stage, mut command: Command, typed: String) -> Result<Self> {
        let file = |end: &str| -> Result<(File, PathBuf)> {
            let out = tempfile::Builder::new().suffix(end).tempfile_in(stage.folder())?;
            let (file, path) = out.keep()?;
            Ok((file, path))
        };
        let ((out, stdout), (err, stderr)) = (file(".out")?, file(".err")?);
        let started = Instant::now();
        let child = command
            .stdout(out)
            .stderr(err)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { typed, child, started, stdout, stderr })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::try_from(self.child.id()).unwrap_or(Pid::MAX)
    }

    /// Whether it has not ended yet.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it has printed so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// Kills it at once.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end within `bound`; it is killed then.
    pub fn end(mut self, bound: Duration) -> Result<Ran> {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if start.elapsed() > bound {
                kill(self.pid(), Signal::KILL);
                bail!("`tidegate {}` has not ended within {} s", self.typed, bound.as_secs());
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let took = self.started.elapsed();
        let text = |path: &PathBuf| {
            let bytes = std::fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Ok(Ran {
            typed: self.typed.clone(),
            code: code(status),
            stdout: text(&self.stdout),
            stderr: text(&self.stderr),
            took,
        })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_file(&self.stdout);
        let _ = std::fs::remove_file(&self.stderr);
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::Background;
    use crate::stage::{Binaries, Stage, alive, wait_until};
    use std::time::Duration;

    fn stage() -> Stage {
        let shell = "/bin/sh".into();
        Stage::new(&Binaries { tidegate: shell, example: "/bin/true".into() }).unwrap()
    }

    #[test]
    fn a_command_that_ended_says_how_and_with_what_words() {
        let ran = stage().tidegate(&["-c", "echo out; echo err >&2; exit 3"]).unwrap();
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (3, "out\n", "err\n"));
        let killed = stage().tidegate(&["-c", "kill -9 $$"]).unwrap();
        assert_eq!(killed.code, 137);
    }

    #[test]
    fn what_a_command_left_behind_is_gone_with_the_stage() {
        let stage = stage();
        let left = "setsid sleep 60 >/dev/null 2>&1 & echo $! >left";
        assert_eq!(stage.tidegate(&["-c", left]).unwrap().code, 0);
        let pid = std::fs::read_to_string(stage.folder().join("left")).unwrap();
        let pid = pid.trim().parse().unwrap();
        assert!(alive(pid));
        drop(stage);
        wait_until(Duration::from_secs(5), "gone", || (!alive(pid)).then_some(())).unwrap();
    }

    #[test]
    fn a_closed_terminal_hangs_up_on_what_runs_in_it() {
        let stage = stage();
        let file = |name: &str| stage.folder().join(name);
        let line =
            "-c 'trap \"echo hup >hup; exit\" HUP; echo $$ >up; while :; do sleep 0.05; done'";
        let mut terminal = Background::in_terminal(&stage, &[line]).unwrap();
        let bound = Duration::from_secs(10);
        wait_until(bound, "started", || file("up").exists().then_some(())).unwrap();
        terminal.kill();
        wait_until(bound, "hung up on", || file("hup").exists().then_some(())).unwrap();
    }
}
