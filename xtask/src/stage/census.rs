//! Who is there: counts, memory and descriptors of a stage's processes.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Stage;
use super::processes::{Pid, processes_naming, zombies_of};

/// The roles of one engine, host and switch.
pub const DAEMONS: [&str; 3] = ["engine", "host", "switch"];

/// What one process holds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Holding {
    /// Resident memory in MiB.
    pub resident_mib: f64,
    /// Open descriptors.
    pub descriptors: usize,
}

/// All processes of a stage at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Census {
    /// How many there are in each role; `instance` is what shims run.
    pub count: BTreeMap<String, usize>,
    /// Processes that have ended and that nobody has reaped.
    pub zombies: usize,
    /// Of the engine, the host and the switch, those that live.
    pub holding: BTreeMap<String, Holding>,
}

impl Census {
    /// How many there are in this role.
    #[must_use]
    pub fn of(&self, role: &str) -> usize {
        self.count.get(role).copied().unwrap_or(0)
    }

    /// Processes beyond one engine, host and switch and `instances` with a shim each.
    #[must_use]
    pub fn surplus(&self, instances: usize) -> usize {
        let wanted = |role: &str| match role {
            "engine" | "host" | "switch" => 1,
            "shim" | "instance" => instances,
            _ => 0,
        };
        let too_many = self.count.iter().map(|(role, n)| n.saturating_sub(wanted(role)));
        too_many.sum::<usize>() + self.zombies
    }
}

impl Stage {
    /// Looks at all processes of this stage.
    #[must_use]
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        let pids = processes_naming(self.folder());
        for pid in &pids {
            let role = role_of(*pid, &self.binaries().tidegate);
            *census.count.entry(role).or_default() += 1;
        }
        census.zombies = zombies_of(&pids);
        for role in DAEMONS {
            if let Some(holding) = self.pid(role).and_then(holding) {
                census.holding.insert(role.to_owned(), holding);
            }
        }
        census
    }
}

/// A verb of the binary, or what it has started.
fn role_of(pid: Pid, tidegate: &std::path::Path) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let program = words.next().unwrap_or_default();
    if std::path::Path::new(program.as_ref()).file_name() == tidegate.file_name() {
        return words.next().unwrap_or_default().into_owned();
    }
    "instance".to_owned()
}

fn holding(pid: Pid) -> Option<Holding> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: f64 = resident.trim().trim_end_matches("kB").trim().parse().ok()?;
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
    Some(Holding { resident_mib: kilobytes / 1024.0, descriptors })
}

#[cfg(test)]
mod tests {
    use super::{Census, holding, role_of};

    #[test]
    fn what_nobody_wants_any_more_is_surplus() {
        let count = [("engine", 1), ("host", 1), ("switch", 1), ("shim", 2), ("instance", 1)];
        let count = count.map(|(role, n)| (role.to_owned(), n)).into();
        let census = Census { count, zombies: 2, ..Census::default() };
        assert_eq!(census.surplus(2), 2);
        assert_eq!(census.surplus(1), 3);
        assert_eq!((census.of("shim"), census.of("watch")), (2, 0));
    }

    #[test]
    fn this_process_holds_memory_and_is_no_verb() {
        let own = i32::try_from(std::process::id()).unwrap();
        let held = holding(own).unwrap();
        assert!(held.resident_mib > 0.1 && held.descriptors > 2, "{held:?}");
        assert_eq!(role_of(own, "/bin/tidegate".as_ref()), "instance");
    }
}
