//! Rows of the journal as the documents of the interface. Used by the engine's API and by verbs
//! that read a stopped home, so both show the same.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate_journal::{Envelope, ViewRow};
use tidegate_wire::API_VERSION;
use tidegate_wire::api::{EngineStatus, Environment, Event, Rollout, Status, VersionRef};

use crate::clock;

/// A lane's row.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct LaneDoc {
    /// The environment.
    pub(crate) environment: String,
    /// The service.
    pub(crate) service: String,
    /// What runs there as the good version.
    pub(crate) stable: Option<VersionRef>,
    /// Versions that it can go back to, newest first.
    pub(crate) kept: Vec<VersionRef>,
    /// The active rollout, or the last one.
    pub(crate) rollout: Option<String>,
    /// A freeze in force.
    pub(crate) frozen: Option<Value>,
}

/// A row that this version does not understand.
#[derive(Debug, thiserror::Error)]
#[error("the row of {stream} cannot be read: {source}")]
pub(crate) struct NotUnderstood {
    stream: String,
    source: serde_json::Error,
}

/// A lane's row as this crate knows it.
///
/// # Errors
/// [`NotUnderstood`] if a newer version wrote it in another form.
pub(crate) fn lane(row: &ViewRow) -> Result<LaneDoc, NotUnderstood> {
    serde_json::from_value(row.view.doc.clone())
        .map_err(|source| NotUnderstood { stream: row.stream.to_string(), source })
}

/// A rollout's row as its document: milliseconds become RFC 3339, and the revision is the stream's
/// version.
///
/// # Errors
/// [`NotUnderstood`] if a newer version wrote it in another form.
pub(crate) fn rollout(row: &ViewRow) -> Result<Rollout, NotUnderstood> {
    let mut doc = row.view.doc.clone();
    if let Some(object) = doc.as_object_mut() {
        object.insert("revision".to_owned(), row.version.into());
    }
    serde_json::from_value(with_times(doc))
        .map_err(|source| NotUnderstood { stream: row.stream.to_string(), source })
}

/// Turns the milliseconds of a rollout's row into RFC 3339: the core has no calendar.
pub(crate) fn with_times(mut doc: Value) -> Value {
    for key in ["startedAt", "endedAt"] {
        time(&mut doc, key);
    }
    if let Some(waiting) = doc.get_mut("waiting") {
        for key in ["since", "until"] {
            time(waiting, key);
        }
    }
    doc
}

fn time(doc: &mut Value, key: &str) {
    if let Some(value) = doc.get_mut(key)
        && let Some(ms) = value.as_u64()
    {
        *value = Value::String(clock::rfc3339(ms));
    }
}

/// A lane and its rollout as a part of `status`.
pub(crate) fn environment(lane: LaneDoc, rollout: Option<Rollout>) -> Environment {
    Environment {
        name: lane.environment,
        service: lane.service,
        stable: lane.stable,
        frozen: lane.frozen,
        rollout,
    }
}

/// `kind: Status`, in the order of `order` (environments as in the project file), then by name.
pub(crate) fn status(
    home: &std::path::Path,
    engine: EngineStatus,
    mut environments: Vec<Environment>,
    order: &[String],
    warnings: Vec<String>,
) -> Status {
    let place = |name: &str| order.iter().position(|known| known == name).unwrap_or(usize::MAX);
    environments.sort_by(|a, b| {
        (place(&a.name), &a.name, &a.service).cmp(&(place(&b.name), &b.name, &b.service))
    });
    Status {
        api_version: API_VERSION.to_owned(),
        kind: "Status".to_owned(),
        home: home.display().to_string(),
        engine,
        environments,
        warnings,
    }
}

/// An event as stored as the document that everybody gets.
pub(crate) fn event(envelope: &Envelope) -> Event {
    Event {
        api_version: API_VERSION.to_owned(),
        kind: "Event".to_owned(),
        seq: envelope.seq,
        at: clock::rfc3339(envelope.at.0),
        stream: envelope.stream.to_string(),
        event: format!("{}.{}", envelope.stream.kind, envelope.event),
        data: serde_json::from_str(&envelope.data)
            .unwrap_or_else(|_| Value::String(envelope.data.clone())),
        reason: envelope.reason.clone(),
    }
}

/// A document with `apiVersion` and `kind` in front.
pub(crate) fn with_kind<T: Serialize>(kind: &str, document: &T) -> Value {
    let mut object = serde_json::Map::new();
    object.insert("apiVersion".to_owned(), API_VERSION.into());
    object.insert("kind".to_owned(), kind.into());
    match serde_json::to_value(document) {
        Ok(Value::Object(fields)) => object.extend(fields),
        Ok(other) => {
            object.insert("items".to_owned(), other);
        }
        Err(error) => {
            object.insert("error".to_owned(), error.to_string().into());
        }
    }
    Value::Object(object)
}

/// Whether nothing is left to do for this rollout.
pub(crate) fn is_over(rollout: &Rollout) -> bool {
    rollout.ended_at.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tidegate_core::StreamId;
    use tidegate_journal::View;

    #[test]
    fn a_rollouts_row_becomes_its_document_with_times_and_revision() {
        let row = ViewRow {
            stream: StreamId::new("shop", "rollout", "r-1"),
            version: 7,
            view: View {
                open: true,
                doc: json!({
                    "id": "r-1", "environment": "production", "services": ["web"], "version": "v2",
                    "phase": "Paused", "startedAt": 1_700_000_000_123_u64, "endedAt": null,
                    "waiting": {"code": "pause", "text": "until somebody promotes",
                                "since": 1_700_000_001_000_u64, "until": null, "needs": null},
                    "a field of a newer version": 1
                }),
            },
        };
        let doc = rollout(&row).unwrap();
        assert_eq!(doc.revision, 7);
        assert_eq!(doc.started_at, "2023-11-14T22:13:20.123Z");
        assert_eq!(doc.ended_at, None);
        assert_eq!(doc.waiting.unwrap().since, "2023-11-14T22:13:21.000Z");
    }

    #[test]
    fn environments_stand_in_the_order_of_the_file() {
        let named = |name: &str| Environment { name: name.to_owned(), ..Environment::default() };
        let status = super::status(
            std::path::Path::new("/h"),
            EngineStatus::default(),
            vec![named("a"), named("production"), named("staging")],
            &["staging".to_owned(), "production".to_owned()],
            Vec::new(),
        );
        let names: Vec<_> = status.environments.iter().map(|e| e.name.as_str()).collect();
        assert_eq!(names, ["staging", "production", "a"]);
    }
}
