//! Days of 30-second blocks: the judge's history, also of times without an engine.
//!
//! One file of JSON lines per day, appended to. A line that is torn is skipped; two lines of the
//! same block (a restart inside it) add up. No line means that nothing was counted.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use tidegate_wire::counts::SecondRecord;
use tidegate_wire::switch::Block;

/// Length of a block.
pub(crate) const BLOCK_SECONDS: u64 = 30;
/// Days that are kept, today included.
const KEEP_DAYS: u64 = 8;
/// Bytes that are kept at most; the oldest day goes first.
const KEEP_BYTES: u64 = 256 << 20;
/// Blocks that one answer carries at most.
const ANSWER_MAX: usize = 50_000;
const DAY: u64 = 86_400;

/// The block that is being filled.
#[derive(Debug)]
pub(crate) struct OpenBlocks {
    /// The first second that this life of the switch has observed.
    since: u64,
    start: u64,
    /// By lane and version.
    open: BTreeMap<(String, String), Block>,
}

impl OpenBlocks {
    pub(crate) fn new(second: u64) -> Self {
        Self { since: second, start: start(second), open: BTreeMap::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Adds the records of one second; returns the blocks that ended before it.
    pub(crate) fn add<'a>(
        &mut self,
        second: u64,
        records: impl Iterator<Item = &'a SecondRecord>,
    ) -> Vec<Block> {
        let ended = self.turn(second);
        let mut errors: BTreeMap<(String, String), u64> = BTreeMap::new();
        for record in records {
            let key = (record.lane.clone(), record.version.clone());
            let block = self.open.entry(key.clone()).or_insert_with(|| Block {
                start: self.start,
                lane: record.lane.clone(),
                version: record.version.clone(),
                seconds: 0,
                n: 0,
                k: 0,
                k_squared: 0,
                latency: Vec::new(),
            });
            block.n += u64::from(record.n);
            block.k += u64::from(record.errors());
            merge_latency(&mut block.latency, &record.latency);
            *errors.entry(key).or_default() += u64::from(record.errors());
        }
        for (key, k) in errors {
            if let Some(block) = self.open.get_mut(&key) {
                block.k_squared += k * k;
            }
        }
        ended
    }

    /// Moves on to the block of `second`; returns those that ended before it.
    pub(crate) fn turn(&mut self, second: u64) -> Vec<Block> {
        if start(second) == self.start { Vec::new() } else { self.finish(second) }
    }

    /// Ends the open blocks at `now` whatever the time is.
    pub(crate) fn finish(&mut self, now: u64) -> Vec<Block> {
        let end = now.min(self.start + BLOCK_SECONDS);
        let seconds = end.saturating_sub(self.start.max(self.since));
        let seconds = u8::try_from(seconds.max(1)).unwrap_or(u8::MAX);
        self.start = start(now);
        self.since = self.since.max(end);
        let open = std::mem::take(&mut self.open);
        open.into_values().map(|block| Block { seconds, ..block }).collect()
    }
}

fn start(second: u64) -> u64 {
    second / BLOCK_SECONDS * BLOCK_SECONDS
}

fn merge_latency(into: &mut Vec<(u8, u32)>, from: &[(u8, u32)]) {
    for (index, count) in from {
        match into.binary_search_by_key(index, |(at, _)| *at) {
            Ok(at) => {
                if let Some((_, sum)) = into.get_mut(at) {
                    *sum = sum.saturating_add(*count);
                }
            }
            Err(at) => into.insert(at, (*index, *count)),
        }
    }
}

/// The files of a home's history.
#[derive(Debug, Clone)]
pub(crate) struct HistoryFiles {
    folder: PathBuf,
}

impl HistoryFiles {
    pub(crate) fn new(switch_folder: &Path) -> Self {
        Self { folder: switch_folder.join("history") }
    }

    /// Appends blocks to the files of their days, then removes what is too old or too much.
    ///
    /// # Errors
    /// What the file system says; nothing else is lost by it than these blocks.
    pub(crate) fn append(&self, blocks: &[Block]) -> io::Result<()> {
        let Some(today) = blocks.iter().map(|block| block.start / DAY).max() else {
            return Ok(());
        };
        fs::create_dir_all(&self.folder)?;
        let mut by_day: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for block in blocks {
            let text = by_day.entry(block.start / DAY).or_default();
            serde_json::to_writer(&mut *text, block)?;
            text.push(b'\n');
        }
        for (day, text) in by_day {
            let path = self.folder.join(format!("{day}.jsonl"));
            let mut file = fs::OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .mode(0o600)
                .open(path)?;
            if torn(&mut file)? {
                file.write_all(b"\n")?;
            }
            file.write_all(&text)?;
        }
        self.prune(today)
    }

    /// Blocks of `lane` that end after `since`, ascending; of a very long history the newest.
    ///
    /// # Errors
    /// What the file system says of files that are there.
    pub(crate) fn read(&self, lane: &str, since: u64) -> io::Result<Vec<Block>> {
        let mut blocks: BTreeMap<(u64, String), Block> = BTreeMap::new();
        for (day, path) in self.days()? {
            if (day + 1) * DAY <= since {
                continue;
            }
            let bytes = fs::read(path)?;
            for line in bytes.split(|byte| *byte == b'\n') {
                let Ok(block) = serde_json::from_slice::<Block>(line) else { continue };
                if block.lane != lane || block.start + BLOCK_SECONDS <= since {
                    continue;
                }
                let key = (block.start, block.version.clone());
                match blocks.get_mut(&key) {
                    Some(sum) => add_block(sum, &block),
                    None => drop(blocks.insert(key, block)),
                }
            }
        }
        let skip = blocks.len().saturating_sub(ANSWER_MAX);
        Ok(blocks.into_values().skip(skip).collect())
    }

    /// The files by day, oldest first.
    fn days(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut days = Vec::new();
        match fs::read_dir(&self.folder) {
            Ok(entries) => {
                for entry in entries {
                    let path = entry?.path();
                    let stem = path.file_stem().and_then(|stem| stem.to_str());
                    if let Some(day) = stem.and_then(|stem| stem.parse().ok()) {
                        days.push((day, path));
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        days.sort();
        Ok(days)
    }

    fn prune(&self, today: u64) -> io::Result<()> {
        let days = self.days()?;
        let mut kept = 0;
        for (day, path) in days.into_iter().rev() {
            kept += fs::metadata(&path)?.len();
            let old = day + KEEP_DAYS <= today;
            if old || (kept > KEEP_BYTES && day != today) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn add_block(sum: &mut Block, block: &Block) {
    let most = u8::try_from(BLOCK_SECONDS).unwrap_or(u8::MAX);
    sum.seconds = sum.seconds.saturating_add(block.seconds).min(most);
    sum.n += block.n;
    sum.k += block.k;
    sum.k_squared += block.k_squared;
    merge_latency(&mut sum.latency, &block.latency);
}

/// Whether the file does not end with the end of a line.
fn torn(file: &mut fs::File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(start: u64, version: &str, n: u64) -> Block {
        Block {
            start,
            lane: "prod/web".into(),
            version: version.into(),
            seconds: 15,
            n,
            k: 1,
            k_squared: 1,
            latency: vec![(3, 2)],
        }
    }

    #[test]
    fn a_file_torn_at_any_offset_loses_only_the_torn_line_and_is_appended_to() {
        let folder = tempfile::tempdir().unwrap();
        let files = HistoryFiles::new(folder.path());
        files.append(&[block(30, "v1", 1), block(60, "v1", 2)]).unwrap();
        let path = folder.path().join("history/0.jsonl");
        let whole = fs::read(&path).unwrap();
        let first = whole.iter().position(|b| *b == b'\n').unwrap() + 1;
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            files.append(&[block(90, "v1", 3)]).unwrap();
            let seen: Vec<_> = files.read("prod/web", 0).unwrap().iter().map(|b| b.start).collect();
            let mut wanted = Vec::new();
            if cut + 1 >= first {
                wanted.push(30);
            }
            if cut + 1 >= whole.len() {
                wanted.push(60);
            }
            wanted.push(90);
            assert_eq!(seen, wanted, "cut at {cut}");
        }
    }

    #[test]
    fn old_days_go_and_a_restart_inside_a_block_adds_up() {
        let folder = tempfile::tempdir().unwrap();
        let files = HistoryFiles::new(folder.path());
        files.append(&[block(30, "v1", 1)]).unwrap();
        files.append(&[block(7 * DAY, "v1", 1)]).unwrap();
        assert_eq!(files.read("prod/web", 0).unwrap().len(), 2);
        files.append(&[block(8 * DAY, "v2", 2)]).unwrap();
        files.append(&[block(8 * DAY, "v2", 3), block(8 * DAY, "v1", 3)]).unwrap();
        let blocks = files.read("prod/web", 8 * DAY).unwrap();
        assert_eq!(files.read("prod/web", 0).unwrap().len(), 3);
        assert_eq!(blocks.len(), 2);
        assert_eq!((blocks[1].n, blocks[1].k, blocks[1].seconds), (5, 2, 30));
        assert_eq!(blocks[1].latency, [(3, 4)]);
        assert!(files.read("other/web", 0).unwrap().is_empty());
    }

    #[test]
    fn a_block_says_how_many_of_its_seconds_were_observed() {
        let mut open = OpenBlocks::new(45);
        assert!(open.is_empty());
        let record = SecondRecord {
            switch_epoch: 1,
            seq: 1,
            second: 45,
            lane: "prod/web".into(),
            version: "v1".into(),
            digest: tidegate_wire::Digest::default(),
            weight_bp: 10_000,
            n: 1,
            outcomes: tidegate_wire::counts::Outcomes::default(),
            latency: Vec::new(),
            retries: 0,
            client_gone: 0,
            cutover: 0,
            shadow: 0,
            forced: 0,
            in_flight: 0,
        };
        assert!(open.add(45, [&record].into_iter()).is_empty());
        assert!(open.turn(59).is_empty());
        let ended = open.add(60, [&record].into_iter());
        assert_eq!((ended[0].start, ended[0].seconds), (30, 15));
        let ended = open.turn(120);
        assert_eq!((ended[0].start, ended[0].seconds), (60, 30));
    }
}
