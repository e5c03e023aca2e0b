//! The rollout: one version on its way into one lane, and back if need be.
//!
//! | stage | waits for | goes on to |
//! |---|---|---|
//! | staging | the artifact on the host | the first step |
//! | scaling | as many ready instances as the weight needs | shifting |
//! | shifting | the switch seen with the weight | the next step, or promoted |
//! | pausing | observed healthy time, or somebody | the next step |
//! | analysing | all gates | the next step |
//! | running | a one-shot | the next step |
//! | baking | observed healthy time | cooling |
//! | cooling | the scale-down delay, no request under way at the old version | retiring |
//! | retiring | the old version stopped | ended |
//! | returningCapacity | a ready instance of the old version | returningTraffic |
//! | returningTraffic | the switch seen without the new version | draining |
//! | draining | no request under way | returningDown |
//! | returningDown | the new version stopped | ended |
//!
//! From every stage before cooling's end an abort leads to the returning ones.

mod ahead;
mod back;
mod decide;
pub mod docs;
mod event;
mod flow;
mod gate;
mod machine;
mod sense;
mod state;
mod types;
mod view;

pub use event::{CheckVerdict, Event, Measurement, RunResult};
pub use sense::{Count, Volatile};
pub use state::{Back, CheckState, RULES, Stage, State, Verdict, check_key};
pub use types::*;
