//! The structure check: every key known, every value of the right kind, all mistakes at once.

use crate::diagnostic::{Code, Diagnostic, Sink, nearest, shown};
use crate::source::{Sources, Span};
use crate::yaml::{Entry, Node, Value};

use super::leaf::{empty_value, kind_name};
use super::{Leaf, Object, Shape, Trouble};

/// Longest list or mapping.
const MAX_ENTRIES: usize = 1_000;

/// Checks nodes against shapes.
pub(crate) struct Checker<'a> {
    /// Where spans lead.
    pub(crate) sources: &'a Sources,
    /// Where mistakes go.
    pub(crate) sink: &'a mut Sink,
    /// Whether a list or mapping was too long to be looked at further.
    pub(crate) oversized: bool,
}

impl Shape {
    /// Whether the shape is for this kind of node.
    pub(crate) fn takes(self, node: &Node) -> bool {
        match self {
            Self::Leaf(_) | Self::Word(_) => matches!(node.value, Value::Scalar(_)),
            Self::Command | Self::List(..) => matches!(node.value, Value::List(_)),
            Self::Map(..) | Self::Object(_) => matches!(node.value, Value::Map(_)),
            Self::Either(shapes) => shapes.iter().any(|shape| shape.takes(node)),
            Self::Any => true,
        }
    }

    /// What it is, with its article.
    pub(crate) fn what(self) -> String {
        match self {
            Self::Leaf(leaf) => leaf.what.to_owned(),
            Self::Word(words) => format!("one of {}", words.join(", ")),
            Self::Command => "a list of a program and its arguments".to_owned(),
            Self::List(..) => "a list".to_owned(),
            Self::Map(..) | Self::Object(_) => "a mapping".to_owned(),
            Self::Either(shapes) => {
                shapes.iter().map(|shape| shape.what()).collect::<Vec<_>>().join(", or ")
            }
            Self::Any => "anything".to_owned(),
        }
    }
}

impl Checker<'_> {
    /// Checks one node; `subject` is what it belongs to, for messages: `` `stop` ``.
    pub(crate) fn check(&mut self, node: &Node, shape: Shape, subject: &str) {
        if node.is_null() && !matches!(shape, Shape::Any) {
            let trouble = Trouble::new(format!("{subject} has no value"), empty_value().label);
            let fix = match shape {
                Shape::Object(_) | Shape::Map(..) => {
                    "write its keys below it, or `{}` if there are none".to_owned()
                }
                Shape::Leaf(_)
                | Shape::Word(_)
                | Shape::Command
                | Shape::List(..)
                | Shape::Either(_)
                | Shape::Any => format!("write {}, or remove the key", shape.what()),
            };
            return self.trouble(Code::WrongType, &trouble.fix(fix), node.span);
        }
        if self.oversized(node, subject) {
            return;
        }
        match (shape, &node.value) {
            (Shape::Any, _) => {}
            (Shape::Leaf(leaf), Value::Scalar(scalar)) => {
                if let Err(trouble) = (leaf.check)(scalar) {
                    self.trouble(leaf.code, &trouble, node.span);
                }
            }
            (Shape::Word(words), Value::Scalar(scalar)) => {
                if !words.contains(&&*scalar.text) {
                    self.word(&scalar.text, words, node.span, subject);
                }
            }
            (Shape::Command, Value::List(items)) => self.command(items, node.span, subject),
            (Shape::List(inner, least), Value::List(items)) => {
                if items.len() < least {
                    let trouble =
                        Trouble::new(format!("{subject} is empty"), "nothing in the list");
                    let fix = format!("add {}, or remove the key", inner.what());
                    self.trouble(Code::WrongType, &trouble.fix(fix), node.span);
                }
                for item in items.iter() {
                    self.check(item, *inner, &format!("an entry of {subject}"));
                }
            }
            (Shape::Map(names, inner), Value::Map(entries)) => {
                for entry in entries.iter() {
                    self.name(names, entry);
                    self.check(&entry.value, *inner, &format!("`{}`", shown(&entry.key)));
                }
            }
            (Shape::Object(object), Value::Map(_)) => self.object(node, object, subject),
            (Shape::Either(shapes), _) => match shapes.iter().find(|shape| shape.takes(node)) {
                Some(inner) => self.check(node, *inner, subject),
                None => self.wrong_type(node, shape, subject),
            },
            (
                Shape::Leaf(_)
                | Shape::Word(_)
                | Shape::Command
                | Shape::List(..)
                | Shape::Map(..)
                | Shape::Object(_),
                _,
            ) => self.wrong_type(node, shape, subject),
        }
    }

    /// Refuses lists and mappings that are longer than any that people write.
    fn oversized(&mut self, node: &Node, subject: &str) -> bool {
        let length = node.items().len().max(node.entries().len());
        if length <= MAX_ENTRIES {
            return false;
        }
        self.oversized = true;
        let trouble = Trouble::new(
            format!("{subject} has too many entries"),
            format!("{length} of them, and at most {MAX_ENTRIES} are read"),
        )
        .fix("check that this is the right file");
        self.trouble(Code::TooManyNodes, &trouble, node.span);
        true
    }

    fn trouble(&mut self, code: Code, trouble: &Trouble, span: Span) {
        self.sink.push(
            Diagnostic::error(code, trouble.message.as_str())
                .at(self.sources, span, trouble.label.as_str())
                .fix_if(trouble.fix.clone()),
        );
    }

    fn word(&mut self, text: &str, words: &[&str], span: Span, subject: &str) {
        if text == "pass" && words.contains(&"hold") {
            let trouble = Trouble::new(format!("{subject} cannot be `pass`"), "hold or fail")
                .fix("write `hold` to wait, or `fail` to count it as a failure");
            return self.trouble(Code::NoDataPass, &trouble, span);
        }
        let message = format!("{subject} cannot be `{}`", shown(text));
        let trouble = Trouble::new(message, format!("one of {}", words.join(", ")));
        let meant = nearest(text, words.iter().copied()).or_else(|| part_of(text, words));
        let trouble = match meant {
            Some(word) => trouble.fix(format!("did you mean `{word}`?")),
            None => trouble,
        };
        self.trouble(Code::NotAllowed, &trouble, span);
    }

    fn command(&mut self, items: &[Node], span: Span, subject: &str) {
        if items.is_empty() {
            let trouble = Trouble::new(format!("{subject} is empty"), "no program")
                .fix("write the program and its arguments, as in `[./web, --port, \"8080\"]`");
            return self.trouble(Code::Command, &trouble, span);
        }
        for (index, item) in items.iter().enumerate() {
            let Some(scalar) = item.as_scalar() else {
                let trouble =
                    Trouble::new(format!("{subject} has an argument that is not text"), "not text")
                        .fix("text with braces or brackets needs quotes, as in \"{address}\"");
                self.trouble(Code::Command, &trouble, item.span);
                continue;
            };
            if item.is_null() && scalar.plain || index == 0 && scalar.text.trim().is_empty() {
                let what = if index == 0 { "program" } else { "argument" };
                let trouble =
                    Trouble::new(format!("{subject} has an empty {what}"), "nothing here")
                        .fix("write it, in quotes where it is empty on purpose");
                self.trouble(Code::Command, &trouble, item.span);
            }
        }
    }

    fn wrong_type(&mut self, node: &Node, shape: Shape, subject: &str) {
        let is = match &node.value {
            Value::Scalar(scalar) => kind_name(scalar),
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        };
        if let (Shape::Command, Value::Scalar(scalar)) = (shape, &node.value) {
            let words: Vec<String> = scalar.text.split_whitespace().take(8).map(quoted).collect();
            let trouble =
                Trouble::new(format!("{subject} is text, not a list"), "no shell reads this")
                    .fix(format!("write `[{}]`", shown(&words.join(", "))));
            return self.trouble(Code::Command, &trouble, node.span);
        }
        let trouble =
            Trouble::new(format!("{subject} is {is}"), format!("{} is wanted", shape.what()));
        let trouble = match (shape, &node.value) {
            (Shape::List(..), Value::Scalar(scalar)) => {
                trouble.fix(format!("write `[{}]`", shown(&scalar.text)))
            }
            (Shape::Leaf(_) | Shape::Word(_), Value::List(items)) if items.len() == 1 => {
                match items.first().and_then(Node::as_text) {
                    Some(text) => trouble.fix(format!("write `{}` without brackets", shown(text))),
                    None => trouble,
                }
            }
            (Shape::Object(object), Value::Scalar(scalar)) => match object.fields {
                [only] => {
                    trouble.fix(format!("write `{{ {}: {} }}`", only.key, shown(&scalar.text)))
                }
                _ => trouble.fix(format!("write `{}`", example(shape))),
            },
            (Shape::Object(_) | Shape::Map(..), Value::List(_)) => {
                trouble.fix(format!("write `{}`", example(shape)))
            }
            (Shape::Leaf(_), Value::Map(entries)) if placeholder_like(entries) => {
                trouble.fix("text that starts with a brace needs quotes, as in \"{address}\"")
            }
            _ => trouble,
        };
        self.trouble(Code::WrongType, &trouble, node.span);
    }

    fn name(&mut self, names: &Leaf, entry: &Entry) {
        let scalar = crate::yaml::Scalar { text: entry.key.clone(), plain: false };
        if let Err(trouble) = (names.check)(&scalar) {
            self.trouble(names.code, &trouble, entry.at);
        }
    }

    fn object(&mut self, node: &Node, object: &'static Object, subject: &str) {
        for entry in node.entries() {
            let Some(field) = object.field(&entry.key) else {
                if !object.is_extension(&entry.key) {
                    self.unknown(entry, object);
                }
                continue;
            };
            let applies =
                field.with.is_empty() || field.with.iter().any(|key| node.get(key).is_some());
            if !applies {
                let beside: Vec<String> = field.with.iter().map(|key| format!("`{key}`")).collect();
                let trouble = Trouble::new(
                    format!("`{}` does not apply here", field.key),
                    format!("it belongs beside {}", beside.join(" or ")),
                )
                .fix("remove it");
                self.trouble(Code::DoesNotApply, &trouble, entry.at);
            }
            self.check(&entry.value, field.shape, &format!("`{}`", field.key));
        }
        for field in object.fields.iter().filter(|field| field.required) {
            if node.get(field.key).is_none() {
                let message = format!("`{}` is missing", field.key);
                let trouble = Trouble::new(message, format!("{subject} needs it")).fix(format!(
                    "add `{}: {}`",
                    field.key,
                    example(field.shape)
                ));
                self.trouble(Code::MissingKey, &trouble, node.span);
            }
        }
        self.one_of(node, object, subject);
    }

    fn one_of(&mut self, node: &Node, object: &Object, subject: &str) {
        if object.one_of.is_empty() {
            return;
        }
        let present: Vec<&Entry> =
            node.entries().iter().filter(|entry| object.one_of.contains(&&*entry.key)).collect();
        let keys = object.one_of.join(", ");
        match present.as_slice() {
            [_] => {}
            // An unknown key was most likely meant to be one of them.
            [] if node.entries().iter().any(|entry| object.field(&entry.key).is_none()) => {}
            [] => {
                let trouble = Trouble::new(format!("{subject} does not say what it is"), "")
                    .fix(format!("add exactly one of {keys}"));
                self.trouble(Code::ExactlyOne, &trouble, node.span);
            }
            [first, second, ..] => {
                let message = format!("`{}` and `{}` exclude each other", first.key, second.key);
                self.sink.push(
                    Diagnostic::error(Code::ExactlyOne, message)
                        .at(self.sources, second.at, "this one too")
                        .see(self.sources, first.at, "this one")
                        .note(format!("{} has exactly one of {keys}", object.name))
                        .fix("remove one of the two"),
                );
            }
        }
    }

    fn unknown(&mut self, entry: &Entry, object: &Object) {
        if self.sink.only_counts() {
            return;
        }
        let known = || object.fields.iter().map(|field| field.key);
        let meant = nearest(&entry.key, known()).or_else(|| other_word(&entry.key, object));
        let diagnostic = Diagnostic::error(
            Code::UnknownKey,
            format!("unknown key `{}`", shown(&entry.key)),
        )
        .at(self.sources, entry.at, format!("not a key of {}", object.name));
        self.sink.push(match meant {
            Some(meant) => diagnostic.fix(format!("did you mean `{meant}`?")),
            None => diagnostic
                .note(format!("known keys: {}", known().collect::<Vec<_>>().join(", ")))
                .fix("remove it"),
        });
    }
}

/// How a value of a shape may look.
fn example(shape: Shape) -> String {
    match shape {
        Shape::Leaf(leaf) if leaf.code == Code::FormatVersion => "1".to_owned(),
        Shape::Leaf(_) | Shape::Any => "…".to_owned(),
        Shape::Word(words) => words.first().copied().unwrap_or_default().to_owned(),
        Shape::Command => "[./program, argument]".to_owned(),
        Shape::List(inner, _) => format!("[{}]", example(*inner)),
        Shape::Map(_, inner) => format!("{{ NAME: {} }}", example(*inner)),
        Shape::Object(object) => {
            let required = object.fields.iter().find(|field| field.required);
            let field = required.or_else(|| object.fields.first()).map(|field| field.key);
            let key = object.one_of.first().copied().or(field);
            format!("{{ {}: … }}", key.unwrap_or_default())
        }
        Shape::Either(shapes) => shapes.first().map_or_else(String::new, |shape| example(*shape)),
    }
}

/// The key of this format for a word of another tool.
fn other_word(key: &str, object: &Object) -> Option<&'static str> {
    const WORDS: [(&str, &str); 18] = [
        ("replicas", "instances"),
        ("scale", "instances"),
        ("environment", "env"),
        ("limits", "resources"),
        ("healthcheck", "probes"),
        ("cpu", "cpus"),
        ("domain", "routes"),
        ("depends_on", "needs"),
        ("cmd", "command"),
        ("entrypoint", "command"),
        ("weight", "setWeight"),
        ("wait", "pause"),
        ("interval", "periodSeconds"),
        ("period", "periodSeconds"),
        ("timeout", "timeoutSeconds"),
        ("initialDelay", "initialDelaySeconds"),
        ("retries", "failureThreshold"),
        ("threshold", "limit"),
    ];
    let known = WORDS.iter().filter(|(word, _)| *word == key).map(|(_, meant)| *meant);
    known.into_iter().find(|meant| object.field(meant).is_some())
}

/// A word that contains the text or is its beginning: `TERM`, `Monday`.
fn part_of<'a>(text: &str, words: &[&'a str]) -> Option<&'a str> {
    if text.len() < 3 || text.len() > 40 {
        return None;
    }
    words.iter().copied().find(|word| word.ends_with(text) || text.starts_with(word))
}

/// `{address}` without quotes is a mapping with a key that has no value.
fn placeholder_like(entries: &[Entry]) -> bool {
    matches!(entries, [only] if only.value.is_null())
}

/// A word of a command as it is written in a list.
fn quoted(word: &str) -> String {
    let plain =
        word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '_' | '-'))
            && !word.starts_with(|c: char| c.is_ascii_digit());
    if plain { word.to_owned() } else { format!("\"{}\"", word.replace('"', "\\\"")) }
}
