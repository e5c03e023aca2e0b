//! `init`: a project file from what lies there.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;
use tidegate_syntax::init::{Listed, Listing, Understanding, init};

use super::Context;
use crate::cli::{InitArgs, Output};
use crate::exit::{Exit, Failure};
use crate::output::{GREEN, YELLOW, printable};
use crate::project::FILE;

/// Levels of folders that are looked into.
const DEPTH: usize = 4;
/// Files and folders that are looked at.
const ENTRIES_MAX: usize = 5_000;
/// A file that is larger is not read.
const CONTENTS_MAX: u64 = 256 << 10;
/// Folders that hold nothing of the project's own.
const SKIPPED: [&str; 5] = [".git", "node_modules", "target", ".venv", "__pycache__"];

/// Writes it; never overwrites.
pub(super) fn run(context: &Context, args: &InitArgs) -> Result<Exit, Failure> {
    let folder = args.folder.as_deref().unwrap_or_else(|| Path::new("."));
    let on = folder.display().to_string();
    let unreadable = |error: std::io::Error| {
        Failure::input("noFolder", "the folder cannot be read", &on).cause(error.to_string())
    };
    let real = folder.canonicalize().map_err(unreadable)?;
    let path = match &context.common.file {
        Some(file) => file.clone(),
        None => folder.join(FILE),
    };
    let mut listing = Listing {
        folder: real.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
        entries: Vec::new(),
    };
    list(&real, "", DEPTH, &mut listing).map_err(unreadable)?;
    let (text, notes) = init(&listing);
    write(&path, &text)?;
    let printer = &context.printer;
    if printer.output == Output::Text {
        printer.answer(&format!("wrote {}", path.display()));
        for note in &notes {
            let mark = match note.understanding {
                Understanding::Understood => format!("{GREEN}understood{GREEN:#}         "),
                Understanding::Guessed => format!("{YELLOW}guessed{YELLOW:#}            "),
                Understanding::NotInThisVersion => {
                    format!("{YELLOW}not in this version{YELLOW:#}")
                }
            };
            printer.answer(&format!(
                "{mark} {}: {}",
                printable(&note.about),
                printable(&note.text)
            ));
        }
        printer.hint("next: `tidegate validate`, then `tidegate plan VERSION`");
    } else {
        let notes: Vec<_> = notes
            .iter()
            .map(|note| {
                json!({
                    "understanding": word(note.understanding),
                    "about": note.about,
                    "text": note.text,
                })
            })
            .collect();
        printer.document(&json!({
            "apiVersion": tidegate_wire::API_VERSION,
            "kind": "Init",
            "file": path.display().to_string(),
            "notes": notes,
        }));
    }
    Ok(Exit::Done)
}

fn word(understanding: Understanding) -> &'static str {
    match understanding {
        Understanding::Understood => "understood",
        Understanding::Guessed => "guessed",
        Understanding::NotInThisVersion => "notInThisVersion",
    }
}

fn list(folder: &Path, prefix: &str, depth: usize, listing: &mut Listing) -> std::io::Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(folder)?.flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        if listing.entries.len() >= ENTRIES_MAX {
            break;
        }
        let Ok(name) = entry.file_name().into_string() else { continue };
        // Links are not followed: they may lead out of the folder.
        let Ok(meta) = entry.metadata() else { continue };
        if meta.file_type().is_symlink() {
            continue;
        }
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        let reads = meta.is_file() && meta.len() <= CONTENTS_MAX && Listing::wants(&path);
        listing.entries.push(Listed {
            is_folder: meta.is_dir(),
            executable: meta.is_file() && meta.permissions().mode() & 0o100 != 0,
            contents: reads.then(|| std::fs::read_to_string(entry.path()).ok()).flatten(),
            path: path.clone(),
        });
        if meta.is_dir() && depth > 1 && !SKIPPED.contains(&name.as_str()) {
            // One folder that cannot be read does not hide the others.
            let _ = list(&entry.path(), &path, depth - 1, listing);
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let on = path.display().to_string();
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(|error| {
            let failure = if error.kind() == std::io::ErrorKind::AlreadyExists {
                Failure::refused("fileExists", "there is a project file already", &on)
                    .fix("change it by hand, or move it away first; `tidegate validate` checks it")
            } else {
                Failure::input("notWritable", "the project file cannot be written", &on)
            };
            failure.cause(error.to_string())
        })?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| {
        Failure::input("notWritable", "the project file cannot be written", &on)
            .cause(error.to_string())
    })
}
