//! The load client of all bars; it lives beside the example service, so that `tidegate demo`
//! counts with the same one.

pub use tidegate_example_service::load::{
    ErrorClass, Line, Load, LoadError, LoadOptions, LoadReport, Tally,
};
