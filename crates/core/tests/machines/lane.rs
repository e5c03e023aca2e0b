//! The lane: verbs by what is under way.

use tidegate_core::lane::{Event, Input, LaneMachine, State};
use tidegate_core::machine::{Command, Stimulus};
use tidegate_core::rollout::{Outcome, RolloutKind};
use tidegate_core::{Machine, Rejected, StreamId};

use crate::stages::{NOW, proposal};

fn id() -> StreamId {
    StreamId::new("shop", "lane", "production/web")
}

/// Asks, folds, and says what is asked of the world.
fn ask(state: &mut State, input: Input) -> Result<Vec<Command>, Rejected> {
    let events = LaneMachine::accept(&id(), state, Stimulus::Ask(input), NOW)?;
    let mut commands = Vec::new();
    for event in events {
        let text = serde_json::to_string(&event).expect("written");
        assert_eq!(serde_json::from_str::<Event>(&text).expect("read"), event);
        LaneMachine::apply(state, &event, NOW);
        commands.extend(LaneMachine::decide(&id(), state, &event, NOW));
        let view = LaneMachine::view(&id(), state, &());
        assert_eq!(view.open, LaneMachine::is_open(state));
    }
    let text = serde_json::to_string(state).expect("written");
    assert_eq!(serde_json::from_str::<State>(&text).expect("read"), *state);
    Ok(commands)
}

fn propose(version: &str) -> Input {
    Input::Propose(Box::new(proposal(version, RolloutKind::Release)))
}

fn undo(to: Option<&str>) -> Input {
    Input::Undo { to: to.map(ToOwned::to_owned), principal: "ada".into(), reason: None }
}

fn retry() -> Input {
    Input::Retry { principal: "ada".into() }
}

fn promoted(number: u64) -> Input {
    Input::Promoted { rollout: format!("production-web-{number}") }
}

fn ended(number: u64, outcome: Outcome, left: u32) -> Input {
    let rollout = format!("production-web-{number}");
    Input::Ended { rollout, outcome, left, leftovers: false }
}

/// A lane after these inputs.
fn lane(inputs: Vec<Input>) -> State {
    let mut state = State::default();
    for input in inputs {
        ask(&mut state, input).expect("accepted");
    }
    state
}

fn with_v1() -> Vec<Input> {
    vec![propose("v1"), promoted(1), ended(1, Outcome::Promoted, 0)]
}

fn with_v2() -> Vec<Input> {
    let mut inputs = with_v1();
    inputs.extend([propose("v2"), promoted(2), ended(2, Outcome::Promoted, 0)]);
    inputs
}

fn after(mut inputs: Vec<Input>, more: Vec<Input>) -> State {
    inputs.extend(more);
    lane(inputs)
}

/// What `undo`, `undo --to v1`, `undo --to v9` and `retry` are answered.
fn answers(state: &State) -> [String; 4] {
    [undo(None), undo(Some("v1")), undo(Some("v9")), retry()].map(|input| {
        let result = ask(&mut state.clone(), input);
        result.map_or_else(|refused| refused.code, |_| "ok".to_owned())
    })
}

#[test]
fn every_verb_has_its_answer_whatever_is_under_way() {
    let rolled_back = ended(2, Outcome::RolledBack, 0);
    let undoing = after(with_v2(), vec![undo(None)]);
    let rows = [
        ("nothing yet", State::default(), ["notKept", "notKept", "notKept", "nothingToRetry"]),
        (
            "first one under way",
            lane(vec![propose("v1")]),
            ["ok", "notKept", "notKept", "underWay"],
        ),
        ("one stable version", lane(with_v1()), ["notKept", "stable", "notKept", "promoted"]),
        ("canary", after(with_v1(), vec![propose("v2")]), ["ok", "ok", "notKept", "underWay"]),
        (
            "baking",
            after(with_v1(), vec![propose("v2"), promoted(2)]),
            ["ok", "ok", "notKept", "underWay"],
        ),
        ("promoted", lane(with_v2()), ["ok", "ok", "notKept", "promoted"]),
        (
            "taken back",
            after(with_v1(), vec![propose("v2"), rolled_back]),
            ["notKept", "stable", "notKept", "ok"],
        ),
        ("undo under way", undoing, ["undoing", "undoing", "notKept", "underWay"]),
    ];
    for (name, state, expected) in rows {
        assert_eq!(answers(&state), expected, "{name}");
    }
}

fn sent_to(commands: &[Command]) -> Vec<String> {
    commands
        .iter()
        .filter_map(|command| match command {
            Command::Send { to, input } => {
                let verb = input.as_object().and_then(|o| o.keys().next().cloned());
                Some(format!("{}/{} {}", to.kind, to.id, verb.unwrap_or_default()))
            }
            Command::Effect(_)
            | Command::Forget { .. }
            | Command::SetTimer { .. }
            | Command::CancelTimer { .. } => None,
        })
        .collect()
}

#[test]
fn a_newer_proposal_makes_the_active_one_give_way_and_the_waiting_one_drop_out() {
    let mut state = lane(vec![propose("v1")]);
    let sent = sent_to(&ask(&mut state, propose("v2")).expect("accepted"));
    assert_eq!(sent, ["rollout/production-web-1 supersede"]);
    let sent = sent_to(&ask(&mut state, propose("v3")).expect("accepted"));
    assert_eq!(sent, ["rollout/production-web-1 supersede", "release/web@v2 rolloutEnded"]);
    let sent = sent_to(&ask(&mut state, ended(1, Outcome::Superseded, 0)).expect("accepted"));
    assert_eq!(sent, ["rollout/production-web-2 start"]);
    assert_eq!(state.active.expect("active").proposal.release.version, "v3");
}

#[test]
fn what_a_blocked_rollout_has_left_goes_on_to_the_next_and_the_one_after_it() {
    let mut state = after(with_v1(), vec![propose("v2"), propose("v3")]);
    ask(&mut state, ended(2, Outcome::Superseded, 2)).expect("accepted");
    let also = state.active.as_ref().expect("active").also.clone();
    assert_eq!(
        also.iter().map(|(k, n)| (&*k.release.version, *n)).collect::<Vec<_>>(),
        [("v2", 2)]
    );
    ask(&mut state, propose("v4")).expect("accepted");
    let input = Input::Ended {
        rollout: "production-web-3".into(),
        outcome: Outcome::Superseded,
        left: 1,
        leftovers: true,
    };
    ask(&mut state, input).expect("accepted");
    let also = state.active.as_ref().expect("active").also.clone();
    let also: Vec<_> = also.iter().map(|(k, n)| (&*k.release.version, *n)).collect();
    assert_eq!(also, [("v2", 2), ("v3", 1)]);
}

#[test]
fn messages_of_a_rollout_that_is_not_the_active_one_change_nothing() {
    let mut state = after(with_v1(), vec![propose("v2")]);
    let before = state.clone();
    ask(&mut state, promoted(1)).expect("accepted");
    ask(&mut state, ended(1, Outcome::RolledBack, 0)).expect("accepted");
    assert_eq!(state, before);
}

#[test]
fn a_version_that_was_taken_back_is_not_kept_and_kept_ones_are_bounded() {
    let mut state = after(with_v1(), vec![propose("v2"), promoted(2)]);
    ask(&mut state, ended(2, Outcome::RolledBack, 0)).expect("accepted");
    assert_eq!(state.stable.as_ref().expect("stable").release.version, "v1");
    assert!(state.kept.is_empty());
    for number in 3..30 {
        ask(&mut state, propose(&format!("v{number}"))).expect("accepted");
        ask(&mut state, promoted(number)).expect("accepted");
        ask(&mut state, ended(number, Outcome::Promoted, 0)).expect("accepted");
    }
    assert_eq!(state.kept.len(), tidegate_core::lane::KEPT);
    assert_eq!(state.kept[0].release.version, "v28");
}
