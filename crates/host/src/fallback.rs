//! The dead man's switch: what a host does when it has heard nothing of the engine for too long.
//!
//! Two steps, each durable before the next. Decided: the epoch is shut here, so that an engine that
//! comes back late cannot take away what the fallback needs. Applied: the switch has the table and
//! has shut the epoch as well. In between the table is sent until the switch has taken it, or says
//! that a newer owner drives.

use std::sync::Arc;
use std::time::Duration;

use tidegate_core::Fence;
use tidegate_core::capacity::{FallbackAction, FallbackReport};
use tidegate_core::traffic::TrafficDoc;
use tidegate_ipc::IpcError;
use tidegate_wire::host::Accepted;
use tidegate_wire::switch::{SwitchReport, Table};
use tokio::time::Instant;

use crate::host::Host;
use crate::state::{HostState, LaneState};
use crate::switch_link::client;

/// Of one request to the switch.
const WITHIN: Duration = Duration::from_secs(5);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(200);

/// Waits for silences and acts on them. Never returns.
pub(crate) async fn watch(host: Arc<Host>) {
    let mut contact = host.contact.subscribe();
    loop {
        // Registered before the state is read, so that no change is missed.
        let changed = host.state_changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let state = host.inner().state.clone();
        for (lane, known) in state.lanes.iter().filter(|(_, l)| l.fallback_pending.is_some()) {
            apply(&host, &state, lane, known).await;
        }
        let heard = *contact.borrow_and_update();
        let due = due(&host, heard);
        tokio::select! {
            () = until(due) => decide(&host, heard).await,
            _ = contact.changed() => {}
            () = changed => {}
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Whether silence would still change something for this lane.
fn is_armed(state: &HostState, lane: &LaneState) -> bool {
    is_open(lane)
        && match lane.doc.fallback.action {
            FallbackAction::Restore { .. } => true,
            // Silence of an engine without work is as it should be.
            FallbackAction::Stay => state.work_open,
        }
}

/// Whether the fallback of the lane's document has not been decided on.
fn is_open(lane: &LaneState) -> bool {
    lane.fallback_applied.is_none()
        && lane.fallback_pending.is_none()
        && lane.fallback_refused.is_none()
}

/// The next moment at which something is to be done.
fn due(host: &Host, heard: Instant) -> Option<Instant> {
    let inner = host.inner();
    let armed =
        inner.state.lanes.iter().filter(|(name, lane)| {
            is_armed(&inner.state, lane) && !inner.stayed.contains_key(*name)
        });
    let after = armed.map(|(_, lane)| lane.doc.fallback.after_ms).min()?;
    // Farther than a timer reaches is as good as never.
    heard.checked_add(Duration::from_millis(after))
}

/// The silence has lasted: decides for every lane whose time is over.
async fn decide(host: &Arc<Host>, heard: Instant) {
    let silence_ms = u64::try_from(heard.elapsed().as_millis()).unwrap_or(u64::MAX);
    let stays: Vec<String> = {
        let inner = host.inner();
        let over = inner.state.lanes.iter().filter(|(_, lane)| {
            is_armed(&inner.state, lane)
                && lane.doc.fallback.after_ms <= silence_ms
                && lane.doc.fallback.action == FallbackAction::Stay
        });
        over.map(|(name, _)| name.clone()).collect()
    };
    for lane in stays {
        tracing::warn!("lane {lane}: no engine for {silence_ms} ms; everything stays as it is");
        let text = format!(
            "no engine was heard for {} s; everything stays as it is, as asked for",
            silence_ms / 1000
        );
        host.inner().stayed.insert(lane, text);
        host.bump();
    }
    let contact = host.contact.subscribe();
    let decided = host
        .change_state(move |state| {
            // Heard in the meantime, while another change was being written.
            if *contact.borrow() != heard {
                return Ok((false, ()));
            }
            let mut shut = None;
            let highest = state.epoch;
            for (name, lane) in &mut state.lanes {
                let over = lane.doc.fallback.after_ms <= silence_ms;
                if let FallbackAction::Restore { rollout, seq, .. } = &lane.doc.fallback.action
                    && over
                    && is_open(lane)
                {
                    tracing::warn!("lane {name}: no engine for {silence_ms} ms; fallback");
                    // The document's epoch, or that of an owner who has claimed this host since
                    // and has said nothing else about the lane: the switch may know that one.
                    let epoch = lane.fence.epoch.max(highest);
                    let fence = Fence { epoch, seq: *seq };
                    let rollout = rollout.clone();
                    lane.fallback_pending = Some(FallbackReport { rollout, fence, silence_ms });
                    shut = shut.max(Some(fence.epoch));
                }
            }
            state.shut = state.shut.max(shut);
            Ok((shut.is_some(), ()))
        })
        .await;
    if let Err(refusal) = decided {
        tracing::error!("cannot decide on the fallback: {}", refusal.body.message);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// What the switch says to the table.
enum Taken {
    /// In force.
    Yes,
    /// A newer owner has claimed this host: it decides.
    Overtaken,
    /// The switch has something newer.
    Never(String),
    /// Not yet.
    Later(String),
}

/// One try to put a decided fallback in force.
async fn apply(host: &Arc<Host>, state: &HostState, lane: &str, known: &LaneState) {
    let Some(report) = known.fallback_pending.clone() else { return };
    let FallbackAction::Restore { traffic, .. } = &known.doc.fallback.action else { return };
    let taken = if state.epoch > report.fence.epoch {
        Taken::Overtaken
    } else {
        send(host, state, lane, report.fence, traffic).await
    };
    let (applied, refused) = match taken {
        Taken::Yes => (true, None),
        Taken::Overtaken => (false, None),
        Taken::Never(why) => {
            tracing::warn!("lane {lane}: the switch refuses the fallback {}: {why}", report.fence);
            (false, Some(why))
        }
        Taken::Later(why) => {
            tracing::warn!("lane {lane}: the fallback {} is not in force yet: {why}", report.fence);
            crate::switch_link::trouble(host, format!("the fallback waits for the switch: {why}"));
            tokio::time::sleep(AGAIN).await;
            // Looked at again at once by the caller.
            host.state_changed.notify_waiters();
            return;
        }
    };
    let lane = lane.to_owned();
    let kept = host
        .change_state(move |state| {
            let Some(known) = state.lanes.get_mut(&lane) else { return Ok((false, ())) };
            if known.fallback_pending.as_ref() != Some(&report) {
                return Ok((false, ()));
            }
            known.fallback_pending = None;
            known.fallback_refused = refused;
            if applied {
                known.fallback_applied = Some(report);
            }
            Ok((true, ()))
        })
        .await;
    if let Err(refusal) = kept {
        tracing::error!("cannot keep that the fallback is applied: {}", refusal.body.message);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn send(
    host: &Host,
    state: &HostState,
    lane: &str,
    fence: Fence,
    traffic: &TrafficDoc,
) -> Taken {
    let client = client(host);
    let home = state.home.clone().unwrap_or_default();
    let table = Table { home, fence, doc: traffic.clone(), shut: true };
    let answer: Result<Accepted, IpcError> = client.post("/v1/table", &table, WITHIN).await;
    match answer {
        Ok(_) => Taken::Yes,
        Err(IpcError::Status { status: 409, body, .. }) => {
            // It may be the answer to the second time that it is sent: what is in force counts.
            let report: Result<SwitchReport, IpcError> =
                client.get("/v1/observe?after=0&waitMs=0", WITHIN).await;
            match report {
                Ok(report) if is_in_force(&report, lane, fence) => Taken::Yes,
                Ok(_) => Taken::Never(body),
                Err(e) => Taken::Later(e.to_string()),
            }
        }
        Err(e) => Taken::Later(e.to_string()),
    }
}

fn is_in_force(report: &SwitchReport, lane: &str, fence: Fence) -> bool {
    report.epoch <= fence.epoch
        && report.lanes.iter().any(|l| l.lane == lane && l.fence == Some(fence))
}
