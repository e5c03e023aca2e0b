//! Rules about Rust code that no lint knows.

use super::{Finding, Tree, has_word};

/// Where nothing may reach outside: no I/O, no clock, no chance, no async, no order by address.
const PURE: [&str; 3] = ["crates/core/src/", "crates/syntax/src/", "crates/engine/src/step"];

/// What pure code may not name, and why.
const IMPURE: [(&str, &str); 17] = [
    ("tokio", "no async runtime"),
    ("async", "no async"),
    ("await", "no async"),
    ("std::fs", "no files"),
    ("TcpStream", "no network"),
    ("TcpListener", "no network"),
    ("UdpSocket", "no network"),
    ("ToSocketAddrs", "no name lookup"),
    ("std::os", "no operating system"),
    ("std::process", "no processes"),
    ("std::thread", "no threads"),
    ("std::env", "no environment"),
    ("SystemTime", "time comes in events"),
    ("Instant", "time comes in events"),
    ("rand", "no randomness"),
    ("rand_core", "no randomness"),
    ("rand_pcg", "no randomness"),
];

/// Where also the order of things has to be that of the next run, because it is replayed.
const REPLAYED: [&str; 2] = ["crates/core/src/", "crates/engine/src/step"];

/// Containers whose order differs from run to run.
const UNORDERED: [(&str, &str); 2] =
    [("HashMap", "its order is not that of the next run: BTreeMap"), ("HashSet", "BTreeSet")];

/// The code of a line: what stands before a comment.
fn code(line: &str) -> &str {
    line.find("//").map_or(line, |at| &line[..at])
}

/// Lines of a file that are not tests, with their numbers: up to the first test module, which by
/// habit stands last.
fn product_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines()).take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
}

fn is_test_file(file: &str) -> bool {
    file.contains("/tests/") || file.ends_with("/tests.rs") || file.ends_with("_tests.rs")
}

pub(super) fn purity(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, text) in tree.ending(".rs") {
        let inside = |folders: &[&str]| folders.iter().any(|folder| file.starts_with(folder));
        if !inside(&PURE) || is_test_file(file) {
            continue;
        }
        let unordered: &[(&str, &str)] = if inside(&REPLAYED) { &UNORDERED } else { &[] };
        for (number, line) in product_lines(text) {
            for (word, why) in IMPURE.iter().chain(unordered) {
                if has_word(code(line), word) {
                    findings.push(Finding::new(
                        file,
                        number,
                        format!("{word} in pure code: {why}"),
                    ));
                }
            }
        }
    }
    findings
}

pub(super) fn skipped_tests(tree: &Tree) -> Vec<Finding> {
    let (open, name) = ("#[", "ignore");
    let attribute = format!("{open}{name}");
    find_code(tree, &attribute, "a test that does not run says nothing: mend or remove it")
}

pub(super) fn no_unsafe(tree: &Tree) -> Vec<Finding> {
    let word = concat!("un", "safe");
    let mut findings = Vec::new();
    for (file, text) in tree.ending(".rs") {
        for (number, line) in (1..).zip(text.lines()) {
            // In strings and docs it is a word like any other; in code something follows it.
            let code = code(line);
            let used = ["{", "fn", "impl", "trait", "extern"]
                .iter()
                .any(|next| code.contains(&format!("{word} {next}")));
            if used {
                let what = "not in this workspace: use a crate that wraps it, or a process";
                findings.push(Finding::new(file, number, what));
            }
        }
    }
    findings
}

pub(super) fn suppressions(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for open in ["#[", "#!["] {
        let attribute = format!("{open}allow(");
        let why = "use expect with a reason: it speaks up when it is not needed any more";
        findings.extend(find_code(tree, &attribute, why));
    }
    // Helpers that several test programs share are unused in some of them: nothing to expect.
    findings.retain(|finding| !finding.file.contains("/tests/"));
    findings
}

fn find_code(tree: &Tree, what: &str, why: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, text) in tree.ending(".rs") {
        for (number, line) in (1..).zip(text.lines()) {
            if code(line).trim_start().starts_with(what) {
                findings.push(Finding::new(file, number, format!("{what}…: {why}")));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{places, tree};
    use super::{no_unsafe, purity, skipped_tests, suppressions};

    #[test]
    fn a_clock_in_the_core_is_found_and_one_in_its_tests_is_not() {
        let text = "use std::time::Instant; // Instant\n// Instant\n#[cfg(test)]\nInstant\n";
        let files = [
            ("crates/core/src/a.rs", text),
            ("crates/host/src/a.rs", text),
            ("crates/engine/src/step/mod.rs", "fn x(m: HashMap<u8, u8>) {}"),
            ("crates/engine/src/shell.rs", "tokio::spawn"),
            ("crates/core/src/b.rs", "let randomized = branding;"),
            ("crates/syntax/src/a.rs", "HashMap"),
        ];
        let found = places(&purity(&tree(&files)));
        assert_eq!(found, ["crates/core/src/a.rs:1", "crates/engine/src/step/mod.rs:1"]);
    }

    #[test]
    fn a_skipped_test_an_unsafe_block_and_an_allow_are_found() {
        let text = format!(
            "#[{}]\nlet x = {} {{ y }};\n    #[allow(dead_code)]\n#[expect(x, reason = \"y\")]\n",
            "ignore",
            concat!("un", "safe"),
        );
        let tree = tree(&[("a.rs", &text)]);
        assert_eq!(places(&skipped_tests(&tree)), ["a.rs:1"]);
        assert_eq!(places(&no_unsafe(&tree)), ["a.rs:2"]);
        assert_eq!(places(&suppressions(&tree)), ["a.rs:3"]);
    }
}
