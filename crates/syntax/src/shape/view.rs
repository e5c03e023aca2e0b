//! Reading a checked and filled mapping. What is not there or wrong is `None`: the structure check
//! has said so already.

use crate::source::Span;
use crate::yaml::{Entry, Node, Scalar};

use super::leaf;

/// A mapping that was checked and filled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    /// The mapping.
    pub(crate) node: &'a Node,
}

impl<'a> View<'a> {
    /// A view of a node; of something else than a mapping it is empty.
    pub(crate) fn new(node: &'a Node) -> Self {
        Self { node }
    }

    /// The value of a key.
    pub(crate) fn get(self, key: &str) -> Option<&'a Node> {
        self.node.get(key)
    }

    /// The value of a key, if it was written and not filled in.
    pub(crate) fn written(self, key: &str) -> Option<&'a Node> {
        self.get(key).filter(|node| !node.filled)
    }

    /// Where a key's value stands, else where the mapping stands.
    pub(crate) fn span(self, key: &str) -> Span {
        self.get(key).map_or(self.node.span, |node| node.span)
    }

    /// Where a key stands, else where the mapping stands.
    pub(crate) fn key_span(self, key: &str) -> Span {
        self.node.entry(key).map_or(self.node.span, |entry| entry.at)
    }

    /// The mapping of a key.
    pub(crate) fn view(self, key: &str) -> Option<View<'a>> {
        self.get(key).map(View::new)
    }

    /// The entries of the mapping of a key.
    pub(crate) fn entries(self, key: &str) -> &'a [Entry] {
        self.get(key).map_or(&[], Node::entries)
    }

    /// The items of the list of a key.
    pub(crate) fn items(self, key: &str) -> &'a [Node] {
        self.get(key).map_or(&[], Node::items)
    }

    fn scalar(self, key: &str) -> Option<&'a Scalar> {
        self.get(key)?.as_scalar()
    }

    /// The text of a key.
    pub(crate) fn text(self, key: &str) -> Option<&'a str> {
        self.get(key)?.as_text()
    }

    /// Milliseconds.
    pub(crate) fn duration(self, key: &str) -> Option<u64> {
        leaf::duration(self.scalar(key)?).ok()
    }

    /// A truth value.
    pub(crate) fn boolean(self, key: &str) -> Option<bool> {
        leaf::boolean(self.scalar(key)?).ok()
    }

    /// A whole number.
    pub(crate) fn whole<T: TryFrom<u64>>(self, key: &str) -> Option<T> {
        let value = leaf::whole_in(self.scalar(key)?, "", 0, i128::from(u64::MAX)).ok()?;
        T::try_from(value).ok()
    }

    /// The texts of a list of scalars.
    pub(crate) fn texts(self, key: &str) -> Vec<String> {
        self.items(key).iter().filter_map(Node::as_text).map(str::to_owned).collect()
    }
}
