//! A deterministic world around the real engine: the real `step`, the real machines and the real
//! journal in memory; a host, a switch, a network and a disk that fail in every way.
//!
//! * [`crash_points`] stops at every journal write and at every stage of every effect.
//! * [`seeds`] draws faults from a seed, then demands that everything comes to rest.
//! * [`many`] measures what a rollout costs when there are many.

pub mod check;
pub mod crash_points;
pub mod dice;
pub mod disk;
pub mod ending;
pub mod fact;
pub mod many;
pub mod process;
pub mod sabotage;
pub mod script;
pub mod seeds;
pub mod shop;
pub mod sim;
pub mod world;

pub use check::Violation;
pub use sabotage::Sabotage;
pub use sim::Sim;
