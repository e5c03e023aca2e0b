//! One screen that is redrawn in place, with plain ANSI sequences.

use std::io::Write;

use tidegate_wire::api::{Count, Rollout};

use crate::clock;
use crate::output::numbers::{count, weight};
use crate::output::table::{width, wrap};
use crate::output::{BOLD, DIM, GREEN, RED, printable};

/// Draws frames over each other.
#[derive(Debug, Default)]
pub(crate) struct Live {
    drawn: usize,
}

impl Live {
    /// Draws a frame over the last one. False if nobody can see it any more.
    pub(crate) fn draw(&mut self, frame: &[String]) -> bool {
        let columns = columns();
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\u{1b}[{}A", self.drawn));
        }
        for line in frame {
            text.push_str("\r\u{1b}[2K");
            text.push_str(&cut(line, columns));
            text.push('\n');
        }
        text.push_str("\u{1b}[J");
        self.drawn = frame.len();
        // The sequences that move the cursor must pass also where colours are off.
        let text = if colours() { text } else { without_colours(&text) };
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
    }
}

fn colours() -> bool {
    anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never
}

fn without_colours(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("\u{1b}[") {
        out.push_str(&rest[..start]);
        let sequence = &rest[start..];
        let end = sequence[2..].find(|c: char| c.is_ascii_alphabetic()).map_or(2, |end| end + 3);
        if !sequence[..end].ends_with('m') {
            out.push_str(&sequence[..end]);
        }
        rest = &sequence[end..];
    }
    out.push_str(rest);
    out
}

/// Columns of the terminal; 80 where that is not known.
pub(crate) fn columns() -> usize {
    rustix::termios::tcgetwinsize(std::io::stdout())
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns >= 20)
        .unwrap_or(80)
}

/// A line of at most so many columns; escape sequences stay whole.
fn cut(line: &str, columns: usize) -> String {
    if width(line) <= columns {
        return line.to_owned();
    }
    let mut out = String::new();
    let mut used = 0;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            out.push(c);
            for c in chars.by_ref() {
                out.push(c);
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
        } else if used + 1 < columns {
            out.push(c);
            used += 1;
        }
    }
    out.push('…');
    out
}

/// Whether the terminal shows more than ASCII.
fn unicode() -> bool {
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .is_none_or(|value| value.to_ascii_lowercase().replace('-', "").contains("utf8"))
}

/// The frame of some rollouts at this moment.
pub(crate) fn frame(rollouts: &[Rollout], now_ms: u64, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for rollout in rollouts {
        lines.push(String::new());
        lines.extend(one(rollout, now_ms, columns, unicode()));
    }
    lines
}

fn one(rollout: &Rollout, now_ms: u64, columns: usize, unicode: bool) -> Vec<String> {
    let name = printable(&rollout.environment);
    let indent = width(&name).max(10) + 3;
    let old = rollout.previous.as_ref().map(|p| printable(&p.version));
    let new = printable(&rollout.version);
    let label = width(&new).max(old.as_deref().map_or(0, width));
    let room = columns.saturating_sub(indent + label + 42).clamp(5, 24);
    let share = rollout.weight.observed;
    let mut lines = Vec::new();
    if let Some(old) = &old {
        let rest = if share > 100.0 { 0.0 } else { 100.0 - share };
        let line = traffic(old, label, rest, room, &rollout.counts.stable, unicode);
        lines.push(format!(" {BOLD}{name:<pad$}{BOLD:#}{line}", pad = indent - 1));
    }
    let head =
        if old.is_some() { " ".repeat(indent) } else { format!(" {name:<p$}", p = indent - 1) };
    lines.push(format!(
        "{head}{}",
        traffic(&new, label, share, room, &rollout.counts.canary, unicode)
    ));
    let started = clock::parse(&rollout.started_at).unwrap_or(now_ms);
    let until = rollout.ended_at.as_deref().and_then(clock::parse).unwrap_or(now_ms);
    let time = clock::stopwatch(until.saturating_sub(started));
    let step = &rollout.step;
    let pad = " ".repeat(indent);
    lines.push(
        format!(
            "{pad}{}{}  {DIM}step {}/{} {}  {time}{DIM:#}",
            phase(rollout),
            rollout.phase,
            step.index,
            step.count,
            step.kind,
        ) + &format!("{:#}", anstyle::Style::new()),
    );
    if let Some(waiting) = &rollout.waiting {
        let mut text = printable(&waiting.text);
        if let Some(until) = waiting.until.as_deref().and_then(clock::parse) {
            let left = clock::stopwatch(until.saturating_sub(now_ms));
            text.push_str(&format!(" ({left} left)"));
        }
        if let Some(needs) = &waiting.needs {
            text.push_str(&format!("; needs {}", printable(needs)));
        }
        let room = columns.saturating_sub(indent).max(20);
        lines.extend(wrap(&format!("waiting: {text}"), room).iter().map(|t| format!("{pad}{t}")));
    }
    lines
}

fn phase(rollout: &Rollout) -> &'static str {
    match rollout.phase.as_str() {
        "RollingBack" | "Degraded" => "! ",
        "Held" => "? ",
        _ => "",
    }
}

fn traffic(
    version: &str,
    label: usize,
    percent: f64,
    room: usize,
    counts: &Count,
    unicode: bool,
) -> String {
    let style = if counts.errors > 0 { RED } else { GREEN };
    format!(
        "{version:<label$} {style}{}{style:#} {:>6} {:>18} {:>12}",
        bar(percent, room, unicode),
        weight(percent),
        count(counts.requests, "request", "requests"),
        format!("{} failed", crate::output::numbers::thousands(counts.errors)),
    )
}

/// A bar of `room` columns.
fn bar(percent: f64, room: usize, unicode: bool) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let steps = if unicode { 8 } else { 1 };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a number of columns, clamped before"
    )]
    let parts = ((percent.clamp(0.0, 100.0) / 100.0) * (room * steps) as f64).round() as usize;
    let (full, part) = (parts / steps, parts % steps);
    let mut text = if unicode { "█" } else { "#" }.repeat(full);
    text.push_str(EIGHTHS.get(part).copied().unwrap_or_default());
    let used = full + usize::from(part > 0);
    text.push_str(&" ".repeat(room.saturating_sub(used)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_wire::api::{Counts, StepRef, VersionRef, Waiting, Weight};

    fn rollout() -> Rollout {
        Rollout {
            environment: "production".to_owned(),
            version: "v2".to_owned(),
            previous: Some(VersionRef { version: "v1".to_owned(), ..VersionRef::default() }),
            phase: "Paused".to_owned(),
            step: StepRef { index: 2, count: 4, kind: "pause".to_owned() },
            weight: Weight { wanted: 10.0, applied: 10.0, observed: 10.0 },
            counts: Counts {
                stable: Count { requests: 2_070, errors: 2 },
                canary: Count { requests: 232, errors: 5 },
            },
            waiting: Some(Waiting {
                code: "pause".to_owned(),
                text: "the pause of 30 s".to_owned(),
                until: Some("1970-01-01T00:01:30Z".to_owned()),
                ..Waiting::default()
            }),
            started_at: "1970-01-01T00:00:40Z".to_owned(),
            ..Rollout::default()
        }
    }

    #[test]
    fn a_frame_fits_eighty_columns_and_shows_both_versions() {
        let lines = frame(&[rollout()], 63_000, 80);
        assert!(lines.iter().all(|line| width(line) <= 80), "{lines:#?}");
        let text = without_colours(&lines.join("\n"));
        for part in ["v1", "90 %", "2 070 requests", "2 failed", "10 %", "232 requests"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        for part in ["step 2/4 pause", "00:23", "00:27 left"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn bars_have_their_width_whatever_the_weight() {
        for percent in [0.0, 0.4, 10.0, 33.3, 99.9, 100.0, 250.0] {
            assert_eq!(width(&bar(percent, 20, true)), 20, "{percent}");
            assert_eq!(width(&bar(percent, 20, false)), 20, "{percent}");
        }
        assert_eq!(bar(50.0, 4, false), "##  ");
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_outside_of_escape_sequences() {
        let line = format!("{RED}abcdefgh{RED:#}");
        let short = cut(&line, 5);
        assert_eq!(width(&short), 5);
        assert!(short.contains("abcd…") || short.ends_with('…'), "{short:?}");
        assert_eq!(without_colours(&short).trim_end_matches('…'), "abcd");
    }
}
