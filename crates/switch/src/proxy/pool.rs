//! Idle connections to one start of one instance: the youngest first, and none for a request that
//! must not be repeated unless the peer is known to keep idle connections for twice as long.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::SendRequest;
use tokio::task::AbortHandle;

use super::body::UpBody;
use super::upstream::Instance;
use crate::counts::micros;

/// Idle for so long: closed by us.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Idle connections that are kept per instance.
const POOL_MAX: usize = 256;
/// What every peer is trusted to keep an idle connection for, before anything is known of it.
const TRUST: Duration = Duration::from_millis(25);

/// A connection in use.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) sender: SendRequest<UpBody>,
    pub(crate) info: Arc<ConnInfo>,
    /// It has carried a request before.
    pub(crate) reused: bool,
    /// The instance keeps it after this answer.
    pub(crate) reusable: bool,
}

impl Conn {
    /// Closes the connection now, whatever is still being sent on it.
    pub(crate) fn cut(&self) {
        if let Some(driver) = self.info.driver.get() {
            driver.abort();
        }
    }
}

/// What the driver of a connection needs to know when it ends.
#[derive(Debug, Default)]
pub(crate) struct ConnInfo {
    idle_since: Mutex<Option<Instant>>,
    /// We closed it: says nothing about the peer.
    ours: AtomicBool,
    /// The task that drives it.
    pub(crate) driver: OnceLock<AbortHandle>,
}

impl ConnInfo {
    fn idle_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.idle_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<UpBody>,
    info: Arc<ConnInfo>,
    since: Instant,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: Mutex<Vec<Idle>>,
    open: AtomicBool,
    sweeping: AtomicBool,
    /// The shortest time after which the peer closed an idle connection, in microseconds.
    shortest_close_us: AtomicU64,
    /// The longest time after which an idle connection was seen alive, in microseconds.
    proven_us: AtomicU64,
}

impl Pool {
    pub(crate) fn new() -> Self {
        Self {
            idle: Mutex::new(Vec::new()),
            open: AtomicBool::new(false),
            sweeping: AtomicBool::new(false),
            shortest_close_us: AtomicU64::new(u64::MAX),
            proven_us: AtomicU64::new(0),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }

    /// Closes all idle connections; those in use are closed when they come back.
    pub(crate) fn close(&self) {
        self.open.store(false, Ordering::SeqCst);
        for idle in self.idle().drain(..) {
            idle.info.ours.store(true, Ordering::Relaxed);
        }
    }

    /// How long a connection may have been idle to carry a request that must not be repeated.
    fn trusted(&self) -> Duration {
        let shortest = self.shortest_close_us.load(Ordering::Relaxed);
        if shortest < u64::MAX {
            return Duration::from_micros(shortest / 2);
        }
        TRUST.max(Duration::from_micros(self.proven_us.load(Ordering::Relaxed) / 2))
    }

    /// The youngest idle connection that is ready. `repeatable`: the request may be sent again if
    /// the peer closes the connection at this very moment.
    pub(crate) fn take(&self, repeatable: bool) -> Option<Conn> {
        let mut idle = self.idle();
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            let entry = idle.get(at)?;
            if entry.sender.is_closed() {
                idle.remove(at);
                continue;
            }
            let age = entry.since.elapsed();
            if !repeatable && age > self.trusted() {
                return None; // the others are older
            }
            if !entry.sender.is_ready() {
                continue; // its last exchange is not quite over
            }
            self.proven_us.fetch_max(micros(age), Ordering::Relaxed);
            let Idle { sender, info, .. } = idle.remove(at);
            *info.idle_since() = None;
            return Some(Conn { sender, info, reused: true, reusable: true });
        }
        None
    }

    /// The driver of a connection has ended: if it was idle, the peer has closed it.
    pub(crate) fn ended(&self, info: &ConnInfo) {
        let since = info.idle_since().take();
        if let Some(since) = since.filter(|_| !info.ours.load(Ordering::Relaxed)) {
            self.learn_close(since.elapsed());
        }
    }

    /// The peer closes, or says that it closes, connections that were idle for so long.
    pub(crate) fn learn_close(&self, after: Duration) {
        self.shortest_close_us.fetch_min(micros(after), Ordering::Relaxed);
    }
}

/// Takes a connection back whose exchange is over, or nearly so.
pub(crate) fn put(instance: &Arc<Instance>, conn: Conn) {
    if !conn.reusable {
        return;
    }
    let pool = &instance.pool;
    let since = Instant::now();
    *conn.info.idle_since() = Some(since);
    let mut idle = pool.idle();
    // Looked at under the lock: `close` clears what was put before it.
    if conn.sender.is_closed() || !pool.open.load(Ordering::SeqCst) || idle.len() >= POOL_MAX {
        conn.info.ours.store(true, Ordering::Relaxed);
        return;
    }
    idle.push(Idle { sender: conn.sender, info: conn.info, since });
    drop(idle);
    if !pool.sweeping.swap(true, Ordering::SeqCst) {
        tokio::spawn(sweep(Arc::downgrade(instance)));
    }
}

/// Closes what has been idle for too long; ends when nothing is idle.
async fn sweep(instance: Weak<Instance>) {
    loop {
        tokio::time::sleep(IDLE_MAX / 2).await;
        let Some(instance) = instance.upgrade() else { return };
        let pool = &instance.pool;
        let mut idle = pool.idle();
        idle.retain(|entry| {
            let keep = !entry.sender.is_closed() && entry.since.elapsed() < IDLE_MAX;
            if !keep && !entry.sender.is_closed() {
                entry.info.ours.store(true, Ordering::Relaxed);
                pool.proven_us.fetch_max(micros(entry.since.elapsed()), Ordering::Relaxed);
            }
            keep
        });
        if idle.is_empty() {
            pool.sweeping.store(false, Ordering::SeqCst);
            return;
        }
    }
}
