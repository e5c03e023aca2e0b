//! Each error code has its page, each page its code; and the JSON of diagnostics.

mod common;

use std::collections::BTreeSet;

use serde_json::json;
use tidegate_syntax::Code;
use tidegate_syntax::diagnostic::{Style, error_document, render};

const PAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors");

#[test]
fn each_code_has_its_page_and_each_page_its_code() {
    let codes: BTreeSet<String> = Code::ALL.iter().map(|code| format!("{code}.md")).collect();
    assert_eq!(codes.len(), Code::ALL.len(), "a number twice");
    let pages: BTreeSet<String> = std::fs::read_dir(PAGES)
        .expect("the pages")
        .map(|entry| entry.expect("a page").file_name().into_string().expect("a name"))
        .filter(|name| name.starts_with("TG-00"))
        .collect();
    assert_eq!(codes, pages);
    for code in Code::ALL {
        let page = std::fs::read_to_string(format!("{PAGES}/{code}.md")).expect("a page");
        let title = format!("# {code}: {}\n", code.title());
        assert!(page.starts_with(&title), "{code} starts with {:?}", page.lines().next());
        for heading in ["\n## What happened\n", "\n## How to fix it\n", "\n## Example\n"] {
            assert!(page.contains(heading), "{code} lacks {heading:?}");
        }
    }
}

#[test]
fn a_weight_that_goes_down_looks_as_the_interface_says() {
    let lines = "\n".repeat(25);
    let text = common::completed(&format!(
        "{lines}strategies:\n  careful:\n    canary:\n      steps:\n        - setWeight: 10\n        - setWeight: 5\n"
    ));
    let mistakes = common::read(text.as_bytes()).expect_err("a mistake");
    let expected = "\
error[TG-0042]: weight goes down
  --> tidegate.yaml:31:22
   |
31 |         - setWeight: 5
   |                      ^ 5 after 10
   = a canary's weights only grow; going back is `abort`
   = fix: remove this step, or use setWeight: 15
";
    assert_eq!(render(&mistakes[0], Style::Plain), expected);
    let coloured = render(&mistakes[0], Style::Coloured);
    assert!(coloured.contains("\u{1b}["), "{coloured:?}");
    assert_eq!(coloured.lines().count(), expected.lines().count());
}

#[test]
fn mistakes_are_a_document_too() {
    let text = common::completed("projct: a\nproject: b\nprojekt: c\n");
    let mistakes = common::read(text.as_bytes()).expect_err("mistakes");
    let document = error_document(&mistakes);
    let error = &document["error"];
    assert_eq!(error["code"], "TG-0020");
    assert_eq!(error["message"], "unknown key `projct`");
    assert_eq!(error["on"], "tidegate.yaml:1:1");
    assert_eq!(error["cause"], json!(["not a key of the project"]));
    assert_eq!(error["fix"], json!(["did you mean `project`?"]));
    assert_eq!(error["docs"], "docs/errors/TG-0020.md");
    assert_eq!(error["mistakes"].as_array().map(Vec::len), Some(2));
    let place = &error["mistakes"][1]["places"][0];
    let expected = json!({
        "file": "tidegate.yaml", "line": 3, "column": 1, "start": 21, "end": 28,
        "text": "not a key of the project",
    });
    assert_eq!(*place, expected);
}

#[test]
fn every_code_is_said_by_a_reviewed_case_or_another_test() {
    let cases = [
        include_str!("bad/yaml.md"),
        include_str!("bad/structure.md"),
        include_str!("bad/values.md"),
        include_str!("bad/names.md"),
        include_str!("bad/harm.md"),
        include_str!("bad/later.md"),
        include_str!("robust.rs"),
    ]
    .concat();
    for code in Code::ALL {
        let said =
            cases.contains(&format!("[{code}]")) || cases.contains(&format!("Code::{code:?}"));
        assert!(said, "{code} {code:?} is never said");
    }
}
