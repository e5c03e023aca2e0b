//! The switch's own files: the durable table, the endpoints that it last heard of, its epoch.
//!
//! `table.json` holds its state as text behind a checksum and is replaced whole; the one before is
//! kept. It is never taken for "nothing" when it cannot be read: a switch that forgets its table
//! answers 404 to everybody.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidegate_wire::switch::Endpoints;
use tidegate_wire::traffic::TrafficDoc;
use tidegate_wire::{Digest, Epoch, Fence};

const TABLE: &str = "table.json";
const TABLE_BEFORE: &str = "table.before.json";
const ENDPOINTS: &str = "endpoints.json";
const EPOCH: &str = "epoch";

/// What must be known after a restart before anything else happens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Durable {
    /// The home that owns this switch.
    pub(crate) home: Option<String>,
    /// The highest epoch that was accepted.
    pub(crate) epoch: Epoch,
    /// By lane.
    pub(crate) lanes: BTreeMap<String, DurableLane>,
}

/// One lane's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DurableLane {
    /// Of the document in force.
    pub(crate) fence: Fence,
    /// Nothing at or below it passes; above `fence` after the lane was shut.
    pub(crate) floor: Fence,
    /// Of the document.
    pub(crate) digest: Digest,
    /// The document in force.
    pub(crate) doc: TrafficDoc,
}

/// A file of ours that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Neither the table nor the one before it is whole.
    #[error(
        "neither {path} nor the table before it can be read ({why}); the switch does not start \
         without the table that it had, because it would answer 404 to everybody. Restore one of \
         them, or remove both to start empty and let the engine send the tables again"
    )]
    NoTable {
        /// The table.
        path: PathBuf,
        /// What is wrong with both.
        why: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Sealed<'a> {
    /// Of the text of `state`.
    checksum: Digest,
    #[serde(borrow)]
    state: &'a RawValue,
}

/// The folder of the switch.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    folder: PathBuf,
}

impl Store {
    /// Opens the folder, made if it is not there (mode 0700).
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn open(folder: PathBuf) -> Result<Self, StoreError> {
        use std::os::unix::fs::DirBuilderExt as _;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|source| StoreError::Io {
            doing: "make the folder",
            path: folder.clone(),
            source,
        })?;
        Ok(Self { folder })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The last good state, with a sentence if it is not the newest one; empty only where there has
    /// never been one.
    ///
    /// # Errors
    /// [`StoreError::NoTable`] if there was one and none can be read.
    pub(crate) fn load(&self) -> Result<(Durable, Option<String>), StoreError> {
        let path = self.folder.join(TABLE);
        let newest = match read_sealed::<Durable>(&path) {
            Ok(state) => return Ok((state, None)),
            Err(error) => error,
        };
        match read_sealed::<Durable>(&self.folder.join(TABLE_BEFORE)) {
            Ok(state) => {
                let text = format!("{TABLE} cannot be read ({newest}): using the one before");
                Ok((state, Some(text)))
            }
            Err(before) if is_missing(&newest) && is_missing(&before) => {
                Ok((Durable::default(), None))
            }
            Err(before) => {
                Err(StoreError::NoTable { path, why: format!("{newest}; before: {before}") })
            }
        }
    }

    /// Makes `state` durable: when this returns it survives a loss of power.
    ///
    /// # Errors
    /// [`StoreError::Io`]; what was durable before still is.
    pub(crate) fn save(&self, state: &Durable) -> Result<(), StoreError> {
        let path = self.folder.join(TABLE);
        let wrap = |source| StoreError::Io { doing: "write", path: path.clone(), source };
        let fresh = self.folder.join("table.json.new");
        write_new(&fresh, &seal(state).map_err(wrap)?, true).map_err(wrap)?;
        self.keep_before(&path).map_err(wrap)?;
        fs::rename(&fresh, &path).map_err(wrap)?;
        self.sync_folder().map_err(wrap)
    }

    /// The table in force becomes the one before, if it is whole.
    fn keep_before(&self, path: &Path) -> io::Result<()> {
        if read_sealed::<Durable>(path).is_err() {
            return Ok(());
        }
        let link = self.folder.join("table.before.json.new");
        let _ = fs::remove_file(&link);
        if fs::hard_link(path, &link).is_err() {
            // A file system without links.
            fs::copy(path, &link)?;
            File::open(&link)?.sync_all()?;
        }
        fs::rename(&link, self.folder.join(TABLE_BEFORE))
    }

    /// The endpoints that were last known; none if the file cannot be read: the host says them anew.
    pub(crate) fn load_endpoints(&self) -> Vec<Endpoints> {
        read_sealed(&self.folder.join(ENDPOINTS)).unwrap_or_default()
    }

    /// Keeps the endpoints, whole but not synced: the host will say them again.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn save_endpoints(&self, endpoints: &[Endpoints]) -> Result<(), StoreError> {
        let path = self.folder.join(ENDPOINTS);
        let wrap = |source| StoreError::Io { doing: "write", path: path.clone(), source };
        let fresh = self.folder.join("endpoints.json.new");
        write_new(&fresh, &seal(&endpoints).map_err(wrap)?, false).map_err(wrap)?;
        fs::rename(&fresh, &path).map_err(wrap)
    }

    /// A number for this life of the switch, above all before: unix milliseconds, unless the clock
    /// went back.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn next_epoch(&self, now_ms: u64) -> Result<u64, StoreError> {
        let path = self.folder.join(EPOCH);
        let wrap = |source| StoreError::Io { doing: "write", path: path.clone(), source };
        let before = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().unwrap_or(0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(wrap(error)),
        };
        let epoch = now_ms.max(before + 1);
        let fresh = self.folder.join("epoch.new");
        write_new(&fresh, format!("{epoch}\n").as_bytes(), true).map_err(wrap)?;
        fs::rename(&fresh, &path).map_err(wrap)?;
        self.sync_folder().map_err(wrap)?;
        Ok(epoch)
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}

/// Writes `path` by a new file beside it and a rename.
///
/// # Errors
/// What the file system says.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    write_new(Path::new(&fresh), bytes, false)?;
    fs::rename(fresh, path)
}

fn write_new(path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    let mut file =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    if sync { file.sync_all() } else { Ok(()) }
}

fn seal<T: Serialize>(state: &T) -> io::Result<Vec<u8>> {
    let state = serde_json::value::to_raw_value(state)?;
    let checksum = Digest::of(state.get().as_bytes());
    Ok(serde_json::to_vec(&Sealed { checksum, state: &state })?)
}

fn read_sealed<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let bytes = fs::read(path)?;
    let sealed: Sealed<'_> = serde_json::from_slice(&bytes)?;
    if Digest::of(sealed.state.get().as_bytes()) != sealed.checksum {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its checksum is wrong"));
    }
    Ok(serde_json::from_str(sealed.state.get())?)
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(epoch: u64) -> Durable {
        Durable { home: Some("h".into()), epoch: Epoch(epoch), lanes: BTreeMap::new() }
    }

    #[test]
    fn a_table_torn_at_any_offset_falls_back_to_the_last_good_one_and_never_to_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("switch")).unwrap();
        assert_eq!(store.load().unwrap(), (Durable::default(), None));
        store.save(&state(1)).unwrap();
        store.save(&state(2)).unwrap();
        let path = store.folder().join(TABLE);
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (loaded, trouble) = store.load().unwrap();
            assert_eq!(loaded, state(1), "cut at {cut}");
            assert!(trouble.is_some());
        }
        for flip in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[flip] ^= 0x01;
            fs::write(&path, &bytes).unwrap();
            let (loaded, _) = store.load().unwrap();
            assert!(loaded == state(1) || loaded == state(2), "flipped at {flip}");
        }
        // A write that was cut anywhere before the rename leaves the acknowledged one.
        fs::write(&path, &whole).unwrap();
        for cut in 0..whole.len() {
            fs::write(store.folder().join("table.json.new"), &whole[..cut]).unwrap();
            assert_eq!(store.load().unwrap(), (state(2), None));
        }
    }

    #[test]
    fn a_torn_table_does_not_push_out_the_good_one_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_owned()).unwrap();
        store.save(&state(1)).unwrap();
        store.save(&state(2)).unwrap();
        fs::write(store.folder().join(TABLE), "{").unwrap();
        store.save(&state(3)).unwrap();
        fs::write(store.folder().join(TABLE), "{").unwrap();
        assert_eq!(store.load().unwrap().0, state(1));
        fs::write(store.folder().join(TABLE_BEFORE), "").unwrap();
        assert!(matches!(store.load(), Err(StoreError::NoTable { .. })));
        fs::remove_file(store.folder().join(TABLE)).unwrap();
        assert!(matches!(store.load(), Err(StoreError::NoTable { .. })));
    }

    #[test]
    fn every_life_has_a_higher_epoch_even_if_the_clock_goes_back() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_owned()).unwrap();
        assert_eq!(store.next_epoch(1_000).unwrap(), 1_000);
        assert_eq!(store.next_epoch(10).unwrap(), 1_001);
        assert_eq!(store.next_epoch(5_000).unwrap(), 5_000);
    }
}
