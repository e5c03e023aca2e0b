//! Rules about any text.

use super::{Finding, Tree, has_word};

/// Lines that a file may have.
const LINES_MAX: usize = 800;

/// Kinds of files that people write.
const WRITTEN: [&str; 8] = [".rs", ".md", ".toml", ".yaml", ".yml", ".sh", ".py", "/run"];

/// Words that say that something is not finished. In two halves, so that this file is clean.
const UNFINISHED: [(&str, &str); 5] =
    [("TO", "DO"), ("FIX", "ME"), ("XX", "X"), ("todo", "!"), ("unimplemented", "!")];

/// Beginnings of paths that exist on somebody's machine only.
const MACHINE_PATHS: [(&str, &str); 4] =
    [("/ro", "ot/"), ("/wo", "rk/"), ("/Us", "ers/"), ("C:\\U", "sers")];

fn written(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    let files = tree.files.iter().map(|(file, text)| (file.as_str(), text.as_str()));
    files.filter(|(file, _)| WRITTEN.iter().any(|end| file.ends_with(end)))
}

pub(super) fn file_length(tree: &Tree) -> Vec<Finding> {
    // Tables of cases in files that are not code may be as long as they have to be.
    let data = |file: &str| file.contains("/tests/") && !file.ends_with(".rs");
    let long = written(tree).filter(|(file, _)| !data(file)).filter_map(|(file, text)| {
        let lines = text.lines().count();
        let what = || format!("{lines} lines; at most {LINES_MAX}, aim for 400: split it");
        (lines > LINES_MAX).then(|| Finding::new(file, lines, what()))
    });
    long.collect()
}

pub(super) fn unfinished(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, text) in written(tree) {
        for (number, line) in (1..).zip(text.lines()) {
            for (left, right) in UNFINISHED {
                let word = format!("{left}{right}");
                if has_word(line, &word) || (word.ends_with('!') && line.contains(&word)) {
                    let what = format!("{word}: finish it, or say what is refused and why");
                    findings.push(Finding::new(file, number, what));
                }
            }
        }
    }
    findings
}

pub(super) fn machine_paths(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, text) in written(tree) {
        for (number, line) in (1..).zip(text.lines()) {
            for (left, right) in MACHINE_PATHS {
                let path = format!("{left}{right}");
                if line.contains(&path) {
                    let what = format!("{path}… is a path of one machine");
                    findings.push(Finding::new(file, number, what));
                }
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{places, tree};
    use super::{file_length, machine_paths, unfinished};

    #[test]
    fn a_file_of_801_lines_is_too_long_and_one_of_800_is_not() {
        let (good, bad) = ("x\n".repeat(800), "x\n".repeat(801));
        let tree =
            tree(&[("a.rs", &good), ("b.rs", &bad), ("Cargo.lock", &bad), ("x/tests/c.md", &bad)]);
        assert_eq!(places(&file_length(&tree)), ["b.rs:801"]);
    }

    #[test]
    fn what_is_not_finished_is_found_by_its_words() {
        let text = format!("a\n// {}{}: later\n{}{}()\n", "TO", "DO", "todo", "!");
        assert_eq!(places(&unfinished(&tree(&[("a.rs", &text)]))), ["a.rs:2", "a.rs:3"]);
        assert!(unfinished(&tree(&[("a.rs", "mastodon, todos")])).is_empty());
    }

    #[test]
    fn a_path_of_one_machine_is_found() {
        let text = format!("see {}{}x and /work?ms=5", "/ro", "ot/");
        assert_eq!(places(&machine_paths(&tree(&[("a.md", &text)]))), ["a.md:1"]);
    }
}
