//! What is known of a home: from its engine if one runs, else from the journal itself. Starts
//! nothing.

use std::time::Duration;

use tidegate_core::StreamId;
use tidegate_ipc::IpcError;
use tidegate_journal::Reader;
use tidegate_journal::sqlite::SqliteReader;
use tidegate_wire::api::{EngineStatus, Environment, Event, Rollout, Status};
use tidegate_wire::home::Home;

use crate::client::Engine;
use crate::exit::{Failure, with_chain};
use crate::{documents, home};

/// Where to read.
pub(crate) enum Source {
    /// The engine runs.
    Engine(Engine),
    /// It does not.
    Journal(SqliteReader),
    /// Nothing has ever happened in this home.
    Nothing,
}

impl Source {
    /// The engine if it answers, else the journal if there is one.
    ///
    /// # Errors
    /// A journal that cannot be read.
    pub(crate) async fn open(home: &Home) -> Result<Self, Failure> {
        if home::living(home, "engine").is_some()
            && let Some((engine, _)) = Engine::find(home).await
        {
            return Ok(Self::Engine(engine));
        }
        Ok(journal(home)?.map_or(Self::Nothing, Self::Journal))
    }

    /// `kind: Status`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) async fn status(&self, home: &Home, order: &[String]) -> Result<Status, Failure> {
        let nothing = || documents::status(home.root(), stopped(), Vec::new(), order, Vec::new());
        let mut status = match self {
            Self::Engine(engine) => match engine.get("/v1/status", Duration::from_secs(5)).await {
                Ok(status) => status,
                // It has gone in between; what it has done is in the journal.
                Err(IpcError::Connect { .. } | IpcError::Lost { .. }) => match journal(home)? {
                    Some(reader) => read_status(home, &reader, order)?,
                    None => nothing(),
                },
                Err(error @ (IpcError::Status { .. } | IpcError::Body { .. })) => {
                    return Err(Failure::from_ipc(&error));
                }
            },
            Self::Journal(reader) => read_status(home, reader, order)?,
            Self::Nothing => nothing(),
        };
        let place = |name: &str| order.iter().position(|known| known == name).unwrap_or(usize::MAX);
        status.environments.sort_by_key(|environment| place(&environment.name));
        let more = warnings(home, &status);
        status.warnings.extend(more);
        Ok(status)
    }

    /// One rollout.
    ///
    /// # Errors
    /// If there is none of this name.
    pub(crate) async fn rollout(&self, id: &str) -> Result<Rollout, Failure> {
        match self {
            Self::Engine(engine) => engine
                .get(&format!("/v1/rollouts/{}", encode(id)), Duration::from_secs(5))
                .await
                .map_err(|error| Failure::from_ipc(&error)),
            Self::Journal(reader) => find_rollout(reader, id),
            Self::Nothing => Err(no_rollout(id)),
        }
    }
}

/// The journal of a home, beside a running engine or not; none before the first release.
///
/// # Errors
/// A journal that cannot be read.
pub(crate) fn journal(home: &Home) -> Result<Option<SqliteReader>, Failure> {
    let path = home.journal();
    match std::fs::metadata(&path) {
        Ok(_) => Ok(Some(SqliteReader::open(&path)?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(with_chain(
            Failure::unreachable(
                "journalUnreadable",
                "the journal cannot be read",
                path.display().to_string(),
            ),
            &error,
        )),
    }
}

fn read_status(home: &Home, reader: &dyn Reader, order: &[String]) -> Result<Status, Failure> {
    let environments = environments(reader)?;
    checked(reader, &environments)?;
    Ok(documents::status(home.root(), stopped(), environments, order, Vec::new()))
}

/// Journals of up to so many events are checked whole before they are believed.
const CHECK_ALL: u64 = 1_000;
/// Of larger ones the stories of so many lanes.
const CHECK_LANES: usize = 8;

/// Checks the chains behind what is about to be shown: a running engine has done so already.
fn checked(reader: &dyn Reader, environments: &[Environment]) -> Result<(), Failure> {
    if reader.last_seq()? <= CHECK_ALL {
        reader.verify()?;
        return Ok(());
    }
    for rollout in environments.iter().filter_map(|lane| lane.rollout.as_ref()).take(CHECK_LANES) {
        if let Some((stream, _)) = find_stream(reader, "rollout", &rollout.id)? {
            reader.read_stream(&stream, 0, usize::MAX)?;
        }
    }
    Ok(())
}

/// An engine that does not run.
pub(crate) fn stopped() -> EngineStatus {
    EngineStatus { state: "stopped".to_owned(), ..EngineStatus::default() }
}

/// All lanes with their rollouts, as the journal has them.
///
/// # Errors
/// A journal that cannot be read.
pub(crate) fn environments(reader: &dyn Reader) -> Result<Vec<Environment>, Failure> {
    reader
        .views("lane", false, usize::MAX)?
        .iter()
        .map(|row| {
            let lane = documents::lane(row).map_err(|error| newer(&error))?;
            let rollout = match &lane.rollout {
                None => None,
                Some(id) => reader
                    .view(&StreamId::new(&row.stream.project, "rollout", id))?
                    .map(|row| documents::rollout(&row))
                    .transpose()
                    .map_err(|error| newer(&error))?,
            };
            Ok(documents::environment(lane, rollout))
        })
        .collect()
}

fn newer(error: &documents::NotUnderstood) -> Failure {
    Failure::unreachable("versions", "the journal has a form that is not known here", "")
        .cause(error.to_string())
        .fix("use the version of Tidegate that wrote it, or a newer one")
}

/// A rollout by its id, in whichever project.
///
/// # Errors
/// If there is none.
pub(crate) fn find_rollout(reader: &dyn Reader, id: &str) -> Result<Rollout, Failure> {
    let (stream, _) = find_stream(reader, "rollout", id)?.ok_or_else(|| no_rollout(id))?;
    let row = reader.view(&stream)?.ok_or_else(|| no_rollout(id))?;
    documents::rollout(&row).map_err(|error| newer(&error))
}

/// A stream by kind and id, in whichever project, and whether it has unfinished work.
///
/// # Errors
/// A journal that cannot be read.
pub(crate) fn find_stream(
    reader: &dyn Reader,
    kind: &str,
    id: &str,
) -> Result<Option<(StreamId, bool)>, Failure> {
    let mut projects: Vec<String> = Vec::new();
    for row in reader.views("lane", false, usize::MAX)? {
        if !projects.contains(&row.stream.project) {
            projects.push(row.stream.project);
        }
    }
    for project in projects {
        let stream = StreamId::new(&project, kind, id);
        if let Some(row) = reader.view(&stream)? {
            return Ok(Some((stream, row.view.open)));
        }
    }
    Ok(None)
}

/// Whether the journal has unfinished work.
///
/// # Errors
/// A journal that cannot be read.
pub(crate) fn is_open(reader: &dyn Reader) -> Result<bool, Failure> {
    for kind in ["rollout", "release", "lane"] {
        if !reader.views(kind, true, 1)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Events after a sequence, as documents.
///
/// # Errors
/// A journal that cannot be read.
pub(crate) fn events(reader: &dyn Reader, after: u64, limit: usize) -> Result<Vec<Event>, Failure> {
    Ok(reader.read_all(after, limit)?.iter().map(documents::event).collect())
}

fn no_rollout(id: &str) -> Failure {
    Failure::input("noSuchRollout", format!("there is no rollout {id} in this home"), id)
        .fix("`tidegate history` lists them")
}

/// What a person should know about this home.
fn warnings(home: &Home, status: &Status) -> Vec<String> {
    let mut warnings = Vec::new();
    if status.environments.is_empty() {
        return warnings;
    }
    let serving = status.environments.iter().any(|lane| lane.stable.is_some());
    let dead: Vec<&str> =
        ["host", "switch"].into_iter().filter(|role| home::living(home, role).is_none()).collect();
    if serving && !dead.is_empty() {
        warnings.push(format!(
            "{} not running: nothing serves and nothing is restarted; `tidegate watch` brings it \
             back",
            match dead.as_slice() {
                [one] => format!("the {one} is"),
                _ => "host and switch are".to_owned(),
            }
        ));
    }
    warnings.push(
        "nothing brings this home back after a reboot (no units are installed); \
         `tidegate watch` does it by hand"
            .to_owned(),
    );
    warnings
}

/// A text as one segment of a path.
pub(crate) fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_cannot_break_out_of_its_path_segment() {
        assert_eq!(super::encode("r-1/..?x"), "r-1%2F..%3Fx");
        assert_eq!(super::encode("web@v1.2"), "web@v1.2");
    }
}
