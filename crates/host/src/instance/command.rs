//! From a service's spec to what is executed: placeholders, environment, secrets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tidegate_core::Digest;
use tidegate_core::spec::ServiceSpec;
use tidegate_wire::home::Home;

use crate::state::files;

/// What stands for `{address} {port} {instance} {version} {digest}`.
#[derive(Debug, Clone)]
pub(crate) struct Values<'a> {
    pub(crate) port: Option<u16>,
    pub(crate) instance: &'a str,
    pub(crate) version: &'a str,
    pub(crate) digest: &'a Digest,
}

impl Values<'_> {
    /// Fills placeholders in; any other text in braces stays as it is.
    pub(crate) fn fill(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            let (before, from) = rest.split_at(at);
            out.push_str(before);
            let end = from.find('}').map_or(1, |end| end + 1);
            let (name, after) = from.split_at(end);
            match (name, self.port) {
                ("{address}", Some(port)) => out.push_str(&address(port)),
                ("{port}", Some(port)) => out.push_str(&port.to_string()),
                ("{instance}", _) => out.push_str(self.instance),
                ("{version}", _) => out.push_str(self.version),
                ("{digest}", _) => out.push_str(self.digest.as_str()),
                _ => {
                    // Only the brace: what follows may have a placeholder in it.
                    out.push('{');
                    rest = from.get(1..).unwrap_or_default();
                    continue;
                }
            }
            rest = after;
        }
        out.push_str(rest);
        out
    }
}

/// `address:port` of an instance.
pub(crate) fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// Whether command or environment say where to listen.
pub(crate) fn mentions_port(service: &ServiceSpec) -> bool {
    service
        .command
        .iter()
        .chain(service.env.values())
        .any(|text| text.contains("{port}") || text.contains("{address}"))
}

/// Folders that an instance or one-shot has of its own.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    /// All of it.
    pub(crate) root: PathBuf,
}

impl Folders {
    /// Writable by the instance; survives its restarts.
    pub(crate) fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// Its secrets as files.
    pub(crate) fn secrets(&self) -> PathBuf {
        self.root.join("secrets")
    }

    /// One of its logs.
    pub(crate) fn log(&self, stream: &str) -> PathBuf {
        self.root.join(format!("{stream}.log"))
    }
}

/// The environment without the secrets: a clean base, the service's own, and what tells the
/// instance who it is.
pub(crate) fn environment(
    service: &ServiceSpec,
    values: &Values<'_>,
    folders: &Folders,
) -> BTreeMap<String, String> {
    let mut env: BTreeMap<String, String> = ["PATH", "HOME", "LANG", "TZ"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)))
        .collect();
    env.extend(service.env.iter().map(|(name, value)| (name.clone(), values.fill(value))));
    let mut own = |name: &str, value: String| env.insert(name.to_owned(), value);
    if let Some(port) = values.port {
        own("PORT", port.to_string());
    }
    own("TIDEGATE_VERSION", values.version.to_owned());
    own("TIDEGATE_INSTANCE", values.instance.to_owned());
    own("TIDEGATE_WORK_DIR", folders.work().display().to_string());
    own("TIDEGATE_SECRETS_DIR", folders.secrets().display().to_string());
    env
}

/// Copies the named secrets to a folder that only we can enter, replacing what was there.
///
/// # Errors
/// A sentence for a person, without any value.
pub(crate) fn place_secrets(home: &Home, names: &[String], folder: &Path) -> Result<(), String> {
    let cannot = |e: std::io::Error| format!("cannot write {}: {e}", folder.display());
    files::remove_folder(folder).map_err(cannot)?;
    files::private_folder(folder).map_err(cannot)?;
    for name in names {
        let value = secret(home, name)?;
        files::replace(&folder.join(name), &value, false).map_err(cannot)?;
    }
    Ok(())
}

/// A secret's value: from `host/secrets/NAME`, else from `secrets/NAME` in the home.
///
/// # Errors
/// A sentence for a person, without any value.
pub(crate) fn secret(home: &Home, name: &str) -> Result<Vec<u8>, String> {
    use std::os::unix::fs::MetadataExt;
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if name.is_empty() || !plain {
        return Err(format!("a secret cannot be called {name:?}; use letters, digits, _ and -"));
    }
    let places = [home.host().join("secrets").join(name), home.root().join("secrets").join(name)];
    for path in &places {
        match std::fs::metadata(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(format!("cannot read the secret {}: {e}", path.display())),
            Ok(meta) if meta.mode() & 0o077 != 0 => {
                return Err(format!(
                    "the secret {} can be read by others; run `chmod 600` on it",
                    path.display()
                ));
            }
            Ok(_) => {
                return std::fs::read(path)
                    .map_err(|e| format!("cannot read the secret {}: {e}", path.display()));
            }
        }
    }
    Err(format!(
        "the secret {name} is missing; put its value into {} with mode 0600",
        places[1].display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_and_other_braces_stay() {
        let digest = Digest::of(b"x");
        let values = Values { port: Some(81), instance: "web-0", version: "v2", digest: &digest };
        assert_eq!(values.fill("-l {address} {port}"), "-l 127.0.0.1:81 81");
        assert_eq!(values.fill("{{version}} {other} {a{port}"), "{v2} {other} {a81");
        assert_eq!(values.fill("{instance}{"), "web-0{");
        let none = Values { port: None, ..values };
        assert_eq!(none.fill("{port}"), "{port}");
    }
}
