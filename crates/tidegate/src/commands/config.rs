//! `config`: the project file with all defaults filled in.

use super::Context;
use crate::cli::Output;
use crate::exit::{Exit, Failure};
use crate::{documents, project};

/// Prints it.
pub(super) fn run(context: &Context) -> Result<Exit, Failure> {
    let loaded = project::load(&context.common)?;
    match context.printer.output {
        Output::Text => {
            context.printer.raw(tidegate_syntax::config(&loaded.project).as_bytes());
        }
        Output::Json | Output::Jsonl => {
            context.printer.document(&documents::with_kind("Config", loaded.spec()));
        }
    }
    Ok(Exit::Done)
}
