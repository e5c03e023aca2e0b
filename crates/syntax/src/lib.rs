//! What people write, and the core's specs that it becomes; diagnostics that point at the
//! character. Pure: the caller reads files and variables and hands them in.
//!
//! [`read_project`] reads `tidegate.yaml`: either the resolved spec with warnings, or every mistake
//! at once. All keys of the format stand in tables; the structure check, the defaults, the JSON
//! Schema ([`schema`]) and the filled-in file ([`config`]) are made from these.

mod config;
pub mod diagnostic;
pub mod init;
mod project;
mod schema;
mod shape;
mod source;
mod yaml;

pub use config::config;
pub use diagnostic::{Code, Diagnostic, Severity};
pub use init::init;
pub use project::{Project, ProjectInput, read_project};
pub use schema::{schema, yaml_to_json};
pub use source::{Place, Source};
use tidegate_core::traffic::FULL_WEIGHT;
