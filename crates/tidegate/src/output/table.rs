//! Aligned columns that fit a width; the last column wraps.

/// Display columns of a text: escape sequences have none.
pub(crate) fn width(text: &str) -> usize {
    let mut columns = 0;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            for c in chars.by_ref() {
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
        } else {
            columns += 1;
        }
    }
    columns
}

/// A text cut at word borders into lines of at most `columns` (a longer word stays whole).
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && width(&line) + 1 + width(word) > columns {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() || lines.is_empty() {
        lines.push(line);
    }
    lines
}

/// Rows as aligned lines of at most `columns`: every column is as wide as its widest cell, but for
/// the last ones, which share what is left by the length of their texts, and wrap.
pub(crate) fn layout(rows: &[Vec<String>], wrapped: usize, columns: usize) -> Vec<String> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths: Vec<usize> = (0..count)
        .map(|c| rows.iter().filter_map(|r| r.get(c)).map(|t| width(t)).max().unwrap_or(0))
        .collect();
    let fixed = count.saturating_sub(wrapped);
    let gaps = 2 * count.saturating_sub(1);
    let used: usize = widths.iter().take(fixed).sum();
    let free = columns.saturating_sub(used + gaps).max(12 * wrapped);
    let wanted: usize = widths.iter().skip(fixed).sum();
    if wanted > free {
        let mut left = free;
        for (column, width) in widths.iter_mut().enumerate().skip(fixed) {
            let last = column + 1 == count;
            let share = if last { left } else { (*width * free / wanted).max(12) };
            *width = share.min(left);
            left = left.saturating_sub(*width);
        }
    }
    let mut lines = Vec::new();
    for row in rows {
        let cells: Vec<Vec<String>> =
            row.iter().zip(&widths).map(|(text, width)| wrap(text, (*width).max(1))).collect();
        let height = cells.iter().map(Vec::len).max().unwrap_or(0);
        for index in 0..height {
            let mut line = String::new();
            for (cell, columns) in cells.iter().zip(&widths) {
                let text = cell.get(index).map_or("", String::as_str);
                line.push_str(text);
                line.push_str(&" ".repeat(columns.saturating_sub(width(text)) + 2));
            }
            lines.push(line.trim_end().to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_its_width_and_loses_no_word() {
        let rows = vec![
            vec!["1".to_owned(), "set weight to 10 %".to_owned(), "weight back to 0 %".to_owned()],
            vec![
                "12".to_owned(),
                "run migrate once with the files of the new version and wait for it".to_owned(),
                "nothing: what it has done stays done and has to be undone by a person".to_owned(),
            ],
        ];
        let lines = layout(&rows, 2, 50);
        assert!(lines.iter().all(|line| width(line) <= 50), "{lines:#?}");
        let all = lines.join(" ");
        for word in rows.iter().flatten().flat_map(|cell| cell.split_whitespace()) {
            assert!(all.contains(word), "{word} is missing in {all}");
        }
    }

    #[test]
    fn escape_sequences_take_no_room() {
        assert_eq!(width("\u{1b}[1mfour\u{1b}[0m"), 4);
    }
}
