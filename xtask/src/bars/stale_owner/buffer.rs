//! What an engine has sent to host and switch and they have not read yet.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use tidegate_wire::home::Home;

use crate::stage::{Pid, Stage};

/// What lies in the sockets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Unread {
    /// Connections of anybody to the host that it has not accepted, or whose bytes it has not read.
    host: u64,
    /// The same of the switch.
    switch: u64,
    /// Connections of the engine's own making with bytes that the other end has not read.
    sent: u64,
}

impl Unread {
    /// Whether a command of the engine lies in a socket of host or switch.
    pub(super) const fn any(self) -> bool {
        self.sent > 0 && self.host + self.switch > 0
    }
}

/// Asks the kernel, by `ss`.
pub(super) fn unread(stage: &Stage, engine: Pid) -> Result<Unread> {
    let output = Command::new("ss").arg("-xapH").output();
    let output = output.context("ss (iproute2) has to be there")?;
    if !output.status.success() {
        bail!("ss -xapH: {}", output.status);
    }
    let table = String::from_utf8_lossy(&output.stdout);
    let home = Home::new(stage.home());
    let at = |role: &str| waiting(&table, &home.socket(role).to_string_lossy());
    Ok(Unread { host: at("host"), switch: at("switch"), sent: sent(&table, engine) })
}

fn rows(table: &str) -> impl Iterator<Item = Vec<&str>> {
    table.lines().map(|line| line.split_whitespace().collect())
}

/// One that listens has the number of those who wait as its `Recv-Q`, a connection its bytes.
fn waiting(table: &str, path: &str) -> u64 {
    let numbers = rows(table).filter_map(|row| match row[..] {
        [_, "LISTEN", waiting, _, local, ..] if local == path => waiting.parse().ok(),
        [_, "ESTAB", unread, _, local, ..] if local == path => Some(u64::from(unread != "0")),
        _ => None,
    });
    numbers.sum()
}

/// A connection that a process has made has no name at its own end.
fn sent(table: &str, process: Pid) -> u64 {
    let own = format!("pid={process},");
    let full = rows(table).filter(|row| match row[..] {
        [_, "ESTAB", _, unread, "*", _, _, _, users, ..] => unread != "0" && users.contains(&own),
        _ => false,
    });
    full.count() as u64
}

#[cfg(test)]
mod tests {
    use super::{Unread, sent, unread, waiting};
    use crate::stage::{Binaries, Stage};
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn only_what_goes_to_the_socket_is_counted() {
        let table = "u_str LISTEN 3 128 /h/host.sock 1 * 0\n\
                     u_str ESTAB 250 0 /h/host.sock 2 * 3\n\
                     u_str ESTAB 0 0 /h/host.sock 4 * 5\n\
                     u_str ESTAB 70 0 /h/switch.sock 6 * 7\n\
                     u_str ESTAB 0 768 * 8 * 0 users:((\"tidegate\",pid=71,fd=9))\n\
                     u_str ESTAB 0 0 * 8 * 0 users:((\"tidegate\",pid=71,fd=9))\n\
                     u_str ESTAB 0 768 * 8 * 0 users:((\"tidegate\",pid=7,fd=9))\n";
        assert_eq!(waiting(table, "/h/host.sock"), 4);
        assert_eq!(waiting(table, "/h/none.sock"), 0);
        assert_eq!((sent(table, 71), sent(table, 1)), (1, 0));
    }

    #[test]
    fn what_was_sent_and_not_read_is_seen_before_and_after_it_is_accepted() {
        let program: std::path::PathBuf = "/bin/true".into();
        let stage = Stage::new(&Binaries { tidegate: program.clone(), example: program }).unwrap();
        std::fs::create_dir(stage.home()).unwrap();
        let path = stage.home().join("host.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let look = || unread(&stage, own).unwrap();
        assert!(!look().any());
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"four").unwrap();
        assert_eq!(look(), Unread { host: 1, switch: 0, sent: 1 });
        let (mut served, _) = listener.accept().unwrap();
        served.read_exact(&mut [0; 3]).unwrap();
        assert!(look().any());
        served.read_exact(&mut [0; 1]).unwrap();
        assert!(!look().any());
    }
}
