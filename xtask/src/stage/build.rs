//! The programs under test.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tidy;

/// Names the binary to test instead of building one.
const BINARY: &str = "TIDEGATE_BIN";

/// Names the example service to use instead of building it.
const EXAMPLE: &str = "TIDEGATE_EXAMPLE_BIN";

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// `tidegate`.
    pub tidegate: PathBuf,
    /// `tidegate-example`.
    pub example: PathBuf,
}

impl Binaries {
    /// Builds both in the release profile; what `TIDEGATE_BIN` or `TIDEGATE_EXAMPLE_BIN` names is
    /// taken as it is.
    ///
    /// # Errors
    /// When cargo fails or a program is not where it should be.
    pub fn build() -> Result<Self> {
        let given = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let (tidegate, example) = (given(BINARY), given(EXAMPLE));
        let mut packages = Vec::new();
        for (given, package) in [(&tidegate, "tidegate"), (&example, "tidegate-example-service")] {
            if given.is_none() {
                packages.extend(["-p", package]);
            }
        }
        let built = if packages.is_empty() { PathBuf::new() } else { cargo_build(&packages)? };
        let binaries = Self {
            tidegate: tidegate.unwrap_or_else(|| built.join("tidegate")),
            example: example.unwrap_or_else(|| built.join("tidegate-example")),
        };
        for program in [&binaries.tidegate, &binaries.example] {
            if !program.is_file() {
                bail!("{} is not there", program.display());
            }
        }
        Ok(binaries)
    }
}

fn cargo_build(packages: &[&str]) -> Result<PathBuf> {
    let cargo: OsString = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let root = tidy::root();
    let status = Command::new(cargo)
        .args(["build", "--release", "--locked"])
        .args(packages)
        .current_dir(&root)
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("cargo build --release --locked {}: {status}", packages.join(" "));
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| Path::new("target").to_owned());
    Ok(root.join(target).join("release"))
}
