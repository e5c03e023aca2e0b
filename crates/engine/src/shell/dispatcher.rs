//! Effects on their way: every one is a task that tries until it is decided or its deadline has
//! passed. Deadlines count from the first attempt of this process.
//!
//! Effects that set the same kind of state at the same target for the same stream have their first
//! attempts in the order of their ids; a newer one never waits for the retries of an older one (the
//! fence sorts them at the target), and for an attempt under way only for [`ELDER_MAX`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::machine::{EffectClass, Outcome};
use tidegate_core::{Reason, StreamId};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout_at};

use super::End;
use super::committer::{Message, Order};
use crate::effects::{Attempt, Driver, Sending};
use crate::step::Input;

/// Attempts under way for one action at one target.
const CONCURRENT_MAX: usize = 32;
/// First pause between two attempts; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long a newer effect waits for the attempt of an older one.
const ELDER_MAX: Duration = Duration::from_millis(500);

/// Drivers by the prefix of their targets' names.
pub(super) type Drivers = BTreeMap<String, Arc<dyn Driver>>;

/// The driver of a target: `process:local` is `process`'s.
pub(super) fn driver_of<'a>(drivers: &'a Drivers, target: &str) -> Option<&'a Arc<dyn Driver>> {
    drivers.get(target.split(':').next().unwrap_or(target))
}

/// Sends effects until nobody orders any more.
pub(super) struct Dispatcher {
    drivers: Arc<Drivers>,
    inbox: mpsc::Sender<Message>,
    ends: mpsc::UnboundedSender<End>,
    tasks: JoinSet<u64>,
    running: BTreeMap<u64, AbortHandle>,
    rooms: BTreeMap<(String, String), Arc<Semaphore>>,
    elders: BTreeMap<(String, StreamId, String), (u64, watch::Receiver<bool>)>,
    /// Effects with an id up to this one may have been sent by an earlier process.
    recovered: u64,
}

impl Dispatcher {
    /// A dispatcher; `recovered`: the highest id that an earlier process may have sent.
    pub(super) fn new(
        drivers: Arc<Drivers>,
        inbox: mpsc::Sender<Message>,
        ends: mpsc::UnboundedSender<End>,
        recovered: u64,
    ) -> Self {
        Self {
            drivers,
            inbox,
            ends,
            tasks: JoinSet::new(),
            running: BTreeMap::new(),
            rooms: BTreeMap::new(),
            elders: BTreeMap::new(),
            recovered,
        }
    }

    pub(super) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Send(sending)) => self.send(sending),
                    Some(Order::Forget(id)) => self.forget(id),
                    None => return,
                },
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(id) => self.done(id),
                    Err(error) if error.is_panic() => {
                        // Its effect would never be answered.
                        drop(self.ends.send(End::Defect(format!("a driver broke off: {error}"))));
                    }
                    Err(_) => {}
                },
            }
        }
    }

    fn forget(&mut self, id: u64) {
        if let Some(task) = self.running.remove(&id) {
            task.abort();
            self.elders.retain(|_, (elder, _)| *elder != id);
        }
    }

    fn done(&mut self, id: u64) {
        self.running.remove(&id);
        self.elders.retain(|_, (elder, _)| *elder != id);
        let rooms = &mut self.rooms;
        if self.running.is_empty() {
            rooms.clear();
        }
    }

    fn send(&mut self, sending: Box<Sending>) {
        let id = sending.id;
        let effect = &sending.effect;
        let room = (effect.target.clone(), effect.action.clone());
        let room = self.rooms.entry(room);
        let room = Arc::clone(room.or_insert_with(|| Arc::new(Semaphore::new(CONCURRENT_MAX))));
        let (tried, tried_by_us) = watch::channel(false);
        let elder = (effect.class == EffectClass::StateSetting)
            .then(|| {
                let key = (effect.target.clone(), sending.stream.clone(), effect.action.clone());
                self.elders.insert(key, (id, tried_by_us)).map(|(_, elder)| elder)
            })
            .flatten();
        let task = Task {
            driver: driver_of(&self.drivers, &effect.target).map(Arc::clone),
            room,
            elder,
            tried,
            sent: id <= self.recovered,
            inbox: self.inbox.clone(),
            ends: self.ends.clone(),
            sending,
        };
        let handle = self.tasks.spawn(task.run());
        self.running.insert(id, handle);
    }
}

/// One effect until it is decided.
struct Task {
    sending: Box<Sending>,
    driver: Option<Arc<dyn Driver>>,
    room: Arc<Semaphore>,
    elder: Option<watch::Receiver<bool>>,
    tried: watch::Sender<bool>,
    /// Whether it may have reached the target.
    sent: bool,
    inbox: mpsc::Sender<Message>,
    ends: mpsc::UnboundedSender<End>,
}

impl Task {
    async fn run(mut self) -> u64 {
        let id = self.sending.id;
        if let Some(mut elder) = self.elder.take() {
            // An error means that the older one has ended or was forgotten: no need to wait.
            drop(tokio::time::timeout(ELDER_MAX, elder.wait_for(|tried| *tried)).await);
        }
        let outcome = match self.driver.clone() {
            Some(driver) => self.decide(driver.as_ref()).await,
            None => Outcome::Refused(Reason::new(
                "noDriver",
                format!("nothing here can reach {}", self.sending.effect.target),
            )),
        };
        // A closed inbox means that the process ends; the next one sends the effect again.
        drop(self.inbox.send(Message::Input(Input::Answer { id, outcome })).await);
        id
    }

    async fn decide(&mut self, driver: &dyn Driver) -> Outcome {
        let mut deadline = None;
        let mut pause = PAUSE_MIN;
        let mut attempts = 0_u32;
        let mut last = "no attempt came to an end".to_owned();
        loop {
            let attempt = {
                // Closed only when the process ends.
                let Ok(_permit) = self.room.acquire().await else { std::future::pending().await };
                let until = *deadline.get_or_insert_with(|| {
                    Instant::now() + Duration::from_millis(self.sending.effect.deadline_ms)
                });
                timeout_at(until, driver.attempt(&self.sending)).await
            };
            self.tried.send_replace(true);
            attempts += 1;
            match attempt {
                Ok(Attempt::Done(outcome)) => return outcome,
                Ok(Attempt::Superseded(epoch)) => {
                    drop(self.ends.send(End::Superseded(epoch)));
                    // Nothing more is done or said by this process.
                    return std::future::pending().await;
                }
                Ok(Attempt::Again(why)) => {
                    self.sent = true;
                    last = why;
                }
                Ok(Attempt::NotSent(why)) => last = why,
                Err(_) => {
                    self.sent = true;
                    return self.late(attempts, &last);
                }
            }
            let next = Instant::now() + jittered(pause, self.sending.id, attempts);
            if deadline.is_some_and(|deadline| next >= deadline) {
                if let Some(deadline) = deadline {
                    tokio::time::sleep_until(deadline).await;
                }
                return self.late(attempts, &last);
            }
            if attempts == 1 {
                tracing::info!(
                    effect = self.sending.id, target = %self.sending.effect.target,
                    action = %self.sending.effect.action, stream = %self.sending.stream,
                    "not yet: {last}"
                );
            }
            tokio::time::sleep_until(next).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// The answer when the deadline has passed.
    fn late(&self, attempts: u32, last: &str) -> Outcome {
        let effect = &self.sending.effect;
        let text = format!(
            "{} at {} got no answer within {} s ({attempts} attempts): {last}",
            effect.action,
            effect.target,
            effect.deadline_ms as f64 / 1_000.0
        );
        match effect.class {
            EffectClass::OneShot if self.sent => Outcome::Unknown(Reason::new("noAnswer", text)),
            EffectClass::OneShot | EffectClass::StateSetting | EffectClass::Read => {
                Outcome::Unreachable(Reason::new("noAnswer", text))
            }
        }
    }
}

/// Between half and all of the pause, other for every effect and attempt, so that a thousand of
/// them do not knock together.
fn jittered(pause: Duration, id: u64, attempt: u32) -> Duration {
    let mixed = (id ^ (u64::from(attempt) << 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48;
    let part = u32::try_from(mixed).unwrap_or(0);
    pause / 2 + pause * part / (2 * 65_536)
}
