//! `counts-true`: the five things that must hold of the switch's counts, with the real binary.
//!
//! Parts 1, 2 and 4 have a switch process alone on the stage: the bar says to it what an engine and
//! a host would, so that an instance can be told to be ready and still be dead. Parts 3 and 5 are
//! whole releases with engine, host and switch.

mod explained;
mod fates;
mod killed;
mod refusing;
mod rig;
mod samples;
mod shares;

use anyhow::Result;

use super::{Context, Figures};

pub(super) fn run(context: &Context, figures: &mut Figures) -> Result<()> {
    explained::run(context, figures)?;
    refusing::refuses(context, figures)?;
    refusing::crashes(context, figures)?;
    shares::run(context, figures)?;
    killed::run(context, figures)
}
