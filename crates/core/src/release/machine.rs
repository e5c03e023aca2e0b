//! The release as a machine: one environment after the other.

use serde_json::json;

use super::{Creation, Event, Input, ReleaseMachine, State, stream_id};
use crate::lane::{self, Proposal};
use crate::machine::{Command, Machine, Rejected, Stimulus, StreamId, View};
use crate::reason::Reason;
use crate::rollout::{Outcome, RolloutKind};
use crate::time::Timestamp;

impl Machine for ReleaseMachine {
    const KIND: &'static str = "release";
    const FORM: u16 = 1;
    type State = State;
    type Input = Input;
    type Event = Event;
    type Volatile = ();

    fn accept(
        _id: &StreamId,
        state: &State,
        stimulus: Stimulus<Input>,
        _now: Timestamp,
    ) -> Result<Vec<Event>, Rejected> {
        match stimulus {
            Stimulus::Ask(Input::Create(creation)) => create(state, creation),
            Stimulus::Ask(Input::RolloutEnded { environment, rollout, outcome }) => {
                Ok(rollout_ended(state, &environment, rollout, outcome))
            }
            Stimulus::Timer(_) | Stimulus::Answer { .. } => Ok(Vec::new()),
        }
    }

    fn apply(state: &mut State, event: &Event, _at: Timestamp) {
        match event {
            Event::Created { creation } | Event::Extended { creation } => {
                state.creation = Some(creation.clone());
                state.outcome = None;
            }
            Event::Proposed { environment } => {
                state.current = Some(environment.clone());
                state.outcome = None;
            }
            Event::EnvironmentEnded { environment, rollout, outcome } => {
                if !rollout.is_empty() {
                    state.rollout = Some(rollout.clone());
                }
                if state.current.as_ref() == Some(environment) {
                    state.current = None;
                }
                state.promoted.retain(|e| e != environment);
                if *outcome == Outcome::Promoted {
                    state.promoted.push(environment.clone());
                }
            }
            Event::Ended { outcome } => state.outcome = Some(*outcome),
        }
    }

    fn decide(id: &StreamId, state: &State, event: &Event, _at: Timestamp) -> Vec<Command> {
        let Event::Proposed { environment } = event else { return Vec::new() };
        let Some(creation) = &state.creation else { return Vec::new() };
        let Some(proposal) = proposal(creation, environment) else { return Vec::new() };
        let to = StreamId::new(&id.project, "lane", &lane::name(environment, &creation.service));
        vec![Command::Send { to, input: json!(lane::Input::Propose(Box::new(proposal))) }]
    }

    fn describe(event: &Event) -> (&'static str, Option<Reason>) {
        match event {
            Event::Created { .. } => ("created", None),
            Event::Extended { .. } => ("extended", None),
            Event::Proposed { .. } => ("proposed", None),
            Event::EnvironmentEnded { .. } => ("environmentEnded", None),
            Event::Ended { .. } => ("ended", None),
        }
    }

    fn view(_id: &StreamId, state: &State, _volatile: &()) -> View {
        let Some(creation) = &state.creation else {
            return View { open: false, doc: serde_json::Value::Null };
        };
        let doc = json!({
            "service": creation.service,
            "version": creation.release.version,
            "digest": creation.release.digest,
            "environments": creation.environments,
            "promoted": state.promoted,
            "current": state.current,
            "rollout": state.rollout,
            "outcome": state.outcome,
            "principal": creation.principal,
        });
        View { open: Self::is_open(state), doc }
    }

    fn is_open(state: &State) -> bool {
        state.current.is_some()
    }
}

/// What the lane of an environment is asked for.
fn proposal(creation: &Creation, environment: &str) -> Option<Proposal> {
    let project = &creation.project;
    let environment = project.environments.iter().find(|e| e.name == environment)?;
    let service = project.services.iter().find(|s| s.name == creation.service)?;
    let named = crate::plan::checks_of(&environment.strategy);
    Some(Proposal {
        release: creation.release.clone(),
        service: service.clone(),
        environment: environment.clone(),
        checks: project.checks.iter().filter(|c| named.contains(&c.name)).cloned().collect(),
        principal: creation.principal.clone(),
        release_stream: Some(stream_id(&creation.service, &creation.release.version)),
        kind: RolloutKind::Release,
    })
}

fn create(state: &State, creation: Box<Creation>) -> Result<Vec<Event>, Rejected> {
    validate(&creation)?;
    let Some(known) = &state.creation else {
        let first = creation.environments.first().cloned();
        let mut events = vec![Event::Created { creation }];
        events.extend(first.map(|environment| Event::Proposed { environment }));
        return Ok(events);
    };
    let version = &creation.release.version;
    if known.release.digest != creation.release.digest {
        let text = format!(
            "{version} of {} is {} already, not {}",
            creation.service,
            known.release.digest.short(),
            creation.release.digest.short()
        );
        return Err(Rejected::input("digestChanged", text)
            .hint("a version never changes; give the new files a new version"));
    }
    if let Some(environment) = &state.current {
        let text = format!("{version} is on its way into {environment} already");
        return Err(Rejected::already("underWay", text).hint("`tidegate watch` shows it"));
    }
    let missing = creation.environments.iter().find(|e| !state.promoted.contains(e)).cloned();
    match missing {
        None => {
            let text =
                format!("{version} was promoted in {} already", creation.environments.join(", "));
            let hint = format!("`tidegate undo --to {version}` goes back to it");
            Err(Rejected::already("promoted", text).hint(hint))
        }
        // What was refused has changed nothing: it may simply be tried again.
        Some(_)
            if state
                .outcome
                .is_some_and(|o| !matches!(o, Outcome::Promoted | Outcome::Refused)) =>
        {
            let text = format!("{version} was released before and did not stay");
            Err(Rejected::already("tried", text)
                .hint("`tidegate retry` tries the same release once more"))
        }
        Some(environment) => {
            Ok(vec![Event::Extended { creation }, Event::Proposed { environment }])
        }
    }
}

fn validate(creation: &Creation) -> Result<(), Rejected> {
    if creation.environments.is_empty() {
        return Err(Rejected::input("noEnvironment", "the release names no environment"));
    }
    for environment in &creation.environments {
        let refusals = crate::plan::refusals(&creation.project, environment, &creation.service);
        if let Some(first) = refusals.into_iter().next() {
            return Err(Rejected::refused("cannotWork", first));
        }
    }
    Ok(())
}

fn rollout_ended(
    state: &State,
    environment: &str,
    rollout: String,
    outcome: Outcome,
) -> Vec<Event> {
    let Some(creation) = &state.creation else { return Vec::new() };
    // A rollout that was promoted tells its end again; taken back out of its bake window it counts.
    let repeated = state.current.as_deref() != Some(environment);
    if repeated && outcome == Outcome::Promoted && state.promoted.iter().any(|e| e == environment) {
        return Vec::new();
    }
    let mut events =
        vec![Event::EnvironmentEnded { environment: environment.to_owned(), rollout, outcome }];
    if repeated && state.current.is_some() {
        // Another environment is under way; it says itself how it ends.
        return events;
    }
    let mut later = creation.environments.iter().skip_while(|e| *e != environment).skip(1);
    let next = later.find(|e| !state.promoted.contains(e)).cloned();
    match (outcome, next) {
        (Outcome::Promoted, Some(environment)) => events.push(Event::Proposed { environment }),
        (
            Outcome::Promoted
            | Outcome::RolledBack
            | Outcome::Held
            | Outcome::Superseded
            | Outcome::Refused,
            _,
        ) => events.push(Event::Ended { outcome }),
    }
    events
}
