//! Fills in what was left out.

use crate::diagnostic::Sink;
use crate::source::{Source, Sources, Span};
use crate::yaml::{Budget, Entry, Node, Value, read};

use super::{Field, Object, Shape};

/// The tree with every default in place. Values of a wrong shape stay as they are.
pub(crate) fn fill(node: &Node, shape: Shape) -> Node {
    match (shape, &node.value) {
        (Shape::Object(object), Value::Map(_)) => object_filled(node, object),
        (Shape::Map(_, inner), Value::Map(entries)) => {
            let entries = entries
                .iter()
                .map(|entry| Entry { value: fill(&entry.value, *inner), ..entry.clone() })
                .collect();
            Node { filled: node.filled, ..Node::map(entries, node.span) }
        }
        (Shape::List(inner, _), Value::List(items)) => {
            let items = items.iter().map(|item| fill(item, *inner)).collect();
            Node { filled: node.filled, ..Node::list(items, node.span) }
        }
        (Shape::Either(shapes), _) => match shapes.iter().find(|shape| shape.takes(node)) {
            Some(shape) => fill(node, *shape),
            None => node.clone(),
        },
        (
            Shape::Leaf(_)
            | Shape::Word(_)
            | Shape::Command
            | Shape::Any
            | Shape::Object(_)
            | Shape::Map(..)
            | Shape::List(..),
            _,
        ) => node.clone(),
    }
}

fn object_filled(node: &Node, object: &'static Object) -> Node {
    let mut entries = Vec::new();
    for field in object.fields {
        if let Some(entry) = node.entry(field.key) {
            entries.push(Entry { value: fill(&entry.value, field.shape), ..entry.clone() });
        } else if let Some(value) = default_of(field, node) {
            entries.push(Entry {
                key: field.key.into(),
                at: node.span,
                value: fill(&value, field.shape),
            });
        }
    }
    // Unknown keys have been diagnosed; the user's own stay.
    let rest = node.entries().iter().filter(|entry| object.field(&entry.key).is_none());
    entries.extend(rest.cloned());
    Node { filled: node.filled, ..Node::map(entries, node.span) }
}

/// The default of a field that is not in the mapping, if it has one and belongs there.
fn default_of(field: &Field, node: &Node) -> Option<Node> {
    let beside = field.default_beside.filter(|(key, _)| node.get(key).is_some());
    let text = beside.map(|(_, default)| default).or(field.default)?;
    if !field.with.is_empty() && !field.with.iter().any(|key| node.get(key).is_some()) {
        return None;
    }
    default_node(text, node.span)
}

/// YAML text of a default as a node that stands where the mapping stands.
pub(crate) fn default_node(text: &str, span: Span) -> Option<Node> {
    let node = match text {
        "{}" => Node::map(Vec::new(), span),
        "[]" => Node::list(Vec::new(), span),
        _ if text.starts_with(['[', '{']) || text.contains('\n') => parsed(text)?,
        _ => Node::scalar(text, true, span),
    };
    Some(moved(&node, span))
}

/// A default that is written as YAML in a table of ours.
fn parsed(text: &str) -> Option<Node> {
    let mut sources = Sources::default();
    let file = sources.add(Source::new("default", text));
    read(file, &sources, &mut Sink::default(), &mut Budget::default())
}

/// The same value as filled in at another place.
fn moved(node: &Node, span: Span) -> Node {
    let value = match &node.value {
        Value::Scalar(scalar) => Value::Scalar(scalar.clone()),
        Value::List(items) => Value::List(items.iter().map(|item| moved(item, span)).collect()),
        Value::Map(entries) => Value::Map(
            entries
                .iter()
                .map(|entry| Entry {
                    key: entry.key.clone(),
                    at: span,
                    value: moved(&entry.value, span),
                })
                .collect(),
        ),
    };
    Node { value, span, filled: true, extent: node.extent }
}
