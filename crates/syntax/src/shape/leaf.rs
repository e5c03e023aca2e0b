//! Kinds of scalars: what they look like.

use crate::diagnostic::{Code, shown};
use crate::yaml::{Kind, Scalar};

use super::parse::{host, name, target, url, variable, zone};
use super::{Leaf, Trouble};

pub(crate) use super::parse::{
    boolean, clock, cpus, duration, empty_value, is_text, kind_name, listen, percent, size, status,
    whole_in,
};

/// A kind of scalar from its parts.
const fn leaf(
    what: &'static str,
    types: &'static [&'static str],
    pattern: Option<&'static str>,
    code: Code,
    check: fn(&Scalar) -> Result<(), Trouble>,
) -> Leaf {
    Leaf { what, types, pattern, range: None, code, check }
}

/// A whole number within a range.
macro_rules! whole {
    ($what:literal, $min:literal, $max:literal) => {
        Leaf {
            what: $what,
            types: &["integer"],
            pattern: None,
            range: Some(($min as f64, $max as f64)),
            code: Code::Range,
            check: |scalar| whole_in(scalar, $what, $min, $max).map(drop),
        }
    };
}

pub(crate) static TEXT: Leaf = leaf("text", &["string"], Some("."), Code::WrongType, |s| {
    if s.kind() == Kind::Text && !s.text.is_empty() {
        Ok(())
    } else if s.kind() == Kind::Text {
        Err(Trouble::new("text is empty", "nothing in the quotes"))
    } else {
        Err(Trouble::new(format!("{} instead of text", kind_name(s)), "text is wanted here")
            .fix(format!("put it in quotes: \"{}\"", shown(&s.text))))
    }
});
pub(crate) static ANY_SCALAR: Leaf = leaf(
    "text, a number or a truth value",
    &["string", "number", "boolean"],
    None,
    Code::WrongType,
    |s| if s.kind() == Kind::Null { Err(empty_value()) } else { Ok(()) },
);
pub(crate) static NAME: Leaf =
    leaf("a name", &["string"], Some("^[A-Za-z][A-Za-z0-9_-]{0,62}$"), Code::Name, |s| {
        name(&s.text)
    });
pub(crate) static VARIABLE: Leaf = leaf(
    "the name of a variable",
    &["string"],
    Some("^[A-Za-z_][A-Za-z0-9_]{0,127}$"),
    Code::Name,
    |s| variable(&s.text),
);
pub(crate) static HOST: Leaf = leaf(
    "a host name",
    &["string"],
    Some("^(\\*\\.)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$"),
    Code::Address,
    |s| host(&s.text),
);
pub(crate) static BOOL: Leaf =
    leaf("true or false", &["boolean"], None, Code::WrongType, |s| boolean(s).map(drop));
pub(crate) static DURATION: Leaf =
    leaf("a duration", &["string"], Some("^([0-9]+(ms|s|m|h|d))+$"), Code::Duration, |s| {
        duration(s).map(drop)
    });
pub(crate) static POSITIVE_DURATION: Leaf = leaf(
    "a duration above zero",
    &["string"],
    Some("^([0-9]+(ms|s|m|h|d))+$"),
    Code::Duration,
    |s| match duration(s)? {
        0 => Err(Trouble::new("duration is zero", "must be longer than nothing")
            .fix("write how long, as in `30s`")),
        _ => Ok(()),
    },
);
pub(crate) static SIZE: Leaf =
    leaf("a size", &["string"], Some("^[0-9]+(B|kB|KB|MB|GB|KiB|MiB|GiB|TiB)$"), Code::Size, |s| {
        size(s).map(drop)
    });
pub(crate) static PERCENT: Leaf = Leaf {
    what: "a percentage",
    types: &["number", "string"],
    pattern: Some("^[0-9]+(\\.[0-9])?%$"),
    range: Some((0.0, 100.0)),
    code: Code::Percentage,
    check: |s| percent(s).map(drop),
};
pub(crate) static LIMIT: Leaf =
    leaf("a limit", &["string", "number"], None, Code::WrongType, |s| {
        if s.kind() == Kind::Null { Err(empty_value()) } else { Ok(()) }
    });
pub(crate) static CPUS: Leaf = Leaf {
    what: "a number of processors",
    types: &["number"],
    pattern: None,
    range: Some((0.001, 4096.0)),
    code: Code::Range,
    check: |s| cpus(s).map(drop),
};
pub(crate) static FORMAT: Leaf = Leaf {
    what: "the version of the format",
    types: &["integer"],
    pattern: None,
    range: Some((1.0, 1.0)),
    code: Code::FormatVersion,
    check: |s| match s.kind() {
        Kind::Whole(1) => Ok(()),
        Kind::Whole(_) | Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text => {
            Err(Trouble::new(
                format!("version `{}` of the format is not known", shown(&s.text)),
                "this is the version of the file's format, not of your project",
            )
            .fix("write `version: 1`"))
        }
    },
};
pub(crate) static PORT: Leaf = whole!("a port", 1, 65535);
pub(crate) static INSTANCES: Leaf = whole!("a number of instances", 1, 10_000);
pub(crate) static COUNT: Leaf = whole!("a count", 1, 1_000_000);
pub(crate) static ZERO_COUNT: Leaf = whole!("a count, 0 allowed", 0, 1_000_000);
pub(crate) static SECONDS: Leaf = whole!("a number of seconds", 1, 86_400);
pub(crate) static ZERO_SECONDS: Leaf = whole!("a number of seconds, 0 allowed", 0, 86_400);
pub(crate) static THRESHOLD: Leaf = whole!("a threshold", 1, 100_000);
pub(crate) static STATUS: Leaf = Leaf {
    what: "a status",
    types: &["integer", "string"],
    pattern: Some("^([1-5]xx|[1-5][0-9][0-9](-[1-5][0-9][0-9])?)$"),
    range: Some((100.0, 599.0)),
    code: Code::Status,
    check: |s| status(s).map(drop),
};
pub(crate) static LISTEN: Leaf = leaf(
    "an address to listen on",
    &["string"],
    Some("^(\\[[0-9A-Fa-f:.]+\\]|[0-9.]+):[0-9]+$"),
    Code::Address,
    |s| listen(s).map(drop),
);
pub(crate) static TARGET: Leaf =
    leaf("an address as host:port", &["string"], Some("^.+:.+$"), Code::Address, |s| {
        target(&s.text)
    });
pub(crate) static URL: Leaf =
    leaf("a URL", &["string"], Some("^(https?://|\\{previewUrl\\})"), Code::Path, |s| url(&s.text));
pub(crate) static URL_PATH: Leaf =
    leaf("a path that starts with /", &["string"], Some("^/[^#\\s]*$"), Code::Path, |s| {
        if s.text.starts_with('/') && !s.text.contains(|c: char| c.is_whitespace() || c == '#') {
            Ok(())
        } else {
            let word: String = s.text.trim_start_matches('/').split_whitespace().collect();
            Err(Trouble::new(format!("`{}` is not a path", shown(&s.text)), "must start with `/`")
                .fix(format!("write `/{}`", shown(word.split('#').next().unwrap_or_default()))))
        }
    });
pub(crate) static CLOCK: Leaf = leaf(
    "a time of day",
    &["string"],
    Some("^([01][0-9]|2[0-3]):[0-5][0-9]$"),
    Code::Window,
    |s| clock(&s.text).map(drop),
);
pub(crate) static ZONE: Leaf = leaf(
    "a time zone",
    &["string"],
    Some("^(UTC|[A-Z][A-Za-z_]+(/[A-Za-z0-9_+-]+)+)$"),
    Code::Window,
    |s| zone(&s.text),
);
