//! Watching targets: one driver task for each target that somebody watches; its reports become
//! inputs, and its samples go by the store first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_core::Epoch;
use tidegate_core::counts::SecondRecord;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::End;
use super::committer::{Message, Watches};
use super::dispatcher::{Drivers, driver_of};
use super::samples::Store;
use crate::effects::{Report, Seen};
use crate::step::Input;

/// Reports that wait; a driver with more to say waits.
const REPORTS: usize = 256;

/// For the thread that owns the sample store, in order.
pub(super) enum Sampled {
    /// Who watches what from now on.
    Watches(Arc<Watches>),
    /// Closed seconds of a target.
    Records(String, Vec<SecondRecord>),
}

/// Keeps one watching task for each target until the channels close.
pub(super) async fn run(
    drivers: Arc<Drivers>,
    epoch: Epoch,
    mut watches: watch::Receiver<Arc<Watches>>,
    inbox: mpsc::Sender<Message>,
    samples: mpsc::Sender<Sampled>,
    ends: mpsc::UnboundedSender<End>,
) {
    let mut tasks: JoinSet<Epoch> = JoinSet::new();
    let mut running: BTreeMap<String, AbortHandle> = BTreeMap::new();
    loop {
        let wanted = Arc::clone(&watches.borrow_and_update());
        let targets: BTreeSet<&String> = wanted.keys().map(|watch| &watch.target).collect();
        if samples.send(Sampled::Watches(Arc::clone(&wanted))).await.is_err() {
            return;
        }
        running.retain(|target, task| {
            let keep = targets.contains(target);
            if !keep {
                task.abort();
            }
            keep
        });
        for target in targets {
            if running.contains_key(target) {
                continue;
            }
            let Some(driver) = driver_of(&drivers, target).map(Arc::clone) else {
                tracing::error!(%target, "nothing here can watch it");
                continue;
            };
            let (reports, seen) = mpsc::channel(REPORTS);
            let name = target.clone();
            let handle = tasks.spawn(async move { driver.watch(&name, epoch, reports).await });
            tasks.spawn(pump(seen, inbox.clone(), samples.clone()));
            running.insert(target.clone(), handle);
        }
        loop {
            tokio::select! {
                changed = watches.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    break;
                }
                Some(ended) = tasks.join_next() => match ended {
                    Ok(Epoch(0)) => {}
                    Ok(newer) => drop(ends.send(End::Superseded(newer))),
                    Err(error) if error.is_panic() => {
                        drop(ends.send(End::Defect(format!("a driver broke off: {error}"))));
                    }
                    Err(_) => {}
                },
            }
        }
    }
}

/// Turns one target's reports into inputs. Returns epoch 0: nothing to say.
async fn pump(
    mut seen: mpsc::Receiver<Report>,
    inbox: mpsc::Sender<Message>,
    samples: mpsc::Sender<Sampled>,
) -> Epoch {
    while let Some(Report { target, seen }) = seen.recv().await {
        let input = match seen {
            Seen::Capacity(lane) => Input::Capacity(target, lane),
            Seen::Traffic(lane) => Input::Traffic(target, lane),
            Seen::Silence(for_ms, why) => Input::Silence(target, for_ms, why),
            Seen::Samples(records) => {
                if samples.send(Sampled::Records(target, records)).await.is_err() {
                    break;
                }
                continue;
            }
        };
        if inbox.send(Message::Input(input)).await.is_err() {
            break;
        }
    }
    Epoch(0)
}

/// The thread that owns the sample store: what comes in is made durable, then told.
pub(super) fn keep(
    mut store: Store,
    mut sampled: mpsc::Receiver<Sampled>,
    inbox: &mpsc::Sender<Message>,
    ends: &mpsc::UnboundedSender<End>,
) {
    while let Some(first) = sampled.blocking_recv() {
        let mut next = Some(first);
        while let Some(message) = next.take() {
            let result = match message {
                Sampled::Watches(watches) => store.set_watches(watches),
                Sampled::Records(target, mut records) => {
                    // What has piled up meanwhile shares one sync.
                    while let Ok(more) = sampled.try_recv() {
                        match more {
                            Sampled::Records(other, batch) if other == target => {
                                records.extend(batch);
                            }
                            Sampled::Records(..) | Sampled::Watches(_) => {
                                next = Some(more);
                                break;
                            }
                        }
                    }
                    store.add(&target, &records)
                }
            };
            match result {
                Ok(inputs) => {
                    for input in inputs {
                        if inbox.blocking_send(Message::Input(input)).is_err() {
                            return;
                        }
                    }
                }
                Err(error) => {
                    drop(ends.send(End::Samples(error)));
                    return;
                }
            }
        }
    }
}
