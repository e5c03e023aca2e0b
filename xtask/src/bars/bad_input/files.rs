//! Bad `tidegate.yaml`s, each made from the good one by one change.

use super::Expected;

/// A change that makes the good file bad.
enum Change {
    /// The first text becomes the second, once.
    Swap(&'static str, &'static str),
    /// This is added at the end.
    Append(&'static str),
    /// Something that no text can say.
    Make(fn(&str) -> Vec<u8>),
}

/// A bad file and what `validate` has to say of it.
pub(super) struct File {
    pub(super) name: &'static str,
    change: Change,
    pub(super) expected: Expected,
}

impl File {
    /// The bad file; none where the change does not fit the good one any more.
    pub(super) fn bad(&self, good: &str) -> Option<Vec<u8>> {
        match self.change {
            Change::Swap(from, to) => {
                good.contains(from).then(|| good.replacen(from, to, 1).into_bytes())
            }
            Change::Append(text) => Some(format!("{good}{text}").into_bytes()),
            Change::Make(make) => Some(make(good)),
        }
    }
}

const fn swap(
    name: &'static str,
    from: &'static str,
    to: &'static str,
    words: &'static [&'static str],
) -> File {
    File { name, change: Change::Swap(from, to), expected: Expected { code: 2, words } }
}

const fn append(name: &'static str, text: &'static str, words: &'static [&'static str]) -> File {
    File { name, change: Change::Append(text), expected: Expected { code: 2, words } }
}

const fn make(
    name: &'static str,
    make: fn(&str) -> Vec<u8>,
    words: &'static [&'static str],
) -> File {
    File { name, change: Change::Make(make), expected: Expected { code: 2, words } }
}

/// All of them.
pub(super) const FILES: &[File] = &[
    swap(
        "unknown key at the top",
        "project:",
        "projct:",
        &["projct", "project", "tidegate.yaml:2"],
    ),
    swap("unknown key in a service", "instances:", "instancs:", &["instancs", "instances"]),
    swap("unknown key in a probe", "periodSeconds", "periodSecond", &["periodSecond"]),
    swap("unknown kind of step", "setWeight: 25", "setWieght: 25", &["setWieght", "setWeight"]),
    swap(
        "duplicate key",
        "instances: 1",
        "instances: 1\n    instances: 2",
        &["instances", "twice|duplicate|already"],
    ),
    swap(
        "text for a number",
        "instances: 1",
        "instances: many",
        &["instances|many", "number|integer"],
    ),
    swap("list for a text", "project: stage", "project: [a, b]", &["project"]),
    swap("number for a mapping", "    canary:", "    canary: 5\n    x:", &["canary"]),
    swap("weight above 100", "setWeight: 60", "setWeight: 101", &["101", "100"]),
    swap("negative weight", "setWeight: 25", "setWeight: -5", &["-5"]),
    swap("weights that go down", "setWeight: 60", "setWeight: 20", &["20", "25", "TG-"]),
    swap("weight finer than tenths", "setWeight: 25", "setWeight: 25.55", &["25.55"]),
    swap("duration without a unit", "duration: 1s", "duration: 1", &["unit|1s|seconds|duration"]),
    swap(
        "size without a unit",
        "instances: 1",
        "instances: 1\n    resources: { memory: 256 }",
        &["256", "unit|MiB|size"],
    ),
    swap("duration with an unknown unit", "duration: 1s", "duration: 1parsec", &["parsec"]),
    swap(
        "duration that is too long",
        "duration: 1s",
        "duration: 99999999999999999d",
        &["duration|long|large"],
    ),
    swap(
        "strategy that is not defined",
        "strategy: careful",
        "strategy: carefree",
        &["carefree", "careful"],
    ),
    swap(
        "check that is not defined",
        "analysis: [errors]",
        "analysis: [erors]",
        &["erors", "errors"],
    ),
    swap(
        "one-shot of a service that is not defined",
        "    strategy: careful",
        "    beforeTraffic: [{ run: [./x], service: wbe }]\n    strategy: careful",
        &["wbe|beforeTraffic"],
    ),
    swap(
        "environment that needs itself",
        "    strategy: careful",
        "    needs: production\n    strategy: careful",
        &["production", "itself|cycle|circle"],
    ),
    swap(
        "environment that needs an unknown one",
        "    strategy: careful",
        "    needs: stagin\n    strategy: careful",
        &["stagin"],
    ),
    swap(
        "cycle between environments",
        "strategies:",
        "  a:\n    needs: b\n    platform: { process: { listen: \"127.0.0.1:1\" } }\n    strategy: careful\n  b:\n    needs: a\n    platform: { process: { listen: \"127.0.0.1:2\" } }\n    strategy: careful\nstrategies:",
        &["cycle|circle"],
    ),
    swap("unknown format version", "version: 1", "version: 99", &["99", "version"]),
    swap("no format version", "version: 1\n", "", &["version"]),
    swap("no project", "project: stage\n", "", &["project"]),
    swap("project with a slash", "project: stage", "project: ../stage", &["project"]),
    swap("no command", "    command: [./run.sh, \"{address}\", \"{version}\"]\n", "", &["command"]),
    swap(
        "empty command",
        "command: [./run.sh, \"{address}\", \"{version}\"]",
        "command: []",
        &["command"],
    ),
    swap("unknown placeholder", "\"{address}\"", "\"{adress}\"", &["{adress}|adress", "address"]),
    swap("unknown signal", "signal: SIGTERM", "signal: SIGTREM", &["SIGTREM"]),
    swap(
        "listen without a port",
        "listen: \"127.0.0.1:",
        "listen: \"127.0.0.1\" } } # ",
        &["listen", "port"],
    ),
    swap("unknown platform", "process: {", "proces: {", &["proces"]),
    swap("percentage above 100", "limit: 5%", "limit: 500%", &["500"]),
    swap("limit of the wrong kind", "limit: 5%", "limit: 5s", &["limit|5s"]),
    swap("unknown count", "counts: errorRate", "counts: errorRat", &["errorRat", "errorRate"]),
    swap(
        "check without a kind",
        "counts: errorRate, limit: 5%, minimumSample: 20",
        "interval: 5s",
        &["errors"],
    ),
    swap("zero instances", "instances: 1", "instances: 0", &["instances"]),
    swap(
        "probe with two actions",
        "http: /version, field",
        "http: /version, tcp: true, field",
        &["http", "tcp"],
    ),
    swap("tab for a space", "  careful:", "\tcareful:", &["tab|indent|tidegate.yaml:"]),
    swap(
        "bracket that is not closed",
        "analysis: [errors]",
        "analysis: [errors",
        &["tidegate.yaml:"],
    ),
    swap("quote that is not closed", "\"{version}\"]", "\"{version}]", &["tidegate.yaml:"]),
    append("a second document", "---\nversion: 1\n", &["document"]),
    append("unknown alias", "x: *nowhere\n", &["nowhere"]),
    make("empty file", |_| Vec::new(), &["empty|version"]),
    make("a list", |_| b"- a\n- b\n".to_vec(), &["tidegate.yaml"]),
    make("not UTF-8", not_utf8, &["utf-8"]),
    make("zero bytes in it", |good| [good.as_bytes(), b"\0\0\0"].concat(), &["tidegate.yaml"]),
    make("10 MB", ten_megabytes, &["large|big|limit|MiB|MB"]),
    make("alias bomb", alias_bomb, &["alias|expand|anchor|nodes|limit"]),
    make("very deep", very_deep, &["deep|depth|nest|limit"]),
];

fn not_utf8(good: &str) -> Vec<u8> {
    let mut bytes = good.as_bytes().to_vec();
    let place = good.find("stage").unwrap_or(0);
    bytes.splice(place..place + 1, [0xff, 0xfe]);
    bytes
}

fn ten_megabytes(good: &str) -> Vec<u8> {
    let mut bytes = good.as_bytes().to_vec();
    while bytes.len() < 10 << 20 {
        bytes.extend_from_slice(b"# a line that says nothing at all, again and again\n");
    }
    bytes
}

/// Nine aliases of the line before, twelve times over: 282 billion nodes.
fn alias_bomb(good: &str) -> Vec<u8> {
    let mut text = format!("{good}a0: &a0 [x]\n");
    for level in 1..=12 {
        let alias = format!("*a{}", level - 1);
        let list = vec![alias; 9].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{list}]\n"));
    }
    text.into_bytes()
}

fn very_deep(good: &str) -> Vec<u8> {
    format!("{good}x: {}{}\n", "[".repeat(100_000), "]".repeat(100_000)).into_bytes()
}
