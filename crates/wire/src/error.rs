//! Errors as documents: `{"error":{code,message,on,cause[],fix[],docs}}`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The outer object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorDoc {
    /// The error.
    pub error: ErrorBody,
}

/// What failed, on what, why, and what to do next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ErrorBody {
    /// `TG-0042`, or a camelCase word from a machine's refusal.
    pub code: String,
    /// What failed.
    pub message: String,
    /// On what: a file with line and column, a lane, a version.
    pub on: String,
    /// Why, outermost first.
    pub cause: Vec<String>,
    /// What to do next.
    pub fix: Vec<String>,
    /// Where it is explained.
    pub docs: String,
}

impl ErrorBody {
    /// An error from its code, message and subject.
    pub fn new(code: &str, message: impl Into<String>, on: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), on: on.into(), ..Self::default() }
    }

    /// With what to do next.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix.push(fix.into());
        self
    }

    /// With why.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.cause.push(cause.into());
        self
    }

    /// As a document.
    #[must_use]
    pub fn doc(self) -> ErrorDoc {
        ErrorDoc { error: self }
    }
}

/// A command under an old fence, or of another home.
pub const STALE_FENCE: &str = "staleFence";
/// The host or switch belongs to another home.
pub const OTHER_HOME: &str = "otherHome";
/// The staged artifact does not have the digest that was named.
pub const DIGEST_CHANGED: &str = "digestChanged";
/// The document cannot be carried out as it is (port in use, start command missing, …).
pub const IMPOSSIBLE: &str = "impossible";
