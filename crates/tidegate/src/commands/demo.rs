//! demo
use super::Context;
use crate::cli::DemoArgs;
use crate::exit::{Exit, Failure};
pub(super) fn run(context: &Context, args: &DemoArgs) -> Result<Exit, Failure> {
    let _ = (context, args);
    Err(Failure::refused("notInThisVersion", "`demo` is not in this version", ""))
}
