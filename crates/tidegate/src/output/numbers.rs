//! Numbers as people read them.

/// `2 070`
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A share of requests: `2.2 %`, `0.10 %`, `–` of nothing.
pub(crate) fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".to_owned();
    }
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    let percent = part as f64 * 100.0 / whole as f64;
    if percent > 0.0 && percent < 1.0 {
        format!("{percent:.2} %")
    } else {
        format!("{percent:.1} %")
    }
}

/// A weight in percent: `10 %`, `12.5 %`.
pub(crate) fn weight(percent: f64) -> String {
    let text = format!("{percent:.1}");
    format!("{} %", text.strip_suffix(".0").unwrap_or(&text))
}

/// `1 request`, `2 requests`
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", thousands(number), if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_shares_keep_their_meaning() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_234_567), "1 234 567");
        assert_eq!(share(5, 232), "2.2 %");
        assert_eq!(share(2, 2070), "0.10 %");
        assert_eq!(share(0, 10), "0.0 %");
        assert_eq!(share(0, 0), "–");
        assert_eq!(weight(12.5), "12.5 %");
        assert_eq!(weight(10.0), "10 %");
    }
}
