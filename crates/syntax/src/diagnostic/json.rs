//! Diagnostics as JSON: `{"error":{code,message,on,cause[],fix[],docs,mistakes[]}}`.

use serde::Serialize;
use serde_json::{Value, json};

use super::Diagnostic;

/// A diagnostic as it is written to JSON: the fields of every error document, and its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiagnosticBody {
    /// `TG-0042`.
    pub code: String,
    /// `error` or `warning`.
    pub severity: String,
    /// What is wrong.
    pub message: String,
    /// `file:line:column`.
    pub on: String,
    /// Why.
    pub cause: Vec<String>,
    /// What to do.
    pub fix: Vec<String>,
    /// Where it is explained.
    pub docs: String,
    /// All places, the mistake's own first.
    pub places: Vec<PlaceBody>,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlaceBody {
    /// The file's name.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// First byte.
    pub start: usize,
    /// Behind the last byte.
    pub end: usize,
    /// What is said about it.
    pub text: String,
}

impl Diagnostic {
    /// The diagnostic as it is written to JSON.
    #[must_use]
    pub fn body(&self) -> DiagnosticBody {
        let mut labels: Vec<_> = self.labels.iter().collect();
        labels.sort_by_key(|label| !label.primary);
        let mut cause: Vec<String> = self
            .labels
            .iter()
            .filter(|label| label.primary && !label.text.is_empty())
            .map(|label| label.text.clone())
            .collect();
        cause.extend(self.notes.iter().cloned());
        DiagnosticBody {
            code: self.code.to_string(),
            severity: self.severity.as_str().to_owned(),
            message: self.message.clone(),
            on: self.on(),
            cause,
            fix: self.fixes.clone(),
            docs: self.code.docs(),
            places: labels
                .into_iter()
                .map(|label| PlaceBody {
                    file: label.place.file().to_owned(),
                    line: label.place.line(),
                    column: label.place.column(),
                    start: label.place.range().start,
                    end: label.place.range().end,
                    text: label.text.clone(),
                })
                .collect(),
        }
    }
}

/// The error document of a file with mistakes: the fields of the first error, and every mistake
/// under `mistakes`. Null if there is none.
#[must_use]
pub fn error_document(diagnostics: &[Diagnostic]) -> Value {
    let first = diagnostics.iter().min_by_key(|diagnostic| diagnostic.severity);
    let Some(body) = first.map(Diagnostic::body) else {
        return Value::Null;
    };
    let mistakes: Vec<DiagnosticBody> = diagnostics.iter().map(Diagnostic::body).collect();
    json!({"error": {
        "code": body.code,
        "message": body.message,
        "on": body.on,
        "cause": body.cause,
        "fix": body.fix,
        "docs": body.docs,
        "mistakes": mistakes,
    }})
}
