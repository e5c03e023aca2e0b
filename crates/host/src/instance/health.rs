//! The probes of one running instance.

use std::sync::Arc;
use std::time::Duration;

use tidegate_core::spec::{Probe, ProbeAction};
use tokio::time::Instant;

use super::probe::{Aim, Judge, Turn, attempt, version_in};
use super::start::{Running, folders};
use super::{At, Life, SlotFile, command};
use crate::host::Host;
use crate::state::files;

/// Watches an instance until a probe says that it has to be restarted; says which and why.
///
/// Startup gates the rest; then the version is asked for; then readiness. Liveness runs beside the
/// last two. An instance that was ready before (under
/// the host's former life, or until it was told to leave and is wanted again) is past the first two.
pub(super) async fn watch(
    host: &Arc<Host>,
    name: &str,
    running: &Running,
    was_ready: bool,
) -> String {
    let capacity = host.with_slot(name, |slot| slot.capacity.clone());
    let Some(capacity) = capacity else { return std::future::pending().await };
    let probes = &capacity.service.probes;
    let health = Health { host, name, running, was_ready };
    if !was_ready
        && let Some(startup) = &probes.startup
        && let Err(why) = health.started(startup).await
    {
        return why;
    }
    let ready = async {
        if !was_ready && let Some(version) = &probes.version {
            health.version(version, &capacity.version).await;
        }
        match &probes.readiness {
            Some(readiness) => health.readiness(readiness).await,
            None if command::mentions_port(&capacity.service) => {
                health.readiness(&accepts_connections()).await;
            }
            None => health.set_ready(true),
        }
        std::future::pending::<String>().await
    };
    let live = async {
        match &probes.liveness {
            Some(liveness) => health.liveness(liveness).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        why = ready => why,
        why = live => why,
    }
}

/// What stands for a readiness probe where there is none.
fn accepts_connections() -> Probe {
    Probe {
        action: ProbeAction::Tcp { port: None },
        initial_delay_ms: 0,
        period_ms: 10_000,
        timeout_ms: 1_000,
        success_threshold: 1,
        failure_threshold: 3,
    }
}

struct Health<'a> {
    host: &'a Arc<Host>,
    name: &'a str,
    running: &'a Running,
    was_ready: bool,
}

impl Health<'_> {
    fn aim(&self) -> Aim<'_> {
        Aim { port: self.running.at.port, spec: &self.running.spec }
    }

    /// The time that is left of the probe's initial delay.
    async fn initial_delay(&self, probe: &Probe) {
        let due = self.running.since + Duration::from_millis(probe.initial_delay_ms);
        tokio::time::sleep_until(due).await;
    }

    async fn started(&self, probe: &Probe) -> Result<(), String> {
        self.initial_delay(probe).await;
        let mut judge = Judge::new(probe, false);
        loop {
            let answer = attempt(probe, self.aim()).await;
            match judge.count(answer.is_ok(), Instant::now()) {
                Turn::Good => return Ok(()),
                Turn::Bad => {
                    return Err(format!(
                        "startup probe failed: {}",
                        answer.unwrap_err_or_default()
                    ));
                }
                Turn::Same => self.say("startup probe", answer.err()),
            }
            tokio::time::sleep(judge.pause()).await;
        }
    }

    /// Returns only when the right version has answered.
    async fn version(&self, probe: &Probe, expected: &str) {
        self.initial_delay(probe).await;
        let mut judge = Judge::new(probe, false);
        loop {
            let answer = attempt(probe, self.aim()).await;
            let why = match answer.and_then(|text| version_in(&text, probe)) {
                Ok(found) if found == expected => return,
                Ok(found) => {
                    let found: String = found.chars().take(80).collect();
                    format!("it answers version {found:?}, not {expected:?}")
                }
                Err(why) => why,
            };
            judge.count(false, Instant::now());
            self.say("version probe", Some(why));
            tokio::time::sleep(judge.pause()).await;
        }
    }

    async fn readiness(&self, probe: &Probe) {
        if self.was_ready {
            self.set_ready(true);
        } else {
            self.initial_delay(probe).await;
        }
        let mut judge = Judge::new(probe, self.was_ready);
        loop {
            let answer = attempt(probe, self.aim()).await;
            match judge.count(answer.is_ok(), Instant::now()) {
                Turn::Good => self.set_ready(true),
                Turn::Bad => self.set_ready(false),
                Turn::Same => {}
            }
            self.say("readiness probe", answer.err());
            tokio::time::sleep(judge.pause()).await;
        }
    }

    async fn liveness(&self, probe: &Probe) -> String {
        self.initial_delay(probe).await;
        let mut judge = Judge::new(probe, true);
        loop {
            let answer = attempt(probe, self.aim()).await;
            if judge.count(answer.is_ok(), Instant::now()) == Turn::Bad {
                return format!("liveness probe failed: {}", answer.unwrap_err_or_default());
            }
            tokio::time::sleep(judge.pause()).await;
        }
    }

    /// Notes what a probe finds wrong, as long as the instance is not ready.
    fn say(&self, probe: &str, why: Option<String>) {
        let Some(why) = why else { return };
        let text = format!("{probe}: {why}");
        self.host.with_slot(self.name, |slot| {
            let known = slot.view.probe.as_ref().is_some_and(|(_, known)| *known == text);
            if matches!(slot.view.life, Life::Unready(_)) && !known {
                slot.view.probe = Some((crate::process::now_ms(), text));
            }
        });
    }

    fn set_ready(&self, ready: bool) {
        let at = self.running.at;
        let changed = self.host.with_slot(self.name, |slot| {
            let (from, to) = if ready {
                (Life::Unready(at), Life::Ready(at))
            } else {
                (Life::Ready(at), Life::Unready(at))
            };
            let changed = slot.view.life == from;
            if changed {
                slot.view.life = to;
            }
            if ready {
                slot.view.probe = None;
            }
            changed
        });
        if changed == Some(true) {
            remember(self.host, self.name, at, ready);
        }
    }
}

/// Keeps for the host's next life whether an instance is ready. Only a hint: without it the probes
/// are asked again.
pub(super) fn remember(host: &Host, name: &str, at: At, ready: bool) {
    let file = host.with_slot(name, |slot| SlotFile {
        lane: slot.lane.clone(),
        index: slot.index,
        capacity: slot.capacity.clone(),
        at,
        ready,
        restarts: slot.view.restarts,
        crash: slot.view.crash.as_ref().map(|(_, text)| text.clone()),
    });
    let Some(file) = file else { return };
    let path = folders(host, name).root.join("slot.json");
    if let Err(e) = files::replace_json(&path, &file, false) {
        tracing::warn!("cannot write {}: {e}", path.display());
    }
}

/// The error of a result that is one.
trait ErrorText {
    fn unwrap_err_or_default(self) -> String;
}

impl ErrorText for Result<String, String> {
    fn unwrap_err_or_default(self) -> String {
        self.err().unwrap_or_default()
    }
}
