//! Everything that is printed goes through one [`Printer`]: stdout is the answer, stderr is
//! progress, hints and diagnostics. Colours come as ANSI sequences and are taken out where the
//! stream, `NO_COLOR` or `TERM=dumb` say so.

pub(crate) mod line;
pub(crate) mod live;
pub(crate) mod numbers;
pub(crate) mod outcome;
pub(crate) mod table;

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::Output;
use crate::exit::{Failure, Report};

/// Headings and the word `error`.
pub(crate) const RED: Style = AnsiColor::Red.on_default().bold();
/// Warnings.
pub(crate) const YELLOW: Style = AnsiColor::Yellow.on_default().bold();
/// Good ends.
pub(crate) const GREEN: Style = AnsiColor::Green.on_default().bold();
/// What is less important.
pub(crate) const DIM: Style = Style::new().dimmed();
/// Names.
pub(crate) const BOLD: Style = Style::new().bold();

/// Where output goes and in what form.
#[derive(Debug)]
pub(crate) struct Printer {
    /// text, json or jsonl.
    pub(crate) output: Output,
    quiet: bool,
    closed: Cell<bool>,
}

impl Printer {
    /// A printer for this process.
    pub(crate) fn new(output: Output, quiet: bool) -> Self {
        Self { output, quiet, closed: Cell::new(false) }
    }

    /// A line of the answer, on stdout.
    pub(crate) fn answer(&self, line: &str) {
        let mut out = anstream::stdout().lock();
        self.note(&writeln!(out, "{line}").and_then(|()| out.flush()));
    }

    /// Bytes of the answer as they are.
    pub(crate) fn raw(&self, bytes: &[u8]) {
        let mut out = io::stdout().lock();
        self.note(&out.write_all(bytes).and_then(|()| out.flush()));
    }

    /// A document: in lines for people with `-o json`, in one line with `-o jsonl`.
    pub(crate) fn document<T: Serialize>(&self, document: &T) {
        let text = match self.output {
            Output::Json => serde_json::to_string_pretty(document),
            Output::Text | Output::Jsonl => serde_json::to_string(document),
        };
        match text {
            Ok(text) => self.raw(format!("{text}\n").as_bytes()),
            Err(error) => self.warning(&format!("cannot write the document: {error}")),
        }
    }

    /// A line about how it goes, on stderr; silent with `--quiet`, and where documents are wanted:
    /// there stderr holds error documents and nothing else.
    pub(crate) fn progress(&self, line: &str) {
        if !self.quiet && self.output == Output::Text {
            self.stderr(line);
        }
    }

    /// What one could do next, on stderr; silent with `--quiet`.
    pub(crate) fn hint(&self, line: &str) {
        self.progress(&format!("{DIM}{line}{DIM:#}"));
    }

    /// A warning, on stderr; silent with `--quiet`.
    pub(crate) fn warning(&self, line: &str) {
        self.progress(&format!("{YELLOW}warning{YELLOW:#}: {line}"));
    }

    /// A line on stderr, always.
    pub(crate) fn stderr(&self, line: &str) {
        let mut err = anstream::stderr().lock();
        let _ = writeln!(err, "{line}");
    }

    /// All errors of a failure, on stderr: one text each, or one document of all.
    pub(crate) fn failure(&self, failure: &Failure) {
        match self.output {
            Output::Text => {
                for (index, report) in failure.errors.iter().enumerate() {
                    if index > 0 {
                        self.stderr("");
                    }
                    self.stderr(&error_text(report));
                }
            }
            Output::Json | Output::Jsonl => self.stderr(&error_document(failure).to_string()),
        }
    }

    /// Whether people read the answer on a terminal that can be redrawn.
    pub(crate) fn is_live(&self) -> bool {
        self.output == Output::Text
            && io::stdout().is_terminal()
            && !is_ci()
            && std::env::var_os("TERM").is_some_and(|term| term != "dumb" && !term.is_empty())
    }

    /// Whether nothing shall be said but the answer.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether nobody reads stdout any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    fn note(&self, result: &io::Result<()>) {
        if result.is_err() {
            self.closed.set(true);
        }
    }
}

/// Whether this runs in a CI job: plain lines with UTC times.
pub(crate) fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

/// `{"error":{code,message,on,cause[],fix[],docs}}`: the first error, and all of them under
/// `mistakes` where there are several.
fn error_document(failure: &Failure) -> Value {
    let bodies: Vec<Value> = failure.errors.iter().map(|report| json!(report.body)).collect();
    let Some(first) = failure.errors.first() else { return Value::Null };
    let mut document = first.document.clone().unwrap_or_else(|| json!(first.body.clone().doc()));
    if bodies.len() > 1
        && let Some(error) = document.get_mut("error").and_then(Value::as_object_mut)
    {
        error.insert("mistakes".to_owned(), bodies.into());
    }
    document
}

/// An error as text: what failed, on what, why, what to do next.
pub(crate) fn error_text(report: &Report) -> String {
    if let Some(rendered) = &report.rendered {
        return rendered.trim_end().to_owned();
    }
    let body = &report.body;
    let mut text = format!("{RED}error[{}]{RED:#}: {}", body.code, printable(&body.message));
    if !body.on.is_empty() {
        text.push_str(&format!("\n  --> {}", printable(&body.on)));
    }
    for cause in &body.cause {
        text.push_str(&format!("\n   = because: {}", indent(&printable(cause))));
    }
    for fix in &body.fix {
        text.push_str(&format!("\n   = fix: {}", indent(&printable(fix))));
    }
    if !body.docs.is_empty() {
        text.push_str(&format!("\n   = see: {}", body.docs));
    }
    text
}

fn indent(text: &str) -> String {
    text.trim_end().replace('\n', "\n     ")
}

/// A text without control characters (but line ends and tabs), so that what comes from outside
/// cannot steer a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c })
        .collect()
}
