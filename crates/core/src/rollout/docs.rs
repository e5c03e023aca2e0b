//! The documents and effects that a rollout's state stands for.

use serde_json::{Value, json};

use super::RolloutKind;
use super::state::{Stage, State};
use crate::capacity::{CapacityDoc, Fallback, FallbackAction, VersionCapacity};
use crate::lane::Kept;
use crate::machine::{Effect, EffectClass, StreamId};
use crate::spec::{CheckKind, LostAction, Platform, ReleaseRef, ServiceSpec};
use crate::traffic::{FULL_WEIGHT, TrafficDoc, VersionWeight};

/// How long the dispatcher tries to put a document in force before it asks the machine again.
const CONVERGE_DEADLINE_MS: u64 = 3_600_000;
/// How long an artifact may take to get onto a host.
const STAGE_DEADLINE_MS: u64 = 600_000;

/// The target of all documents of a rollout.
#[must_use]
pub fn target(state: &State) -> &'static str {
    match state.start.as_ref().map(|s| &s.proposal.environment.platform) {
        Some(Platform::Process { .. }) | None => "process:local",
    }
}

/// The lane's name.
#[must_use]
pub fn lane(state: &State) -> String {
    state.start.as_ref().map_or_else(String::new, |s| {
        crate::lane::name(&s.proposal.environment.name, &s.proposal.service.name)
    })
}

fn version(release: &ReleaseRef, service: &ServiceSpec, instances: u32) -> VersionCapacity {
    VersionCapacity {
        version: release.version.clone(),
        digest: release.digest.clone(),
        instances,
        service: service.clone(),
    }
}

/// The whole desired capacity of the lane, with the fallback that goes with it.
#[must_use]
pub fn capacity(id: &StreamId, state: &State) -> Option<CapacityDoc> {
    let start = state.start.as_ref()?;
    let mut versions = Vec::new();
    if state.canary > 0 {
        versions.push(version(&start.proposal.release, &start.proposal.service, state.canary));
    }
    if state.previous > 0
        && let Some(kept) = &start.previous
    {
        push_unless_there(&mut versions, version(&kept.release, &kept.service, state.previous));
    }
    if state.also {
        for (kept, instances) in &start.also {
            push_unless_there(&mut versions, version(&kept.release, &kept.service, *instances));
        }
    }
    Some(CapacityDoc { lane: lane(state), versions, fallback: fallback(id, state) })
}

/// One entry for a digest and name; the larger number of instances counts (releasing the stable
/// version once more).
fn push_unless_there(versions: &mut Vec<VersionCapacity>, new: VersionCapacity) {
    match versions.iter_mut().find(|v| v.digest == new.digest && v.version == new.version) {
        Some(there) => there.instances = there.instances.max(new.instances),
        None => versions.push(new),
    }
}

fn fallback(id: &StreamId, state: &State) -> Fallback {
    let Some(start) = state.start.as_ref() else {
        return Fallback { after_ms: u64::MAX, action: FallbackAction::Stay };
    };
    let lost = &start.proposal.environment.if_engine_lost;
    let wanted = match state.stage {
        // It is decided and seen: nothing that a host does later may turn it round. The old
        // version is only stopped once such a document is in force.
        Stage::Cooling | Stage::Retiring | Stage::ReturningDown | Stage::Ended => LostAction::Stay,
        // Whoever wants the old version back does not want the new one in an emergency.
        _ if start.proposal.kind == RolloutKind::Undo => LostAction::Stay,
        Stage::Baking => lost.bake,
        Stage::New
        | Stage::Staging
        | Stage::Scaling
        | Stage::Shifting
        | Stage::Pausing
        | Stage::Analysing
        | Stage::Running
        | Stage::Resting
        | Stage::ReturningCapacity
        | Stage::ReturningTraffic
        | Stage::Draining => lost.canary,
    };
    // Going back is only possible while the old version is in the document, and only needed while
    // the new one is: an engine that idles after a rollout is silent, and nothing is wrong then.
    let restore = wanted == LostAction::Rollback && state.previous > 0 && state.canary > 0;
    let action = match (restore, traffic(state, 0)) {
        (true, Some(traffic)) => {
            FallbackAction::Restore { rollout: id.id.clone(), seq: state.fallback_seq(), traffic }
        }
        (true | false, _) => FallbackAction::Stay,
    };
    Fallback { after_ms: lost.after_ms, action }
}

/// The whole desired traffic of the lane, with the new version at this weight. With 0 and no
/// version before, nothing is served.
#[must_use]
pub fn traffic(state: &State, weight_bp: u32) -> Option<TrafficDoc> {
    let start = state.start.as_ref()?;
    let Platform::Process { listen } = &start.proposal.environment.platform;
    let release = &start.proposal.release;
    let mut weights = vec![VersionWeight {
        version: release.version.clone(),
        digest: release.digest.clone(),
        weight_bp,
    }];
    if let Some(Kept { release: old, .. }) = &start.previous {
        if old.digest == release.digest && old.version == release.version {
            weights[0].weight_bp = FULL_WEIGHT;
        } else {
            weights.push(VersionWeight {
                version: old.version.clone(),
                digest: old.digest.clone(),
                weight_bp: FULL_WEIGHT - weight_bp,
            });
        }
    }
    let seed = start.fence_base ^ u64::from(weight_bp);
    Some(TrafficDoc {
        lane: lane(state),
        listen: listen.clone(),
        routes: start.proposal.service.routes.clone(),
        weights,
        sticky_cookie: start.proposal.environment.strategy.sticky_cookie.clone(),
        errors: start.proposal.service.errors.clone(),
        seed,
    })
}

fn state_setting(state: &State, key: String, action: &str, seq: u64, payload: Value) -> Effect {
    Effect {
        key,
        target: target(state).to_owned(),
        action: action.to_owned(),
        class: EffectClass::StateSetting,
        seq,
        payload,
        deadline_ms: CONVERGE_DEADLINE_MS,
    }
}

/// Brings the artifact to the host.
#[must_use]
pub fn stage_effect(state: &State) -> Option<Effect> {
    let start = state.start.as_ref()?;
    let payload = json!({
        "path": start.proposal.release.path,
        "digest": start.proposal.release.digest,
        "command": start.proposal.service.command,
    });
    let mut effect = state_setting(state, stage_key(state), "stage", start.fence_base, payload);
    effect.deadline_ms = STAGE_DEADLINE_MS;
    Some(effect)
}

/// Key of the stage effect.
#[must_use]
pub fn stage_key(state: &State) -> String {
    match state.stage_again {
        0 => "stage".to_owned(),
        again => format!("stage-{again}"),
    }
}

/// Puts the capacity document in force.
#[must_use]
pub fn capacity_effect(id: &StreamId, state: &State) -> Option<Effect> {
    let payload = serde_json::to_value(capacity(id, state)?).ok()?;
    let key = document_key("capacity", state.capacity_seq, state.capacity_again);
    Some(state_setting(state, key, "capacity", state.capacity_seq, payload))
}

/// Puts the traffic document in force.
#[must_use]
pub fn traffic_effect(state: &State) -> Option<Effect> {
    let payload = serde_json::to_value(traffic(state, state.wanted_bp)?).ok()?;
    let key = document_key("traffic", state.traffic_seq, state.traffic_again);
    Some(state_setting(state, key, "traffic", state.traffic_seq, payload))
}

/// Key of a document's effect: `capacity-7`, `capacity-7-2` when it is sent again.
#[must_use]
pub fn document_key(what: &str, seq: u64, again: u32) -> String {
    if again == 0 { format!("{what}-{seq}") } else { format!("{what}-{seq}-{again}") }
}

/// Key of the one-shot of a run step.
#[must_use]
pub fn run_key(index: usize) -> String {
    format!("run-{index}")
}

/// The one-shot of a run step.
#[must_use]
pub fn run_effect(
    state: &State,
    index: usize,
    command: &[String],
    timeout_ms: u64,
) -> Option<Effect> {
    let start = state.start.as_ref()?;
    let payload = json!({
        "version": start.proposal.release.version,
        "digest": start.proposal.release.digest,
        "service": start.proposal.service,
        "command": command,
        "timeoutMs": timeout_ms,
    });
    Some(Effect {
        key: run_key(index),
        target: target(state).to_owned(),
        action: "run".to_owned(),
        class: EffectClass::OneShot,
        seq: start.fence_base,
        payload,
        // The host ends it at its timeout; the rest is for a host that has to come back first.
        deadline_ms: timeout_ms + STAGE_DEADLINE_MS,
    })
}

/// Key of one measurement.
#[must_use]
pub fn check_effect_key(check: &str, number: u32, gate: bool) -> String {
    let place = if gate { "gate" } else { "watch" };
    format!("check-{place}-{number}-{check}")
}

/// One measurement of a check; none for checks that are not measured by effects.
#[must_use]
pub fn check_effect(state: &State, name: &str, number: u32, gate: bool) -> Option<Effect> {
    let start = state.start.as_ref()?;
    let check = state.check(name)?;
    let preview = state.preview.clone().unwrap_or_default();
    let fill = |text: &str| {
        text.replace("{previewUrl}", &preview)
            .replace("{version}", &start.proposal.release.version)
            .replace("{digest}", start.proposal.release.digest.as_str())
    };
    let (driver, kind, timeout_ms) = match &check.kind {
        CheckKind::Http { url, status, timeout_ms } => (
            "check:http",
            CheckKind::Http { url: fill(url), status: status.clone(), timeout_ms: *timeout_ms },
            *timeout_ms,
        ),
        CheckKind::Tcp { address, timeout_ms } => (
            "check:tcp",
            CheckKind::Tcp { address: fill(address), timeout_ms: *timeout_ms },
            *timeout_ms,
        ),
        CheckKind::Command { command, env, folder, timeout_ms } => (
            "check:command",
            CheckKind::Command {
                command: command.iter().map(|part| fill(part)).collect(),
                env: env.iter().map(|(k, v)| (k.clone(), fill(v))).collect(),
                folder: folder.clone(),
                timeout_ms: *timeout_ms,
            },
            *timeout_ms,
        ),
        CheckKind::Counts(_) => return None,
    };
    Some(Effect {
        key: check_effect_key(name, number, gate),
        target: driver.to_owned(),
        action: "check".to_owned(),
        class: EffectClass::Read,
        seq: 0,
        payload: json!({ "check": kind }),
        deadline_ms: timeout_ms + 5_000,
    })
}
