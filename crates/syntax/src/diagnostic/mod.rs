//! Mistakes as data: the same diagnostics go to a terminal and into JSON.

mod code;
mod json;
mod nearest;
mod render;

use crate::source::{Place, Sources, Span};

pub use code::Code;
pub use json::{DiagnosticBody, PlaceBody, error_document};
pub(crate) use nearest::nearest;
pub use render::{Style, render, render_all};

/// Mistakes that are listed at most; further ones are only counted.
pub(crate) const MAX_LISTED: usize = 100;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file is not accepted.
    Error,
    /// The file is accepted; somebody should know this.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// A place with what is to be said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Where.
    pub place: Place,
    /// What is to be said; may be empty.
    pub text: String,
    /// Whether this is where the mistake is; the others explain it.
    pub primary: bool,
}

/// One mistake: what, where, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its kind.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, as a short sentence without a full stop.
    pub message: String,
    /// Where; the first primary one is the diagnostic's place.
    pub labels: Vec<Label>,
    /// Why.
    pub notes: Vec<String>,
    /// What to do, one possibility each.
    pub fixes: Vec<String>,
}

impl Diagnostic {
    /// An error without a place.
    pub(crate) fn error(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message: plain(&message.into()),
            labels: Vec::new(),
            notes: Vec::new(),
            fixes: Vec::new(),
        }
    }

    /// A warning without a place.
    pub(crate) fn warning(code: Code, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    /// With where it is.
    #[must_use]
    pub(crate) fn at(self, sources: &Sources, span: Span, text: impl Into<String>) -> Self {
        self.label(sources, span, text, true)
    }

    /// With another place that explains it.
    #[must_use]
    pub(crate) fn see(self, sources: &Sources, span: Span, text: impl Into<String>) -> Self {
        self.label(sources, span, text, false)
    }

    fn label(
        mut self,
        sources: &Sources,
        span: Span,
        text: impl Into<String>,
        primary: bool,
    ) -> Self {
        if let Some(place) = sources.place(span) {
            self.labels.push(Label { place, text: plain(&text.into()), primary });
        }
        self
    }

    /// With why.
    #[must_use]
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(plain(&note.into()));
        self
    }

    /// With what to do.
    #[must_use]
    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fixes.push(plain(&fix.into()));
        self
    }

    /// With what to do, if there is something.
    #[must_use]
    pub(crate) fn fix_if(self, fix: Option<String>) -> Self {
        match fix {
            Some(fix) => self.fix(fix),
            None => self,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        self.labels.iter().find(|label| label.primary).map(|label| &label.place)
    }

    /// `file:line:column`, or nothing.
    #[must_use]
    pub fn on(&self) -> String {
        self.place().map_or_else(String::new, ToString::to_string)
    }
}

/// Collects diagnostics up to a limit.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    list: Vec<Diagnostic>,
    errors: usize,
    dropped: usize,
}

impl Sink {
    /// Adds one.
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        let error = diagnostic.severity == Severity::Error;
        if error {
            self.errors += 1;
        }
        if self.list.len() < MAX_LISTED {
            self.list.push(diagnostic);
        } else {
            self.dropped += 1;
        }
    }

    /// Counts a mistake without its text, if no more are listed. True if it did.
    pub(crate) fn only_counts(&mut self) -> bool {
        let full = self.list.len() >= MAX_LISTED;
        if full {
            self.errors += 1;
            self.dropped += 1;
        }
        full
    }

    /// Whether there is a mistake that keeps the file from being accepted.
    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// All of them in the order of the file, the count of those that are not listed last.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.list.sort_by_key(|diagnostic| {
            diagnostic.place().map(|place| (place.file().to_owned(), place.range().start))
        });
        self.list.dedup();
        if self.dropped > 0 {
            let severity = if self.errors > 0 { Severity::Error } else { Severity::Warning };
            let text = format!("{} more are not listed", self.dropped);
            let more = Diagnostic { severity, ..Diagnostic::error(Code::Many, text) };
            self.list.push(more.fix("mend the ones above first"));
        }
        self.list
    }
}

/// Text from the file as it may stand in a message: one line, cut, without characters that a
/// terminal would obey.
pub(crate) fn shown(text: &str) -> String {
    const MAX: usize = 60;
    let cut: String = text.chars().take(MAX).collect();
    let mut result = plain(&cut);
    if cut.len() < text.len() {
        result.push('…');
    }
    result
}

/// Without control characters and characters that turn the direction of text.
fn plain(text: &str) -> String {
    text.chars().map(|c| if is_unsafe(c) { '\u{FFFD}' } else { c }).collect()
}

/// Control characters, bidirectional overrides, zero-width characters.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}')
}
