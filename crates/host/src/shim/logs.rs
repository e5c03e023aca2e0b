//! Log files with a bounded size.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Appends to a file; at a size it becomes `FILE.1`, `FILE.1` becomes `FILE.2`, … and the oldest is
/// dropped. What cannot be written (a full disk) is dropped and counted: an instance never waits
/// for its log.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    max: u64,
    files: u32,
    dropped: u64,
}

impl LogFile {
    pub(crate) fn open(path: &Path, max: u64, files: u32) -> Self {
        let mut log = Self {
            path: path.to_owned(),
            file: None,
            size: 0,
            max: max.max(1),
            files: files.max(1),
            dropped: 0,
        };
        let _ = log.reopen();
        log
    }

    fn reopen(&mut self) -> io::Result<()> {
        let file = File::options().append(true).create(true).mode(0o600).open(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// Appends `bytes`; rotates between lines where it can.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = usize::try_from(self.max.saturating_sub(self.size)).unwrap_or(usize::MAX);
            let fits = rest.get(..room).unwrap_or(rest);
            let line_end = fits.iter().rposition(|b| *b == b'\n').map(|at| at + 1);
            let end = match line_end {
                _ if fits.len() == rest.len() => rest.len(),
                Some(end) => end,
                // No line fits: into a fresh file, and if this is one, as far as it goes.
                None if self.size > 0 && self.rotate().is_ok() => continue,
                None => fits.len(),
            };
            let (now, later) = rest.split_at(end.max(1));
            self.append_part(now);
            rest = later;
        }
    }

    fn append_part(&mut self, bytes: &[u8]) {
        if self.try_append(bytes).is_err() {
            self.dropped = self.dropped.saturating_add(bytes.len() as u64);
            self.file = None;
        }
    }

    fn try_append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            self.reopen()?;
        }
        if self.size > 0 && self.size.saturating_add(bytes.len() as u64) > self.max {
            self.rotate()?;
        }
        let dropped = self.dropped;
        let Some(file) = &mut self.file else { return Ok(()) };
        if dropped > 0 {
            let note = format!("[{dropped} bytes of output were lost: the log was not writable]\n");
            file.write_all(note.as_bytes())?;
            self.size += note.len() as u64;
            self.dropped = 0;
        }
        file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        for n in (1..self.files).rev() {
            let from = if n == 1 { self.path.clone() } else { numbered(&self.path, n - 1) };
            match std::fs::rename(&from, numbered(&self.path, n)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                Ok(()) | Err(_) => {}
            }
        }
        if self.files == 1 {
            std::fs::remove_file(&self.path)?;
        }
        self.reopen()
    }
}

/// `FILE.N`.
pub(crate) fn numbered(path: &Path, n: u32) -> PathBuf {
    path.with_added_extension(n.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_rotated_at_its_size_and_the_oldest_file_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stdout.log");
        let mut log = LogFile::open(&path, 10, 3);
        for line in ["aaaaaaa\n", "bbbbbbb\n", "ccccccc\n", "ddddddd\n"] {
            log.append(line.as_bytes());
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "ddddddd\n");
        assert_eq!(std::fs::read_to_string(numbered(&path, 1)).unwrap(), "ccccccc\n");
        assert_eq!(std::fs::read_to_string(numbered(&path, 2)).unwrap(), "bbbbbbb\n");
        assert!(!numbered(&path, 3).exists());
    }

    #[test]
    fn output_that_comes_in_one_piece_is_rotated_between_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stdout.log");
        let mut log = LogFile::open(&path, 10, 4);
        log.append(b"aaa\nbbb\nccc\nddd\n0123456789abcde\n");
        let files = [3, 2, 1].map(|n| std::fs::read_to_string(numbered(&path, n)).unwrap());
        assert_eq!(files, ["aaa\nbbb\n", "ccc\nddd\n", "0123456789"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "abcde\n");
    }

    #[test]
    fn output_that_could_not_be_written_is_counted_in_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("not-yet").join("stdout.log");
        let mut log = LogFile::open(&path, 1000, 3);
        log.append(b"lost");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        log.append(b"kept\n");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("[4 bytes of output were lost"), "{text}");
        assert!(text.ends_with("kept\n"), "{text}");
    }
}
