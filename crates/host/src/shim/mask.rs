//! Secrets do not reach a log, also when the instance prints them.

/// Lines of a secret with fewer bytes are too common to be masked alone.
const SHORTEST: usize = 6;
/// What stands for a secret.
const MASK: &[u8] = b"***";
/// Most of a line that is held back before its end is there.
const HELD_MAX: usize = 8 << 10;

/// What is looked for: each secret whole and each line of it, longest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Patterns(Vec<Vec<u8>>);

impl Patterns {
    pub(crate) fn new(secrets: &[Vec<u8>]) -> Self {
        let mut all: Vec<Vec<u8>> = Vec::new();
        for secret in secrets {
            let whole = secret.trim_ascii();
            if !whole.is_empty() {
                all.push(whole.to_vec());
            }
            let lines = secret.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
            all.extend(lines.filter(|line| line.len() >= SHORTEST).map(<[u8]>::to_vec));
        }
        all.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        all.dedup();
        Self(all)
    }

    /// The length of the longest.
    pub(crate) fn longest(&self) -> usize {
        self.0.first().map_or(0, Vec::len)
    }

    /// Copies `bytes` with every pattern replaced that begins before `until`; says how far it came.
    fn mask_until(&self, bytes: &[u8], until: usize, out: &mut Vec<u8>) -> usize {
        let mut at = 0;
        while at < until {
            let rest = bytes.get(at..).unwrap_or_default();
            if let Some(found) = self.0.iter().find(|pattern| rest.starts_with(pattern)) {
                out.extend_from_slice(MASK);
                at += found.len();
            } else {
                out.extend(rest.first());
                at += 1;
            }
        }
        at
    }

    /// `bytes` with every pattern replaced.
    pub(crate) fn mask(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        self.mask_until(bytes, bytes.len(), &mut out);
        out
    }
}

/// Masks a stream that comes in pieces: whole lines at a time, so that a secret that is split over
/// two pieces is found. Without secrets everything passes at once.
#[derive(Debug)]
pub(crate) struct Masker {
    patterns: Patterns,
    held: Vec<u8>,
}

impl Masker {
    pub(crate) fn new(patterns: Patterns) -> Self {
        Self { patterns, held: Vec::new() }
    }

    /// Takes a piece; what may be written now.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Vec<u8> {
        if self.patterns.0.is_empty() {
            return piece.to_vec();
        }
        self.held.extend_from_slice(piece);
        let mut out = Vec::new();
        if let Some(end) = self.held.iter().rposition(|b| *b == b'\n') {
            self.pass(end + 1, &mut out);
        }
        if self.held.len() > HELD_MAX + self.patterns.longest() {
            // A pattern may still begin in the part that stays.
            self.pass(self.held.len() - self.patterns.longest(), &mut out);
        }
        out
    }

    /// The end of the stream: what is left.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.pass(self.held.len(), &mut out);
        out
    }

    fn pass(&mut self, until: usize, out: &mut Vec<u8>) {
        let came = self.patterns.mask_until(&self.held, until, out);
        self.held.drain(..came.min(self.held.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masker() -> Masker {
        Masker::new(Patterns::new(&[b"hunter22\nsecond-line\nab\n".to_vec()]))
    }

    #[test]
    fn a_secret_is_masked_wherever_a_stream_is_cut() {
        let text = b"x hunter22 y\nsecond-line\nhunter22\nab hunter2\nhunter22";
        for size in 1..text.len() {
            let mut masker = masker();
            let mut out = Vec::new();
            for piece in text.chunks(size) {
                out.extend(masker.feed(piece));
            }
            out.extend(masker.finish());
            let out = String::from_utf8(out).unwrap();
            assert_eq!(out, "x *** y\n***\n***\nab hunter2\n***", "pieces of {size}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_not_held_for_ever_and_is_masked_all_the_same() {
        let mut masker = masker();
        let mut out = Vec::new();
        for n in 0..2_000 {
            out.extend(masker.feed(if n % 2 == 0 { b"0123hunt" } else { b"er22xyz" }));
        }
        assert!(out.len() > 2_000);
        out.extend(masker.finish());
        assert_eq!(String::from_utf8(out).unwrap(), "0123***xyz".repeat(1_000));
    }
}
