//! Limits by cgroup, version 2 or 1, where this process may make groups.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use tidegate_core::spec::Resources;

/// Where the kernel shows its groups.
const MOUNT: &str = "/sys/fs/cgroup";
/// Microseconds over which processor time is shared out.
const CPU_PERIOD_US: u64 = 100_000;
/// How often the removal of a group is tried.
const REMOVE_TRIES: u32 = 40;
/// Between two tries.
const REMOVE_PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

/// What this system offers.
#[derive(Debug, Clone)]
pub(crate) struct Cgroups {
    kind: Kind,
    /// One change at a time: our group goes with its last instance and comes with its first.
    changing: std::sync::Arc<std::sync::Mutex<()>>,
}

#[derive(Debug, Clone)]
enum Kind {
    /// One tree: the group from which controllers have to be handed on, and our group in it.
    V2 { top: PathBuf, base: PathBuf },
    /// A tree for each kind of limit; our group in each.
    V1 { memory: Result<PathBuf, String>, cpu: Result<PathBuf, String> },
    /// Nothing that can be used, and why.
    None(String),
}

/// One instance's groups.
#[derive(Debug, Clone, Default)]
pub(crate) struct Group {
    /// A process writes its id into each of them to join.
    pub(crate) procs: Vec<PathBuf>,
    /// What could not be put in force, in words.
    pub(crate) unenforced: Vec<String>,
}

impl Cgroups {
    /// Looks at the system. Groups are made in `tidegate/HASH`, with a hash of the home's path, when
    /// the first limit is asked for.
    pub(crate) fn detect(home: &Path) -> Self {
        let mut hasher = DefaultHasher::new();
        home.hash(&mut hasher);
        let below = format!("tidegate/{:016x}", hasher.finish());
        let mount = Path::new(MOUNT);
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let kind = if mount.join("cgroup.controllers").exists() {
            let top = start(mount, &own_path(&own, ""));
            Kind::V2 { base: top.join(&below), top }
        } else if mount.join("memory").is_dir() || mount.join("cpu").is_dir() {
            let base = |controller: &str| v1_base(mount, controller, &own, &below);
            Kind::V1 { memory: base("memory"), cpu: base("cpu") }
        } else {
            Kind::None(format!("{MOUNT} has no cgroups"))
        };
        Self { kind, changing: std::sync::Arc::default() }
    }

    /// A fresh group for an instance with limits; nothing for one without.
    pub(crate) fn create(&self, name: &str, limits: &Resources) -> Group {
        let _changing = self.changing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut group = Group::default();
        if let Some(bytes) = limits.memory_bytes {
            let made = match &self.kind {
                Kind::V2 { top, base } => {
                    hand_on(top, base).and_then(|()| v2_memory(&base.join(name), bytes))
                }
                Kind::V1 { memory: Ok(base), .. } => v1_memory(&base.join(name), bytes),
                Kind::V1 { memory: Err(why), .. } | Kind::None(why) => Err(why.clone()),
            };
            group.take(made, "memory");
        }
        if let Some(millis) = limits.cpu_millis {
            let quota = u64::from(millis).saturating_mul(CPU_PERIOD_US) / 1000;
            let made = match &self.kind {
                Kind::V2 { top, base } => {
                    hand_on(top, base).and_then(|()| v2_cpu(&base.join(name), quota))
                }
                Kind::V1 { cpu: Ok(base), .. } => v1_cpu(&base.join(name), quota),
                Kind::V1 { cpu: Err(why), .. } | Kind::None(why) => Err(why.clone()),
            };
            group.take(made, "cpus");
        }
        group
    }

    /// How often the kernel has killed in this group for want of memory.
    pub(crate) fn oom_kills(&self, name: &str) -> u64 {
        let file = match &self.kind {
            Kind::V2 { base, .. } => base.join(name).join("memory.events"),
            Kind::V1 { memory: Ok(base), .. } => base.join(name).join("memory.oom_control"),
            Kind::V1 { memory: Err(_), .. } | Kind::None(_) => return 0,
        };
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines()
            .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
            .unwrap_or_default()
    }

    /// Ends what is left in an instance's groups and removes them. Blocks for a moment where
    /// something had to be ended.
    pub(crate) fn remove(&self, name: &str) {
        let _changing = self.changing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let bases: Vec<&PathBuf> = match &self.kind {
            Kind::V2 { base, .. } => vec![base],
            Kind::V1 { memory, cpu } => [memory, cpu].into_iter().flatten().collect(),
            Kind::None(_) => Vec::new(),
        };
        for base in bases {
            let folder = base.join(name);
            for _ in 0..REMOVE_TRIES {
                // Busy while one of its processes is still dying.
                if !folder.is_dir() || std::fs::remove_dir(&folder).is_ok() {
                    break;
                }
                end_all(&folder);
                std::thread::sleep(REMOVE_PAUSE);
            }
            // Only the last instance's removal empties it.
            let _ = std::fs::remove_dir(base);
        }
    }
}

/// Ends every process of a group.
fn end_all(folder: &Path) {
    let procs = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    for pid in procs.lines().filter_map(|line| line.trim().parse().ok()) {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

impl Group {
    fn take(&mut self, made: Result<PathBuf, String>, what: &str) {
        match made {
            Ok(folder) => {
                let procs = folder.join("cgroup.procs");
                if !self.procs.contains(&procs) {
                    self.procs.push(procs);
                }
            }
            Err(why) => self.unenforced.push(format!("resources.{what} is not enforced: {why}")),
        }
    }
}

fn set(file: &Path, value: &str) -> Result<(), String> {
    std::fs::write(file, value).map_err(|e| format!("cannot write {}: {e}", file.display()))
}

fn make(folder: &Path) -> Result<(), String> {
    match std::fs::create_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(format!("cannot make {}: {e}", folder.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The path of this process's group after `:CONTROLLER:` (or `0::`) in /proc/self/cgroup.
fn own_path(own: &str, controller: &str) -> PathBuf {
    own.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let names = fields.next()?;
            let path = fields.next()?;
            names.split(',').any(|n| n == controller).then(|| path.trim_start_matches('/'))
        })
        .map(PathBuf::from)
        .next()
        .unwrap_or_default()
}

/// Beneath the own group if it is to be seen here (in a container it often is the root).
fn start(tree: &Path, own: &Path) -> PathBuf {
    let inside = tree.join(own);
    if inside.is_dir() { inside } else { tree.to_owned() }
}

/// Makes our group in version 2. Each level has to hand the controllers on; the kernel refuses it
/// (EBUSY) for a group that holds processes itself and is not the root.
fn hand_on(top: &Path, base: &Path) -> Result<(), String> {
    make(base)?;
    let between = base.parent().unwrap_or(top);
    for folder in [top, between, base] {
        set(&folder.join("cgroup.subtree_control"), "+memory +cpu")?;
    }
    Ok(())
}

fn v1_base(mount: &Path, controller: &str, own: &str, below: &str) -> Result<PathBuf, String> {
    let tree = mount.join(controller);
    if !tree.is_dir() {
        return Err(format!("{} is not there", tree.display()));
    }
    Ok(start(&tree, &own_path(own, controller)).join(below))
}

fn v2_memory(folder: &Path, bytes: u64) -> Result<PathBuf, String> {
    make(folder)?;
    set(&folder.join("memory.max"), &bytes.to_string())?;
    // Without this the limit would only push the instance into swap.
    let swap = folder.join("memory.swap.max");
    if swap.exists() {
        set(&swap, "0")?;
    }
    Ok(folder.to_owned())
}

fn v2_cpu(folder: &Path, quota: u64) -> Result<PathBuf, String> {
    make(folder)?;
    set(&folder.join("cpu.max"), &format!("{} {CPU_PERIOD_US}", quota.max(1_000)))?;
    Ok(folder.to_owned())
}

fn v1_memory(folder: &Path, bytes: u64) -> Result<PathBuf, String> {
    make(folder)?;
    set(&folder.join("memory.limit_in_bytes"), &bytes.to_string())?;
    let swap = folder.join("memory.memsw.limit_in_bytes");
    if swap.exists() {
        set(&swap, &bytes.to_string())?;
    }
    Ok(folder.to_owned())
}

fn v1_cpu(folder: &Path, quota: u64) -> Result<PathBuf, String> {
    make(folder)?;
    set(&folder.join("cpu.cfs_period_us"), &CPU_PERIOD_US.to_string())?;
    set(&folder.join("cpu.cfs_quota_us"), &quota.max(1_000).to_string())?;
    Ok(folder.to_owned())
}
