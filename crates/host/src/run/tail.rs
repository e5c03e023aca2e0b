//! The last lines of a one-shot's output, without secrets.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::shim::mask::Patterns;

/// Most of it that is kept.
const TAIL: usize = 4 << 10;

/// The end of the file at `path`, masked, as text.
pub(super) fn tail(path: &Path, secrets: &[Vec<u8>]) -> String {
    let patterns = Patterns::new(secrets);
    let (bytes, cut) = last(path, TAIL + patterns.longest()).unwrap_or_default();
    // A file that begins before what was read may begin with a part of a secret: whole lines only.
    let begin = match bytes.iter().position(|b| *b == b'\n') {
        _ if !cut => 0,
        Some(end) => end + 1,
        None => patterns.longest(),
    };
    let masked = patterns.mask(bytes.get(begin..).unwrap_or_default());
    let from = masked.len().saturating_sub(TAIL);
    String::from_utf8_lossy(masked.get(from..).unwrap_or_default()).into_owned()
}

/// The last bytes of a file, and whether there are others before them.
fn last(path: &Path, most: usize) -> std::io::Result<(Vec<u8>, bool)> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most as u64)))?;
    let mut bytes = Vec::new();
    file.take(most as u64).read_to_end(&mut bytes)?;
    Ok((bytes, length > most as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_bounded_and_has_no_secret_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("output.log");
        let lines = (0..2000).map(|n| format!("line {n} hunter22 second-line\n"));
        std::fs::write(&path, lines.collect::<String>()).unwrap();
        let tail = tail(&path, &[b"hunter22\nsecond-line\n".to_vec()]);
        assert!(tail.len() <= TAIL, "{}", tail.len());
        assert!(!tail.contains("hunter22") && !tail.contains("second-line"), "{tail}");
        assert!(tail.starts_with("line ") && tail.ends_with("line 1999 *** ***\n"), "{tail}");
    }
}
