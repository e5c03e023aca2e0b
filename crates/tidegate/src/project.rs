//! The project file as verbs need it.

use std::io::Read;
use std::path::{Path, PathBuf};

use tidegate_core::spec::{EnvironmentSpec, ProjectSpec, ServiceSpec};
use tidegate_syntax::diagnostic::{Style, error_document, render_all};
use tidegate_syntax::{Diagnostic, Project, ProjectInput};
use tidegate_wire::error::ErrorBody;

use crate::cli::Common;
use crate::exit::{Exit, Failure, Report};

/// The file where none is named.
pub(crate) const FILE: &str = "tidegate.yaml";
/// More than any file may have; the reader says what is too much.
const BYTES_MAX: u64 = 64 << 20;

/// A project file without mistakes, and where it lies.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// What it says.
    pub(crate) project: Project,
    /// The folder that relative paths start from.
    pub(crate) folder: PathBuf,
    /// Its name, as the user gave it.
    pub(crate) name: String,
}

impl Loaded {
    /// What it asks for.
    pub(crate) fn spec(&self) -> &ProjectSpec {
        &self.project.spec
    }
}

/// The path of the project file.
pub(crate) fn path(common: &Common) -> PathBuf {
    common.file.clone().unwrap_or_else(|| PathBuf::from(FILE))
}

/// Reads the project file.
///
/// # Errors
/// All its mistakes at once, exit code 2.
pub(crate) fn load(common: &Common) -> Result<Loaded, Failure> {
    let path = path(common);
    let name = path.display().to_string();
    let bytes = read(&path).map_err(|error| {
        let failure = Failure::input("noProjectFile", "the project file cannot be read", &name)
            .cause(error.to_string());
        if error.kind() == std::io::ErrorKind::NotFound {
            failure.fix("`tidegate init` writes one; --file names another one")
        } else {
            failure.fix("give this user the right to read it")
        }
    })?;
    let folder = folder_of(&path).map_err(|error| {
        Failure::input("noFolder", "the folder of the project file cannot be found", &name)
            .cause(error.to_string())
    })?;
    let include = |relative: &str| read(&folder.join(relative)).map_err(|error| error.to_string());
    let input = ProjectInput {
        file: &name,
        folder: &folder.to_string_lossy(),
        bytes: &bytes,
        variable: &|variable| std::env::var(variable).ok(),
        include: &include,
    };
    match tidegate_syntax::read_project(&input) {
        Ok(project) => Ok(Loaded { project, folder, name }),
        Err(diagnostics) => Err(mistakes(&diagnostics)),
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn folder_of(path: &Path) -> std::io::Result<PathBuf> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.canonicalize(),
        Some(_) | None => std::env::current_dir()?.canonicalize(),
    }
}

/// All mistakes of a file as one failure.
fn mistakes(diagnostics: &[Diagnostic]) -> Failure {
    let code = diagnostics.first().map(|first| first.code.to_string()).unwrap_or_default();
    Failure {
        exit: Exit::Input,
        errors: vec![Report {
            body: ErrorBody::new(&code, "the project file has mistakes", ""),
            rendered: Some(render(diagnostics)),
            document: Some(error_document(diagnostics)),
        }],
    }
}

/// Diagnostics as a person reads them.
pub(crate) fn render(diagnostics: &[Diagnostic]) -> String {
    render_all(diagnostics, Style::Coloured)
}

/// What looking and steering verbs need of the file. They work also with a file that has mistakes:
/// nobody shall have to mend a file before a release can be stopped.
#[derive(Debug, Default)]
pub(crate) struct Glance {
    /// The project's name.
    pub(crate) project: Option<String>,
    /// Where its home is, as in the file.
    pub(crate) home: Option<String>,
    /// The folder of the file.
    pub(crate) folder: PathBuf,
    /// Its environments in order.
    pub(crate) order: Vec<String>,
    /// How many mistakes were found.
    pub(crate) broken: bool,
}

/// Looks at the file if there is one.
///
/// # Errors
/// Only if a file was named and cannot be read.
pub(crate) fn glance(common: &Common) -> Result<Option<Glance>, Failure> {
    let path = path(common);
    if common.file.is_none() && !path.exists() {
        return Ok(None);
    }
    match load(common) {
        Ok(loaded) => {
            let spec = loaded.spec();
            Ok(Some(Glance {
                project: Some(spec.project.clone()),
                home: spec.home.clone(),
                order: spec.environments.iter().map(|e| e.name.clone()).collect(),
                folder: loaded.folder,
                broken: false,
            }))
        }
        Err(failure) => match (read(&path), folder_of(&path)) {
            (Ok(bytes), Ok(folder)) => {
                let text = String::from_utf8_lossy(&bytes);
                Ok(Some(Glance {
                    project: top_level(&text, "project"),
                    home: top_level(&text, "home"),
                    folder,
                    order: Vec::new(),
                    broken: true,
                }))
            }
            (_, _) => Err(failure),
        },
    }
}

/// A plain value at the top of the file.
fn top_level(text: &str, key: &str) -> Option<String> {
    text.lines().take(10_000).find_map(|line| {
        let value = line.strip_prefix(key)?.strip_prefix(':')?;
        let value = value.split(" #").next().unwrap_or_default().trim();
        let value = value.trim_matches(|c| c == '"' || c == '\'');
        (!value.is_empty()).then(|| value.to_owned())
    })
}

/// The service that is meant: the one that is named, or the only one.
///
/// # Errors
/// None of that name, or several and none named (exit code 2).
pub(crate) fn service<'a>(
    spec: &'a ProjectSpec,
    name: Option<&str>,
) -> Result<&'a ServiceSpec, Failure> {
    let names = || list(spec.services.iter().map(|service| service.name.as_str()));
    match (name, spec.services.as_slice()) {
        (Some(name), services) => {
            services.iter().find(|service| service.name == name).ok_or_else(|| {
                Failure::input("noSuchService", format!("there is no service {name}"), name)
                    .fix(format!("services of this project: {}", names()))
            })
        }
        (None, [only]) => Ok(only),
        (None, _) => Err(Failure::input(
            "whichService",
            "the project has several services; a release is of one",
            "",
        )
        .fix(format!("name it with --service: {}", names()))),
    }
}

/// The environments that a release goes through, in order, up to the one that is named (or the
/// last one).
///
/// # Errors
/// None of that name, or several ends and none named (exit code 2).
pub(crate) fn environments<'a>(
    spec: &'a ProjectSpec,
    to: Option<&str>,
) -> Result<Vec<&'a EnvironmentSpec>, Failure> {
    let all = || list(spec.environments.iter().map(|environment| environment.name.as_str()));
    let find = |name: &str| spec.environments.iter().find(|e| e.name == name);
    let goal = match to {
        Some(name) => find(name).ok_or_else(|| {
            Failure::input("noSuchEnvironment", format!("there is no environment {name}"), name)
                .fix(format!("environments of this project: {}", all()))
        })?,
        None => {
            let ends: Vec<&EnvironmentSpec> = spec
                .environments
                .iter()
                .filter(|e| {
                    spec.environments.iter().all(|o| o.needs.as_deref() != Some(e.name.as_str()))
                })
                .collect();
            match ends.as_slice() {
                [only] => *only,
                [] => {
                    return Err(Failure::input(
                        "noEnvironment",
                        "the project has no environment",
                        "",
                    )
                    .fix("add one under `environments:`"));
                }
                several => {
                    return Err(Failure::input(
                        "whichEnvironment",
                        "the project has several last environments",
                        "",
                    )
                    .fix(format!(
                        "name one with --to: {}",
                        list(several.iter().map(|e| e.name.as_str()))
                    )));
                }
            }
        }
    };
    let mut chain = vec![goal];
    while let Some(needs) = chain.last().and_then(|last| last.needs.as_deref()).and_then(find) {
        if chain.iter().any(|known| known.name == needs.name) {
            return Err(Failure::input("needsCycle", "environments need each other", &needs.name));
        }
        chain.push(needs);
    }
    chain.reverse();
    Ok(chain)
}

/// What the file asks for that this build cannot do and that this release would touch.
///
/// # Errors
/// All of it at once (exit code 3).
pub(crate) fn supported(
    spec: &ProjectSpec,
    environments: &[&str],
    service: &str,
) -> Result<(), Failure> {
    let touches = |names: &[String], ours: &dyn Fn(&str) -> bool| {
        names.is_empty() || names.iter().any(|name| ours(name))
    };
    let errors: Vec<Report> = spec
        .unsupported
        .iter()
        .filter(|item| {
            touches(&item.environments, &|name| environments.contains(&name))
                && touches(&item.services, &|name| name == service)
        })
        .map(|item| {
            let mut body = ErrorBody::new("notInThisVersion", &item.text, &item.at);
            body.fix.extend(item.hint.clone());
            Report { body, rendered: None, document: None }
        })
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(Failure { exit: Exit::Refused, errors }) }
}

/// `a, b, c`
pub(crate) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// A version's name goes into paths and urls.
///
/// # Errors
/// If it cannot (exit code 2).
pub(crate) fn version_name(version: &str) -> Result<(), Failure> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    if version.is_empty()
        || version.len() > 128
        || version.starts_with(['.', '-'])
        || !version.chars().all(good)
    {
        return Err(Failure::input("versionName", "this cannot be a version's name", version)
            .fix("use letters, digits and . _ + -, and begin with a letter or digit"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn project_and_home_are_found_in_a_file_that_has_mistakes() {
        let text = "version: 1\nproject: \"shop\" # ours\nhome: state\nservices: [\n  project: no";
        assert_eq!(top_level(text, "project").as_deref(), Some("shop"));
        assert_eq!(top_level(text, "home").as_deref(), Some("state"));
        assert_eq!(top_level("  project: x", "project"), None);
    }

    #[test]
    fn a_version_cannot_name_another_folder() {
        for bad in ["", "../x", "a/b", "-rf", ".hidden", "a b", "a\nb"] {
            assert_eq!(version_name(bad).unwrap_err().exit, Exit::Input, "{bad:?}");
        }
        for good in ["v1", "1.2.3-rc.1+build_5", "2026-07-01"] {
            version_name(good).unwrap();
        }
    }
}
