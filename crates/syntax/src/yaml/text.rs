//! From bytes to text: size, encoding, characters that do not belong into a file that people read.

use crate::diagnostic::{Code, Diagnostic, Sink};
use crate::source::{Source, Sources, Span};

use super::MAX_BYTES;

/// Adds the file to the sources and gives its index; none if it cannot be read as text at all.
pub(crate) fn decode(
    name: &str,
    bytes: &[u8],
    sources: &mut Sources,
    sink: &mut Sink,
) -> Option<usize> {
    if bytes.len() > MAX_BYTES {
        let file = sources.add(Source::new(name, ""));
        sink.push(
            Diagnostic::error(Code::TooLarge, "file is too large")
                .at(sources, Span { file, start: 0, end: 0 }, "")
                .note(format!("it has {} bytes; at most {MAX_BYTES} are read", bytes.len()))
                .fix(
                    "check that this is the right file; move parts of it into files of `include:`",
                ),
        );
        return None;
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            not_utf8(name, bytes, error.valid_up_to(), sources, sink);
            return None;
        }
    };
    let file = sources.add(Source::new(name, text));
    if let Some((at, c)) = forbidden(text) {
        let span = Span { file, start: at, end: at + c.len_utf8() };
        sink.push(character(c, at, span, sources));
        return None;
    }
    Some(file)
}

fn not_utf8(name: &str, bytes: &[u8], valid: usize, sources: &mut Sources, sink: &mut Sink) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let file = sources.add(Source::new(name, text));
    let span = Span { file, start: valid, end: valid + 1 };
    let byte = bytes.get(valid).copied().unwrap_or_default();
    let mut diagnostic = Diagnostic::error(Code::NotUtf8, "file is not UTF-8")
        .at(sources, span, "here")
        .note(format!("byte {valid} is 0x{byte:02X}, which is not part of a UTF-8 character"));
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        diagnostic = diagnostic.note("it looks like UTF-16");
    }
    sink.push(diagnostic.fix("save the file as UTF-8"));
}

/// The first character that is refused, with its offset.
fn forbidden(text: &str) -> Option<(usize, char)> {
    let bytes = text.as_bytes();
    text.char_indices().find(|(at, c)| match c {
        '\n' | '\t' => false,
        '\r' => bytes.get(at + 1) != Some(&b'\n'),
        '\u{FEFF}' => true,
        c => c.is_control(),
    })
}

fn character(c: char, at: usize, span: Span, sources: &Sources) -> Diagnostic {
    let (what, fix) = match c {
        '\u{FEFF}' => ("a byte order mark", "save the file as UTF-8 without a byte order mark"),
        '\r' => {
            ("a carriage return without a line feed", "save the file with line ends LF or CRLF")
        }
        '\0' => ("a NUL byte", "check that this is a text file; remove the character"),
        _ => ("a control character", "remove it; in double quotes it can be written as an escape"),
    };
    Diagnostic::error(Code::Character, format!("{what} is not allowed"))
        .at(sources, span, format!("U+{:04X} at byte {at}", u32::from(c)))
        .fix(fix)
}
