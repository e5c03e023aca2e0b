//! The tree as YAML text again.

use super::{Kind, Node, Scalar, Value};

/// Lines up to this length hold a whole list or mapping of plain values.
const WIDTH: usize = 90;
/// Levels that stand on one line at most.
const MAX_FLOW: usize = 3;

/// The tree as block style, small pieces in flow style. Reading it gives the same tree.
pub(crate) fn write(node: &Node) -> String {
    let mut text = String::new();
    match &node.value {
        Value::Map(entries) if !entries.is_empty() => block(node, 0, &mut text),
        Value::List(items) if !items.is_empty() => block(node, 0, &mut text),
        Value::Map(_) | Value::List(_) | Value::Scalar(_) => {
            text.push_str(&flow(node));
            text.push('\n');
        }
    }
    text
}

/// A list or mapping, each entry on lines of its own.
fn block(node: &Node, indent: usize, text: &mut String) {
    match &node.value {
        Value::Map(entries) => {
            for entry in entries.iter() {
                push_indent(indent, text);
                text.push_str(&scalar(&Scalar { text: entry.key.clone(), plain: false }));
                text.push(':');
                value(&entry.value, indent, text);
            }
        }
        Value::List(items) => {
            for item in items.iter() {
                push_indent(indent, text);
                text.push('-');
                self::item(item, indent, text);
            }
        }
        Value::Scalar(_) => {}
    }
}

/// What stands behind a colon or a dash.
fn value(node: &Node, indent: usize, text: &mut String) {
    let one_line = flow(node);
    let small = one_line.len() + indent < WIDTH && node.extent.height <= MAX_FLOW && indent > 0;
    if node.as_scalar().is_some() || small || one_line == "{}" || one_line == "[]" {
        text.push(' ');
        text.push_str(&one_line);
        text.push('\n');
    } else {
        text.push('\n');
        block(node, indent + 2, text);
    }
}

/// An item of a list: a mapping starts on the line of the dash.
fn item(node: &Node, indent: usize, text: &mut String) {
    let before = text.len();
    value(node, indent, text);
    let entry = "\n".to_owned() + &" ".repeat(indent + 2);
    if matches!(node.value, Value::Map(_))
        && text.get(before..).is_some_and(|t| t.starts_with(&entry))
    {
        text.replace_range(before..before + entry.len(), " ");
    }
}

fn push_indent(indent: usize, text: &mut String) {
    text.extend(std::iter::repeat_n(' ', indent));
}

/// A node on one line.
pub(crate) fn flow(node: &Node) -> String {
    match &node.value {
        Value::Scalar(written) => scalar(written),
        Value::List(items) => {
            format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", "))
        }
        Value::Map(entries) if entries.is_empty() => "{}".to_owned(),
        Value::Map(entries) => {
            let pairs: Vec<String> = entries
                .iter()
                .map(|entry| {
                    let key = scalar(&Scalar { text: entry.key.clone(), plain: false });
                    format!("{key}: {}", flow(&entry.value))
                })
                .collect();
            format!("{{ {} }}", pairs.join(", "))
        }
    }
}

/// A scalar with quotes where it needs them to be read as what it is.
fn scalar(scalar: &Scalar) -> String {
    if scalar.kind() == Kind::Null {
        return "null".to_owned();
    }
    let as_plain = Scalar { text: scalar.text.clone(), plain: true };
    if safe_plain(&scalar.text) && as_plain.kind() == scalar.kind() {
        return scalar.text.to_string();
    }
    let mut quoted = String::with_capacity(scalar.text.len() + 2);
    quoted.push('"');
    for c in scalar.text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{FEFF}') => {
                quoted.push_str(&format!("\\U{:08X}", u32::from(c)));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Whether text can stand without quotes everywhere, also within brackets.
fn safe_plain(text: &str) -> bool {
    let first = text.chars().next();
    first.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_'))
        && text.chars().all(|c| {
            c.is_ascii_alphanumeric()
                || matches!(c, '/' | '.' | '_' | '-' | '+' | '%' | '@' | ':' | '=')
        })
        && !text.ends_with(':')
        && text != "..."
}
