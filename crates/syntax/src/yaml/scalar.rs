//! What a plain scalar stands for: the core schema of YAML 1.2. `yes`, `no`, `on` and `off` are
//! text.

use super::Scalar;

/// What a scalar stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// Nothing.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Whole(i128),
    /// Another number.
    Number(f64),
    /// Text.
    Text,
}

impl Scalar {
    /// What it stands for.
    pub(crate) fn kind(&self) -> Kind {
        if !self.plain {
            return Kind::Text;
        }
        match &*self.text {
            "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
            "true" | "True" | "TRUE" => return Kind::Bool(true),
            "false" | "False" | "FALSE" => return Kind::Bool(false),
            _ => {}
        }
        if let Some(whole) = whole(&self.text) {
            return Kind::Whole(whole);
        }
        match self.text.parse::<f64>() {
            Ok(number) if number_form(&self.text) => Kind::Number(number),
            Ok(_) | Err(_) => Kind::Text,
        }
    }
}

/// Decimal, `0o` octal or `0x` hexadecimal; numbers beyond 128 bits are not whole numbers.
fn whole(text: &str) -> Option<i128> {
    if let Some(octal) = text.strip_prefix("0o") {
        return digits(octal, 8);
    }
    if let Some(hexadecimal) = text.strip_prefix("0x") {
        return digits(hexadecimal, 16);
    }
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    digits(rest, 10).map(|value| sign * value)
}

fn digits(text: &str, radix: u32) -> Option<i128> {
    if text.is_empty() || text.len() > 36 || !text.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    i128::from_str_radix(text, radix).ok()
}

/// `[-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`, no infinities: nothing in
/// the format can be infinite.
fn number_form(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let exponent_good =
        exponent.is_none_or(|text| all_digits(text.strip_prefix(['-', '+']).unwrap_or(text)));
    let mantissa_good = match mantissa.split_once('.') {
        Some(("", after)) => all_digits(after),
        Some((before, "")) => all_digits(before),
        Some((before, after)) => all_digits(before) && all_digits(after),
        None => all_digits(mantissa),
    };
    exponent_good && mantissa_good
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        for (text, expected) in [
            ("", Kind::Null),
            ("~", Kind::Null),
            ("true", Kind::Bool(true)),
            ("yes", Kind::Text),
            ("on", Kind::Text),
            ("12", Kind::Whole(12)),
            ("-3", Kind::Whole(-3)),
            ("0o17", Kind::Whole(15)),
            ("0x1F", Kind::Whole(31)),
            ("017", Kind::Whole(17)),
            ("0x", Kind::Text),
            ("1.5", Kind::Number(1.5)),
            (".5", Kind::Number(0.5)),
            ("1e3", Kind::Number(1000.0)),
            ("1.", Kind::Number(1.0)),
            ("inf", Kind::Text),
            ("5m", Kind::Text),
            ("09:00", Kind::Text),
        ] {
            assert_eq!(Scalar { text: text.into(), plain: true }.kind(), expected, "{text}");
            assert_eq!(Scalar { text: text.into(), plain: false }.kind(), Kind::Text, "{text}");
        }
    }
}
