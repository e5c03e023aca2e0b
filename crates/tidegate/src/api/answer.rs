//! Answers and refusals.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tidegate_engine::shell::AskError;
use tidegate_wire::error::ErrorBody;

use crate::documents::NotUnderstood;

/// Why a request was not taken.
#[derive(Debug)]
pub(super) struct Refusal {
    /// 400, 404, 409, 500 or 503.
    pub(super) status: StatusCode,
    /// The error.
    pub(super) body: Box<ErrorBody>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, body: ErrorBody) -> Self {
        Self { status, body: Box::new(body) }
    }

    pub(super) fn not_understood(error: &NotUnderstood) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorBody::new("versions", "the journal has a form that is not known here", "")
                .cause(error.to_string())
                .fix("use the version of Tidegate that wrote it, or a newer one"),
        )
    }
}

impl From<AskError> for Refusal {
    fn from(error: AskError) -> Self {
        Self::new(error.status(), error.doc().error)
    }
}

/// A document.
#[expect(clippy::unnecessary_wraps, reason = "the handlers' answers all have this form")]
pub(super) fn json<T: Serialize>(document: &T) -> Result<Response, Refusal> {
    Ok(Json(document).into_response())
}
