//! House rules. Each is a function from the tree to findings; `cargo test` and `cargo xtask tidy`
//! run the same ones.

mod code;
mod docs;
mod layers;
mod text;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Folders that hold nothing of ours.
const NOT_OURS: [&str; 3] = ["target", ".git", "node_modules"];

/// The tree that the rules are applied to.
#[derive(Debug, Default)]
pub struct Tree {
    /// Text files by their path from the root, with `/`.
    pub files: Vec<(String, String)>,
    /// The workspace's own crates.
    pub crates: Vec<Package>,
}

/// A crate of the workspace, from `cargo metadata`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Names of what it needs to be built.
    pub needs: Vec<String>,
    /// Names of what only its tests need.
    pub needs_in_tests: Vec<String>,
}

/// Something that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Path from the root.
    pub file: String,
    /// From 1; 0 for the whole file.
    pub line: usize,
    /// What is wrong and what to do.
    pub text: String,
}

impl Finding {
    fn new(file: &str, line: usize, text: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.text)
    }
}

/// A rule: its name, and how to apply it.
pub type Rule = (&'static str, fn(&Tree) -> Vec<Finding>);

/// All of them.
pub const RULES: &[Rule] = &[
    ("file-length", text::file_length),
    ("unfinished", text::unfinished),
    ("machine-paths", text::machine_paths),
    ("skipped-tests", code::skipped_tests),
    ("no-unsafe", code::no_unsafe),
    ("suppressions", code::suppressions),
    ("purity", code::purity),
    ("layers", layers::layers),
    ("lints", layers::lints),
    ("pins", layers::pins),
    ("links", docs::links),
    ("design-numbers", docs::design_numbers),
    ("error-pages", docs::error_pages),
    ("glossary", docs::glossary),
    ("one-test-command", docs::one_test_command),
];

/// Applies the rule of this name to the tree.
///
/// # Errors
/// When there is no such rule.
pub fn apply(name: &str, tree: &Tree) -> Result<Vec<Finding>> {
    let (_, rule) = RULES
        .iter()
        .find(|(known, _)| *known == name)
        .with_context(|| format!("no house rule is called {name}"))?;
    Ok(rule(tree))
}

/// The root of this workspace.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

impl Tree {
    /// Reads all text files below `root` (at most 1 MB each) and asks cargo for the crates.
    ///
    /// # Errors
    /// When a file cannot be read or cargo does not answer.
    pub fn read(root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        walk(root, root, &mut files)?;
        files.sort();
        Ok(Self { files, crates: layers::packages(root)? })
    }

    /// The text of a file.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|(file, _)| file == path).map(|(_, text)| text.as_str())
    }

    /// Files whose name ends like this.
    fn ending<'a>(&'a self, end: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let files = self.files.iter().filter(move |(file, _)| file.ends_with(end));
        files.map(|(file, text)| (file.as_str(), text.as_str()))
    }
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<(String, String)>) -> Result<()> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if !NOT_OURS.contains(&entry.file_name().to_string_lossy().as_ref()) {
                walk(root, &path, files)?;
            }
        } else if kind.is_file() && entry.metadata()?.len() <= 1 << 20 {
            let bytes =
                std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            if let Ok(text) = String::from_utf8(bytes) {
                let name = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
                files.push((name, text));
            }
        }
    }
    Ok(())
}

/// Where a word stands alone in a line: not part of a longer word.
fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

#[cfg(test)]
pub(crate) mod fixture {
    use super::{Finding, Package, Tree};

    pub(crate) fn tree(files: &[(&str, &str)]) -> Tree {
        let files = files.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect();
        Tree { files, crates: Vec::new() }
    }

    pub(crate) fn package(name: &str, needs: &[&str]) -> Package {
        let needs = needs.iter().map(|need| (*need).to_owned()).collect();
        Package { name: name.into(), needs, needs_in_tests: Vec::new() }
    }

    /// `file:line` of each finding.
    pub(crate) fn places(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(|finding| format!("{}:{}", finding.file, finding.line)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::has_word;

    #[test]
    fn a_word_is_found_only_where_it_stands_alone() {
        assert!(has_word("let x = HashMap::new()", "HashMap"));
        assert!(!has_word("MyHashMap", "HashMap"));
        assert!(!has_word("HashMap_", "HashMap"));
        assert!(has_word("MyHashMap HashMap", "HashMap"));
    }
}
