//! The house rules, applied to this tree. `cargo xtask tidy` says the same.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::OnceLock;

use xtask::tidy::{self, RULES, Tree};

fn tree() -> &'static Tree {
    static TREE: OnceLock<Tree> = OnceLock::new();
    TREE.get_or_init(|| Tree::read(&tidy::root()).unwrap())
}

fn check(rule: &str) {
    let findings = tidy::apply(rule, tree()).unwrap();
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "house rule {rule}:\n{}", lines.join("\n"));
}

/// One test for each rule, and a list of them to compare with the rules that there are.
macro_rules! rules {
    ($($test:ident: $rule:literal;)*) => {
        $(#[test] fn $test() { check($rule); })*

        #[test]
        fn every_house_rule_is_a_test() {
            let tested = [$($rule),*];
            let rules: Vec<&str> = RULES.iter().map(|(name, _)| *name).collect();
            assert_eq!(rules, tested);
        }
    };
}

rules! {
    no_file_is_longer_than_800_lines: "file-length";
    nothing_is_left_for_later_in_a_comment: "unfinished";
    no_path_of_one_machine_is_named: "machine-paths";
    no_test_is_skipped: "skipped-tests";
    nothing_is_unsafe: "no-unsafe";
    lints_are_suppressed_by_expectations_with_reasons: "suppressions";
    pure_code_reaches_nothing_outside: "purity";
    dependencies_run_one_way: "layers";
    every_crate_inherits_the_lints: "lints";
    toolchain_and_dependencies_are_pinned: "pins";
    links_lead_somewhere: "links";
    design_notes_have_numbers_of_their_own: "design-numbers";
    every_error_code_has_its_page: "error-pages";
    documents_use_the_words_of_the_glossary: "glossary";
    readme_and_ci_name_one_test_command: "one-test-command";
}

#[test]
fn the_tree_that_is_checked_is_not_empty() {
    assert!(tree().files.len() > 50, "{} files", tree().files.len());
    assert!(tree().crates.len() > 10, "{} crates", tree().crates.len());
}
