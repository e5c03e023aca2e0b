//! Instances for the switch: processes of the example service, and small ones that break every
//! rule of HTTP. All of them write down the numbers of the requests that reach them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::stage::{Binaries, wait_until};

const BOUND: Duration = Duration::from_secs(10);

/// How often the request of each number has reached an instance.
pub(super) type Seen = BTreeMap<u64, u32>;

/// A process of the example service.
pub(super) struct Service {
    child: Child,
    pub(super) address: SocketAddr,
    log: PathBuf,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Service {
    /// Starts one that writes its requests to `folder/NAME.requests`.
    pub(super) fn start(
        binaries: &Binaries,
        folder: &Path,
        name: &str,
        version: &str,
    ) -> Result<Self> {
        let (log, at) =
            (folder.join(format!("{name}.requests")), folder.join(format!("{name}.at")));
        let _ = std::fs::remove_file(&at);
        let child = Command::new(&binaries.example)
            .args(["serve", "--listen", "127.0.0.1:0", "--version", version])
            .arg("--request-log")
            .arg(&log)
            .arg("--address-file")
            .arg(&at)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the example service")?;
        let mut service = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)), log };
        service.address = wait_until(BOUND, "the example service listens", || {
            std::fs::read_to_string(&at).ok()?.trim().parse().ok()
        })?;
        Ok(service)
    }

    /// As SIGKILL does.
    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Tells it how to behave from now on: a JSON object.
    pub(super) fn behave(&self, change: &str) -> Result<()> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(BOUND))?;
        let length = change.len();
        let head = format!(
            "POST /behave HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(format!("{head}{change}").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if !answer.starts_with("HTTP/1.1 200") {
            bail!("the example service does not take {change}: {answer}");
        }
        Ok(())
    }

    /// The requests that have reached it: number and method.
    pub(super) fn seen(&self) -> Result<Vec<(u64, String)>> {
        let text = std::fs::read_to_string(&self.log)
            .with_context(|| format!("cannot read {}", self.log.display()))?;
        let row = |row: &str| {
            let mut words = row.split(' ');
            let (id, method) = (words.next()?, words.next()?);
            Some((id.parse().ok()?, method.to_owned()))
        };
        text.lines()
            .map(|line| row(line).with_context(|| format!("not a request: {line}")))
            .collect()
    }
}

/// How a breaker ends each request that it has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Closes without a word.
    Swallow,
    /// Resets the connection.
    Reset,
    /// Answers what is not HTTP.
    Garbage,
    /// Promises more body than it sends.
    Cut,
    /// A head larger than any.
    HugeHead,
    /// Never answers.
    Silence,
}

/// All of them.
pub(super) const FATES: [Fate; 6] =
    [Fate::Swallow, Fate::Reset, Fate::Garbage, Fate::Cut, Fate::HugeHead, Fate::Silence];

/// A listener with a fate.
pub(super) struct Breaker {
    pub(super) address: SocketAddr,
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
}

impl Drop for Breaker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes its thread.
        let _ = TcpStream::connect(self.address);
    }
}

impl Breaker {
    /// Listens.
    pub(super) fn start(fate: Fate) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::default()));
        let (stopped, noted) = (Arc::clone(&stop), Arc::clone(&seen));
        std::thread::Builder::new().name("breaker".into()).spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let noted = Arc::clone(&noted);
                // A connection without a thread is closed at once: one more way to break.
                let _ = std::thread::Builder::new().spawn(move || meet(stream, fate, &noted));
            }
        })?;
        Ok(Self { address, stop, seen })
    }

    /// What has reached it.
    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn meet(mut stream: TcpStream, fate: Fate, noted: &Mutex<Seen>) {
    let _ = stream.set_read_timeout(Some(BOUND));
    let Some(number) = request(&mut stream) else { return };
    *noted.lock().unwrap_or_else(PoisonError::into_inner).entry(number).or_default() += 1;
    let answer = match fate {
        Fate::Swallow => String::new(),
        Fate::Reset => {
            let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
            return;
        }
        Fate::Garbage => "SMTP? 220 ready\r\n\r\n".into(),
        Fate::Cut => "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf".into(),
        Fate::HugeHead => format!("HTTP/1.1 200 OK\r\nx-huge: {}\r\n\r\n", "x".repeat(300_000)),
        Fate::Silence => {
            // Until the other side has had enough.
            let _ = stream.read_to_end(&mut Vec::new());
            return;
        }
    };
    let _ = stream.write_all(answer.as_bytes());
    let _ = stream.shutdown(Shutdown::Write);
    // What is not read would make the close a reset, which destroys what was sent.
    let _ = stream.read_to_end(&mut Vec::new());
}

/// Reads a request, with its body; its number.
fn request(stream: &mut TcpStream) -> Option<u64> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let header = |name: &str| {
        let value = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.trim().parse::<u64>().ok()
    };
    let mut body = vec![0; usize::try_from(header("content-length").unwrap_or(0)).ok()?];
    // A body that does not come is the same to it: the head was seen.
    let _ = stream.read_exact(&mut body);
    header("x-request-id")
}

/// A request that is none, or none of ours: sends these bytes and reads until the other side
/// closes. What came back.
pub(super) fn raw(to: SocketAddr, bytes: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(40)))?;
    stream.write_all(bytes)?;
    let mut answer = Vec::new();
    // Closed or reset: either is an end.
    let _ = stream.read_to_end(&mut answer);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::{BOUND, Breaker, FATES, Fate, raw};
    use crate::stage::wait_until;

    #[test]
    fn a_breaker_notes_each_request_before_it_breaks() {
        for fate in FATES.into_iter().filter(|fate| *fate != Fate::Silence) {
            let breaker = Breaker::start(fate).unwrap();
            let text = "POST / HTTP/1.1\r\nX-Request-Id: 7\r\nContent-Length: 2\r\n\r\nhi";
            let answer = raw_until_closed(&breaker, text);
            assert_eq!(answer.contains("half"), fate == Fate::Cut, "{fate:?}: {answer}");
            wait_until(BOUND, "noted", || (breaker.seen().get(&7) == Some(&1)).then_some(()))
                .unwrap();
        }
    }

    fn raw_until_closed(breaker: &Breaker, text: &str) -> String {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(breaker.address).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[test]
    fn raw_bytes_get_what_the_other_side_says() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let other = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut stream, _) = listener.accept().unwrap();
            let mut read = [0; 3];
            stream.read_exact(&mut read).unwrap();
            stream.write_all(b"no").unwrap();
            read
        });
        assert_eq!(raw(address, b"abc").unwrap(), "no");
        assert_eq!(&other.join().unwrap(), b"abc");
    }
}
