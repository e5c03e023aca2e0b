//! Files that were read, and places in them.

use std::sync::Arc;

/// A file's name and text, with its line starts.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    name: String,
    text: String,
    line_starts: Vec<usize>,
}

impl Source {
    /// A source from the name that diagnostics show and its whole text.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let mut line_starts = vec![0];
        line_starts.extend(text.match_indices('\n').map(|(at, _)| at + 1));
        Self { name: name.into(), text, line_starts }
    }

    /// The name that diagnostics show.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Line and column (in characters) of a byte offset, both from 1. Offsets behind the end are
    /// the end; offsets inside a character are its start.
    #[must_use]
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let offset = self.text.floor_char_boundary(offset);
        let line = self.line(offset);
        let start = self.line_starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count());
        (line, column + 1)
    }

    /// Line of a byte offset, from 1; cheap also where the line is long.
    fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    /// Byte range of a line (from 1) without its line break.
    #[must_use]
    pub fn line_range(&self, line: usize) -> std::ops::Range<usize> {
        let start = self.line_starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let end = self.line_starts.get(line).map_or(self.text.len(), |next| next - 1);
        let end = if self.text.get(start..end).is_some_and(|l| l.ends_with('\r')) {
            end - 1
        } else {
            end
        };
        start..end.max(start)
    }
}

/// A byte range in one of the files of a [`Sources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    /// Index of the file.
    pub(crate) file: usize,
    /// First byte.
    pub(crate) start: usize,
    /// Behind the last byte.
    pub(crate) end: usize,
}

/// All files that make up one project.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    files: Vec<Arc<Source>>,
}

impl Sources {
    /// Adds a file and gives its index.
    pub(crate) fn add(&mut self, source: Source) -> usize {
        self.files.push(Arc::new(source));
        self.files.len() - 1
    }

    /// The place of a span; of the first file's start if the span's file is unknown.
    pub(crate) fn place(&self, span: Span) -> Option<Place> {
        let source = self.files.get(span.file)?;
        Some(Place::new(Arc::clone(source), span.start..span.end))
    }

    /// The file at an index.
    pub(crate) fn get(&self, file: usize) -> Option<&Arc<Source>> {
        self.files.get(file)
    }

    /// `file:line:column` of a span.
    pub(crate) fn at(&self, span: Span) -> String {
        self.place(span).map_or_else(String::new, |place| place.to_string())
    }
}

/// A range in a file. Its column is counted when it is asked for: of a hundred thousand mistakes on
/// one long line only the first are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    source: Arc<Source>,
    range: std::ops::Range<usize>,
    line: usize,
}

impl Place {
    /// A place from byte offsets; they are moved to the borders of characters and cut at the end
    /// of the first line, so that a diagnostic about a block points at where it starts.
    pub(crate) fn new(source: Arc<Source>, range: std::ops::Range<usize>) -> Self {
        let start = source.text().floor_char_boundary(range.start);
        let line = source.line(start);
        let line_range = source.line_range(line);
        let mut end = source.text().floor_char_boundary(range.end).min(line_range.end).max(start);
        if let Some(covered) = source.text().get(start..end) {
            end = start + covered.trim_end().len();
        }
        Self { source, range: start..end, line }
    }

    /// Name of the file.
    #[must_use]
    pub fn file(&self) -> &str {
        self.source.name()
    }

    /// The file itself.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Bytes in the file's text.
    #[must_use]
    pub fn range(&self) -> std::ops::Range<usize> {
        self.range.clone()
    }

    /// Line, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// Column in characters, from 1.
    #[must_use]
    pub fn column(&self) -> usize {
        self.source.line_column(self.range.start).1
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.file(), self.line, self.column())
    }
}
