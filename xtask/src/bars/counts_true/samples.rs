//! Sample segments, read by what is written in their first lines, not by the engine's own code.
//!
//! A segment is JSON lines: a header, then `CHECK JSON` for each record. The digest of a segment up
//! to a line is the SHA-256 of the file's bytes up to the end of that line.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use tidegate_core::counts::SecondRecord;

use crate::stage::Stage;

/// One record and the digest of its segment up to it.
struct Row {
    record: SecondRecord,
    digest: String,
}

/// All segments of a rollout, in order.
pub(super) struct Samples(Vec<Row>);

/// Reads those of the rollout `id`.
pub(super) fn read(stage: &Stage, id: &str) -> Result<Samples> {
    let folder = stage.home().join("samples/stage/rollout").join(id);
    let entries = std::fs::read_dir(&folder)
        .with_context(|| format!("no samples in {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let mut rows = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        let rows_of = parse(&text).with_context(|| format!("in {}", file.display()))?;
        rows.extend(rows_of);
    }
    Ok(Samples(rows))
}

fn parse(text: &str) -> Result<Vec<Row>> {
    let (mut hash, mut rows) = (Sha256::new(), Vec::new());
    for (index, line) in text.split_inclusive('\n').enumerate() {
        hash.update(line.as_bytes());
        if index == 0 {
            continue;
        }
        let json = line.split_once(' ').context("a line without a check")?.1;
        let record = serde_json::from_str(json).with_context(|| format!("no record: {json}"))?;
        let hex: String =
            hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        rows.push(Row { record, digest: format!("sha256:{hex}") });
    }
    Ok(rows)
}

impl Samples {
    pub(super) fn records(&self) -> impl Iterator<Item = &SecondRecord> {
        self.0.iter().map(|row| &row.record)
    }

    /// The records up to the one at which a segment had this digest; none: it never had.
    pub(super) fn up_to(&self, digest: &str) -> Option<Vec<&SecondRecord>> {
        let last = self.0.iter().position(|row| row.digest == digest)?;
        Some(self.0.iter().take(last + 1).map(|row| &row.record).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::{Samples, parse};

    #[test]
    fn a_digest_is_that_of_the_files_head() {
        let record = r#"{"switchEpoch":1,"seq":1,"second":5,"lane":"l","version":"v","digest":"sha256:00","weightBp":1,"n":1,"outcomes":{},"latency":[],"retries":0,"clientGone":0,"cutover":0,"shadow":0,"forced":0,"inFlight":0}"#;
        let text = format!("{{\"form\":1}}\n0123 {record}\n4567 {record}\n");
        let samples = Samples(parse(&text).unwrap());
        let digest = &samples.0[0].digest;
        let head = &text[..text.len() / 2 + 6];
        assert!(head.ends_with("}\n"), "{head}");
        let bytes = tidegate_core::Digest::of(head.as_bytes());
        assert_eq!(bytes.as_str(), digest);
        assert_eq!(samples.up_to(digest).unwrap().len(), 1);
        assert!(samples.up_to("sha256:none").is_none());
    }
}
