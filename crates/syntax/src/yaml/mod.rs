//! A tree of YAML values that know where they stand, read within budgets.

mod merge;
mod read;
mod scalar;
mod text;
mod write;

use std::sync::Arc;

use crate::source::Span;

pub(crate) use read::{Budget, read};
pub(crate) use scalar::Kind;
pub(crate) use text::decode;
pub(crate) use write::{flow, write};

/// Largest file in bytes.
pub(crate) const MAX_BYTES: usize = 1024 * 1024;
/// Deepest nesting, aliases expanded.
pub(crate) const MAX_DEPTH: usize = 64;
/// Most values of a project, aliases expanded.
pub(crate) const MAX_NODES: usize = 100_000;
/// Most bytes of text of a project, aliases expanded.
pub(crate) const MAX_TEXT: usize = 4 * 1024 * 1024;

/// A value and where it stands. Cheap to clone: children are shared.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// What it is.
    pub(crate) value: Value,
    /// Where it stands; for an alias the alias, and its children where they are defined.
    pub(crate) span: Span,
    /// Whether it was not written but filled in.
    pub(crate) filled: bool,
    /// Its size when everything is expanded.
    pub(crate) extent: Extent,
}

/// Text, list or mapping.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Text that may stand for a number, a truth value or nothing.
    Scalar(Scalar),
    /// A list.
    List(Arc<[Node]>),
    /// A mapping in the order of the file.
    Map(Arc<[Entry]>),
}

/// A scalar as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scalar {
    /// Its text without quotes.
    pub(crate) text: Arc<str>,
    /// Whether it was written without quotes, so that it may be something else than text.
    pub(crate) plain: bool,
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    /// The key's text.
    pub(crate) key: Arc<str>,
    /// Where the key stands.
    pub(crate) at: Span,
    /// The value.
    pub(crate) value: Node,
}

/// How large a node is when all aliases in it are expanded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Values.
    pub(crate) nodes: usize,
    /// Bytes of text.
    pub(crate) text: usize,
    /// Levels.
    pub(crate) height: usize,
}

impl Extent {
    /// With a child's extent added.
    pub(crate) fn grown(self, child: Self) -> Self {
        Self {
            nodes: self.nodes.saturating_add(child.nodes),
            text: self.text.saturating_add(child.text),
            height: self.height.max(child.height + 1),
        }
    }
}

impl Node {
    /// A scalar.
    pub(crate) fn scalar(text: &str, plain: bool, span: Span) -> Self {
        Self {
            value: Value::Scalar(Scalar { text: text.into(), plain }),
            span,
            filled: false,
            extent: Extent { nodes: 1, text: text.len(), height: 1 },
        }
    }

    /// A list.
    pub(crate) fn list(items: Vec<Self>, span: Span) -> Self {
        let one = Extent { nodes: 1, text: 0, height: 1 };
        let extent = items.iter().fold(one, |sum, item| sum.grown(item.extent));
        Self { value: Value::List(items.into()), span, filled: false, extent }
    }

    /// A mapping.
    pub(crate) fn map(entries: Vec<Entry>, span: Span) -> Self {
        let one = Extent { nodes: 1, text: 0, height: 1 };
        let extent = entries.iter().fold(one, |sum, entry| {
            let sum = sum.grown(entry.value.extent);
            Extent { text: sum.text.saturating_add(entry.key.len()), ..sum }
        });
        Self { value: Value::Map(entries.into()), span, filled: false, extent }
    }

    /// The entries of a mapping; none of something else.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            Value::Scalar(_) | Value::List(_) => &[],
        }
    }

    /// The items of a list; none of something else.
    pub(crate) fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            Value::Scalar(_) | Value::Map(_) => &[],
        }
    }

    /// The scalar, if it is one.
    pub(crate) fn as_scalar(&self) -> Option<&Scalar> {
        match &self.value {
            Value::Scalar(scalar) => Some(scalar),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The scalar's text, if it is one.
    pub(crate) fn as_text(&self) -> Option<&str> {
        self.as_scalar().map(|scalar| &*scalar.text)
    }

    /// The value of a key of a mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The entry of a key of a mapping.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| &*entry.key == key)
    }

    /// Whether it is a scalar that stands for nothing.
    pub(crate) fn is_null(&self) -> bool {
        self.as_scalar().is_some_and(|scalar| scalar.kind() == Kind::Null)
    }
}
