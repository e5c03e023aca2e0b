//! Which home a verb means, and the making of it.

use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use tidegate_wire::home::Home;

use crate::exit::{Exit, Failure};

/// Finds the home: the option (or `TIDEGATE_HOME`), then `home:` of the project file (a folder
/// there is relative to the file's), then the project's place in the user's state folder.
///
/// # Errors
/// A home that this version cannot reach, or none that can be named.
pub(crate) fn resolve(
    option: Option<&str>,
    file: Option<(&Path, Option<&str>)>,
    project: Option<&str>,
) -> Result<Home, Failure> {
    let here = std::env::current_dir().map_err(|error| {
        Failure::input("noFolder", "the current folder cannot be read", "").cause(error.to_string())
    })?;
    if let Some(home) = option.filter(|home| !home.is_empty()) {
        return named(home, &here, project);
    }
    if let Some((folder, Some(home))) = file {
        return named(home, folder, project);
    }
    local(project)
}

fn named(home: &str, folder: &Path, project: Option<&str>) -> Result<Home, Failure> {
    if home == "local" {
        return local(project);
    }
    for scheme in ["ssh://", "https://", "http://"] {
        if home.starts_with(scheme) {
            return Err(Failure::refused(
                "homeNotSupported",
                format!("a home at {scheme} is not in this version"),
                home,
            )
            .fix("run tidegate on the machine of the home, with home: local or a folder"));
        }
    }
    Ok(Home::new(absolute(&folder.join(home))))
}

/// A folder's real path as far as it exists, so that two spellings of it are one home.
fn absolute(path: &Path) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => absolute(parent).join(name),
        _ => path.to_owned(),
    }
}

fn local(project: Option<&str>) -> Result<Home, Failure> {
    let Some(project) = project else {
        return Err(Failure::input("noProject", "no tidegate.yaml here, and no home named", "")
            .fix("run it in the folder of tidegate.yaml, or name the file with --file")
            .fix("or name the home with --home or TIDEGATE_HOME")
            .fix("`tidegate init` writes a tidegate.yaml"));
    };
    if project.is_empty() || project.contains('/') || project.starts_with('.') {
        return Err(Failure::input("projectName", "this name cannot name a folder", project)
            .fix("set --home, or use letters, digits and dashes in `project:`"));
    }
    let state = absolute_variable("XDG_STATE_HOME")
        .or_else(|| absolute_variable("HOME").map(|home| home.join(".local/state")))
        .ok_or_else(|| {
            Failure::input("noHome", "neither HOME nor XDG_STATE_HOME names a folder", "")
                .fix("name the home with --home or TIDEGATE_HOME")
        })?;
    Ok(Home::new(absolute(&state.join("tidegate").join(project))))
}

fn absolute_variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Makes the home's folder (mode 0700) for a verb that writes.
///
/// # Errors
/// With the path and why; exit code 5.
pub(crate) fn prepare(home: &Home) -> Result<(), Failure> {
    let root = home.root();
    let wrong = |why: String| {
        Failure::unreachable("homeNotWritable", "the home cannot be written", on(root))
            .cause(why)
            .fix("give this user the right to write there, or name another home with --home")
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(root)
        .map_err(|error| wrong(error.to_string()))?;
    let meta = std::fs::metadata(root).map_err(|error| wrong(error.to_string()))?;
    if !meta.is_dir() {
        return Err(wrong("it is not a folder".to_owned()));
    }
    let me = rustix::process::geteuid().as_raw();
    if meta.uid() != me && me != 0 {
        return Err(wrong(format!("it belongs to user {}, not to {me}", meta.uid())));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(Failure::new(
            Exit::Refused,
            tidegate_wire::error::ErrorBody::new(
                "homeOpen",
                "others can write into the home",
                on(root),
            ),
        )
        .fix(format!("chmod 700 {}", root.display())));
    }
    writable(root).map_err(|error| wrong(error.to_string()))
}

/// Room that a release needs for its journal and logs. Steering a rollout needs less than is
/// reserved for it.
const ROOM: u64 = 2 << 20;

/// Refuses a release on a disk that is full.
///
/// # Errors
/// With the path and how much is left; exit code 5.
pub(crate) fn room(home: &Home) -> Result<(), Failure> {
    let Ok(disk) = rustix::fs::statvfs(home.root()) else { return Ok(()) };
    let left = disk.f_bavail.saturating_mul(disk.f_frsize);
    if left >= ROOM {
        return Ok(());
    }
    Err(Failure::unreachable(
        "diskFull",
        "no space left for a release in the home",
        on(home.root()),
    )
    .cause(format!("{} kB are left, {} kB are needed", left / 1024, ROOM / 1024))
    .fix("make room on that disk; rollouts in progress can be steered and undone meanwhile"))
}

/// Whether files can be made in there, by making one.
pub(crate) fn writable(folder: &Path) -> std::io::Result<()> {
    let probe = folder.join(format!(".probe-{}", std::process::id()));
    match std::fs::OpenOptions::new().write(true).create_new(true).open(&probe) {
        Ok(_) => std::fs::remove_file(&probe),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => std::fs::remove_file(&probe),
        Err(error) => Err(error),
    }
}

fn on(path: &Path) -> String {
    path.display().to_string()
}

/// The process id in a `.pid` file, if that process lives.
pub(crate) fn living(home: &Home, role: &str) -> Option<u32> {
    let pid: i32 = std::fs::read_to_string(home.pid(role)).ok()?.trim().parse().ok()?;
    let process = rustix::process::Pid::from_raw(pid)?;
    match rustix::process::test_kill_process(process) {
        Ok(()) | Err(rustix::io::Errno::PERM) => {}
        Err(_) => return None,
    }
    // A zombie answers signals and does nothing any more.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    if stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')) {
        return None;
    }
    u32::try_from(pid).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_wins_over_the_file_and_the_file_over_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let file = Some((folder.path(), Some("state")));
        let real = folder.path().canonicalize().unwrap();
        let by_option = resolve(Some("/nowhere/at/all"), file, Some("shop")).unwrap();
        assert_eq!(by_option.root(), Path::new("/nowhere/at/all"));
        let by_file = resolve(None, file, Some("shop")).unwrap();
        assert_eq!(by_file.root(), real.join("state"));
    }

    #[test]
    fn a_home_that_cannot_be_reached_is_refused() {
        for home in ["ssh://deploy@web1", "https://tidegate.example.com"] {
            let failure = resolve(Some(home), None, Some("shop")).unwrap_err();
            assert_eq!(failure.exit, Exit::Refused);
        }
    }

    #[test]
    fn without_file_and_option_there_is_no_home() {
        assert_eq!(resolve(None, None, None).unwrap_err().exit, Exit::Input);
        assert_eq!(resolve(None, None, Some("../etc")).unwrap_err().exit, Exit::Input);
    }

    #[test]
    fn a_home_is_made_for_its_user_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path().join("a/b"));
        prepare(&home).unwrap();
        assert_eq!(std::fs::metadata(home.root()).unwrap().mode() & 0o777, 0o700);
        std::fs::set_permissions(home.root(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(prepare(&home).unwrap_err().exit, Exit::Refused);
    }
}
