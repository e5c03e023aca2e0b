//! `{version}` and its kin: the only substitutions of the format.

use crate::diagnostic::{Code, nearest, shown};
use crate::yaml::Node;

use super::context::Context;

/// Every placeholder of the format.
pub(crate) const ALL: [&str; 6] =
    ["version", "digest", "address", "port", "instance", "previewUrl"];
/// In the start command of an instance.
pub(crate) const COMMAND: &[&str] = &["address", "port", "instance", "version", "digest"];
/// In the path of an artifact.
pub(crate) const ARTIFACT: &[&str] = &["version"];
/// In the texts of a check.
pub(crate) const CHECK: &[&str] = &["previewUrl", "version"];
/// In a one-shot with the new version's files.
pub(crate) const RUN: &[&str] = &["version", "digest"];

/// `{word}` in a text, without those behind `$` or inside of double braces: these belong to a
/// shell or to another tool.
pub(crate) fn placeholders(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices('{') {
        let before = text.get(..at).unwrap_or_default();
        let rest = text.get(at + 1..).unwrap_or_default();
        let Some((word, _)) = rest.split_once('}') else {
            break;
        };
        let is_word = word.starts_with(|c: char| c.is_ascii_alphabetic())
            && word.len() <= 40
            && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        if is_word && !before.ends_with(['$', '{']) {
            found.push(word);
        }
    }
    found
}

/// Refuses placeholders that are not filled in here. A word in a script (text with spaces) is only
/// taken for one when it is near to a known one: `awk '{print}'` is none of ours.
pub(crate) fn check(node: &Node, allowed: &[&str], context: &mut Context<'_>) {
    let Some(text) = node.as_text() else {
        return;
    };
    for word in placeholders(text) {
        if allowed.contains(&word) {
            continue;
        }
        let known = ALL.contains(&word);
        let meant = nearest(word, allowed.iter().copied());
        if !known && meant.is_none() && text.contains(char::is_whitespace) {
            continue;
        }
        let here: Vec<String> = allowed.iter().map(|name| format!("`{{{name}}}`")).collect();
        let message = if known {
            format!("`{{{word}}}` is not filled in here")
        } else {
            format!("unknown placeholder `{{{}}}`", shown(word))
        };
        let fix = match meant {
            Some(meant) if !known => format!("did you mean `{{{meant}}}`?"),
            Some(_) | None => {
                "remove it, or give the value to the program in another way".to_owned()
            }
        };
        let label = format!("filled in here: {}", here.join(", "));
        context.error(Code::Placeholder, message, node.span, label, fix);
    }
}

/// Refuses the format's placeholders where nothing is filled in; other braces are the user's own.
pub(crate) fn none(node: &Node, context: &mut Context<'_>) {
    let Some(text) = node.as_text() else {
        return;
    };
    if let Some(word) = placeholders(text).into_iter().find(|word| ALL.contains(word)) {
        context.error(
            Code::Placeholder,
            format!("`{{{word}}}` is not filled in here"),
            node.span,
            "nothing is filled in in environment variables of a service",
            "give it to the program as an argument in `command`",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::placeholders;

    #[test]
    fn only_words_in_single_braces_are_placeholders() {
        for (text, expected) in [
            ("web-{version}.tar.gz", vec!["version"]),
            ("${HOME} ${{ github.sha }} {{version}}", vec![]),
            ("{\"a\": {port}}", vec!["port"]),
            ("up{version=\"{version}\"}", vec!["version"]),
            ("{}", vec![]),
            ("{a}{b}", vec!["a", "b"]),
            ("{open", vec![]),
        ] {
            assert_eq!(placeholders(text), expected, "{text}");
        }
    }
}
