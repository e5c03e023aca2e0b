//! The listening sockets: bound where the table wants them, deposited at the host so that they
//! outlive this process, taken back by the next one.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_ipc::sockets;
use tokio::net::{TcpSocket, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::owner::who_listens;
use super::table::{Tls, Wanted};
use crate::proxy::Proxy;
use crate::proxy::client::accept;
use crate::proxy::tls::TlsCell;

/// Connections that the kernel queues for us.
const BACKLOG: u32 = 1024;
/// Between two tries to reach a host that is away.
const RETRY: Duration = Duration::from_millis(250);

#[derive(Debug)]
struct Listening {
    /// Shares the socket with the task that accepts.
    socket: Arc<TcpListener>,
    tls: Arc<TlsCell>,
    task: AbortHandle,
}

/// Listening sockets by address.
pub(crate) type Sockets = BTreeMap<SocketAddr, Arc<TcpListener>>;

/// All listening sockets of this switch.
#[derive(Debug)]
pub(crate) struct Listeners {
    proxy: Arc<Proxy>,
    open: Mutex<BTreeMap<SocketAddr, Listening>>,
    /// Taken from the holder and not yet wanted by a table.
    found: Mutex<BTreeMap<SocketAddr, TcpListener>>,
    /// To be given up at the holder.
    unwanted: Mutex<Vec<SocketAddr>>,
    alive: Mutex<Option<mpsc::Sender<()>>>,
    changed: watch::Sender<u64>,
    deposited: watch::Sender<u64>,
}

impl Listeners {
    /// `alive` is held by every connection.
    pub(crate) fn new(proxy: Arc<Proxy>, alive: mpsc::Sender<()>) -> Self {
        Self {
            proxy,
            open: Mutex::default(),
            found: Mutex::default(),
            unwanted: Mutex::default(),
            alive: Mutex::new(Some(alive)),
            changed: watch::Sender::new(0),
            deposited: watch::Sender::new(0),
        }
    }

    /// Takes back what an earlier switch deposited, if there is a holder.
    pub(crate) async fn take(&self, holder: &Path) {
        let path = holder.to_owned();
        let taken = tokio::task::spawn_blocking(move || sockets::take_all(&path)).await;
        let taken: Vec<(String, OwnedFd)> = match taken {
            Ok(Ok(taken)) => taken,
            Ok(Err(error)) => {
                tracing::info!(%error, "no holder of listening sockets answers: binding them");
                return;
            }
            Err(_) => return,
        };
        let mut found = lock(&self.found);
        for (name, fd) in taken {
            let listener = TcpListener::from(fd);
            match (name.parse::<SocketAddr>(), listener.local_addr()) {
                (Ok(address), Ok(real)) if address == real => {
                    found.insert(address, listener);
                }
                _ => tracing::warn!(address = name, "a deposited socket is not what it says"),
            }
        }
    }

    /// Opens what is wanted and not open; nothing is accepted on it before [`Listeners::apply`].
    /// What cannot be opened is left out and said.
    ///
    /// # Errors
    /// Why `must` cannot be opened; what was opened beside it is closed again.
    pub(crate) fn prepare(
        &self,
        wanted: &Wanted,
        must: Option<SocketAddr>,
    ) -> Result<(Sockets, Vec<String>), String> {
        let open = lock(&self.open);
        let mut found = lock(&self.found);
        let (mut prepared, mut trouble) = (Sockets::new(), Vec::new());
        for (address, tls) in wanted {
            if open.contains_key(address) || matches!(tls, Tls::Keep) {
                continue;
            }
            let listener = match found.remove(address) {
                Some(listener) => Ok(listener),
                None => bind(*address),
            };
            match listener {
                Ok(listener) => drop(prepared.insert(*address, Arc::new(listener))),
                Err(error) => {
                    let why = explain(*address, &error);
                    if must == Some(*address) {
                        return Err(why);
                    }
                    trouble.push(why);
                }
            }
        }
        Ok((prepared, trouble))
    }

    /// Accepts on what was prepared, uses the new certificates, closes what is not wanted.
    pub(crate) fn apply(&self, wanted: Wanted, mut prepared: Sockets) {
        let mut open = lock(&self.open);
        open.retain(|address, listening| {
            let keep = wanted.contains_key(address);
            if !keep {
                listening.task.abort();
            }
            keep
        });
        for (address, tls) in wanted {
            let config = match tls {
                Tls::Plain => None,
                Tls::With(config) => Some(config),
                Tls::Keep => continue,
            };
            if let Some(socket) = prepared.remove(&address) {
                let tls = Arc::new(TlsCell::default());
                tls.store(config);
                match self.start(address, &socket, &tls) {
                    Ok(task) => drop(open.insert(address, Listening { socket, tls, task })),
                    Err(error) => tracing::error!(%address, %error, "cannot accept"),
                }
            } else if let Some(listening) = open.get(&address) {
                listening.tls.store(config);
            }
        }
        drop(open);
        self.changed.send_modify(|changed| *changed += 1);
    }

    /// What was found and is not wanted by the table is closed, and given up at the holder.
    pub(crate) fn forget_found(&self) {
        let found = std::mem::take(&mut *lock(&self.found));
        lock(&self.unwanted).extend(found.into_keys());
    }

    fn start(
        &self,
        address: SocketAddr,
        socket: &Arc<TcpListener>,
        tls: &Arc<TlsCell>,
    ) -> io::Result<AbortHandle> {
        let alive = lock(&self.alive).clone();
        let alive = alive.ok_or_else(|| io::Error::other("the switch is on its way out"))?;
        socket.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(socket.try_clone()?)?;
        let proxy = Arc::clone(&self.proxy);
        let accepting = accept(proxy, listener, address, Arc::clone(tls), alive);
        Ok(tokio::spawn(accepting).abort_handle())
    }

    /// Stops accepting. The kernel goes on queueing for as long as the holder has the sockets.
    pub(crate) fn stop(&self) {
        for listening in lock(&self.open).values() {
            listening.task.abort();
        }
        lock(&self.alive).take();
    }

    /// Waits until the holder has every socket, at most `within`.
    pub(crate) async fn wait_deposited(&self, within: Duration) -> bool {
        let wanted = *self.changed.borrow();
        let mut deposited = self.deposited.subscribe();
        let all = deposited.wait_for(|deposited| *deposited >= wanted);
        tokio::time::timeout(within, all).await.is_ok()
    }

    fn sockets(&self) -> Sockets {
        let open = lock(&self.open);
        open.iter().map(|(address, one)| (*address, Arc::clone(&one.socket))).collect()
    }

    /// Keeps the holder at what is open, over a connection that is made anew whenever it is lost.
    pub(crate) async fn run_deposits(&self, holder: PathBuf) {
        loop {
            let lost = self.deposit_over(&holder).await;
            self.deposited.send_replace(0);
            if let Err(error) = lost {
                tracing::trace!(%error, "the holder of listening sockets is away");
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Until the connection is lost.
    async fn deposit_over(&self, holder: &Path) -> io::Result<()> {
        let stream = UnixStream::connect(tidegate_ipc::resolve(holder)).await?.into_std()?;
        let watched = UnixStream::from_std(stream.try_clone()?)?;
        let mut changed = self.changed.subscribe();
        let mut held = std::mem::take(&mut *lock(&self.unwanted));
        loop {
            let version = *changed.borrow_and_update();
            let open = self.sockets();
            let gone: Vec<_> = held.iter().filter(|one| !open.contains_key(one)).copied().collect();
            held = open.keys().copied().collect();
            let pipe = stream.try_clone()?;
            let talk = move || -> io::Result<()> {
                pipe.set_nonblocking(false)?;
                for (address, socket) in &open {
                    sockets::deposit(&pipe, &address.to_string(), socket.as_fd())?;
                }
                for address in gone {
                    sockets::withdraw(&pipe, &address.to_string())?;
                }
                pipe.set_nonblocking(true)
            };
            tokio::task::spawn_blocking(talk).await??;
            self.deposited.send_replace(version);
            tokio::select! {
                _ = changed.changed() => {}
                ready = watched.readable() => {
                    ready?;
                    let mut byte = [0];
                    match watched.try_read(&mut byte) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                        // It speaks only when asked.
                        Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    }
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

fn explain(address: SocketAddr, error: &io::Error) -> String {
    let holder = (error.kind() == io::ErrorKind::AddrInUse).then(|| who_listens(address)).flatten();
    match holder {
        Some(holder) => format!("cannot listen on {address}: {error}; {holder} does"),
        None => format!("cannot listen on {address}: {error}"),
    }
}
