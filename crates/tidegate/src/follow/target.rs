//! What is followed, and when it is reached.

use serde_json::Value;
use tidegate_core::release::Event as ReleaseEvent;
use tidegate_core::rollout::Outcome;
use tidegate_core::{Reason, StreamId};
use tidegate_wire::api::{Event, Rollout};

use crate::cli::Until;
use crate::documents::is_over;
use crate::exit::Exit;

/// What is followed.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// One rollout.
    Rollout(String),
    /// A release through its environments.
    Release(Release),
}

/// A release and how far it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Release {
    /// `PROJECT/release/SERVICE@VERSION`
    pub(crate) stream: String,
    /// The service.
    pub(crate) service: String,
    /// The version.
    pub(crate) version: String,
    /// Rollouts that were started for it.
    pub(crate) started: Vec<String>,
    /// Its last rollout that ended.
    pub(crate) rollout: Option<String>,
    /// The environment that it is in.
    pub(crate) environment: Option<String>,
    /// How it ended, if it has.
    pub(crate) outcome: Option<Outcome>,
    /// Why.
    pub(crate) reason: Option<Reason>,
}

impl Release {
    /// The release of this stream: `PROJECT/release/SERVICE@VERSION`.
    pub(crate) fn of(stream: &StreamId) -> Self {
        let (service, version) = stream.id.split_once('@').unwrap_or((&stream.id, ""));
        Self {
            stream: stream.to_string(),
            service: service.to_owned(),
            version: version.to_owned(),
            ..Self::default()
        }
    }

    /// Notes the rollouts that lanes start for it.
    pub(crate) fn notice(&mut self, event: &Event) {
        if event.event != "lane.started" {
            return;
        }
        let proposal = event.data.get("proposal");
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let version = text(proposal.and_then(|p| p.pointer("/release/version")));
        let service = text(proposal.and_then(|p| p.pointer("/service/name")));
        if version.as_ref() == Some(&self.version)
            && service.as_ref() == Some(&self.service)
            && let Some(rollout) = text(event.data.get("rollout"))
        {
            self.started.push(rollout);
        }
    }

    /// Folds an event of the release's own stream.
    pub(crate) fn fold(&mut self, data: &Value, reason: Option<&Reason>) {
        let Ok(event) = serde_json::from_value::<ReleaseEvent>(data.clone()) else { return };
        match event {
            ReleaseEvent::Created { .. } | ReleaseEvent::Extended { .. } => {
                self.outcome = None;
                self.reason = None;
            }
            ReleaseEvent::Proposed { environment } => self.environment = Some(environment),
            ReleaseEvent::EnvironmentEnded { rollout, .. } => self.rollout = Some(rollout),
            ReleaseEvent::Ended { outcome } => {
                self.outcome = Some(outcome);
                self.reason = reason.cloned();
            }
        }
    }
}

impl Target {
    /// Whether an event of the journal belongs to what is followed.
    pub(crate) fn concerns(&self, event: &Event, rollouts: &[Rollout]) -> bool {
        let mut parts = event.stream.splitn(3, '/').skip(1);
        let (kind, id) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let shown = |rollout: &Rollout| match kind {
            "rollout" => rollout.id == id,
            "lane" => rollout
                .services
                .iter()
                .any(|service| id == tidegate_core::lane::name(&rollout.environment, service)),
            _ => false,
        };
        match self {
            Self::Rollout(name) => (kind == "rollout" && name == id) || rollouts.iter().any(shown),
            Self::Release(release) => {
                event.stream == release.stream
                    || (kind == "rollout" && release.started.iter().any(|known| known == id))
                    || rollouts.iter().any(shown)
                    || (kind == "lane" && id.ends_with(&format!("/{}", release.service)))
            }
        }
    }

    /// Whether this event is the last one of what was asked for, given documents that are not older
    /// than it.
    pub(crate) fn is_last(&self, event: &Event, until: Until, rollouts: &[Rollout]) -> bool {
        let (id, over) = match self {
            Self::Rollout(id) => (Some(id), true),
            Self::Release(release) => {
                let promoted = release.outcome == Some(Outcome::Promoted);
                if event.stream == release.stream && event.event == "release.ended" {
                    return until == Until::Promoted || !promoted;
                }
                (release.rollout.as_ref(), release.outcome.is_some())
            }
        };
        let Some(id) = id.filter(|id| over && event.stream.ends_with(&format!("/rollout/{id}")))
        else {
            return false;
        };
        let stays = rollouts
            .iter()
            .any(|rollout| rollout.id == *id && rollout.outcome.as_deref() == Some("promoted"));
        match (event.event.as_str(), until) {
            ("rollout.ended", _) => true,
            ("rollout.promoted", Until::Promoted) | ("rollout.baked", Until::Baked) => stays,
            _ => false,
        }
    }

    /// The exit code if the end is reached; the rollouts are those of the target, newest last.
    pub(crate) fn reached(&self, until: Until, rollouts: &[Rollout]) -> Option<Exit> {
        match self {
            Self::Rollout(id) => {
                rollouts.iter().find(|r| r.id == *id).and_then(|r| reached(r, until))
            }
            Self::Release(release) => {
                if let Some(held) = rollouts.iter().find(|r| is_held(r))
                    && release.outcome.is_none()
                {
                    return reached(held, until);
                }
                let outcome = release.outcome?;
                let last = rollouts.iter().find(|r| Some(&r.id) == release.rollout.as_ref());
                match (until, last) {
                    (Until::Promoted, _) | (_, None) => Some(exit_of(outcome)),
                    (Until::Baked | Until::Ended, Some(rollout)) => reached(rollout, until),
                }
            }
        }
    }
}

fn is_held(rollout: &Rollout) -> bool {
    rollout.phase == "Held" || rollout.outcome.as_deref() == Some("held")
}

/// The exit code of one rollout, if it is as far as is asked.
pub(crate) fn reached(rollout: &Rollout, until: Until) -> Option<Exit> {
    if is_held(rollout) {
        return Some(Exit::Held);
    }
    let outcome = parse_outcome(rollout.outcome.as_deref()?)?;
    // What came back is followed until its last instance is gone: then it can be retried.
    let promoted = outcome == Outcome::Promoted;
    let reached = match until {
        Until::Promoted => promoted,
        Until::Baked => promoted && rollout.phase == "Healthy",
        Until::Ended => false,
    };
    (reached || is_over(rollout)).then(|| exit_of(outcome))
}

/// An outcome by its word.
pub(crate) fn parse_outcome(word: &str) -> Option<Outcome> {
    serde_json::from_value(Value::String(word.to_owned())).ok()
}

/// What a script is told.
pub(crate) fn exit_of(outcome: Outcome) -> Exit {
    match outcome {
        Outcome::Promoted => Exit::Done,
        Outcome::RolledBack | Outcome::Superseded => Exit::Undone,
        Outcome::Held => Exit::Held,
        Outcome::Refused => Exit::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(phase: &str, outcome: Option<&str>, over: bool) -> Rollout {
        Rollout {
            id: "r-1".to_owned(),
            phase: phase.to_owned(),
            outcome: outcome.map(str::to_owned),
            ended_at: over.then(|| "2026-01-01T00:00:00Z".to_owned()),
            ..Rollout::default()
        }
    }

    #[test]
    fn every_state_of_a_rollout_has_its_exit_code() {
        let cases = [
            (rollout("Progressing", None, false), [None, None, None]),
            (rollout("Paused", None, false), [None, None, None]),
            (rollout("RollingBack", None, false), [None, None, None]),
            (rollout("RollingBack", Some("rolledBack"), false), [None, None, None]),
            (rollout("Held", None, false), [Some(Exit::Held); 3]),
            (rollout("Baking", Some("promoted"), false), [Some(Exit::Done), None, None]),
            (
                rollout("Healthy", Some("promoted"), false),
                [Some(Exit::Done), Some(Exit::Done), None],
            ),
            (rollout("Healthy", Some("promoted"), true), [Some(Exit::Done); 3]),
            (rollout("Degraded", Some("rolledBack"), true), [Some(Exit::Undone); 3]),
            (rollout("Degraded", Some("refused"), true), [Some(Exit::Refused); 3]),
            (rollout("Healthy", Some("superseded"), true), [Some(Exit::Undone); 3]),
        ];
        for (rollout, wanted) in cases {
            let got =
                [Until::Promoted, Until::Baked, Until::Ended].map(|until| reached(&rollout, until));
            assert_eq!(got, wanted, "{rollout:?}");
        }
    }

    #[test]
    fn a_release_ends_with_its_last_environment_and_not_before() {
        let mut release = Release { stream: "p/release/web@v2".to_owned(), ..Release::default() };
        let done = rollout("Baking", Some("promoted"), false);
        let target = Target::Release(release.clone());
        assert_eq!(target.reached(Until::Promoted, std::slice::from_ref(&done)), None);
        release.fold(&serde_json::json!({"type": "ended", "outcome": "promoted"}), None);
        let target = Target::Release(release.clone());
        assert_eq!(target.reached(Until::Promoted, &[done]), Some(Exit::Done));
        let held = rollout("Held", None, false);
        let target = Target::Release(Release::default());
        assert_eq!(target.reached(Until::Promoted, &[held]), Some(Exit::Held));
    }
}
