//! `schema`: the JSON Schema of the project file.

use super::Context;
use crate::exit::{Exit, Failure};

/// Prints it.
pub(super) fn run(context: &Context) -> Result<Exit, Failure> {
    let text = serde_json::to_string_pretty(&tidegate_syntax::schema()).map_err(|error| {
        Failure::defect("the schema cannot be written", "").cause(error.to_string())
    })?;
    context.printer.raw(format!("{text}\n").as_bytes());
    Ok(Exit::Done)
}
