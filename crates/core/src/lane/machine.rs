//! lane machine
