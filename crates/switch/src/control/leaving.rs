//! Requests that a switch on its way out still has under way, told to its successor: who waits for
//! an instance to have nothing under way must not be told 0 while the old process has something.
//!
//! A file per leaving process, rewritten while it lives; one that is not rewritten is of a process
//! that was killed, and so are its requests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_wire::switch::{InstanceTraffic, SwitchReport};
use tidegate_wire::traffic::LaneTraffic;

use super::Control;
use super::store::replace;

/// Between two looks, on either side.
const LOOK: Duration = Duration::from_millis(50);
/// A file that is older says nothing any more.
const STALE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct UnderWay {
    lanes: Vec<LaneTraffic>,
    instances: Vec<InstanceTraffic>,
}

/// What leaving processes have under way.
#[derive(Debug)]
pub(crate) struct Leaving {
    folder: PathBuf,
    seen: Mutex<BTreeMap<PathBuf, UnderWay>>,
}

impl Leaving {
    pub(crate) fn new(switch_folder: &Path) -> Self {
        let leaving = Self { folder: switch_folder.join("leaving"), seen: Mutex::default() };
        // Before the first report, not at the first look.
        leaving.look();
        leaving
    }

    /// Adds what was seen to a report.
    pub(crate) fn add(&self, report: &mut SwitchReport) {
        for other in self.seen.lock().unwrap_or_else(PoisonError::into_inner).values() {
            for lane in &other.lanes {
                let Some(mine) = report.lanes.iter_mut().find(|mine| mine.lane == lane.lane) else {
                    continue;
                };
                for version in &lane.versions {
                    let same = |seen: &&mut tidegate_wire::traffic::VersionTraffic| {
                        seen.version == version.version && seen.digest == version.digest
                    };
                    match mine.versions.iter_mut().find(same) {
                        Some(seen) => seen.in_flight += version.in_flight,
                        None => mine.versions.push(version.clone()),
                    }
                }
            }
            for one in &other.instances {
                let same = |seen: &&mut InstanceTraffic| {
                    (&seen.lane, &seen.instance, seen.generation)
                        == (&one.lane, &one.instance, one.generation)
                };
                match report.instances.iter_mut().find(same) {
                    Some(seen) => seen.in_flight += one.in_flight,
                    None => report.instances.push(one.clone()),
                }
            }
        }
    }

    /// Looks at the files; whether anything has changed since the last look.
    fn look(&self) -> bool {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let age = entry.metadata().and_then(|meta| meta.modified());
            let fresh = age.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < STALE));
            if !fresh {
                let _ = fs::remove_file(&path);
            } else if path.extension().is_some_and(|kind| kind == "json")
                && let Ok(bytes) = fs::read(&path)
                && let Ok(under_way) = serde_json::from_slice(&bytes)
            {
                found.insert(path, under_way);
            }
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = *seen != found;
        *seen = found;
        changed
    }

    fn is_empty(&self) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl Control {
    /// Follows what a leaving process has under way until it is gone. Nothing to do, and no look
    /// ever again, where there was none at the start: whoever leaves was there before.
    pub(crate) async fn follow_leaving(&self) {
        while !self.leaving.is_empty() {
            tokio::time::sleep(LOOK).await;
            if self.leaving.look() {
                self.proxy.revision.send_modify(|revision| *revision += 1);
            }
        }
    }

    /// Writes the first file of a process that leaves; before its control socket is closed, so that
    /// no successor can start without seeing it.
    pub(crate) async fn announce_leaving(&self) -> PathBuf {
        let name = format!("{}.json", self.proxy.counts.switch_epoch());
        let path = self.leaving.folder.join(name);
        if let Err(error) = fs::create_dir_all(&self.leaving.folder) {
            tracing::warn!(%error, "the next switch will not know what is under way here");
        }
        self.write_leaving(&path).await;
        path
    }

    /// Keeps the file true; ends when it is dropped.
    pub(crate) async fn keep_leaving(&self, path: &Path) {
        loop {
            self.write_leaving(path).await;
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn write_leaving(&self, path: &Path) {
        let state = self.state.lock().await;
        let mut lanes = state.registry.lanes(&self.proxy.view.load());
        let mut instances = state.registry.instances();
        drop(state);
        for lane in &mut lanes {
            lane.versions.retain(|version| version.in_flight > 0);
            for version in &mut lane.versions {
                (version.weight_bp, version.usable) = (0, 0);
            }
        }
        instances.retain(|one| one.in_flight > 0);
        let text = serde_json::to_vec(&UnderWay { lanes, instances }).unwrap_or_default();
        if let Err(error) = replace(path, &text) {
            tracing::warn!(%error, "the next switch does not know what is under way here");
        }
    }
}
