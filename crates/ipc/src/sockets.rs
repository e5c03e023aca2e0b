//! Listening sockets that outlive the process that uses them: it deposits each one at a holder and
//! its successor takes them back, so that between the two the kernel queues connections instead of
//! refusing them.
//!
//! Over a unix stream socket: `ADDRESS\n` with one descriptor in SCM_RIGHTS deposits (an earlier
//! descriptor of that address is replaced), `DROP ADDRESS\n` gives one up, both answered by `OK\n`.
//! `TAKE\n` is answered by `ADDRESS\n` with its descriptor for each one held and an empty line. What
//! is held stays held when the connection ends. Everything blocks: use it from a thread.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Longest line of the protocol.
const LINE_MAX: usize = 512;
/// Most sockets that one holder keeps.
const HELD_MAX: usize = 1024;
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Deposits the listening socket `fd` under `address`; returns when the holder has it.
///
/// # Errors
/// When the address cannot be a line, the holder is gone, refuses, or does not answer within 5 s.
pub fn deposit(stream: &UnixStream, address: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
    ask(stream, &line(address)?, Some(fd))
}

/// Gives the socket of `address` up: the holder closes it. Nothing happens if it has none.
///
/// # Errors
/// As [`deposit`].
pub fn withdraw(stream: &UnixStream, address: &str) -> io::Result<()> {
    ask(stream, &format!("DROP {}", line(address)?), None)
}

/// Everything that the holder at `socket_path` (see [`crate::resolve`]) keeps, as `(address,
/// descriptor)`. The holder keeps its own copies.
///
/// # Errors
/// When nobody listens there, or the answer does not come whole within 5 s.
pub fn take_all(socket_path: &Path) -> io::Result<Vec<(String, OwnedFd)>> {
    let stream = UnixStream::connect(crate::resolve(socket_path))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    send(&stream, "TAKE\n", None)?;
    let mut input = Input::default();
    let mut taken = Vec::new();
    loop {
        match input.line(&stream)? {
            Some(text) if text.is_empty() => return Ok(taken),
            Some(text) => {
                let fd = input.fds.pop_front().ok_or_else(|| broken("an address came alone"))?;
                taken.push((text, fd));
            }
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Keeps descriptors by address. Clones share what they keep.
#[derive(Debug, Clone, Default)]
pub struct Holder {
    held: Arc<Mutex<BTreeMap<String, OwnedFd>>>,
}

impl Holder {
    /// One that holds nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The addresses that are held, sorted.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Serves `listener` (from [`crate::bind`] by `into_std`) from threads of its own until it
    /// fails, which it does not while the process lives.
    ///
    /// # Errors
    /// When the listener cannot be made blocking or no thread can be started.
    pub fn spawn(&self, listener: UnixListener) -> io::Result<()> {
        listener.set_nonblocking(false)?;
        let holder = self.clone();
        std::thread::Builder::new().name("sockets".into()).spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let holder = holder.clone();
                // Without a thread the connection closes and the other side tries again.
                let _ = std::thread::Builder::new()
                    .name("sockets-peer".into())
                    .spawn(move || holder.serve(&stream));
            }
        })?;
        Ok(())
    }

    /// Serves one connection until its other side closes it.
    ///
    /// # Errors
    /// When the connection breaks or says what is not in the protocol.
    pub fn serve(&self, stream: &UnixStream) -> io::Result<()> {
        let mut input = Input::default();
        while let Some(text) = input.line(stream)? {
            if text == "TAKE" {
                // Duplicates, so that no lock is held while a slow reader reads.
                let mut copies = Vec::new();
                for (address, fd) in self.lock().iter() {
                    copies.push((address.clone(), fd.try_clone()?));
                }
                for (address, fd) in copies {
                    send(stream, &format!("{address}\n"), Some(fd.as_fd()))?;
                }
                send(stream, "\n", None)?;
            } else if let Some(address) = text.strip_prefix("DROP ") {
                self.lock().remove(address);
                send(stream, "OK\n", None)?;
            } else {
                let fd = input.fds.pop_front().ok_or_else(|| broken("no descriptor came"))?;
                let mut held = self.lock();
                if held.len() >= HELD_MAX && !held.contains_key(&text) {
                    return Err(broken("too many sockets"));
                }
                held.insert(text, fd);
                drop(held);
                send(stream, "OK\n", None)?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, OwnedFd>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn line(address: &str) -> io::Result<String> {
    let plain = address.bytes().all(|b| b.is_ascii_graphic());
    if address.is_empty() || address.len() > LINE_MAX / 2 || !plain || address == "TAKE" {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an address"));
    }
    Ok(format!("{address}\n"))
}

fn ask(stream: &UnixStream, text: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    send(stream, text, fd)?;
    match Input::default().line(stream)? {
        Some(answer) if answer == "OK" => Ok(()),
        Some(_) => Err(broken("the holder refused the socket")),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn send(stream: &UnixStream, text: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut rest = text.as_bytes();
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    let mut first = true;
    while !rest.is_empty() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if first && !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let sent = rustix::io::retry_on_intr(|| {
            sendmsg(stream, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL)
        })?;
        first = false;
        rest = rest.get(sent..).unwrap_or_default();
    }
    Ok(())
}

/// What has come in: bytes, and descriptors, which never come later than the first byte of the line
/// that they belong to.
#[derive(Default)]
struct Input {
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Input {
    /// The next line without its end; `None` at the end of the stream.
    fn line(&mut self, stream: &UnixStream) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.bytes.iter().position(|b| *b == b'\n') {
                let mut text: Vec<u8> = self.bytes.drain(..=end).collect();
                text.pop();
                return String::from_utf8(text).map(Some).map_err(|_| broken("not text"));
            }
            if self.bytes.len() > LINE_MAX {
                return Err(broken("a line is too long"));
            }
            if !self.receive(stream)? {
                return if self.bytes.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    fn receive(&mut self, stream: &UnixStream) -> io::Result<bool> {
        let mut chunk = [0_u8; LINE_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            let mut into = [IoSliceMut::new(&mut chunk)];
            recvmsg(stream, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)
        })?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        if self.fds.len() > HELD_MAX {
            return Err(broken("too many descriptors"));
        }
        self.bytes.extend_from_slice(chunk.get(..received.bytes).unwrap_or_default());
        Ok(received.bytes > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn pair(holder: &Holder) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let holder = holder.clone();
        std::thread::spawn(move || holder.serve(&theirs));
        ours
    }

    #[test]
    fn a_deposited_listener_accepts_after_its_owner_is_gone_and_is_taken_back() {
        let folder = std::env::temp_dir().join(format!("tidegate-sockets-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("sockets.sock");
        let _ = std::fs::remove_file(&path);
        let holder = Holder::new();
        holder.spawn(UnixListener::bind(&path).unwrap()).unwrap();

        let listeners: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<_> =
            listeners.iter().map(|l| l.local_addr().unwrap().to_string()).collect();
        let stream = UnixStream::connect(&path).unwrap();
        for (listener, address) in listeners.iter().zip(&addresses) {
            deposit(&stream, address, listener.as_fd()).unwrap();
        }
        drop((listeners, stream));

        let waiting = TcpStream::connect(&addresses[1]).unwrap();
        let taken = take_all(&path).unwrap();
        assert_eq!(taken.len(), 3);
        let mut accepted = 0;
        for (address, fd) in taken {
            let listener = TcpListener::from(fd);
            assert_eq!(listener.local_addr().unwrap().to_string(), address);
            if address == addresses[1] {
                assert_eq!(
                    listener.accept().unwrap().1.to_string(),
                    waiting.local_addr().unwrap().to_string()
                );
                accepted += 1;
            }
        }
        assert_eq!(accepted, 1);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_withdrawn_socket_is_closed_and_a_second_deposit_replaces_the_first() {
        let holder = Holder::new();
        let stream = pair(&holder);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        deposit(&stream, &address, listener.as_fd()).unwrap();
        deposit(&stream, &address, listener.as_fd()).unwrap();
        assert_eq!(holder.addresses().len(), 1);
        drop(listener);
        withdraw(&stream, &address).unwrap();
        assert!(holder.addresses().is_empty());
        assert!(TcpStream::connect(&address).is_err());
    }

    #[test]
    fn an_address_without_a_descriptor_ends_the_connection_and_leaves_the_rest() {
        let holder = Holder::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        deposit(&pair(&holder), &address, listener.as_fd()).unwrap();
        let stream = pair(&holder);
        send(&stream, "127.0.0.1:1\n", None).unwrap();
        assert_eq!(Input::default().line(&stream).unwrap(), None);
        assert_eq!(holder.addresses(), [address]);
        assert!(deposit(&stream, "two words", listener.as_fd()).is_err());
    }
}
