//! How a process ends: the exit codes of the interface, and the failures that lead to them.

use std::process::ExitCode;

use tidegate_ipc::IpcError;
use tidegate_wire::error::{ErrorBody, ErrorDoc};

/// Exit codes; scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// As asked.
    Done = 0,
    /// The release was undone: the environment is all on the old version.
    Undone = 1,
    /// The input is wrong, nothing changed.
    Input = 2,
    /// Refused, nothing changed.
    Refused = 3,
    /// A person is needed.
    Held = 4,
    /// Engine or target out of reach.
    Unreachable = 5,
    /// `--timeout` passed, it goes on.
    Timeout = 6,
    /// An engine's own: it cannot read its journal, and the next one could not either.
    Journal = tidegate_wire::home::EXIT_JOURNAL as isize,
    /// A defect of Tidegate.
    Defect = 70,
    /// Detached, it goes on.
    Detached = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a verb did not do what was asked: one or several errors and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// At least one.
    pub(crate) errors: Vec<Report>,
}

/// One error, with the picture of the place where a file is wrong.
#[derive(Debug)]
pub(crate) struct Report {
    /// The document.
    pub(crate) body: ErrorBody,
    /// The whole text as it is shown to a person, if it is more than the document.
    pub(crate) rendered: Option<String>,
    /// The whole document, if it is more than the body.
    pub(crate) document: Option<serde_json::Value>,
}

impl Failure {
    /// A failure of one error.
    pub(crate) fn new(exit: Exit, body: ErrorBody) -> Self {
        Self { exit, errors: vec![Report { body, rendered: None, document: None }] }
    }

    /// The input is wrong.
    pub(crate) fn input(code: &str, message: impl Into<String>, on: impl Into<String>) -> Self {
        Self::new(Exit::Input, ErrorBody::new(code, message, on))
    }

    /// Refused.
    pub(crate) fn refused(code: &str, message: impl Into<String>, on: impl Into<String>) -> Self {
        Self::new(Exit::Refused, ErrorBody::new(code, message, on))
    }

    /// Out of reach.
    pub(crate) fn unreachable(
        code: &str,
        message: impl Into<String>,
        on: impl Into<String>,
    ) -> Self {
        Self::new(Exit::Unreachable, ErrorBody::new(code, message, on))
    }

    /// A defect of ours.
    pub(crate) fn defect(message: impl Into<String>, on: impl Into<String>) -> Self {
        Self::new(Exit::Defect, ErrorBody::new("defect", message, on))
            .fix("please report it with the output of `tidegate doctor`")
    }

    /// With what to do next.
    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        if let Some(report) = self.errors.last_mut() {
            report.body.fix.push(fix.into());
        }
        self
    }

    /// With why.
    pub(crate) fn cause(mut self, cause: impl Into<String>) -> Self {
        if let Some(report) = self.errors.last_mut() {
            report.body.cause.push(cause.into());
        }
        self
    }

    /// From what the engine answered, or did not.
    pub(crate) fn from_ipc(error: &IpcError) -> Self {
        match error {
            IpcError::Status { status, body, .. } => Self::from_status(*status, body),
            IpcError::Connect { socket, .. } => {
                Self::unreachable("engineUnreachable", "the engine does not answer", "")
                    .cause(error.to_string())
                    .fix(format!("look into engine.log beside {}", socket.display()))
            }
            IpcError::Lost { socket, .. } => {
                Self::unreachable("engineLost", "the engine gave no answer", "")
                    .cause(error.to_string())
                    .fix(format!("look into engine.log beside {}", socket.display()))
            }
            IpcError::Body { .. } => {
                Self::unreachable("versions", "the engine speaks another version", "")
                    .cause(error.to_string())
                    .fix("use the binary of the same version as the engine, or end the engine")
            }
        }
    }

    fn from_status(status: u16, body: &str) -> Self {
        let exit = match status {
            400..=404 => Exit::Input,
            409 | 422 => Exit::Refused,
            503 | 504 => Exit::Unreachable,
            _ => Exit::Defect,
        };
        let body = serde_json::from_str::<ErrorDoc>(body).map_or_else(
            |_| ErrorBody::new("engine", format!("the engine answered {status}"), "").cause(body),
            |doc| doc.error,
        );
        Self::new(exit, body)
    }
}

impl From<tidegate_journal::Error> for Failure {
    fn from(error: tidegate_journal::Error) -> Self {
        use tidegate_journal::Error;
        let code = match &error {
            Error::Corrupt { .. } => "journalDamaged",
            Error::Newer { .. } => "journalNewer",
            Error::Full(_) => "diskFull",
            Error::Conflict { .. } | Error::NotOwner { .. } => "journalOwner",
            Error::Storage { .. } => "journalUnreadable",
        };
        let message = match &error {
            Error::Full(_) => "no space is left for the journal",
            Error::Corrupt { .. }
            | Error::Newer { .. }
            | Error::Conflict { .. }
            | Error::NotOwner { .. }
            | Error::Storage { .. } => "the journal cannot be read",
        };
        let failure = Self::unreachable(code, message, "");
        let fix = match &error {
            Error::Newer { .. } => "use the version of Tidegate that wrote it, or a newer one",
            Error::Corrupt { .. } => {
                "keep the folder as it is, and put a copy of the home from before in its place"
            }
            Error::Full(_) => "make room on that disk; an undo still fits into the reserve",
            Error::Conflict { .. } | Error::NotOwner { .. } | Error::Storage { .. } => {
                "`tidegate doctor` looks at the home"
            }
        };
        with_chain(failure, &error).fix(fix)
    }
}

/// Adds an error and everything behind it as causes.
pub(crate) fn with_chain(mut failure: Failure, error: &dyn std::error::Error) -> Failure {
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        let known = failure.errors.last().is_some_and(|report| {
            report.body.cause.last().is_some_and(|last| last.ends_with(&text))
        });
        if !known {
            failure = failure.cause(text);
        }
        next = error.source();
    }
    failure
}
