//! From the first task to the last: starts what runs around the committer, waits for a reason to
//! end, and ends in the right order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_journal::Journal;
use tidegate_wire::home::Home;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::api::{self, Activity, Guarded, Peer};
use super::clock::Clock;
use super::committer::{Committer, Facts, Message, Order, Watches};
use super::dispatcher::{Dispatcher, Drivers};
use super::handle::EngineHandle;
use super::samples::Store;
use super::{
    End, Ended, MakeDrivers, MakeRouter, Owner, ShellError, room, system, tidy, watch as watcher,
};

/// Between two ticks, and with many streams.
const TICK: Duration = Duration::from_millis(200);
/// With more watching streams than [`TICK_FEW`].
const TICK_MANY: Duration = Duration::from_secs(1);
/// Up to so many watching streams are ticked often.
const TICK_FEW: usize = 100;
/// Between two looks at the room on the disk, while work is open.
const LOOK_AT_ROOM: Duration = Duration::from_millis(500);
/// How long a target may take to hear whether work is open.
const TELL_MAX: Duration = Duration::from_secs(5);
/// How long answers that are on their way have at the end.
const ANSWERS_MAX: Duration = Duration::from_millis(300);
/// How long it may take at the end.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// What the tasks listen to.
pub(super) struct Seen {
    pub(super) facts: watch::Receiver<Facts>,
    pub(super) watches: watch::Receiver<Arc<Watches>>,
    pub(super) ordered: mpsc::UnboundedReceiver<Order>,
    pub(super) ended: mpsc::UnboundedReceiver<End>,
}

/// Everything that the tasks are made of.
pub(super) struct Life {
    pub(super) home: Home,
    pub(super) owner: Owner,
    pub(super) clock: Clock,
    pub(super) drivers: MakeDrivers,
    pub(super) router: MakeRouter,
    pub(super) idle_exit: Duration,
    pub(super) recovered: u64,
    pub(super) handle: EngineHandle,
    pub(super) inbox: mpsc::Sender<Message>,
    pub(super) ends: mpsc::UnboundedSender<End>,
    pub(super) stop: Arc<AtomicBool>,
}

impl Life {
    /// Runs until the end.
    pub(super) fn live<J: Journal + Send + 'static>(
        self,
        committer: Committer<J>,
        store: Store,
        seen: Seen,
    ) -> Result<Ended, ShellError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("engine")
            .enable_all()
            .build()
            .map_err(system("cannot start the runtime"))?;
        let (home, stop, inbox) = (self.home.clone(), Arc::clone(&self.stop), self.inbox.clone());
        let broken = Broken(self.ends.clone());
        let thread = std::thread::Builder::new()
            .name("committer".into())
            .spawn(move || {
                if let Err(fatal) = committer.run() {
                    tracing::error!(error = %fatal, "this process must end");
                    drop(broken.0.send(End::Fatal(fatal)));
                }
                drop(broken);
            })
            .map_err(system("cannot start the committer"))?;
        let result = self.wait(&runtime, store, seen);
        // Effects, answers and inputs stop here. After a fatal error nothing waits for anything.
        stop.store(true, Ordering::Release);
        if result.is_err() {
            runtime.shutdown_background();
            return result;
        }
        runtime.shutdown_timeout(Duration::from_millis(500));
        // Wakes a committer that waits; one whose queue is full sees the flag by itself.
        drop(inbox.try_send(Message::Tick));
        drop(inbox);
        drop(thread.join());
        if matches!(result, Ok(Ended::Idle | Ended::Terminated)) {
            tidy(&home);
        }
        result
    }

    fn wait(self, runtime: &Runtime, store: Store, seen: Seen) -> Result<Ended, ShellError> {
        let Seen { facts, watches, ordered, mut ended } = seen;
        let _context = runtime.enter();
        let drivers: Arc<Drivers> = Arc::new((self.drivers)(&self.owner));
        let dispatcher = Dispatcher::new(
            Arc::clone(&drivers),
            self.inbox.clone(),
            self.ends.clone(),
            self.recovered,
        );
        runtime.spawn(dispatcher.run(ordered));
        for driver in drivers.values().map(Arc::clone) {
            runtime.spawn(async move { driver.keep_alive().await });
        }
        let (sampled, samples) = mpsc::channel(64);
        {
            let (inbox, ends) = (self.inbox.clone(), self.ends.clone());
            std::thread::Builder::new()
                .name("samples".into())
                .spawn(move || watcher::keep(store, samples, &inbox, &ends))
                .map_err(system("cannot start the sample store"))?;
        }
        runtime.spawn(watcher::run(
            Arc::clone(&drivers),
            self.owner.epoch,
            watches,
            self.inbox.clone(),
            sampled,
            self.ends.clone(),
        ));
        runtime.spawn(tick(self.clock, facts.clone(), self.inbox.clone()));
        runtime.spawn(tell(Arc::clone(&drivers), facts.clone()));
        runtime.spawn(keep_room(self.home.clone(), facts.clone()));
        let activity = Activity::new();
        let domain = (self.router)(self.handle.clone());
        let router = api::router(&self.handle, domain, &activity);
        let listener = Guarded(tidegate_ipc::bind(&self.home.socket("engine"))?);
        let (closing, closed) = oneshot::channel::<()>();
        let served = runtime.spawn(
            axum::serve(listener, router.into_make_service_with_connect_info::<Peer>())
                .with_graceful_shutdown(async {
                    // Dropped on a way out that waits for nothing.
                    drop(closed.await);
                })
                .into_future(),
        );
        let result = runtime.block_on(async {
            let mut terminate = listen(SignalKind::terminate())?;
            let mut interrupt = listen(SignalKind::interrupt())?;
            // A closed terminal must not end an engine; taking the signal is enough.
            let _hangup = listen(SignalKind::hangup())?;
            let idle = idle(facts, &activity, self.idle_exit, &self.inbox);
            tokio::select! {
                biased;
                end = ended.recv() => conclude(end),
                _ = terminate.recv() => Ok(Ended::Terminated),
                _ = interrupt.recv() => Ok(Ended::Terminated),
                () = idle => {
                    let _in_time = timeout(FAREWELL_MAX, tell_all(&drivers, false)).await;
                    Ok(Ended::Idle)
                }
            }
        });
        if result.is_ok() {
            // What is durable already is still answered; long polls are not waited for.
            let _ended = closing.send(());
            let _in_time = runtime.block_on(timeout(ANSWERS_MAX, served));
        }
        result
    }
}

fn listen(kind: SignalKind) -> Result<tokio::signal::unix::Signal, ShellError> {
    signal(kind).map_err(system("cannot listen for signals"))
}

fn conclude(end: Option<End>) -> Result<Ended, ShellError> {
    match end {
        Some(End::Superseded(epoch)) => {
            tracing::warn!(epoch = epoch.0, "a target has a newer owner or has shut this epoch");
            Ok(Ended::Superseded(epoch))
        }
        Some(End::Fatal(fatal)) => Err(fatal.into()),
        Some(End::Samples(error)) => Err(error.into()),
        Some(End::Defect(why)) => Err(ShellError::Defect(why)),
        None => Err(ShellError::Defect("nobody is left to say why it ends".into())),
    }
}

/// Says so if the committer breaks off.
struct Broken(mpsc::UnboundedSender<End>);

impl Drop for Broken {
    fn drop(&mut self) {
        if std::thread::panicking() {
            drop(self.0.send(End::Defect("the committer broke off".into())));
        }
    }
}

/// Ticks while somebody watches or a timer is due; sleeps otherwise.
async fn tick(clock: Clock, mut facts: watch::Receiver<Facts>, inbox: mpsc::Sender<Message>) {
    let mut last = Instant::now();
    loop {
        let now = *facts.borrow_and_update();
        let every = if now.watching <= TICK_FEW { TICK } else { TICK_MANY };
        let regular = (now.watching > 0).then(|| last + every);
        let due = now.next_due.map(|due| Instant::from_std(clock.instant(due)));
        let next = [regular, due].into_iter().flatten().min();
        let sleep = async {
            match next {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {
                last = Instant::now();
                if inbox.send(Message::Tick).await.is_err() {
                    return;
                }
                // The next tick follows the step that took this one, however long that takes.
                if facts.changed().await.is_err() {
                    return;
                }
            }
            changed = facts.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// Tells all drivers whenever work opens or closes.
async fn tell(drivers: Arc<Drivers>, mut facts: watch::Receiver<Facts>) {
    let mut told = false;
    loop {
        let Ok(open) = facts.wait_for(|facts| facts.open != told).await.map(|facts| facts.open)
        else {
            return;
        };
        let _in_time = timeout(TELL_MAX, tell_all(&drivers, open)).await;
        told = open;
    }
}

/// While work is open, looks whether there is room for its way back.
async fn keep_room(home: Home, mut facts: watch::Receiver<Facts>) {
    while facts.wait_for(|facts| facts.open).await.is_ok() {
        room::look(&home);
        sleep_until(Instant::now() + LOOK_AT_ROOM).await;
    }
}

async fn tell_all(drivers: &Drivers, open: bool) {
    futures_util::future::join_all(drivers.values().map(|driver| driver.set_open(open))).await;
}

/// Returns when the engine has had nothing to do for so long and takes no more questions.
async fn idle(
    mut facts: watch::Receiver<Facts>,
    activity: &Activity,
    idle_exit: Duration,
    inbox: &mpsc::Sender<Message>,
) {
    let mut present = activity.subscribe();
    loop {
        if facts.wait_for(|facts| !facts.open).await.is_err() {
            std::future::pending::<()>().await;
        }
        let closed = Instant::now();
        loop {
            let Ok(last) = present.wait_for(|(under_way, _)| *under_way == 0).await.map(|p| p.1)
            else {
                std::future::pending().await
            };
            let end = closed.max(last) + idle_exit;
            tokio::select! {
                () = sleep_until(end) => {
                    // A request that comes now is either taken before the close or refused.
                    if present.borrow().0 == 0 && close(inbox).await {
                        return;
                    }
                }
                _ = present.changed() => continue,
                _ = facts.wait_for(|facts| facts.open) => {}
            }
            break;
        }
    }
}

async fn close(inbox: &mpsc::Sender<Message>) -> bool {
    let (answer, answered) = oneshot::channel();
    inbox.send(Message::Close(answer)).await.is_ok() && answered.await.unwrap_or(false)
}
