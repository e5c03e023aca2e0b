//! The last lines of a one-shot's output, without secrets.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Most of it that is kept.
const TAIL: usize = 4 << 10;
/// Lines of a secret with fewer bytes are too common to be masked alone.
const SHORTEST: usize = 6;
/// What stands for a secret.
const MASK: &[u8] = b"***";

/// The end of the file at `path`, masked, as text.
pub(super) fn tail(path: &Path, secrets: &[Vec<u8>]) -> String {
    let patterns = patterns(secrets);
    let longest = patterns.iter().map(Vec::len).max().unwrap_or_default();
    let (bytes, cut) = last(path, TAIL + longest).unwrap_or_default();
    // A file that begins before what was read may begin with a part of a secret: whole lines only.
    let begin = match bytes.iter().position(|b| *b == b'\n') {
        _ if !cut => 0,
        Some(end) => end + 1,
        None => longest,
    };
    let masked = mask(bytes.get(begin..).unwrap_or_default(), &patterns);
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

/// Each secret whole and each line of it, longest first.
fn patterns(secrets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for secret in secrets {
        let whole = secret.trim_ascii();
        if !whole.is_empty() {
            all.push(whole.to_vec());
        }
        let lines = secret.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
        all.extend(lines.filter(|line| line.len() >= SHORTEST).map(<[u8]>::to_vec));
    }
    all.sort_by_key(|pattern| std::cmp::Reverse(pattern.len()));
    all.dedup();
    all
}

fn mask(bytes: &[u8], patterns: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        if let Some(found) = patterns.iter().find(|p| rest.starts_with(p)) {
            out.extend_from_slice(MASK);
            rest = rest.get(found.len()..).unwrap_or_default();
        } else {
            out.push(*first);
            rest = rest.get(1..).unwrap_or_default();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_bounded_and_has_no_secret_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("output.log");
        let mut text = String::new();
        for n in 0..2000 {
            text.push_str(&format!("line {n} hunter22 second-line\n"));
        }
        std::fs::write(&path, &text).unwrap();
        let tail = tail(&path, &[b"hunter22\nsecond-line\n".to_vec()]);
        assert!(tail.len() <= TAIL, "{}", tail.len());
        assert!(!tail.contains("hunter22") && !tail.contains("second-line"), "{tail}");
        assert!(tail.starts_with("line ") && tail.ends_with("line 1999 *** ***\n"), "{tail}");
    }
}
