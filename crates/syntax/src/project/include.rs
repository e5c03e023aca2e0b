//! `include:` puts the sections of other files into the project.

use std::collections::HashMap;
use std::sync::Arc;

use crate::diagnostic::{Code, Diagnostic, Sink, nearest, shown};
use crate::source::{Sources, Span};
use crate::yaml::{Budget, Entry, Node, Value, decode, read};

use super::ProjectInput;

/// Sections that an included file may have.
const SECTIONS: [&str; 6] =
    ["services", "environments", "strategies", "checks", "people", "notify"];
/// Files that may be included.
const MAX_FILES: usize = 16;

/// The project with the sections of the included files behind its own.
pub(super) fn with_included(
    root: &Node,
    input: &ProjectInput<'_>,
    sources: &mut Sources,
    sink: &mut Sink,
    budget: &mut Budget,
) -> Node {
    let Some(include) = root.get("include") else {
        return root.clone();
    };
    let names: &[Node] = match &include.value {
        Value::List(items) => items,
        Value::Scalar(_) => std::slice::from_ref(include),
        Value::Map(_) => &[],
    };
    let mut merged: Vec<Entry> = root.entries().to_vec();
    for (index, node) in names.iter().enumerate() {
        let Some(name) = node.as_text() else {
            continue;
        };
        let bytes = if index >= MAX_FILES {
            Err(format!("at most {MAX_FILES} files can be included"))
        } else {
            path_good(name).and_then(|()| (input.include)(name))
        };
        match bytes {
            Ok(bytes) => {
                let file = decode(name, &bytes, sources, sink);
                if let Some(more) = file.and_then(|file| read(file, sources, sink, budget)) {
                    add(&mut merged, &more, sources, sink);
                }
            }
            Err(why) => sink.push(
                Diagnostic::error(Code::Include, format!("cannot include `{}`", shown(name)))
                    .at(sources, node.span, why)
                    .fix("name a file in this folder or below it"),
            ),
        }
    }
    Node::map(merged, root.span)
}

/// Relative, and not out of the folder.
fn path_good(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the name is empty".to_owned());
    }
    if name.starts_with('/') || name.contains('\\') || name.contains(':') {
        return Err("the path must be relative".to_owned());
    }
    if name.split('/').any(|part| part == "..") {
        return Err("the path leads out of the folder".to_owned());
    }
    Ok(())
}

/// Adds the sections of one included file.
fn add(merged: &mut Vec<Entry>, more: &Node, sources: &Sources, sink: &mut Sink) {
    let Value::Map(sections) = &more.value else {
        sink.push(
            Diagnostic::error(Code::Include, "an included file holds sections")
                .at(sources, more.span, "not a mapping")
                .fix(format!("write one or more of {}", SECTIONS.join(", "))),
        );
        return;
    };
    for section in sections.iter() {
        let key = &*section.key;
        if !SECTIONS.contains(&key) {
            if !key.starts_with("x-") {
                sink.push(unknown_section(key, section.at, sources));
            }
            continue;
        }
        match merged.iter_mut().find(|entry| &*entry.key == key) {
            None => merged.push(section.clone()),
            Some(own) => own.value = joined(&own.value, &section.value, sources, sink),
        }
    }
}

fn unknown_section(key: &str, at: Span, sources: &Sources) -> Diagnostic {
    let diagnostic = Diagnostic::error(
        Code::UnknownKey,
        format!("`{}` cannot be in an included file", shown(key)),
    )
    .at(sources, at, "not a section");
    match nearest(key, SECTIONS) {
        Some(meant) => diagnostic.fix(format!("did you mean `{meant}`?")),
        None => diagnostic.fix("move it into the main file"),
    }
}

/// One section from two files. Where the kinds differ the first stays, and the structure check
/// says what is wrong with the second.
fn joined(own: &Node, more: &Node, sources: &Sources, sink: &mut Sink) -> Node {
    match (&own.value, &more.value) {
        (Value::List(first), Value::List(second)) => {
            Node::list(first.iter().chain(second.iter()).cloned().collect(), own.span)
        }
        (Value::Map(first), Value::Map(second)) => {
            let mut entries = first.to_vec();
            let known: HashMap<Arc<str>, Span> =
                entries.iter().map(|entry| (Arc::clone(&entry.key), entry.at)).collect();
            for entry in second.iter() {
                if let Some(at) = known.get(&entry.key) {
                    let name = shown(&entry.key);
                    sink.push(
                        Diagnostic::error(Code::DuplicateKey, format!("duplicate key `{name}`"))
                            .at(sources, entry.at, "again here")
                            .see(sources, *at, "first here")
                            .fix("remove one of the two"),
                    );
                } else {
                    entries.push(entry.clone());
                }
            }
            Node::map(entries, own.span)
        }
        (Value::List(_) | Value::Map(_) | Value::Scalar(_), _) => more.clone(),
    }
}
