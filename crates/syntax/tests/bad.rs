//! Files with mistakes: what is said about them. The cases are the Markdown files in `bad/`: each
//! section has a fragment of a file (the sections that it lacks are added behind it) and the whole
//! diagnostic. `SNAPSHOTS=overwrite cargo test` writes the diagnostics anew, to be reviewed.

#![expect(clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use snapbox::{Data, assert_data_eq};
use tidegate_syntax::diagnostic::{Style, render_all};

/// Runs the cases of one file and compares it with itself, diagnostics made anew.
fn check(name: &str, least: usize) {
    let path = format!("{}/tests/bad/{name}.md", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("the cases");
    let mut written = String::new();
    let mut cases = 0;
    for section in text.split("\n## ").enumerate() {
        let (index, section) = section;
        if index == 0 {
            written.push_str(section.trim_end());
            written.push('\n');
            continue;
        }
        let (title, rest) = section.split_once('\n').expect("a title");
        let fragment = rest.split("```yaml\n").nth(1).expect("a fragment");
        let fragment = fragment.split("```").next().expect("an end of the fragment");
        let whole = title.ends_with("(whole file)");
        let file = if whole { fragment.to_owned() } else { common::completed(fragment) };
        let said = match common::read(file.as_bytes()) {
            Ok(project) if project.warnings.is_empty() => "accepted\n".to_owned(),
            Ok(project) => render_all(&project.warnings, Style::Plain),
            Err(mistakes) => render_all(&mistakes, Style::Plain),
        };
        written.push_str(&format!("\n## {title}\n```yaml\n{fragment}```\n```text\n{said}```\n"));
        cases += 1;
    }
    assert!(cases >= least, "{cases} cases in {name}");
    assert!(!written.contains("accepted"), "a case without a mistake in {name}:\n{written}");
    assert_data_eq!(written, Data::read_from(path.as_ref(), None).raw());
}

#[test]
fn mistakes_in_yaml_are_shown_where_they_are() {
    check("yaml", 20);
}

#[test]
fn mistakes_in_the_structure_are_shown_where_they_are() {
    check("structure", 20);
}

#[test]
fn mistakes_in_values_are_shown_where_they_are() {
    check("values", 30);
}

#[test]
fn names_that_lead_nowhere_are_shown_where_they_are() {
    check("names", 12);
}

#[test]
fn strategies_and_checks_that_do_harm_are_shown_where_they_are() {
    check("harm", 20);
}

#[test]
fn what_is_not_in_this_version_is_said_and_not_refused() {
    check("later", 10);
}
