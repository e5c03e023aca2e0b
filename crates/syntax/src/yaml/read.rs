//! From parser events to the tree. The parser is a stream, so a file that breaks a budget costs
//! no more than what was read until then.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span as Marks, StrInput, Tag};

use crate::diagnostic::{Code, Diagnostic, Sink, shown};
use crate::source::{Source, Sources, Span};

use super::merge::merged;
use super::{Entry, Extent, MAX_DEPTH, MAX_NODES, MAX_TEXT, Node};

/// What all files of a project together may hold.
#[derive(Debug)]
pub(crate) struct Budget {
    nodes: usize,
    text: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { nodes: MAX_NODES, text: MAX_TEXT }
    }
}

impl Budget {
    /// Takes what a node costs; false if there is not enough left.
    pub(super) fn take(&mut self, extent: Extent) -> bool {
        match (self.nodes.checked_sub(extent.nodes), self.text.checked_sub(extent.text)) {
            (Some(nodes), Some(text)) => {
                self.nodes = nodes;
                self.text = text;
                true
            }
            (None, _) | (_, None) => false,
        }
    }
}

/// Reads one file. None if it cannot be read to its end; what is wrong with it is in the sink.
pub(crate) fn read(
    file: usize,
    sources: &Sources,
    sink: &mut Sink,
    budget: &mut Budget,
) -> Option<Node> {
    let source = Arc::clone(sources.get(file)?);
    let builder = Builder {
        file,
        sources,
        sink,
        budget,
        offsets: Offsets::of(&source),
        source: &source,
        stack: Vec::new(),
        anchors: HashMap::new(),
        names: BTreeMap::new(),
        root: None,
        documents: 0,
    };
    builder.run()
}

/// Byte offset of each character; nothing where every character is one byte.
struct Offsets(Option<Vec<u32>>);

impl Offsets {
    fn of(source: &Source) -> Self {
        if source.text().is_ascii() {
            return Self(None);
        }
        Self(Some(
            source
                .text()
                .char_indices()
                .map(|(at, _)| u32::try_from(at).unwrap_or(u32::MAX))
                .collect(),
        ))
    }

    fn byte(&self, index: usize, length: usize) -> usize {
        match &self.0 {
            None => index.min(length),
            Some(table) => {
                table.get(index).map_or(length, |at| usize::try_from(*at).unwrap_or(length))
            }
        }
    }
}

/// A list or mapping that is not complete yet.
struct Frame {
    start: usize,
    anchor: usize,
    kind: FrameKind,
}

enum FrameKind {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, keys: HashMap<Arc<str>, Span>, merges: Vec<Node>, pending: Pending },
}

/// The key whose value comes next.
enum Pending {
    None,
    Key(Arc<str>, Span),
    Merge,
    /// A key that was refused; its value is read and dropped.
    Refused,
}

struct Builder<'a> {
    file: usize,
    sources: &'a Sources,
    sink: &'a mut Sink,
    budget: &'a mut Budget,
    offsets: Offsets,
    source: &'a Source,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Option<Node>>,
    names: BTreeMap<String, Span>,
    root: Option<Node>,
    documents: usize,
}

/// Reading stops here; the reason is in the sink.
struct Stop;

impl Builder<'_> {
    fn run(mut self) -> Option<Node> {
        let mut parser: Parser<'_, StrInput<'_>> = Parser::new_from_str(self.source.text());
        while let Some(event) = parser.next_event() {
            let outcome = match event {
                Ok((event, marks)) => self.event(event, marks),
                Err(error) => {
                    self.syntax(&error);
                    Err(Stop)
                }
            };
            if outcome.is_err() {
                return None;
            }
        }
        if self.root.as_ref().is_none_or(Node::is_null) {
            let span = Span { file: self.file, start: 0, end: 0 };
            self.sink.push(
                Diagnostic::error(Code::Empty, "file is empty")
                    .at(self.sources, span, "")
                    .fix("run `tidegate init` in an empty place, or start with `version: 1`"),
            );
            return None;
        }
        self.root
    }

    fn event(&mut self, event: Event<'_>, marks: Marks) -> Result<(), Stop> {
        let span = self.span(marks);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => self.document(span),
            Event::Alias(id) => self.alias(id, span),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = self.tag_of_scalar(tag.as_deref(), style, span);
                self.anchor_name(anchor, span)?;
                let node = Node::scalar(&text, plain, span);
                self.take(node.extent, span)?;
                self.finish(node, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.tag(tag.as_deref(), "seq", span);
                self.open(FrameKind::List(Vec::new()), anchor, span)
            }
            Event::MappingStart(anchor, tag) => {
                self.tag(tag.as_deref(), "map", span);
                let kind = FrameKind::Map {
                    entries: Vec::new(),
                    keys: HashMap::new(),
                    merges: Vec::new(),
                    pending: Pending::None,
                };
                self.open(kind, anchor, span)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
        }
    }

    fn span(&self, marks: Marks) -> Span {
        let length = self.source.text().len();
        let start = self.offsets.byte(marks.start.index(), length);
        let end = self.offsets.byte(marks.end.index(), length).max(start);
        Span { file: self.file, start, end }
    }

    fn document(&mut self, span: Span) -> Result<(), Stop> {
        self.documents += 1;
        if self.documents == 1 {
            return Ok(());
        }
        self.sink.push(
            Diagnostic::error(Code::SeveralDocuments, "more than one document")
                .at(self.sources, span, "a second document starts here")
                .fix("remove `---`, or move the rest into a file of its own and `include:` it"),
        );
        Err(Stop)
    }

    fn take(&mut self, extent: Extent, span: Span) -> Result<(), Stop> {
        if self.budget.take(extent) {
            return Ok(());
        }
        self.sink.push(
            Diagnostic::error(Code::TooManyNodes, "too many values")
                .at(self.sources, span, "reading stops here")
                .note(format!("a project may have at most {MAX_NODES} values"))
                .fix("check that this is the right file"),
        );
        Err(Stop)
    }

    fn open(&mut self, kind: FrameKind, anchor: usize, span: Span) -> Result<(), Stop> {
        self.anchor_name(anchor, span)?;
        if self.stack.len() >= MAX_DEPTH {
            return self.too_deep(span);
        }
        let extent = Extent { nodes: 1, text: 0, height: 1 };
        self.take(extent, span)?;
        if anchor > 0 {
            self.anchors.insert(anchor, None);
        }
        self.stack.push(Frame { start: span.start, anchor, kind });
        Ok(())
    }

    fn too_deep(&mut self, span: Span) -> Result<(), Stop> {
        self.sink.push(
            Diagnostic::error(Code::TooDeep, "nested too deeply")
                .at(self.sources, span, format!("more than {MAX_DEPTH} levels"))
                .fix("no file of this format needs so many levels; check the brackets"),
        );
        Err(Stop)
    }

    fn close(&mut self, span: Span) -> Result<(), Stop> {
        let Some(frame) = self.stack.pop() else {
            return Ok(());
        };
        let whole = Span { file: self.file, start: frame.start, end: span.end };
        let node = match frame.kind {
            FrameKind::List(items) => Node::list(items, whole),
            FrameKind::Map { entries, keys, merges, .. } => {
                let before = self.stack.len();
                match merged(entries, &keys, &merges, self.sources, self.sink, self.budget) {
                    Ok(entries) => {
                        let node = Node::map(entries, whole);
                        if before + node.extent.height > MAX_DEPTH + 1 {
                            return self.too_deep(whole);
                        }
                        node
                    }
                    Err(at) => return self.bomb(at),
                }
            }
        };
        self.finish(node, frame.anchor)
    }

    fn alias(&mut self, id: usize, span: Span) -> Result<(), Stop> {
        let Some(Some(node)) = self.anchors.get(&id).cloned() else {
            self.sink.push(
                Diagnostic::error(Code::Anchor, "anchor contains itself")
                    .at(self.sources, span, "stands for something that it is a part of")
                    .fix("write the value out"),
            );
            return Err(Stop);
        };
        if self.stack.len() + node.extent.height > MAX_DEPTH + 1 {
            return self.too_deep(span);
        }
        if !self.budget.take(node.extent) {
            return self.bomb(span);
        }
        self.finish(Node { span, ..node }, 0)
    }

    fn bomb(&mut self, span: Span) -> Result<(), Stop> {
        self.sink.push(
            Diagnostic::error(Code::AliasBomb, "aliases expand to too much")
                .at(self.sources, span, "reading stops here")
                .note(format!(
                    "with all aliases expanded a project may have at most {MAX_NODES} values and \
                     {MAX_TEXT} bytes of text"
                ))
                .fix("use fewer aliases of aliases"),
        );
        Err(Stop)
    }

    /// A complete value: becomes an item, a key or a value, or the root.
    fn finish(&mut self, node: Node, anchor: usize) -> Result<(), Stop> {
        if anchor > 0 {
            self.anchors.insert(anchor, Some(node.clone()));
        }
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut frame.kind {
            FrameKind::List(items) => items.push(node),
            FrameKind::Map { entries, keys, merges, pending } => {
                match std::mem::replace(pending, Pending::None) {
                    Pending::None => {
                        *pending = key_of(&node, keys, self.sources, self.sink);
                    }
                    Pending::Key(key, at) => entries.push(Entry { key, at, value: node }),
                    Pending::Merge => merges.push(node),
                    Pending::Refused => {}
                }
            }
        }
        Ok(())
    }

    /// Refuses an anchor's name that was used before: which of the two an alias means would depend
    /// on where it stands.
    fn anchor_name(&mut self, anchor: usize, span: Span) -> Result<(), Stop> {
        if anchor == 0 {
            return Ok(());
        }
        let Some((name, at)) = anchor_before(self.source.text(), span) else {
            return Ok(());
        };
        if let Some(first) = self.names.get(name) {
            self.sink.push(
                Diagnostic::error(
                    Code::Anchor,
                    format!("anchor `&{}` is defined twice", shown(name)),
                )
                .at(self.sources, at, "again here")
                .see(self.sources, *first, "first here")
                .fix("give the second one another name"),
            );
            return Err(Stop);
        }
        self.names.insert(name.to_owned(), at);
        Ok(())
    }

    fn tag_of_scalar(&mut self, tag: Option<&Tag>, style: ScalarStyle, span: Span) -> bool {
        let written = match style {
            ScalarStyle::Plain => true,
            ScalarStyle::SingleQuoted
            | ScalarStyle::DoubleQuoted
            | ScalarStyle::Literal
            | ScalarStyle::Folded => false,
        };
        let Some(tag) = tag else {
            return written;
        };
        if tag.is_yaml_core_schema() {
            match tag.suffix.as_str() {
                "str" => return false,
                "int" | "float" | "bool" | "null" => return true,
                _ => {}
            }
        }
        self.refuse_tag(tag, span);
        written
    }

    fn tag(&mut self, tag: Option<&Tag>, core: &str, span: Span) {
        if let Some(tag) = tag.filter(|tag| !(tag.is_yaml_core_schema() && tag.suffix == core)) {
            self.refuse_tag(tag, span);
        }
    }

    fn refuse_tag(&mut self, tag: &Tag, span: Span) {
        let name = if tag.is_yaml_core_schema() {
            Cow::Owned(format!("!!{}", tag.suffix))
        } else {
            Cow::Owned(tag.to_string())
        };
        self.sink.push(
            Diagnostic::error(Code::Tag, format!("tag `{}` is not allowed", shown(&name)))
                .at(self.sources, span, "")
                .fix("remove the tag; text that starts with `!` needs quotes"),
        );
    }

    fn syntax(&mut self, error: &ScanError) {
        let length = self.source.text().len();
        let start = self.offsets.byte(error.marker().index(), length);
        // At the end of the file there is nothing to point at; its last character is.
        let start = match self.source.text().get(start..) {
            Some(rest) if rest.trim().is_empty() => {
                let text = self.source.text().trim_end();
                text.char_indices().next_back().map_or(0, |(at, _)| at)
            }
            Some(_) | None => start,
        };
        let span = Span { file: self.file, start, end: (start + 1).min(length) };
        if error.info() == "recursion limit exceeded" {
            let _ = self.too_deep(span);
            return;
        }
        if let Some(tab) = tab_before(self.source, start) {
            let span = Span { file: self.file, start: tab, end: tab + 1 };
            self.sink.push(
                Diagnostic::error(Code::Tab, "tab in the indentation")
                    .at(self.sources, span, "a tab")
                    .fix("indent with spaces; two for each level"),
            );
            return;
        }
        self.sink.push(
            Diagnostic::error(Code::Syntax, "not valid YAML")
                .at(self.sources, span, shown(error.info()))
                .fix("check the indentation, brackets and quotes on this line and before it"),
        );
    }
}

/// A node as the key of a mapping.
fn key_of(
    node: &Node,
    keys: &mut HashMap<Arc<str>, Span>,
    sources: &Sources,
    sink: &mut Sink,
) -> Pending {
    let Some(scalar) = node.as_scalar().filter(|_| !node.is_null()) else {
        sink.push(
            Diagnostic::error(Code::KeyNotText, "key is not text")
                .at(sources, node.span, "a list, a mapping or nothing cannot be a key")
                .fix("write a word before the colon; text with brackets or braces needs quotes"),
        );
        return Pending::Refused;
    };
    if scalar.plain && &*scalar.text == "<<" {
        return Pending::Merge;
    }
    if let Some(first) = keys.get(&scalar.text) {
        sink.push(
            Diagnostic::error(
                Code::DuplicateKey,
                format!("duplicate key `{}`", shown(&scalar.text)),
            )
            .at(sources, node.span, "again here")
            .see(sources, *first, "first here")
            .fix("remove one of the two"),
        );
        return Pending::Refused;
    }
    keys.insert(Arc::clone(&scalar.text), node.span);
    Pending::Key(Arc::clone(&scalar.text), node.span)
}

/// The anchor that belongs to a node: inside of the node's span at its start, or just before it.
fn anchor_before(text: &str, span: Span) -> Option<(&str, Span)> {
    let rest = text.get(span.start..)?;
    let start = if rest.starts_with('&') {
        span.start
    } else {
        // A tag or a line break may stand between; names have no spaces.
        let before = text.get(..span.start)?;
        let from = text.floor_char_boundary(span.start.saturating_sub(300));
        from + before.get(from..)?.rfind('&')?
    };
    let name = text.get(start + 1..)?;
    let length = name
        .find(|c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']' | '{' | '}'))
        .unwrap_or(name.len());
    let at = Span { file: span.file, start, end: start + 1 + length };
    name.get(..length).map(|name| (name, at))
}

/// The first tab in the indentation of the line of an error or of the one before it.
fn tab_before(source: &Source, offset: usize) -> Option<usize> {
    let (line, _) = source.line_column(offset);
    [line, line.saturating_sub(1)].into_iter().filter(|line| *line > 0).find_map(|line| {
        let range = source.line_range(line);
        let text = source.text().get(range.clone())?;
        let indentation = text.len() - text.trim_start_matches([' ', '\t']).len();
        text.get(..indentation)?.find('\t').map(|at| range.start + at)
    })
}
