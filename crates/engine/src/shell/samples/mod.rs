//! Sample segments: the closed seconds of every watching stream, durable before a machine sees
//! them, and read back after a restart.
//!
//! `samples/PROJECT/KIND/ID/NNNNNN.jsonl` (each name percent-encoded), one segment per minute of
//! the switch's clock. See [`segment`] for the form of a file.

pub mod segment;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_core::counts::SecondRecord;
use tidegate_core::machine::Watch;
use tidegate_core::{Digest, StreamId};

use crate::step::Input;
use segment::Segment;

/// Bytes of segments that one stream may hold; the oldest go first.
const STREAM_BYTES_MAX: u64 = 64 << 20;
/// From so many files in one batch on, one sync of the file system is cheaper than one for each.
const SYNC_TOGETHER: usize = 8;
/// Records that wait for space on the disk, per stream: 15 minutes of two versions and some.
const WAITING_MAX: usize = 4_000;

/// What went wrong with the segments for good: the process must end.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {path}: {source}")]
pub struct SampleError {
    /// What was done.
    pub doing: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// The cause.
    pub source: io::Error,
}

impl SampleError {
    fn new(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self { doing, path: path.to_owned(), source }
    }
}

/// All streams' segments.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    streams: BTreeMap<StreamId, Shelf>,
    watches: Arc<BTreeMap<Watch, BTreeSet<StreamId>>>,
    per_stream_max: u64,
}

/// Records of one segment and its digest behind the last of them.
type Batch = (Vec<SecondRecord>, Digest);

/// One stream's segments.
#[derive(Debug, Default)]
struct Shelf {
    folder: PathBuf,
    current: Option<Segment>,
    /// Older segments: serial and bytes.
    older: Vec<(u64, u64)>,
    /// The last sequence of every life of the switch.
    seen: BTreeMap<u64, u64>,
    /// Not written yet.
    waiting: Vec<SecondRecord>,
    /// The disk had no space at the last try.
    stuck: bool,
}

impl Store {
    /// A store in this folder, which is made when it is needed.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            streams: BTreeMap::new(),
            watches: Arc::default(),
            per_stream_max: STREAM_BYTES_MAX,
        }
    }

    /// With another bound for each stream, in bytes.
    #[must_use]
    pub fn with_bound(mut self, bytes: u64) -> Self {
        self.per_stream_max = bytes;
        self
    }

    /// Who watches what from now on. Returns what earlier processes had stored for streams that
    /// are new to this one; machines are to be fed it first.
    ///
    /// # Errors
    /// [`SampleError`] if a segment cannot be read or mended.
    pub fn set_watches(
        &mut self,
        watches: impl Into<Arc<BTreeMap<Watch, BTreeSet<StreamId>>>>,
    ) -> Result<Vec<Input>, SampleError> {
        let watches = watches.into();
        let wanted: BTreeSet<&StreamId> =
            watches.iter().filter(|(w, _)| w.samples).flat_map(|(_, ids)| ids).collect();
        self.streams.retain(|id, _| wanted.contains(id));
        let mut inputs = Vec::new();
        for id in wanted {
            if !self.streams.contains_key(id) {
                let (shelf, read) = Shelf::open(folder(&self.root, id))?;
                self.streams.insert(id.clone(), shelf);
                inputs.extend(read.into_iter().map(|(records, segment)| Input::Samples {
                    stream: id.clone(),
                    records,
                    segment,
                }));
            }
        }
        self.watches = watches;
        Ok(inputs)
    }

    /// Stores closed seconds of one target and returns what the machines may be told: only what
    /// is durable, and only what is new.
    ///
    /// # Errors
    /// [`SampleError`] if a sync fails or a file breaks: nobody knows then what is durable. A full
    /// disk is no error: the records wait for the next call, up to a bound.
    pub fn add(
        &mut self,
        target: &str,
        records: &[SecondRecord],
    ) -> Result<Vec<Input>, SampleError> {
        for (watch, ids) in self.watches.as_ref() {
            if !watch.samples || watch.target != target {
                continue;
            }
            let of_lane: Vec<_> = records.iter().filter(|r| r.lane == watch.lane).collect();
            for id in ids {
                if let Some(shelf) = self.streams.get_mut(id) {
                    shelf.take(id, &of_lane);
                }
            }
        }
        let mut written = Vec::new();
        for (id, shelf) in &mut self.streams {
            if shelf.waiting.is_empty() {
                continue;
            }
            let records = shelf.write(id, self.per_stream_max)?;
            if !records.is_empty() {
                written.push((id.clone(), records));
            }
        }
        self.sync(&written)?;
        let mut inputs = Vec::new();
        for (stream, records) in written {
            if let Some(digest) =
                self.streams.get(&stream).and_then(|s| s.current.as_ref()).map(Segment::digest)
            {
                inputs.push(Input::Samples { stream, records, segment: digest });
            }
        }
        Ok(inputs)
    }

    fn sync(&self, written: &[(StreamId, Vec<SecondRecord>)]) -> Result<(), SampleError> {
        if written.len() > SYNC_TOGETHER {
            let failed = |source| SampleError::new("cannot sync", &self.root, source);
            let folder = File::open(&self.root).map_err(failed)?;
            return rustix::fs::syncfs(&folder).map_err(|e| failed(e.into()));
        }
        for (id, _) in written {
            if let Some(segment) = self.streams.get(id).and_then(|s| s.current.as_ref()) {
                segment.sync()?;
            }
        }
        Ok(())
    }
}

impl Shelf {
    /// Reads what is there, in order, one batch per segment, and mends a torn end.
    fn open(folder: PathBuf) -> Result<(Self, Vec<Batch>), SampleError> {
        let mut shelf = Self { folder, ..Self::default() };
        let mut read = Vec::new();
        let serials = segment::list(&shelf.folder)?;
        let newest = serials.last().copied();
        for serial in serials {
            let last = Some(serial) == newest;
            let opened = Segment::open(&shelf.folder, serial, last)?;
            let Some((segment, records)) = opened else { continue };
            for record in &records {
                shelf.note(record);
            }
            if !records.is_empty() {
                read.push((records, segment.digest()));
            }
            if let Some(old) = shelf.current.replace(segment) {
                shelf.older.push((old.serial, old.bytes));
            }
        }
        Ok((shelf, read))
    }

    /// Whether the record is new; remembers it.
    fn note(&mut self, record: &SecondRecord) -> bool {
        let last = self.seen.entry(record.switch_epoch).or_default();
        let new = record.seq > *last;
        *last = record.seq.max(*last);
        new
    }

    fn take(&mut self, id: &StreamId, records: &[&SecondRecord]) {
        for record in records {
            if self.note(record) {
                self.waiting.push((*record).clone());
            }
        }
        if self.waiting.len() > WAITING_MAX {
            let surplus = self.waiting.len() - WAITING_MAX;
            self.waiting.drain(..surplus);
            tracing::error!(stream = %id, surplus, "samples are lost: no space to write them");
        }
    }

    /// Writes what waits; returns what was written. The sync is the caller's.
    fn write(&mut self, id: &StreamId, max: u64) -> Result<Vec<SecondRecord>, SampleError> {
        let mut written = Vec::new();
        while let Some(first) = self.waiting.first() {
            let minute = first.second / 60;
            if self.current.as_ref().is_none_or(|s| s.minute != minute)
                && let Err(error) = self.turn(id, minute, max)
            {
                return self.no_space(id, error, written);
            }
            let Some(segment) = &mut self.current else { break };
            let count = self.waiting.iter().take_while(|r| r.second / 60 == minute).count();
            match segment.append(&self.waiting[..count]) {
                Ok(()) => written.extend(self.waiting.drain(..count)),
                Err(error) => return self.no_space(id, error, written),
            }
        }
        self.stuck = false;
        Ok(written)
    }

    fn no_space(
        &mut self,
        id: &StreamId,
        error: SampleError,
        written: Vec<SecondRecord>,
    ) -> Result<Vec<SecondRecord>, SampleError> {
        if !matches!(error.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        {
            return Err(error);
        }
        if !std::mem::replace(&mut self.stuck, true) {
            tracing::error!(stream = %id, %error, "samples wait for space on the disk");
        }
        Ok(written)
    }

    /// Finishes the current segment (synced, so that the next one's link to it holds) and begins
    /// the next.
    fn turn(&mut self, id: &StreamId, minute: u64, max: u64) -> Result<(), SampleError> {
        let (serial, previous) = match &self.current {
            Some(segment) => {
                segment.sync()?;
                (segment.serial + 1, Some(segment.digest()))
            }
            None => (1, None),
        };
        let next = Segment::create(&self.folder, id, serial, minute, previous.as_ref())?;
        if let Some(old) = self.current.replace(next) {
            self.older.push((old.serial, old.bytes));
        }
        while self.older.len() > 1 && self.older.iter().map(|(_, b)| b).sum::<u64>() > max {
            let (serial, bytes) = self.older.remove(0);
            let path = segment::path(&self.folder, serial);
            tracing::warn!(
                stream = %id, segment = %path.display(), bytes,
                "the oldest sample segment is dropped: the stream's samples exceed {max} bytes"
            );
            std::fs::remove_file(&path)
                .map_err(|source| SampleError::new("cannot remove", &path, source))?;
        }
        Ok(())
    }
}

/// Where a stream's segments lie.
#[must_use]
pub fn folder(root: &Path, id: &StreamId) -> PathBuf {
    root.join(encode(&id.project)).join(encode(&id.kind)).join(encode(&id.id))
}

/// A name that is one component of a path, whatever is in it.
fn encode(name: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || b"-_@".contains(&byte) || (byte == b'.' && at > 0) {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _never = write!(text, "%{byte:02X}");
        }
    }
    if text.is_empty() { "%".to_owned() } else { text }
}
