//! release machine
