//! The journal in memory: for the simulator and for tests.
