//! What the switch counts: closed seconds for the judge, and days of history on disk.

mod clock;
mod history;
mod second;

pub(crate) use clock::{Clock, micros};
use history::BLOCK_SECONDS;
pub(crate) use history::HistoryFiles;
pub(crate) use second::{CellKey, Counts, Outcome};
