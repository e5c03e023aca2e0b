//! The pure step with the real machines, a journal in memory and a trivial world.

mod canary;
mod corners;
mod specs;
mod world;
