//! Who asks, as the operating system knows it.

/// This process's user.
pub(crate) fn me() -> String {
    of(rustix::process::getuid().as_raw())
}

/// `user@host`, or `uid:NUMBER@host` where the user has no name.
pub(crate) fn of(uid: u32) -> String {
    let user = user_name(uid).unwrap_or_else(|| format!("uid:{uid}"));
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{user}@{host}")
}

/// The name of a user in `/etc/passwd`: the environment could say anything.
fn user_name(uid: u32) -> Option<String> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let id: u32 = fields.nth(1)?.parse().ok()?;
        (id == uid).then(|| name.to_owned())
    })
}

/// The identity of a request: repeated with it, it is the same request.
#[expect(clippy::disallowed_methods, reason = "the identity of a request is made where it is made")]
pub(crate) fn request_id() -> String {
    uuid::Uuid::now_v7().to_string()
}
