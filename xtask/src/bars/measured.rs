//! Programs of the workspace that measure something themselves and say it as JSON.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::tidy;

/// Runs `cargo ARGUMENTS` in the release profile, quietly, to its end: what it says on stdout, and
/// whether it ended well.
pub(super) fn cargo(arguments: &[&str]) -> Result<(String, bool)> {
    let cargo: OsString = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(arguments)
        .current_dir(tidy::root())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    let text = String::from_utf8(output.stdout)
        .with_context(|| format!("cargo {}: not UTF-8", arguments.join(" ")))?;
    Ok((text, output.status.success()))
}

/// Builds first, so that what is measured afterwards does not share the machine with a compiler.
pub(super) fn build(arguments: &[&str]) -> Result<()> {
    let (said, built) = cargo(arguments)?;
    if !built {
        bail!("cargo {}: {said}", arguments.join(" "));
    }
    Ok(())
}

/// One JSON value a line.
pub(super) fn lines(text: &str) -> Result<Vec<Value>> {
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}")))
        .collect()
}

/// A number by its path, as `a.b.c`.
pub(super) fn number(value: &Value, path: &str) -> Result<f64> {
    let pointer = format!("/{}", path.replace('.', "/"));
    let found = value.pointer(&pointer).and_then(Value::as_f64);
    found.with_context(|| format!("no number {path} in {value}"))
}

#[cfg(test)]
mod tests {
    use super::{lines, number};

    #[test]
    fn a_number_that_is_not_there_is_no_number() {
        let all = lines("{\"a\":{\"b\":2.5}}\n\n{\"a\":\"x\"}\n").unwrap();
        assert!((number(&all[0], "a.b").unwrap() - 2.5).abs() < 1e-9);
        assert!(number(&all[1], "a").is_err() && number(&all[0], "a.c").is_err());
        assert!(lines("half a {").is_err());
    }
}
