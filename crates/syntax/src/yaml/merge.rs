//! `<<`: the entries of other mappings, unless the key is there already.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::diagnostic::{Code, Diagnostic, Sink};
use crate::source::{Sources, Span};

use super::read::Budget;
use super::{Entry, Node, Value};

/// The entries with those of the merged mappings behind them. An error is the place where the
/// budget was used up.
pub(super) fn merged(
    mut entries: Vec<Entry>,
    keys: &HashMap<Arc<str>, Span>,
    merges: &[Node],
    sources: &Sources,
    sink: &mut Sink,
    budget: &mut Budget,
) -> Result<Vec<Entry>, Span> {
    if merges.is_empty() {
        return Ok(entries);
    }
    let mut seen: HashSet<Arc<str>> = keys.keys().cloned().collect();
    for merge in merges {
        let maps: &[Node] = match &merge.value {
            Value::List(items) => items,
            Value::Map(_) | Value::Scalar(_) => std::slice::from_ref(merge),
        };
        for map in maps {
            let Value::Map(more) = &map.value else {
                sink.push(
                    Diagnostic::error(Code::Merge, "`<<` takes a mapping or a list of mappings")
                        .at(sources, map.span, "not a mapping")
                        .fix("put an anchor on a mapping, `base: &base { … }`, and merge `*base`"),
                );
                continue;
            };
            for entry in more.iter() {
                // Looking costs as much as copying, so that a chain of merges is bounded too.
                if !budget.take(entry.value.extent) {
                    return Err(merge.span);
                }
                if seen.insert(Arc::clone(&entry.key)) {
                    entries.push(entry.clone());
                }
            }
        }
    }
    Ok(entries)
}
