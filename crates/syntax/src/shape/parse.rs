//! Reading scalars: the value, or why it is none and what was most likely meant.

use crate::diagnostic::{nearest, shown};
use crate::yaml::{Kind, Scalar};

use super::Trouble;

/// Longest duration: a year.
const MAX_DURATION_MS: u64 = 366 * DAY_MS;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60 * 1000), ("h", 60 * 60 * 1000), ("d", DAY_MS)];
const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// What to say of a key without value.
pub(crate) fn empty_value() -> Trouble {
    Trouble::new("value is missing", "nothing stands here")
}

/// What a scalar is, with its article.
pub(crate) fn kind_name(scalar: &Scalar) -> &'static str {
    match scalar.kind() {
        Kind::Null => "nothing",
        Kind::Bool(_) => "a truth value",
        Kind::Whole(_) => "a whole number",
        Kind::Number(_) => "a number",
        Kind::Text => "text",
    }
}

/// Letters, digits, `-` and `_`, a letter first, at most 63.
pub(super) fn name(text: &str) -> Result<(), Trouble> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let letter_first = text.starts_with(|c: char| c.is_ascii_alphabetic());
    if letter_first && text.len() <= 63 && text.chars().all(allowed) {
        return Ok(());
    }
    let trouble = Trouble::new(
        format!("`{}` is not a name", shown(text)),
        "a letter, then letters, digits, `-` and `_`, at most 63",
    );
    let letters = text.chars().map(|c| if allowed(c) { c } else { '-' });
    let mended: String = letters.skip_while(|c| !c.is_ascii_alphabetic()).take(63).collect();
    Err(if mended.is_empty() { trouble } else { trouble.fix(format!("write `{mended}`")) })
}

/// Letters, digits and `_`, no digit first, at most 128.
pub(super) fn variable(text: &str) -> Result<(), Trouble> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let digit_first = text.starts_with(|c: char| c.is_ascii_digit());
    if !text.is_empty() && !digit_first && text.len() <= 128 && text.chars().all(allowed) {
        return Ok(());
    }
    let trouble = Trouble::new(
        format!("`{}` is not the name of a variable", shown(text)),
        "letters, digits and `_`, no digit first",
    );
    let letters = text.chars().map(|c| if allowed(c) { c } else { '_' });
    let mended: String = letters.skip_while(char::is_ascii_digit).take(128).collect();
    Err(if mended.is_empty() { trouble } else { trouble.fix(format!("write `{mended}`")) })
}

/// `true` or `false`.
pub(crate) fn boolean(scalar: &Scalar) -> Result<bool, Trouble> {
    if let Kind::Bool(value) = scalar.kind() {
        return Ok(value);
    }
    let trouble =
        Trouble::new(format!("`{}` is not true or false", shown(&scalar.text)), "true or false");
    Err(match scalar.text.to_ascii_lowercase().as_str() {
        "yes" | "on" | "y" | "1" | "true" => trouble.fix("write `true`"),
        "no" | "off" | "n" | "0" | "false" => trouble.fix("write `false`"),
        _ => trouble.fix("write `true` or `false`"),
    })
}

/// Milliseconds.
pub(crate) fn duration(scalar: &Scalar) -> Result<u64, Trouble> {
    let text = scalar.text.trim();
    let bad =
        || Trouble::new(format!("`{}` is not a duration", shown(text)), "a number and a unit");
    if text.is_empty() {
        return Err(bad().fix("write a duration as in `90s`, `5m`, `4h` or `1d`"));
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Trouble::new("duration has no unit", "seconds, minutes, hours?")
            .fix(format!("write `{0}s`, `{0}m` or `{0}h`", shown(text))));
    }
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let letters =
            after.len() - after.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, after) = after.split_at(letters);
        let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(bad().fix(duration_fix(number, unit, after)));
        };
        let number: u64 = number.parse().map_err(|_| bad().fix(duration_fix("", unit, after)))?;
        total = total.saturating_add(number.saturating_mul(*factor));
        rest = after;
    }
    if total > MAX_DURATION_MS {
        return Err(Trouble::new(format!("`{}` is too long", shown(text)), "more than a year"));
    }
    Ok(total)
}

/// What was probably meant by a duration.
fn duration_fix(number: &str, unit: &str, after: &str) -> String {
    let known = match unit.to_ascii_lowercase().as_str() {
        "sec" | "secs" | "second" | "seconds" => Some("s"),
        "min" | "mins" | "minute" | "minutes" => Some("m"),
        "hr" | "hrs" | "hour" | "hours" => Some("h"),
        "day" | "days" => Some("d"),
        _ => None,
    };
    match known {
        Some(unit) if after.is_empty() && !number.is_empty() => format!("write `{number}{unit}`"),
        Some(_) | None => {
            "use whole numbers with ms, s, m, h or d, as in `90s`, `5m`, `4h` or `1d`".to_owned()
        }
    }
}

/// Bytes.
pub(crate) fn size(scalar: &Scalar) -> Result<u64, Trouble> {
    let text = scalar.text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shown_number = if number.is_empty() || number.len() > 12 { "256" } else { number };
    if unit.is_empty() && !number.is_empty() {
        return Err(Trouble::new("size has no unit", "bytes, kilobytes, megabytes?")
            .fix(format!("write `{shown_number}MiB` or `{shown_number}B`")));
    }
    let known = SIZES.iter().find(|(name, _)| *name == unit.trim());
    let value = known.and_then(|(_, factor)| number.parse::<u64>().ok()?.checked_mul(*factor));
    if let Some(value) = value.filter(|value| *value > 0) {
        return Ok(value);
    }
    let trouble = Trouble::new(
        format!("`{}` is not a size", shown(text)),
        "a whole number with KiB, MiB, GiB, kB, MB or GB",
    );
    if unit.starts_with('.') {
        return Err(trouble.fix("use a whole number of a smaller unit, as in `1536MiB`"));
    }
    let meant = match unit.trim().to_ascii_lowercase().as_str() {
        "k" | "ki" | "kib" => "KiB",
        "g" | "gi" | "gib" | "gb" => "GiB",
        _ => "MiB",
    };
    Err(trouble.fix(format!("write `{shown_number}{meant}`")))
}

/// Basis points, in tenths of a percent: `10`, `2.5`, `10%`.
pub(crate) fn percent(scalar: &Scalar) -> Result<u32, Trouble> {
    let text = scalar.text.trim();
    let number = text.strip_suffix('%').unwrap_or(text).trim_end();
    let bad = |label: &str| Trouble::new(format!("`{}` is not a percentage", shown(text)), label);
    let (whole, tenth) = number.split_once('.').unwrap_or((number, "0"));
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(tenth) {
        let trouble = bad("a number from 0 to 100");
        return Err(if number.starts_with('-') {
            trouble.fix("a share of the requests is not below 0")
        } else {
            trouble.fix("write a number such as `10` or `2.5`")
        });
    }
    let tenth = tenth.trim_end_matches('0');
    if tenth.len() > 1 {
        let rounded = format!("{whole}.{}", tenth.get(..1).unwrap_or("0"));
        return Err(bad("finer than tenths").fix(format!("write `{}`", shown(&rounded))));
    }
    let whole: u32 = whole.parse().unwrap_or(u32::MAX);
    let tenths: u32 = if tenth.is_empty() { 0 } else { tenth.parse().unwrap_or(0) };
    let value = whole.saturating_mul(100).saturating_add(tenths * 10);
    if value > 10_000 {
        return Err(Trouble::new(
            format!("`{}` is more than 100 percent", shown(text)),
            "0 to 100",
        )
        .fix("write a number from 0 to 100"));
    }
    Ok(value)
}

/// Thousandths of a processor.
pub(crate) fn cpus(scalar: &Scalar) -> Result<u32, Trouble> {
    let bad = || {
        Trouble::new(
            format!("`{}` is not a number of processors", shown(&scalar.text)),
            "a number such as 0.5 or 2",
        )
    };
    if let Some(millis) = scalar.text.strip_suffix('m').and_then(|t| t.parse::<u32>().ok()) {
        let value = format!("{}.{:03}", millis / 1000, millis % 1000);
        let value = value.trim_end_matches('0').trim_end_matches('.');
        return Err(bad().fix(format!("write `{value}`")));
    }
    let (whole, part) = match scalar.kind() {
        Kind::Whole(_) | Kind::Number(_) => {
            scalar.text.split_once('.').unwrap_or((&scalar.text, ""))
        }
        Kind::Null | Kind::Bool(_) | Kind::Text => return Err(bad()),
    };
    let part = part.trim_end_matches('0');
    if part.len() > 3 {
        return Err(bad().fix("use at most three digits behind the point"));
    }
    let whole = if whole.is_empty() { "0" } else { whole };
    let whole: u32 = whole.parse().map_err(|_| bad())?;
    let part: u32 = format!("{part:0<3}").parse().map_err(|_| bad())?;
    let value = whole.saturating_mul(1000).saturating_add(part);
    if (1..=4_096_000).contains(&value) { Ok(value) } else { Err(bad()) }
}

/// A whole number within a range.
pub(crate) fn whole_in(scalar: &Scalar, what: &str, min: i128, max: i128) -> Result<u64, Trouble> {
    let Kind::Whole(value) = scalar.kind() else {
        let trouble = Trouble::new(
            format!("`{}` is not {what}", shown(&scalar.text)),
            format!("a whole number from {min} to {max}"),
        );
        let digits = scalar.text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unquoted = digits.parse::<i128>().ok().filter(|v| (min..=max).contains(v));
        return Err(match unquoted {
            Some(value) => trouble.fix(format!("write `{value}`")),
            None => trouble,
        });
    };
    if (min..=max).contains(&value) {
        return u64::try_from(value).map_err(|_| empty_value());
    }
    Err(Trouble::new(
        format!("{} is not {what}", shown(&scalar.text)),
        format!("a whole number from {min} to {max}"),
    ))
}

/// An inclusive range of status codes: `5xx`, `404`, `500-503`.
pub(crate) fn status(scalar: &Scalar) -> Result<(u16, u16), Trouble> {
    let text = scalar.text.trim();
    let number = |text: &str| {
        let value: u16 = text.parse().ok()?;
        (100..=599).contains(&value).then_some(value)
    };
    let range = match text.split_once('-') {
        Some((from, to)) => number(from).zip(number(to)).filter(|(from, to)| from <= to),
        None => match text.strip_suffix("xx").or_else(|| text.strip_suffix("XX")) {
            Some(class) => class
                .parse::<u16>()
                .ok()
                .filter(|c| (1..=5).contains(c))
                .map(|c| (c * 100, c * 100 + 99)),
            None => number(text).map(|value| (value, value)),
        },
    };
    range.ok_or_else(|| {
        Trouble::new(format!("`{}` is not a status", shown(text)), "such as 5xx, 429 or 500-503")
    })
}

/// `address:port` to listen on.
pub(crate) fn listen(scalar: &Scalar) -> Result<std::net::SocketAddr, Trouble> {
    let text = scalar.text.trim();
    let trouble =
        Trouble::new(format!("`{}` is not an address to listen on", shown(text)), "address:port");
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match text.parse::<std::net::SocketAddr>() {
        Ok(address) if address.port() > 0 => Ok(address),
        Ok(_) => Err(trouble.fix("write a port from 1 to 65535, as in `127.0.0.1:8080`")),
        Err(_) => Err(match text.rsplit_once(':') {
            Some(("localhost", rest)) if port(rest).is_some() => {
                trouble.fix(format!("write `127.0.0.1:{rest}`"))
            }
            Some(("" | "*", rest)) if port(rest).is_some() => trouble.fix(format!(
                "write `0.0.0.0:{rest}` for every interface, `127.0.0.1:{rest}` for this machine"
            )),
            None if port(text).is_some() => trouble.fix(format!("write `127.0.0.1:{text}`")),
            Some(_) | None => trouble.fix("write an IP address and a port, as in `127.0.0.1:8080`"),
        }),
    }
}

/// `host:port` to connect to; placeholders are checked elsewhere.
pub(super) fn target(text: &str) -> Result<(), Trouble> {
    let trouble = || {
        Trouble::new(format!("`{}` is not an address", shown(text)), "host:port")
            .fix("write host and port, as in `127.0.0.1:5432`")
    };
    let Some((host_part, port)) = text.rsplit_once(':') else {
        return Err(trouble());
    };
    let port_good = port.parse::<u16>().is_ok_and(|p| p > 0);
    let bare = host_part.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_good = match bare {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host(host_part).is_ok() && !host_part.starts_with('*'),
    };
    if port_good && host_good { Ok(()) } else { Err(trouble()) }
}

/// A host name, `*.` allowed in front.
pub(super) fn host(text: &str) -> Result<(), Trouble> {
    let bare = text.strip_prefix("*.").unwrap_or(text);
    let label_good = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    if bare.len() <= 253 && bare.split('.').all(label_good) {
        return Ok(());
    }
    let trouble =
        Trouble::new(format!("`{}` is not a host name", shown(text)), "such as shop.example.com");
    let without = bare.split_once("://").map_or(bare, |(_, rest)| rest);
    let without = without.split(['/', ':']).next().unwrap_or_default();
    Err(if without != bare && without.split('.').all(label_good) {
        trouble.fix(format!("write `{without}`, without scheme, port and path"))
    } else {
        trouble
    })
}

/// `http://…`, `https://…` or `{previewUrl}…`.
pub(super) fn url(text: &str) -> Result<(), Trouble> {
    let trouble = || {
        Trouble::new(format!("`{}` is not a URL", shown(text)), "http://, https:// or {previewUrl}")
    };
    if text.contains(char::is_whitespace) {
        return Err(trouble().fix("write %20 for a space"));
    }
    if text.starts_with("{previewUrl}") {
        return Ok(());
    }
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.starts_with(['/', '?', '#', ':']) => Ok(()),
        Some(_) => Err(trouble().fix("write a host behind the slashes")),
        None if text.starts_with('/') => {
            Err(trouble().fix(format!("write `\"{{previewUrl}}{}\"`", shown(text))))
        }
        None => Err(trouble().fix(format!("write `http://{}`", shown(text)))),
    }
}

/// Minutes since midnight.
pub(crate) fn clock(text: &str) -> Result<u16, Trouble> {
    let parsed = text.split_once(':').and_then(|(hour, minute)| {
        let good = hour.len() == 2 && minute.len() == 2;
        let hour: u16 = hour.parse().ok().filter(|h| *h < 24 && good)?;
        let minute: u16 = minute.parse().ok().filter(|m| *m < 60)?;
        Some(hour * 60 + minute)
    });
    parsed.ok_or_else(|| {
        Trouble::new(format!("`{}` is not a time of day", shown(text)), "hours and minutes")
            .fix("write it in quotes, as in \"09:00\"")
    })
}

/// A time zone by its name in the tz database. Whether it exists is known where the database is.
pub(super) fn zone(text: &str) -> Result<(), Trouble> {
    let part_good = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-'))
    };
    if text == "UTC" || (text.contains('/') && text.split('/').all(part_good)) {
        return Ok(());
    }
    let trouble = Trouble::new(
        format!("`{}` is not a time zone", shown(text)),
        "such as Europe/Berlin or UTC",
    );
    let meant = nearest(text, ["UTC", "GMT", "CET", "Zulu"]);
    Err(match meant {
        Some("UTC" | "GMT" | "Zulu") => trouble.fix("write `UTC`"),
        Some(_) | None => trouble.fix("write area and place, as in `Europe/Berlin`"),
    })
}

/// Whether a node is text and nothing else.
pub(crate) fn is_text(node: &crate::yaml::Node) -> bool {
    node.as_scalar().is_some_and(|scalar| scalar.kind() == Kind::Text)
}
