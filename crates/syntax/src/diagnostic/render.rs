//! Diagnostics for a terminal.

use annotate_snippets::{AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};

use super::{Diagnostic, Label, Severity};

/// Lines longer than this many bytes are named and not shown.
const MAX_LINE: usize = 2_000;
/// Places further apart than this many bytes are shown as pieces of their own.
const MAX_PIECE: usize = 32 * 1024;

/// Columns; longer lines are cut around the place.
const WIDTH: usize = 100;

/// How to write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Style {
    /// Text alone.
    #[default]
    Plain,
    /// With ANSI colours; they carry no meaning of their own.
    Coloured,
}

/// All diagnostics, a blank line between two, with a line break at the end.
#[must_use]
pub fn render_all(diagnostics: &[Diagnostic], style: Style) -> String {
    let mut text = String::new();
    for (index, diagnostic) in diagnostics.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        text.push_str(&render(diagnostic, style));
    }
    text
}

/// One diagnostic, with a line break at its end.
#[must_use]
pub fn render(diagnostic: &Diagnostic, style: Style) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(diagnostic.message.as_str()).id(diagnostic.code.to_string());
    let mut group = Group::with_title(title).elements(places(&diagnostic.labels));
    for label in diagnostic.labels.iter().filter(|label| !visible(label) && !label.text.is_empty())
    {
        group = group.element(Level::NOTE.no_name().message(label.text.as_str()));
    }
    for note in &diagnostic.notes {
        group = group.element(Level::NOTE.no_name().message(note.as_str()));
    }
    for fix in &diagnostic.fixes {
        group = group.element(Level::HELP.with_name("fix").message(fix.as_str()));
    }
    let renderer = match style {
        Style::Plain => Renderer::plain(),
        Style::Coloured => Renderer::styled(),
    };
    let mut text = without_spacers(&renderer.term_width(WIDTH).render(&[group]));
    text.push('\n');
    text
}

/// Snippets for the labels: one for neighbours in a file, the primary one first.
fn places(labels: &[Label]) -> Vec<Element<'_>> {
    let mut elements = Vec::new();
    let mut rest: Vec<&Label> = labels.iter().filter(|label| label.primary).collect();
    rest.extend(labels.iter().filter(|label| !label.primary));
    while let Some(first) = rest.first().copied() {
        let (together, others): (Vec<&Label>, Vec<&Label>) =
            rest.into_iter().partition(|label| near(first, label));
        rest = others;
        elements.push(piece(first, &together));
    }
    elements
}

/// Whether two labels can be shown in one piece.
fn near(first: &Label, other: &Label) -> bool {
    first.place.file() == other.place.file()
        && first.place.range().start.abs_diff(other.place.range().start) <= MAX_PIECE
        && !too_long(first)
        && !too_long(other)
        || first == other
}

/// Whether the line of a label is shown.
fn visible(label: &Label) -> bool {
    let line = label.place.source().line_range(label.place.line());
    !line.is_empty() && line.len() <= MAX_LINE
}

fn too_long(label: &Label) -> bool {
    label.place.source().line_range(label.place.line()).len() > MAX_LINE
}

/// One snippet, or the bare place where the line is too long to be shown.
fn piece<'a>(first: &'a Label, labels: &[&'a Label]) -> Element<'a> {
    let source = first.place.source();
    let lines = labels.iter().map(|label| label.place.line());
    let from = lines.clone().min().unwrap_or(1);
    let to = lines.max().unwrap_or(1);
    let range = source.line_range(from).start..source.line_range(to).end;
    let text = source.text().get(range.clone()).unwrap_or_default();
    if !visible(first) {
        return Origin::path(first.place.file())
            .line(first.place.line())
            .char_column(first.place.column())
            .into();
    }
    let mut snippet = Snippet::source(harmless(text)).path(first.place.file()).line_start(from);
    for label in labels {
        let kind = if label.primary { AnnotationKind::Primary } else { AnnotationKind::Context };
        let at = label.place.range();
        let start = at.start.saturating_sub(range.start).min(text.len());
        let end = at.end.saturating_sub(range.start).clamp(start, text.len());
        let annotation = kind.span(start..end);
        snippet = snippet.annotation(if label.text.is_empty() {
            annotation
        } else {
            annotation.label(label.text.as_str())
        });
    }
    snippet.into()
}

/// The same text with a stand-in of the same length for each character that a terminal would obey.
fn harmless(text: &str) -> String {
    let stand_in = |c: char| match c.len_utf8() {
        1 => '?',
        2 => '\u{B7}',
        _ => '\u{FFFD}',
    };
    let keep = |c: char| matches!(c, '\n' | '\t' | '\r') || !super::is_unsafe(c);
    text.chars().map(|c| if keep(c) { c } else { stand_in(c) }).collect()
}

/// Without the empty line that the renderer puts before the first note.
fn without_spacers(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut kept = Vec::with_capacity(lines.len());
    for (index, line) in lines.iter().enumerate() {
        let spacer = uncoloured(line).trim() == "|";
        let note = lines.get(index + 1).is_some_and(|l| uncoloured(l).trim().starts_with("= "));
        if !(spacer && note) {
            kept.push(*line);
        }
    }
    kept.join("\n")
}

/// The line without its colour sequences.
fn uncoloured(line: &str) -> String {
    let mut result = String::new();
    let mut inside = false;
    for c in line.chars() {
        match (inside, c) {
            (false, '\u{1b}') => inside = true,
            (true, 'm') => inside = false,
            (false, c) => result.push(c),
            (true, _) => {}
        }
    }
    result
}
