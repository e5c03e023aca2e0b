//! Reasons are data: every decision and every wait carries one.

use serde::{Deserialize, Serialize};

/// Why something was decided, or what is being waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    /// A stable word in camelCase, such as `progressDeadline`; see GLOSSARY.md.
    pub code: String,
    /// One sentence for a person, without a full stop at its end.
    pub text: String,
}

impl Reason {
    /// A reason from its code and its sentence.
    pub fn new(code: &str, text: impl Into<String>) -> Self {
        Self { code: code.to_owned(), text: text.into() }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}
