//! `schema`: the JSON Schema of the project file.

use super::Context;
use crate::exit::{Exit, Failure};

/// Prints it.
pub(super) fn run(context: &Context) -> Result<Exit, Failure> {
    context.printer.raw(tidegate_syntax::schema().as_bytes());
    Ok(Exit::Done)
}
