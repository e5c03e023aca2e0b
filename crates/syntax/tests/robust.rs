//! Whatever is read, the answer comes soon and is never a panic.
#![expect(clippy::disallowed_methods, reason = "these tests measure how long an answer takes")]

mod common;

use std::time::{Duration, Instant};

use common::{GOOD, SHOP, read};
use proptest::prelude::*;
use tidegate_syntax::Code;
use tidegate_syntax::diagnostic::{Style, error_document, render_all};

/// Generous for a debug build on a busy machine; a release build takes a tenth of what this does.
const SOON: Duration = Duration::from_secs(10);

/// The codes of the answer; it must come soon, and it must be possible to show it soon.
fn codes(bytes: &[u8]) -> Vec<Code> {
    let start = Instant::now();
    let diagnostics = match read(bytes) {
        Ok(project) => project.warnings,
        Err(mistakes) => {
            assert!(!mistakes.is_empty(), "refused without a reason");
            mistakes
        }
    };
    let text = render_all(&diagnostics, Style::Plain);
    assert_eq!(render_all(&diagnostics, Style::Coloured).is_empty(), diagnostics.is_empty());
    assert_eq!(error_document(&diagnostics).is_null(), diagnostics.is_empty());
    let took = start.elapsed();
    assert!(took < SOON, "took {took:?}");
    let unsafe_character = text.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(unsafe_character, None, "in what is shown");
    diagnostics.iter().map(|diagnostic| diagnostic.code).collect()
}

/// For what has to be refused before it costs anything.
const AT_ONCE: Duration = Duration::from_millis(500);

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let start = Instant::now();
    assert_eq!(codes(&vec![b'a'; 10 << 20]), [Code::TooLarge]);
    assert_eq!(codes(&vec![b'\xff'; (1 << 20) + 1]), [Code::TooLarge]);
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}

#[test]
fn aliases_of_aliases_are_refused_before_they_are_expanded() {
    let mut bomb = "x-a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for (name, before) in ["b", "c", "d", "e", "f", "g", "h", "i"].iter().zip("abcdefgh".chars()) {
        let many = vec![format!("*{before}"); 9].join(", ");
        bomb.push_str(&format!("x-{name}: &{name} [{many}]\n"));
    }
    let start = Instant::now();
    assert_eq!(codes(bomb.as_bytes()), [Code::AliasBomb]);
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());

    let mut merges = "x-a: &a { a1: 1, a2: 1, a3: 1, a4: 1, a5: 1 }\n".to_owned();
    for (name, before) in ["b", "c", "d", "e", "f", "g", "h", "i"].iter().zip("abcdefgh".chars()) {
        let many: Vec<String> = (0..9).map(|n| format!("{name}{n}: {{ <<: *{before} }}")).collect();
        merges.push_str(&format!("x-{name}: &{name} {{ {} }}\n", many.join(", ")));
    }
    assert_eq!(codes(merges.as_bytes()), [Code::AliasBomb]);

    let text = "x".repeat(500_000);
    let aliases = vec!["*t"; 90_000].join(", ");
    assert_eq!(codes(format!("x-t: &t {text}\nx-u: [{aliases}]\n").as_bytes()), [Code::AliasBomb]);
}

#[test]
fn deep_nesting_is_refused() {
    for open in ["[", "{a: ", "- ", "? ", "a:\n ", "[{a: "] {
        let mut text = String::new();
        for level in 0..100_000 {
            if open == "a:\n " {
                if level > 200 {
                    break;
                }
                text.push_str(&" ".repeat(level));
                text.push_str("a:\n");
            } else {
                text.push_str(open);
            }
        }
        let codes = codes(text.as_bytes());
        assert!(codes == [Code::TooDeep] || codes == [Code::Syntax], "{open}: {codes:?}");
    }
    let alias = "x-a: &a [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]\n";
    let b = "x-b: &b [[[[[[[[[[[[[[[[[[[[*a]]]]]]]]]]]]]]]]]]]]\n";
    let c = "x-c: &c [[[[[[[[[[[[[[[[[[[[*b]]]]]]]]]]]]]]]]]]]]\n";
    assert_eq!(codes(format!("{alias}{b}{c}").as_bytes()), [Code::TooDeep]);
}

#[test]
fn many_values_are_refused() {
    let list = format!("x-a: [{}]\n", vec!["1"; 200_000].join(","));
    assert_eq!(codes(list.as_bytes()), [Code::TooManyNodes]);
    for count in [60_000, 2_000] {
        let keys: String = (0..count).map(|n| format!("k{n}: 1\n")).collect();
        assert_eq!(codes(keys.as_bytes()), [Code::TooManyNodes]);
    }
    let steps = "{ setWeight: 1 }, ".repeat(1_001);
    let strategy = format!("strategies: {{ s: {{ canary: {{ steps: [{steps}] }} }} }}\n");
    assert_eq!(codes(common::completed(&strategy).as_bytes()), [Code::TooManyNodes]);
}

#[test]
fn many_mistakes_are_counted_and_not_all_listed() {
    let services: String =
        (0..900).map(|n| format!("  s{n}: {{ instnaces: 1, artifcat: 2, comand: 3 }}\n")).collect();
    let codes = codes(format!("services:\n{services}").as_bytes());
    assert_eq!(codes.len(), 101);
    assert_eq!(codes.last(), Some(&Code::Many));
}

#[test]
fn large_projects_are_read_soon() {
    let services: String = (0..1_000)
        .map(|n| {
            format!(
                "  s{n}: {{ artifact: \"a-{{version}}\", command: [./web], routes: [{{ path: /{n} }}] }}\n"
            )
        })
        .collect();
    let environments: String = (0..500)
        .map(|n| {
            let needs = if n > 0 { format!("needs: e{}, ", n - 1) } else { String::new() };
            let port = 10_000 + n;
            format!("  e{n}: {{ {needs}strategy: rolling, platform: {{ process: {{ listen: 127.0.0.1:{port} }} }} }}\n")
        })
        .collect();
    let text =
        format!("version: 1\nproject: p\nservices:\n{services}environments:\n{environments}");
    codes(text.as_bytes());
}

#[test]
fn many_mistakes_on_one_line_take_no_time() {
    for piece in ["a: 1, ", "a: !b 1, ", "? [] : 1, ", "<<: 1, "] {
        codes(format!("x-a: {{ {} }}\n", piece.repeat(45_000)).as_bytes());
    }
    let names = vec!["nobody"; 1_000].join(", ");
    let steps = vec![format!("{{ analysis: [{names}] }}"); 80].join(", ");
    codes(format!("strategies: {{ s: {{ canary: {{ steps: [{steps}] }} }} }}\n").as_bytes());
    let secrets = format!("[{}]", vec!["A"; 1_000].join(", "));
    let services = (0..80).map(|n| format!("s{n}: {{ secrets: {secrets} }}")).collect::<Vec<_>>();
    codes(format!("services: {{ {} }}\n", services.join(", ")).as_bytes());
}

#[test]
fn hostile_pieces_of_yaml_take_no_time() {
    let length = 500_000;
    for piece in [
        "a: ", "&a ", "*a ", "!a ", "? ", "- ", "\"", "'", "|", ">", "%a ", "a\n", "\n", " ",
        "a: b: ", "<<: ", "{", "}", "[", "]", ",", "#", "a: |\n ", "\"\\x41", "---\n", "...\n",
        "- a\n", "!<", "&a [*a, ", "a: &a\n", "{<<: ", "%TAG ! ", "\r\n", "é", "a#", ": ", "'a': ",
    ] {
        codes(piece.repeat(length / piece.len()).as_bytes());
    }
}

#[test]
fn bytes_that_are_not_text_are_refused_with_their_place() {
    let mut bytes = b"project: \"sh\xC3\x28p\"\n".to_vec();
    let mistakes = read(&bytes).expect_err("not UTF-8");
    assert_eq!(mistakes[0].code, Code::NotUtf8);
    assert_eq!(mistakes[0].on(), "tidegate.yaml:1:13");
    assert!(mistakes[0].notes[0].contains("byte 12 is 0xC3"), "{:?}", mistakes[0].notes);
    assert_eq!(codes(b"\xFF\xFEv\0e\0"), [Code::NotUtf8]);
    bytes = b"\xEF\xBB\xBFversion: 1\n".to_vec();
    assert_eq!(codes(&bytes), [Code::Character]);
    assert_eq!(codes(b"version: 1\rproject: shop\r"), [Code::Character]);
    assert_eq!(codes(b"version: 1\0\n"), [Code::Character]);
    assert_eq!(codes("project: \u{1b}[31mred\n".as_bytes()), [Code::Character]);
}

#[test]
fn line_ends_of_windows_are_good_and_keep_their_places() {
    let text = GOOD.replace('\n', "\r\n").replace("bake: 30m", "bake: 30");
    let mistakes = read(text.as_bytes()).expect_err("a mistake");
    assert_eq!(mistakes[0].on(), "tidegate.yaml:24:11");
}

#[test]
fn places_are_counted_in_characters() {
    let text = "project: shop\nx-ü: \"äöü€😀\"\nprojectt: 1\nx-e: { a: \"😀\", a: 2 }\n";
    let mistakes = read(text.as_bytes()).expect_err("mistakes");
    let places: Vec<String> = mistakes.iter().map(tidegate_syntax::Diagnostic::on).collect();
    assert!(places.contains(&"tidegate.yaml:3:1".to_owned()), "{places:?}");
    assert!(places.contains(&"tidegate.yaml:4:16".to_owned()), "{places:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_get_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        codes(&bytes);
    }

    #[test]
    fn any_text_gets_an_answer(text in "[ -~\n\t{}\\[\\]:,&*!|>'\"%@`#?-]{0,300}") {
        codes(text.as_bytes());
    }

    #[test]
    fn a_changed_file_gets_an_answer(
        shop in any::<bool>(),
        changes in proptest::collection::vec((0.0..1.0_f64, 0usize..12, any::<u8>(), "[ -~\n]{0,6}"), 1..6),
    ) {
        let mut bytes = if shop { SHOP } else { GOOD }.as_bytes().to_vec();
        for (at, length, byte, text) in changes {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss,
                reason = "a place somewhere in the file")]
            let at = (at * bytes.len() as f64) as usize;
            let end = (at + length).min(bytes.len());
            match byte % 4 {
                0 => { bytes.splice(at..end, text.into_bytes()); }
                1 => { let piece = bytes[at..end].to_vec(); bytes.extend(piece); }
                2 => { if let Some(b) = bytes.get_mut(at) { *b = byte; } }
                _ => { bytes.drain(at..end); }
            }
        }
        codes(&bytes);
    }
}
