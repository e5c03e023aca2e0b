//! Probes that are commands.

use std::process::Stdio;

use tokio::io::AsyncReadExt;

use crate::shim::secret_value;
use crate::shim::spec::ShimSpec;

/// Most of a probe's output that is read.
const OUTPUT_MAX: u64 = 64 << 10;

/// Ends a group of processes when it goes out of scope, also when the probe's time is over.
struct Ending(Option<rustix::process::Pid>);

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// Runs a command in the artifact's folder with the instance's environment, secrets included. Its
/// standard output if it exits with 0.
pub(crate) async fn run(command: &[String], spec: &ShimSpec) -> Result<String, String> {
    let (program, arguments) = command.split_first().ok_or("the command is empty")?;
    let path = crate::artifact::runnable(&spec.cwd, program).map_err(|r| r.body.message)?;
    let mut child = tokio::process::Command::new(path);
    child.args(arguments).env_clear().envs(&spec.env).current_dir(&spec.cwd).process_group(0);
    for name in &spec.secrets {
        child.env(name, secret_value(&spec.secrets_folder.join(name))?);
    }
    child.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = child.spawn().map_err(|e| format!("{program} cannot be run: {e}"))?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    let mut ending = Ending(pid.and_then(rustix::process::Pid::from_raw));
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let _ = stdout.take(OUTPUT_MAX).read_to_end(&mut output).await;
    }
    let status = child.wait().await.map_err(|e| format!("{program}: {e}"))?;
    // Reaped: the number may belong to others now.
    ending.0 = None;
    if status.success() {
        Ok(String::from_utf8_lossy(&output).into_owned())
    } else {
        Err(format!("{program} ended with {status}"))
    }
}
