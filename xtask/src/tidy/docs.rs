//! Rules about what people read.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Tree, has_word};

/// Where error codes are explained, one page each.
const ERROR_PAGES: &str = "docs/errors/";

/// The heading in GLOSSARY.md under which a table says which words are not used.
const WORDS_NOT_USED: &str = "## Words that we do not use";

/// The command that runs all tests.
const TEST_COMMAND: &str = "cargo test --workspace";

/// Lines of a Markdown file outside of fences, with their numbers and without code spans.
fn prose(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut fence = false;
    (1..).zip(text.lines()).filter_map(move |(number, line)| {
        if line.trim_start().starts_with("```") {
            fence = !fence;
            return None;
        }
        let outside = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        (!fence).then_some((number, outside))
    })
}

/// Targets of `[text](target)` in a line.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// How GitHub makes the name of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(&line.trim_start_matches('#').replace('`', ""))).collect()
}

/// `folder/../x` without the detour.
fn joined(file: &str, target: &str) -> String {
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

pub(super) fn links(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, text) in tree.ending(".md") {
        for (number, line) in prose(text) {
            for target in targets(&line) {
                if target.contains("://") || target.starts_with("mailto:") {
                    continue;
                }
                let (path, part) = target.split_once('#').unwrap_or((target, ""));
                let path = if path.is_empty() { file.to_owned() } else { joined(file, path) };
                let folder = format!("{path}/");
                let there = tree.files.iter().any(|(f, _)| *f == path || f.starts_with(&folder));
                let part_there = part.is_empty()
                    || tree.text(&path).is_some_and(|text| anchors(text).contains(part));
                if !there || !part_there {
                    findings.push(Finding::new(file, number, format!("leads nowhere: {target}")));
                }
            }
        }
    }
    findings
}

pub(super) fn design_numbers(tree: &Tree) -> Vec<Finding> {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    let mut findings = Vec::new();
    for (file, _) in tree.ending(".md") {
        let Some(name) = file.strip_prefix("docs/design/") else { continue };
        if name == "README.md" {
            continue;
        }
        let number = name.split('-').next().unwrap_or_default();
        if number.len() != 4 || number.parse::<u32>().is_err() {
            findings.push(Finding::new(file, 0, "its name has to be NNNN-title.md"));
        } else if let Some(other) = seen.insert(number, file) {
            findings.push(Finding::new(file, 0, format!("has the number of {other}")));
        }
    }
    findings
}

/// `TG-0042` and the like in a text.
fn codes(text: &str) -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    for (at, _) in text.match_indices("TG-") {
        let digits: String = text[at + 3..].chars().take_while(char::is_ascii_digit).collect();
        if digits.len() == 4 {
            codes.insert(format!("TG-{digits}"));
        }
    }
    codes
}

/// How a table of numbered codes is known: it is where the numbers become codes.
const CODE_FORMAT: &str = "\"TG-{:04}\"";

/// Rows `Name = 42, "title";` of a table of numbered codes: the code with its name.
fn numbered(text: &str) -> Vec<(String, String)> {
    if !text.contains(CODE_FORMAT) {
        return Vec::new();
    }
    let rows = text.lines().filter_map(|line| {
        let (name, rest) = line.trim().split_once(" = ")?;
        let (number, title) = rest.split_once(", ")?;
        let is_name = !name.is_empty() && name.chars().all(char::is_alphanumeric);
        let is_row = is_name && title.starts_with('"') && title.ends_with("\";");
        let number: u16 = number.parse().ok()?;
        is_row.then(|| (format!("TG-{number:04}"), name.to_owned()))
    });
    rows.collect()
}

/// Product code of all crates: the file and its text up to its tests.
fn product(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    let files = tree.ending(".rs").filter(|(file, _)| {
        file.starts_with("crates/") && !file.contains("/tests/") && !file.ends_with("/tests.rs")
    });
    files.map(|(file, text)| (file, text.split("\n#[cfg(test)]").next().unwrap_or(text)))
}

/// Every code that the product says, with the file that declares it; and findings about rows of
/// tables that nothing says.
fn codes_said(tree: &Tree) -> (BTreeMap<String, String>, Vec<Finding>) {
    let (mut said, mut findings) = (BTreeMap::new(), Vec::new());
    for (file, text) in product(tree) {
        for code in codes(text) {
            said.entry(code).or_insert_with(|| file.to_owned());
        }
        for (code, name) in numbered(text) {
            let path = format!("Code::{name}");
            let mut others = product(tree).filter(|(other, _)| *other != file);
            if !others.any(|(_, text)| text.lines().any(|line| has_word(line, &path))) {
                let what = format!("{code} is declared as {path}, which nothing says");
                findings.push(Finding::new(file, 0, what));
            }
            said.entry(code).or_insert_with(|| file.to_owned());
        }
    }
    (said, findings)
}

pub(super) fn error_pages(tree: &Tree) -> Vec<Finding> {
    let pages: BTreeSet<&str> = tree
        .ending(".md")
        .filter_map(|(file, _)| file.strip_prefix(ERROR_PAGES)?.strip_suffix(".md"))
        .filter(|name| name.starts_with("TG-"))
        .collect();
    let (said, mut findings) = codes_said(tree);
    for (code, file) in said.iter().filter(|(code, _)| !pages.contains(code.as_str())) {
        findings.push(Finding::new(file, 0, format!("{code} has no page {ERROR_PAGES}{code}.md")));
    }
    for page in pages.iter().filter(|page| !said.contains_key(**page)) {
        let file = format!("{ERROR_PAGES}{page}.md");
        findings.push(Finding::new(&file, 0, "explains a code that nothing says"));
    }
    findings
}

/// The table of words that are not used, and what to say instead.
fn words_not_used(glossary: &str) -> Vec<(String, String)> {
    let table = glossary.split(WORDS_NOT_USED).nth(1).unwrap_or_default();
    let table = table.split("\n## ").next().unwrap_or_default();
    let rows = table.lines().filter_map(|line| {
        let mut cells = line.trim().strip_prefix('|')?.split('|').map(str::trim);
        let (word, instead) = (cells.next()?, cells.next()?);
        let is_row = !word.is_empty() && !word.starts_with("--") && word != "not";
        is_row.then(|| (word.to_lowercase(), instead.to_owned()))
    });
    rows.collect()
}

pub(super) fn glossary(tree: &Tree) -> Vec<Finding> {
    let Some(glossary) = tree.text("GLOSSARY.md") else {
        return vec![Finding::new("GLOSSARY.md", 0, "is missing")];
    };
    let words = words_not_used(glossary);
    if words.is_empty() {
        let what = format!("has no table under '{WORDS_NOT_USED}'");
        return vec![Finding::new("GLOSSARY.md", 0, what)];
    }
    let mut findings = Vec::new();
    for (file, text) in tree.ending(".md").filter(|(file, _)| *file != "GLOSSARY.md") {
        for (number, line) in prose(text) {
            let line = line.to_lowercase();
            for (word, instead) in &words {
                if has_word(&line, word) {
                    let what = format!("says '{word}'; the glossary's word is {instead}");
                    findings.push(Finding::new(file, number, what));
                }
            }
        }
    }
    findings
}

pub(super) fn one_test_command(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in ["README.md", ".ci/run"] {
        if !tree.text(file).is_some_and(|text| text.contains(TEST_COMMAND)) {
            let what = format!("has to name the one command that runs all tests: {TEST_COMMAND}");
            findings.push(Finding::new(file, 0, what));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{places, tree};
    use super::{design_numbers, error_pages, glossary, links, one_test_command};

    #[test]
    fn a_link_that_leads_nowhere_is_found_and_one_in_a_fence_is_not() {
        let page = "# A `b` c!\n[1](b/c.md) [2](#a-b-c) [3](b) [4](https://example.com)\n\
                    [5](none.md)\n```\n[6](none.md)\n```\n[7](b/c.md#none) `[8](none.md)`\n";
        let files = [("a.md", page), ("b/c.md", "# C\n[up](../a.md)\n")];
        assert_eq!(places(&links(&tree(&files))), ["a.md:3", "a.md:7"]);
    }

    #[test]
    fn two_design_notes_of_one_number_are_found() {
        let files = [
            ("docs/design/0001-a.md", ""),
            ("docs/design/0001-b.md", ""),
            ("docs/design/0002-c.md", ""),
            ("docs/design/notes.md", ""),
        ];
        let found = ["docs/design/0001-b.md:0", "docs/design/notes.md:0"];
        assert_eq!(places(&design_numbers(&tree(&files))), found);
    }

    #[test]
    fn codes_without_a_page_and_pages_without_a_code_are_found() {
        let files = [
            ("crates/a/src/lib.rs", "x(\"TG-0001\", \"TG-0002\")\n#[cfg(test)]\nTG-0009"),
            ("docs/errors/README.md", ""),
            ("docs/errors/TG-0001.md", ""),
            ("docs/errors/TG-0003.md", ""),
        ];
        let found = ["crates/a/src/lib.rs:0", "docs/errors/TG-0003.md:0"];
        assert_eq!(places(&error_pages(&tree(&files))), found);
    }

    #[test]
    fn codes_of_a_table_need_their_page_and_somebody_who_says_them() {
        let table = "codes! {\n    /// Said.\n    Said = 1, \"said\";\n    Mute = 2, \"mute\";\n    \
                     Bare = 30, \"bare\";\n}\nwrite!(f, \"TG-{:04}\", self.number())\n";
        let uses = "report(Code::Said); report(Code::Bare);\n#[cfg(test)]\nreport(Code::Mute)";
        let files = [
            ("crates/a/src/code.rs", table),
            ("crates/a/src/lib.rs", uses),
            ("docs/errors/TG-0001.md", ""),
            ("docs/errors/TG-0002.md", ""),
            ("docs/errors/TG-0031.md", ""),
        ];
        let found = error_pages(&tree(&files));
        let texts: Vec<&str> = found.iter().map(|finding| finding.text.as_str()).collect();
        let expected = [
            "TG-0002 is declared as Code::Mute, which nothing says",
            "TG-0030 has no page docs/errors/TG-0030.md",
            "explains a code that nothing says",
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn a_word_that_is_not_used_is_found_in_prose_and_not_in_code() {
        let table =
            "## Words that we do not use\n\n| not | but |\n|---|---|\n| roll-out | rollout |\n";
        let files = [("GLOSSARY.md", table), ("a.md", "A Roll-out.\n`roll-out`\nrollout\n")];
        assert_eq!(places(&glossary(&tree(&files))), ["a.md:1"]);
        assert_eq!(places(&glossary(&tree(&[("GLOSSARY.md", "# Words")]))), ["GLOSSARY.md:0"]);
    }

    #[test]
    fn the_test_command_stands_in_readme_and_script() {
        let files = [("README.md", "`cargo test --workspace`"), (".ci/run", "cargo test\n")];
        assert_eq!(places(&one_test_command(&tree(&files))), [".ci/run:0"]);
    }
}
