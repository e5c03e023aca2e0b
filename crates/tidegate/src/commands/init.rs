//! `init`: a project file from what lies there.

use super::Context;
use crate::cli::InitArgs;
use crate::exit::{Exit, Failure};

/// Writes it; never overwrites.
pub(super) fn run(context: &Context, args: &InitArgs) -> Result<Exit, Failure> {
    let _ = (context, args);
    Err(Failure::refused("notInThisVersion", "`init` is not in this version", ""))
}
