//! Taking an instance out of service: first the switch, then the signal.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tidegate_wire::switch::EndpointState;
use tokio::time::Instant;

use super::start::Running;
use crate::host::Host;
use crate::switch_link;

/// On top of the grace: for the shim to do its part.
const SHIM_TIME: Duration = Duration::from_secs(5);

/// Returns when the switch has nothing under way at the instance, or the grace is over. The
/// instance serves on meanwhile (lame duck): it is not told yet.
pub(super) async fn drained(host: &Arc<Host>, name: &str, running: &Running) {
    let within = Duration::from_millis(running.spec.grace_ms);
    let _ = tokio::time::timeout(within, async {
        let mut revisions = host.revisions();
        loop {
            let known = host.with_slot(name, |slot| (slot.lane.clone(), slot.endpoint(name)));
            let Some((lane, Some(endpoint))) = known else { return };
            let draining = endpoint.state == EndpointState::Draining;
            let told = host.inner().told.get(&lane).is_some_and(|told| told.contains(&endpoint));
            if draining && told {
                return switch_link::until_idle(host, &lane, name, endpoint.generation).await;
            }
            if revisions.changed().await.is_err() {
                return;
            }
        }
    })
    .await;
}

/// Stops an instance: its stop signal, its grace, SIGKILL, all by its shim; if the shim does not do
/// it, by force. Returns when the process is gone.
pub(super) async fn stop(running: &Running) {
    running.shim.signal(Signal::TERM);
    let within = Duration::from_millis(running.spec.grace_ms) + SHIM_TIME;
    if tokio::time::timeout(within, gone(running)).await.is_err() {
        kill(running).await;
    }
}

/// Ends shim and instance at once.
pub(super) async fn kill(running: &Running) {
    if let Some(instance) = &running.instance {
        // Its group first: its number is safe while its leader has not been reaped.
        if !instance.is_over()
            && let Some(group) = Pid::from_raw(instance.id.pid)
        {
            let _ = kill_process_group(group, Signal::KILL);
        }
        instance.signal(Signal::KILL);
    }
    let _ = tokio::time::timeout(SHIM_TIME, running.shim.ended()).await;
    running.shim.signal(Signal::KILL);
    gone(running).await;
}

/// Returns when both are gone.
pub(super) async fn gone(running: &Running) {
    if let Some(instance) = &running.instance {
        instance.ended().await;
    }
    running.shim.ended().await;
}

/// After an instance has ended by itself: gives its shim a moment to write down how.
pub(super) async fn settled(running: &Running) {
    let deadline = Instant::now() + SHIM_TIME;
    if tokio::time::timeout_at(deadline, gone(running)).await.is_err() {
        kill(running).await;
    }
}
