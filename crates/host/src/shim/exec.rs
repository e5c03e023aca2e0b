//! `tidegate exec-instance`: between the shim's `fork` and the instance's `exec`. What would need
//! `pre_exec` is done here, in a process of its own.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use super::spec::{PARENT_VARIABLE, ShimSpec};
use crate::state::files;

/// Exit status when the start command could not be executed.
const NOT_EXECUTED: u8 = 127;

/// Becomes the instance of `spec_path`. Returns only if that is not possible; the reason goes to the
/// shim through the pipe that is standard input here, and from it into the status file.
#[must_use]
pub fn exec_instance(spec_path: &Path) -> ExitCode {
    // A duplicate that closes at `exec`: the shim reads its end as "the command runs". Standard
    // input itself is replaced by /dev/null.
    let Ok(pipe) = io::stdin().as_fd().try_clone_to_owned() else {
        return ExitCode::from(NOT_EXECUTED);
    };
    let mut shim = std::fs::File::from(pipe);
    let why = match become_instance(spec_path, &mut shim) {
        Ok(never) => match never {},
        Err(why) => why,
    };
    let _ = shim.write_all(format!("fail {}\n", why.replace('\n', " ")).as_bytes());
    ExitCode::from(NOT_EXECUTED)
}

fn become_instance(
    spec_path: &Path,
    shim: &mut std::fs::File,
) -> Result<std::convert::Infallible, String> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| format!("cannot bind its life to the shim's: {e}"))?;
    // The shim may have died before the line above.
    let parent = std::env::var(PARENT_VARIABLE).unwrap_or_default();
    if getppid().map(|p| p.as_raw_nonzero().get().to_string()).as_deref() != Some(&parent) {
        return Err("its shim is gone".to_owned());
    }
    let spec: ShimSpec = files::read_json(spec_path)
        .map_err(|e| format!("cannot read {}: {e}", spec_path.display()))?
        .ok_or_else(|| format!("{} is gone", spec_path.display()))?;
    for group in &spec.cgroups {
        if let Err(e) = std::fs::write(group, std::process::id().to_string()) {
            let note = format!("warn cannot join the cgroup {}: {e}\n", group.display());
            let _ = shim.write_all(note.as_bytes());
        }
    }
    let (program, arguments) = spec.command.split_first().ok_or("the start command is empty")?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(&spec.env).current_dir(&spec.cwd);
    for name in &spec.secrets {
        command.env(name, secret_value(&spec.secrets_folder.join(name))?);
    }
    command.stdin(Stdio::null());
    let error = command.exec();
    let what = if error.kind() == io::ErrorKind::NotFound { "is missing" } else { "cannot be run" };
    Err(format!("the start command {program} {what}: {error}"))
}

/// A secret as an environment variable has it: without the line end that editors leave.
pub(crate) fn secret_value(file: &Path) -> Result<std::ffi::OsString, String> {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = std::fs::read(file)
        .map_err(|e| format!("cannot read the secret {}: {e}", file.display()))?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    if bytes.contains(&0) {
        return Err(format!(
            "the secret {} has a zero byte in it and cannot be an environment variable",
            file.display()
        ));
    }
    Ok(std::ffi::OsString::from_vec(bytes))
}
