//! The lane as a machine: one active rollout, what is stable, what is kept.
//!
//! | input | no active rollout | active, under way | active, promoted |
//! |---|---|---|---|
//! | propose | start | queue, supersede | queue, supersede (the bake window ends) |
//! | undo | start an undo | abort it (an undo: no-op) | abort it, or queue the undo to another version |
//! | retry | start, if the last one did not end promoted | refused | refused |

use serde_json::json;

use super::{Active, Event, FENCE_BLOCK, Input, KEPT, Kept, LaneMachine, Last, Proposal, State};
use crate::machine::{Command, Machine, Rejected, Stimulus, StreamId, View};
use crate::reason::Reason;
use crate::release;
use crate::rollout::{self, Outcome, RolloutKind, Start};
use crate::time::Timestamp;

impl Machine for LaneMachine {
    const KIND: &'static str = "lane";
    const FORM: u16 = 1;
    type State = State;
    type Input = Input;
    type Event = Event;
    type Volatile = ();

    fn accept(
        id: &StreamId,
        state: &State,
        stimulus: Stimulus<Input>,
        _now: Timestamp,
    ) -> Result<Vec<Event>, Rejected> {
        match stimulus {
            Stimulus::Ask(Input::Propose(proposal)) => Ok(propose(id, state, proposal)),
            Stimulus::Ask(Input::Undo { to, principal, reason }) => {
                undo(id, state, to, principal, reason)
            }
            Stimulus::Ask(Input::Retry { principal }) => retry(id, state, principal),
            Stimulus::Ask(Input::Promoted { rollout }) => Ok(promoted(state, rollout)),
            Stimulus::Ask(Input::Ended { rollout, outcome, left, leftovers }) => {
                Ok(ended(id, state, rollout, outcome, left, leftovers))
            }
            Stimulus::Timer(_) | Stimulus::Answer { .. } => Ok(Vec::new()),
        }
    }

    fn apply(state: &mut State, event: &Event, at: Timestamp) {
        match event {
            Event::Queued { proposal, .. } => state.next = Some(proposal.clone()),
            Event::Started { rollout, number, proposal, also } => {
                state.rollouts = *number;
                state.next = None;
                state.active = Some(Active {
                    rollout: rollout.clone(),
                    proposal: proposal.clone(),
                    previous: state.stable.clone(),
                    promoted: false,
                    also: also.clone(),
                    undo_by: None,
                    since: at,
                });
            }
            Event::UndoRequested { principal, .. } => {
                if let Some(active) = &mut state.active {
                    active.undo_by = Some(principal.clone());
                }
            }
            Event::UndoMissed { .. } => {}
            Event::StableChanged { .. } => {
                if let Some(active) = &mut state.active {
                    active.promoted = true;
                    let new = Kept {
                        release: active.proposal.release.clone(),
                        service: active.proposal.service.clone(),
                    };
                    make_stable(state, new);
                }
            }
            Event::RolloutEnded { rollout, outcome, .. } => {
                let Some(active) = state.active.take() else { return };
                if active.promoted && *outcome != Outcome::Promoted {
                    // Taken back out of the bake window: the version is no good one to keep.
                    let bad = active.proposal.release.clone();
                    match active.previous {
                        Some(previous) => make_stable(state, previous),
                        None => state.stable = None,
                    }
                    state.kept.retain(|k| k.release != bad);
                }
                state.last = Some(Last {
                    rollout: rollout.clone(),
                    proposal: active.proposal,
                    outcome: *outcome,
                    reason: None,
                });
            }
        }
    }

    fn decide(id: &StreamId, state: &State, event: &Event, _at: Timestamp) -> Vec<Command> {
        let to_rollout = |rollout: &str, input: &rollout::Input| Command::Send {
            to: StreamId::new(&id.project, "rollout", rollout),
            input: json!(input),
        };
        match event {
            Event::Queued { proposal, superseding, replaced } => {
                let by = proposal.release.version.clone();
                let mut commands = vec![to_rollout(superseding, &rollout::Input::Supersede { by })];
                if let Some(release) = replaced {
                    let input = release::Input::RolloutEnded {
                        environment: proposal.environment.name.clone(),
                        rollout: String::new(),
                        outcome: Outcome::Superseded,
                    };
                    let to = StreamId::new(&id.project, "release", release);
                    commands.push(Command::Send { to, input: json!(input) });
                }
                commands
            }
            Event::Started { rollout, number, proposal, also } => {
                let start = Start {
                    proposal: (**proposal).clone(),
                    previous: state.active.as_ref().and_then(|a| a.previous.clone()),
                    also: also.clone(),
                    fence_base: number * FENCE_BLOCK,
                };
                vec![to_rollout(rollout, &rollout::Input::Start(Box::new(start)))]
            }
            Event::UndoRequested { rollout, principal, reason } => {
                let input = rollout::Input::Abort {
                    principal: principal.clone(),
                    reason: reason.clone().or_else(|| Some("undo".to_owned())),
                };
                vec![to_rollout(rollout, &input)]
            }
            Event::StableChanged { .. } | Event::RolloutEnded { .. } | Event::UndoMissed { .. } => {
                Vec::new()
            }
        }
    }

    fn describe(event: &Event) -> (&'static str, Option<Reason>) {
        match event {
            Event::Queued { superseding, .. } => {
                let text = format!("{superseding} has to make room first");
                ("queued", Some(Reason::new("superseding", text)))
            }
            Event::Started { .. } => ("started", None),
            Event::UndoRequested { principal, .. } => {
                ("undoRequested", Some(Reason::new("undo", format!("{principal} wants it undone"))))
            }
            Event::StableChanged { .. } => ("stableChanged", None),
            Event::RolloutEnded { .. } => ("rolloutEnded", None),
            Event::UndoMissed { rollout } => {
                let text = format!("{rollout} had ended when it was to be undone");
                ("undoMissed", Some(Reason::new("undo", text)))
            }
        }
    }

    fn view(id: &StreamId, state: &State, _volatile: &()) -> View {
        let (environment, service) = id.id.split_once('/').unwrap_or((&id.id, ""));
        let reference =
            |kept: &Kept| json!({ "version": kept.release.version, "digest": kept.release.digest });
        let rollout = state
            .active
            .as_ref()
            .map(|a| &a.rollout)
            .or_else(|| state.last.as_ref().map(|l| &l.rollout));
        let doc = json!({
            "environment": environment,
            "service": service,
            "stable": state.stable.as_ref().map(reference),
            "kept": state.kept.iter().map(reference).collect::<Vec<_>>(),
            "rollout": rollout,
            "next": state.next.as_ref().map(|n| n.release.version.clone()),
            "frozen": null,
        });
        View { open: Self::is_open(state), doc }
    }

    fn is_open(state: &State) -> bool {
        state.active.is_some() || state.next.is_some()
    }
}

fn make_stable(state: &mut State, new: Kept) {
    if state.stable.as_ref().is_some_and(|s| s.release == new.release) {
        state.stable = Some(new);
        return;
    }
    let old = state.stable.replace(new.clone());
    state.kept.retain(|k| k.release != new.release);
    if let Some(old) = old {
        state.kept.retain(|k| k.release != old.release);
        state.kept.insert(0, old);
    }
    state.kept.truncate(KEPT);
}

fn started(id: &StreamId, state: &State, proposal: Box<Proposal>, also: Vec<(Kept, u32)>) -> Event {
    let number = state.rollouts + 1;
    let rollout = format!("{}-{number}", id.id.replace('/', "-"));
    Event::Started { rollout, number, proposal, also }
}

fn propose(id: &StreamId, state: &State, proposal: Box<Proposal>) -> Vec<Event> {
    match &state.active {
        None => vec![started(id, state, proposal, Vec::new())],
        Some(active) => {
            let replaced = state.next.as_ref().and_then(|n| n.release_stream.clone());
            vec![Event::Queued { proposal, superseding: active.rollout.clone(), replaced }]
        }
    }
}

fn undo(
    id: &StreamId,
    state: &State,
    to: Option<String>,
    principal: String,
    reason: Option<String>,
) -> Result<Vec<Event>, Rejected> {
    let stable = state.stable.as_ref().map(|s| s.release.version.as_str());
    if let Some(active) = &state.active {
        let target = &active.proposal.release.version;
        if active.proposal.kind == RolloutKind::Undo && to.as_ref().is_none_or(|to| to == target) {
            // Asked twice is asked once: it does not undo the undo.
            let text = format!("{} puts {target} back already", active.rollout);
            return Err(Rejected::already("undoing", text)
                .hint(format!("`tidegate abort {}` takes that back", active.rollout)));
        }
        let back_to = active.previous.as_ref().map(|p| p.release.version.as_str());
        if to.is_none() || to.as_deref() == back_to {
            let rollout = active.rollout.clone();
            return Ok(vec![Event::UndoRequested { rollout, principal, reason }]);
        }
    }
    if to.is_some() && to.as_deref() == stable {
        return Err(Rejected::already("stable", "that version is the stable one already"));
    }
    let kept = match &to {
        Some(version) => state.kept.iter().find(|k| k.release.version == *version),
        None => state.kept.first(),
    };
    let Some(kept) = kept else {
        let names: Vec<_> = state.kept.iter().map(|k| k.release.version.as_str()).collect();
        let hint = if names.is_empty() {
            "no earlier version is kept here".to_owned()
        } else {
            format!("kept here: {}", names.join(", "))
        };
        let what = to.map_or_else(
            || "there is no version before".to_owned(),
            |v| format!("{v} is not kept here"),
        );
        return Err(Rejected::refused("notKept", format!("{}: {what}", id.id)).hint(hint));
    };
    let template = state
        .active
        .as_ref()
        .map(|a| &a.proposal)
        .or_else(|| state.last.as_ref().map(|l| &l.proposal));
    let Some(template) = template else {
        return Err(Rejected::refused("notKept", format!("{}: nothing was released", id.id)));
    };
    Ok(propose(id, state, Box::new(undo_proposal(kept, template, principal))))
}

/// Puts a kept version back, in the environment as it was last described.
fn undo_proposal(kept: &Kept, template: &Proposal, principal: String) -> Proposal {
    Proposal {
        release: kept.release.clone(),
        service: kept.service.clone(),
        environment: template.environment.clone(),
        checks: template.checks.clone(),
        principal,
        release_stream: None,
        kind: RolloutKind::Undo,
    }
}

fn retry(id: &StreamId, state: &State, principal: String) -> Result<Vec<Event>, Rejected> {
    if let Some(active) = &state.active {
        let text = format!("{} is under way in {}", active.rollout, id.id);
        return Err(Rejected::refused("underWay", text)
            .hint("`tidegate watch` shows it; `tidegate abort` takes it back"));
    }
    match &state.last {
        None => {
            Err(Rejected::refused("nothingToRetry", format!("{}: nothing was released", id.id)))
        }
        Some(last) if last.outcome == Outcome::Promoted => {
            Err(Rejected::already("promoted", format!("{} ended promoted", last.rollout)))
        }
        Some(last) => {
            let mut proposal = last.proposal.clone();
            if proposal.kind == RolloutKind::Release {
                proposal.kind = RolloutKind::Retry;
            }
            proposal.principal = principal;
            Ok(propose(id, state, proposal))
        }
    }
}

fn promoted(state: &State, rollout: String) -> Vec<Event> {
    match &state.active {
        Some(active) if active.rollout == rollout && !active.promoted => {
            vec![Event::StableChanged {
                rollout,
                version: active.proposal.release.version.clone(),
                digest: active.proposal.release.digest.clone(),
            }]
        }
        Some(_) | None => Vec::new(),
    }
}

fn ended(
    id: &StreamId,
    state: &State,
    rollout: String,
    outcome: Outcome,
    left: u32,
    leftovers: bool,
) -> Vec<Event> {
    let Some(active) = state.active.as_ref().filter(|a| a.rollout == rollout) else {
        return Vec::new();
    };
    let mut events = vec![Event::RolloutEnded { rollout: rollout.clone(), outcome, left }];
    if let Some(next) = &state.next {
        let mut also = if leftovers { active.also.clone() } else { Vec::new() };
        if left > 0 {
            let kept = Kept {
                release: active.proposal.release.clone(),
                service: active.proposal.service.clone(),
            };
            also.retain(|(k, _)| k.release != kept.release);
            also.push((kept, left));
        }
        events.push(started(id, state, next.clone(), also));
    } else if let (Outcome::Promoted, Some(by), Some(previous)) =
        (outcome, &active.undo_by, &active.previous)
    {
        events.push(Event::UndoMissed { rollout });
        let proposal = undo_proposal(previous, &active.proposal, by.clone());
        events.push(started(id, state, Box::new(proposal), Vec::new()));
    }
    events
}
