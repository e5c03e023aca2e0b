//! The rollout as a machine of the engine.

use serde_json::Value;

use super::event::{Event, RunResult};
use super::flow::Flow;
use super::sense::{Volatile, sense};
use super::state::{Stage, State};
use super::{Input, Outcome, RolloutMachine, view};
use super::{decide, docs};
use crate::machine::{
    Command, Machine, Outcome as EffectOutcome, Reaction, Rejected, Sensed, Stimulus, StreamId,
    View, Watch,
};
use crate::reason::Reason;
use crate::spec::Step;
use crate::time::Timestamp;

impl Machine for RolloutMachine {
    const KIND: &'static str = "rollout";
    const FORM: u16 = 1;
    type State = State;
    type Input = Input;
    type Event = Event;
    type Volatile = Volatile;

    fn accept(
        _id: &StreamId,
        state: &State,
        stimulus: Stimulus<Input>,
        now: Timestamp,
    ) -> Result<Vec<Event>, Rejected> {
        let mut flow = Flow::new(state, now);
        match stimulus {
            Stimulus::Ask(input) => ask(&mut flow, input)?,
            Stimulus::Timer(key) => timer(&mut flow, &key),
            Stimulus::Answer { key, outcome } => answer(&mut flow, &key, &outcome),
        }
        Ok(flow.events)
    }

    fn apply(state: &mut State, event: &Event, at: Timestamp) {
        state.apply(event, at);
    }

    fn decide(id: &StreamId, state: &State, event: &Event, at: Timestamp) -> Vec<Command> {
        decide::decide(id, state, event, at)
    }

    fn sense(
        _id: &StreamId,
        state: &State,
        volatile: &mut Volatile,
        sensed: &Sensed<'_>,
        now: Timestamp,
    ) -> Reaction<Event> {
        sense(state, volatile, sensed, now)
    }

    fn describe(event: &Event) -> (&'static str, Option<Reason>) {
        view::describe(event)
    }

    fn view(id: &StreamId, state: &State, volatile: &Volatile) -> View {
        view::view(id, state, volatile)
    }

    fn is_open(state: &State) -> bool {
        !matches!(state.stage, Stage::New | Stage::Ended)
    }

    fn watches(state: &State) -> Option<Watch> {
        Self::is_open(state).then(|| Watch {
            target: docs::target(state).to_owned(),
            lane: docs::lane(state),
            samples: true,
        })
    }
}

fn ask(flow: &mut Flow<'_>, input: Input) -> Result<(), Rejected> {
    let stage = flow.state.stage;
    if let Input::Start(start) = input {
        if stage == Stage::New {
            flow.start(start);
        }
        return Ok(());
    }
    if stage == Stage::New {
        return Err(Rejected::input("unknownRollout", "there is no such rollout")
            .hint("`tidegate history` lists them"));
    }
    match input {
        Input::Start(_) => {}
        Input::Promote { full, principal } => promote(flow, full, principal)?,
        Input::Pause { principal } => {
            if flow.state.paused_by.is_some() {
                return Err(Rejected::already("paused", "it is paused already"));
            }
            if stage.is_returning()
                || matches!(stage, Stage::Cooling | Stage::Retiring | Stage::Ended)
            {
                return Err(Rejected::refused("nothingToPause", not_now(flow, "pause")));
            }
            flow.emit(Event::Paused { principal });
        }
        Input::Resume { principal } => {
            if flow.state.paused_by.is_some() {
                flow.emit(Event::Resumed { principal });
                if flow.state.stage == Stage::Resting {
                    flow.go_on();
                }
            } else if matches!(flow.state.current(), Some(Step::Pause { duration_ms: None }))
                && stage == Stage::Pausing
            {
                flow.end_step(Some(principal));
            } else {
                return Err(Rejected::already("notPaused", "it is not paused"));
            }
        }
        Input::Abort { principal, reason } => abort(flow, &principal, reason)?,
        Input::Supersede { by } => flow.supersede(&by),
    }
    Ok(())
}

fn promote(flow: &mut Flow<'_>, full: bool, principal: String) -> Result<(), Rejected> {
    let stage = flow.state.stage;
    if stage == Stage::Baking {
        let text = format!("{principal} ended the bake window");
        flow.baked(Some(Reason::new("promoted", text)));
        return Ok(());
    }
    if stage.is_returning() || matches!(stage, Stage::Cooling | Stage::Retiring | Stage::Ended) {
        return if flow.state.promoted && flow.state.back.is_none() {
            Err(Rejected::already("promoted", "it has all traffic already"))
        } else {
            Err(Rejected::refused("nothingToPromote", not_now(flow, "promote"))
                .hint("`tidegate retry` starts the same release again"))
        };
    }
    let skippable = matches!(stage, Stage::Pausing | Stage::Analysing | Stage::Resting)
        || (stage == Stage::Running && flow.state.held.is_some());
    if full {
        flow.emit(Event::FullPromotion { principal: principal.clone() });
    } else if !skippable {
        return Err(Rejected::refused("nothingToSkip", not_now(flow, "promote")).hint(
            "`tidegate promote --full` skips all further steps; `tidegate status` says what it waits for",
        ));
    }
    if skippable {
        if flow.state.paused_by.is_some() {
            flow.emit(Event::Resumed { principal: principal.clone() });
        }
        flow.moves_again();
        if flow.state.stage == Stage::Resting {
            flow.go_on();
        } else {
            flow.end_step(Some(principal));
        }
    }
    Ok(())
}

fn abort(flow: &mut Flow<'_>, principal: &str, reason: Option<String>) -> Result<(), Rejected> {
    let stage = flow.state.stage;
    if stage == Stage::Ended {
        return if flow.state.outcome == Some(Outcome::Promoted) {
            Err(Rejected::refused("ended", "it has ended promoted; there is nothing to abort")
                .hint("`tidegate undo` puts the version before back"))
        } else {
            Err(Rejected::already("aborted", "it has ended already and was taken back"))
        };
    }
    if stage.is_returning() {
        return Err(Rejected::already("aborting", "it is on its way back already"));
    }
    let why = reason.map_or_else(String::new, |r| format!(": {r}"));
    let text = format!("{principal} aborted it{why}");
    flow.abort(Reason::new("aborted", text), Outcome::RolledBack);
    Ok(())
}

fn not_now(flow: &Flow<'_>, verb: &str) -> String {
    format!("there is nothing to {verb} now: {}", view::stage_words(&flow.state))
}

fn timer(flow: &mut Flow<'_>, key: &str) {
    if let Some((what, seq)) = key.strip_prefix("again:").and_then(|rest| rest.split_once(':')) {
        let last =
            if what == "capacity" { flow.state.capacity_seq } else { flow.state.traffic_seq };
        if seq == last.to_string() && flow.state.stage != Stage::Ended {
            let reason = flow.state.held.clone();
            let reason = reason.unwrap_or_else(|| Reason::new("refused", "it was refused before"));
            flow.emit(Event::SentAgain { what: what.to_owned(), reason });
        }
        return;
    }
    if let Some(check) = key.strip_prefix("gate:") {
        if flow.waits_for_gate(check) {
            flow.measure(check, true);
        }
    } else if let Some(check) = key.strip_prefix("watch:")
        && flow.state.is_watched()
    {
        flow.measure(check, false);
    }
}

fn answer(flow: &mut Flow<'_>, key: &str, outcome: &EffectOutcome) {
    if flow.state.stage == Stage::Ended {
        return;
    }
    if key.starts_with("check-") {
        flow.measured(key, outcome);
    } else if let Some(index) = key.strip_prefix("run-") {
        run_ended(flow, index, outcome);
    } else if key.starts_with("stage") {
        staged(flow, outcome);
    } else {
        document_answered(flow, key, outcome);
    }
}

fn staged(flow: &mut Flow<'_>, outcome: &EffectOutcome) {
    if flow.state.stage != Stage::Staging {
        return;
    }
    match outcome {
        EffectOutcome::Applied(_) => {
            flow.emit(Event::Staged);
            flow.go_on();
        }
        EffectOutcome::Refused(reason) | EffectOutcome::Failed(reason) => {
            flow.abort(reason.clone(), Outcome::Refused);
        }
        EffectOutcome::Unknown(reason) | EffectOutcome::Unreachable(reason) => {
            flow.emit(Event::SentAgain { what: "stage".to_owned(), reason: reason.clone() });
        }
    }
}

fn document_answered(flow: &mut Flow<'_>, key: &str, outcome: &EffectOutcome) {
    let state = &flow.state;
    let is_capacity =
        key == docs::document_key("capacity", state.capacity_seq, state.capacity_again);
    let is_traffic = key == docs::document_key("traffic", state.traffic_seq, state.traffic_again);
    if !is_capacity && !is_traffic {
        return;
    }
    match outcome {
        EffectOutcome::Applied(_) => {
            if is_traffic {
                let (seq, weight_bp) = (flow.state.traffic_seq, flow.state.wanted_bp);
                flow.emit(Event::TrafficApplied { seq, weight_bp });
            }
        }
        EffectOutcome::Refused(reason) | EffectOutcome::Failed(reason) => {
            if flow.state.stage.is_returning() || flow.state.promoted {
                let (what, seq) = if is_capacity {
                    ("capacity".to_owned(), flow.state.capacity_seq)
                } else {
                    ("traffic".to_owned(), flow.state.traffic_seq)
                };
                flow.emit(Event::DocumentRefused { what, seq, reason: reason.clone() });
            } else {
                if is_traffic {
                    let seq = flow.state.traffic_seq;
                    flow.emit(Event::TrafficRefused { seq, reason: reason.clone() });
                }
                let outcome = flow.failed_outcome();
                flow.abort(reason.clone(), outcome);
            }
        }
        EffectOutcome::Unknown(reason) | EffectOutcome::Unreachable(reason) => {
            let what = if is_capacity { "capacity" } else { "traffic" };
            flow.emit(Event::SentAgain { what: what.to_owned(), reason: reason.clone() });
        }
    }
}

fn run_ended(flow: &mut Flow<'_>, index: &str, outcome: &EffectOutcome) {
    let Ok(index) = index.parse::<usize>() else { return };
    let Some(Step::Run { name, .. }) = flow.state.moves.get(index).cloned() else { return };
    let (result, text) = match outcome {
        EffectOutcome::Applied(value) => (
            RunResult::Succeeded,
            value.get("tail").and_then(Value::as_str).unwrap_or("exit status 0").to_owned(),
        ),
        EffectOutcome::Failed(reason) | EffectOutcome::Refused(reason) => {
            (RunResult::Failed, reason.text.clone())
        }
        EffectOutcome::Unknown(reason) | EffectOutcome::Unreachable(reason) => {
            (RunResult::Unknown, reason.text.clone())
        }
    };
    flow.emit(Event::RunEnded { name: name.clone(), result, text: text.clone() });
    if flow.state.stage != Stage::Running || flow.state.step != index {
        return;
    }
    match result {
        RunResult::Succeeded => flow.end_step(None),
        RunResult::Failed => {
            let reason = Reason::new("runFailed", format!("run {name} failed: {text}"));
            flow.abort(reason, Outcome::RolledBack);
        }
        RunResult::Unknown => {
            let text = format!(
                "run {name} may have happened or not ({text}): check it, then `tidegate promote` \
                 (it has happened) or `tidegate abort`; it is never repeated by itself"
            );
            flow.emit(Event::Held { reason: Reason::new("runUnknown", text) });
        }
    }
}
