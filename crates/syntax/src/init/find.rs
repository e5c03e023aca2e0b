//! Services by what lies there: versions that are built already, or the files of a build tool.

use super::{Listed, Listing, Note, Understanding};

/// Folders in which builds leave their versions.
const BUILD_FOLDERS: [&str; 6] = ["dist", "build", "releases", "artifacts", "out", "target/dist"];
const ARCHIVES: [&str; 3] = [".tar.gz", ".tgz", ".tar.zst"];
/// Most services that are written; more are hardly meant.
const MAX_SERVICES: usize = 8;

/// A service for the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Its name.
    pub(super) name: String,
    /// Path with `{version}`.
    pub(super) artifact: String,
    /// Program and arguments.
    pub(super) command: Vec<String>,
}

/// The project's name.
pub(super) fn project(listing: &Listing) -> String {
    let own = package_name(listing).or_else(|| cargo_name(listing));
    name_of(own.as_deref().unwrap_or(&listing.folder), "project")
}

/// All services; at least one.
pub(super) fn services(listing: &Listing, notes: &mut Vec<Note>) -> Vec<Found> {
    let built = built(listing, notes);
    if !built.is_empty() {
        return built;
    }
    let found = node(listing, notes)
        .or_else(|| rust(listing, notes))
        .or_else(|| python(listing, notes))
        .or_else(|| go(listing, notes))
        .unwrap_or_else(|| {
            let name = name_of(&listing.folder, "web");
            let text = "nothing says what is released: set `artifact` and `command`";
            notes.push(Note::new(Understanding::Guessed, ".", text));
            let command = listening(&format!("./{name}"));
            Found { artifact: format!("dist/{name}-{{version}}"), command, name }
        });
    let text = format!("put each version to `{}`", found.artifact);
    notes.push(Note::new(Understanding::Guessed, ".", text));
    vec![found]
}

/// `NAME-VERSION` folders and archives of a build.
fn built(listing: &Listing, notes: &mut Vec<Note>) -> Vec<Found> {
    let mut services: Vec<Found> = Vec::new();
    let mut entries: Vec<&Listed> = listing.entries.iter().collect();
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    for entry in entries {
        let Some((folder, name)) = entry.path.rsplit_once('/') else {
            continue;
        };
        let ending = ARCHIVES.into_iter().find(|ending| name.ends_with(ending)).unwrap_or("");
        let useful = entry.is_folder || !ending.is_empty();
        if !useful || !BUILD_FOLDERS.contains(&folder) {
            continue;
        }
        let stem = name.strip_suffix(ending).unwrap_or(name);
        let Some((base, version)) = split_version(stem) else {
            continue;
        };
        let service = name_of(base, "web");
        let artifact = format!("{folder}/{base}-{{version}}{ending}");
        let text = format!("version {version} of the service {service}");
        notes.push(Note::new(Understanding::Understood, &entry.path, text));
        let known = services.iter().any(|found| found.name == service);
        let unfit = base.contains(['{', '}']);
        if known || unfit || services.len() >= MAX_SERVICES {
            continue;
        }
        let program = program(listing, &entry.path, base);
        if program.is_none() {
            let text = "which program starts it is not known: look at `command`";
            notes.push(Note::new(Understanding::Guessed, &entry.path, text));
        }
        let program = program.unwrap_or_else(|| format!("./{service}"));
        let text = "how the program learns its address is not known: look at `command`";
        notes.push(Note::new(Understanding::Guessed, &entry.path, text));
        services.push(Found { name: service, artifact, command: listening(&program) });
    }
    services
}

/// `web-v1.2` as `web` and `v1.2`.
fn split_version(stem: &str) -> Option<(&str, &str)> {
    stem.match_indices('-').find_map(|(at, _)| {
        let (base, version) = (stem.get(..at)?, stem.get(at + 1..)?);
        let digits = version.strip_prefix('v').unwrap_or(version);
        let good = digits.starts_with(|c: char| c.is_ascii_digit()) && !base.is_empty();
        good.then_some((base, version))
    })
}

/// The program of a folder: the executable with the service's name, or the only one.
fn program(listing: &Listing, folder: &str, base: &str) -> Option<String> {
    let executables: Vec<&str> = listing
        .entries
        .iter()
        .filter(|entry| entry.executable && !entry.is_folder)
        .filter_map(|entry| entry.path.strip_prefix(folder)?.strip_prefix('/'))
        .collect();
    let own = executables.iter().find(|path| path.rsplit('/').next() == Some(base));
    match (own, executables.as_slice()) {
        (Some(path), _) | (None, [path]) => Some(format!("./{path}")),
        (None, _) => None,
    }
}

fn listening(program: &str) -> Vec<String> {
    vec![program.to_owned(), "--listen".to_owned(), "{address}".to_owned()]
}

/// A command that learns its port from the variable that most frameworks read.
fn with_port(command: &str) -> Vec<String> {
    vec!["sh".to_owned(), "-c".to_owned(), format!("PORT={{port}} exec {command}")]
}

fn node(listing: &Listing, notes: &mut Vec<Note>) -> Option<Found> {
    let file = "package.json";
    listing.contents(file)?;
    let name = name_of(&package_name(listing).unwrap_or_default(), "web");
    let json: serde_json::Value =
        serde_json::from_str(listing.contents(file)?).unwrap_or(serde_json::Value::Null);
    let text = |pointer: &str| json.pointer(pointer).and_then(|v| v.as_str()).map(str::to_owned);
    // A start script with shell in it cannot be `exec`ed.
    let simple = |script: &String| {
        script.chars().all(|c| c.is_ascii_alphanumeric() || " ./_-=:".contains(c))
            && !script.contains('=')
    };
    let start = text("/scripts/start").filter(simple);
    let command = start
        .or_else(|| text("/main").filter(simple).map(|main| format!("node {main}")))
        .unwrap_or_else(|| "npm start".to_owned());
    notes.push(Note::new(Understanding::Understood, file, format!("starts with `{command}`")));
    let guess = "that it listens on the port in the variable PORT";
    notes.push(Note::new(Understanding::Guessed, file, guess));
    let command = with_port(&command);
    Some(Found { artifact: format!("dist/{name}-{{version}}.tar.gz"), command, name })
}

fn rust(listing: &Listing, notes: &mut Vec<Note>) -> Option<Found> {
    let name = name_of(&cargo_name(listing)?, "web");
    let text = format!("the program {name}; `cargo build --release` leaves it in target/release");
    notes.push(Note::new(Understanding::Understood, "Cargo.toml", text));
    let text = "that it takes its address as `--listen`";
    notes.push(Note::new(Understanding::Guessed, "Cargo.toml", text));
    let command = listening(&format!("./{name}"));
    Some(Found { artifact: format!("dist/{name}-{{version}}"), command, name })
}

fn python(listing: &Listing, notes: &mut Vec<Note>) -> Option<Found> {
    let file = ["requirements.txt", "pyproject.toml"].into_iter().find(|f| listing.has(f))?;
    let program =
        ["app.py", "main.py", "server.py", "manage.py"].into_iter().find(|f| listing.has(f));
    let name = name_of(&listing.folder, "web");
    let command = format!("python3 {}", program.unwrap_or("app.py"));
    notes.push(Note::new(Understanding::Understood, file, "a Python program"));
    let text = format!("that `{command}` starts it and it listens on the port in PORT");
    notes.push(Note::new(Understanding::Guessed, file, text));
    let command = with_port(&command);
    Some(Found { artifact: format!("dist/{name}-{{version}}"), command, name })
}

fn go(listing: &Listing, notes: &mut Vec<Note>) -> Option<Found> {
    let module = listing.contents("go.mod")?.lines().find_map(|l| l.strip_prefix("module "))?;
    let name = name_of(module.trim().rsplit('/').next().unwrap_or_default(), "web");
    notes.push(Note::new(Understanding::Understood, "go.mod", format!("the program {name}")));
    let text = "that it takes its address as `--listen`";
    notes.push(Note::new(Understanding::Guessed, "go.mod", text));
    let command = listening(&format!("./{name}"));
    Some(Found { artifact: format!("dist/{name}-{{version}}"), command, name })
}

fn package_name(listing: &Listing) -> Option<String> {
    let json: serde_json::Value = serde_json::from_str(listing.contents("package.json")?).ok()?;
    Some(json.get("name")?.as_str()?.to_owned())
}

/// `name = "…"` of `[package]`.
fn cargo_name(listing: &Listing) -> Option<String> {
    let mut lines = listing.contents("Cargo.toml")?.lines().map(str::trim);
    lines.find(|line| *line == "[package]")?;
    let in_section = lines.take_while(|line| !line.starts_with('['));
    let value =
        in_section.filter_map(|line| line.split_once('=')).find(|(k, _)| k.trim() == "name");
    Some(value?.1.trim().trim_matches('"').to_owned())
}

/// Text as a name of the format.
fn name_of(text: &str, otherwise: &str) -> String {
    let bare = text.rsplit('/').next().unwrap_or(text);
    let letters = bare
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' });
    let name: String = letters.skip_while(|c| !c.is_ascii_alphabetic()).take(40).collect();
    let name = name.trim_end_matches('-').to_owned();
    if name.is_empty() { otherwise.to_owned() } else { name }
}
