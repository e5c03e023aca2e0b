//! The release: one environment after the other, each version once.

use tidegate_core::machine::{Command, Stimulus};
use tidegate_core::release::{Creation, Event, Input, ReleaseMachine, State, stream_id};
use tidegate_core::rollout::{Outcome, RolloutKind};
use tidegate_core::spec::ProjectSpec;
use tidegate_core::{Digest, Machine, Rejected, StreamId};

use crate::stages::{NOW, proposal, release};

fn id() -> StreamId {
    StreamId::new("shop", "release", &stream_id("web", "v2"))
}

fn creation(environments: &[&str]) -> Creation {
    let template = proposal("v2", RolloutKind::Release);
    let known = ["staging", "production", "far"];
    let environments_of_project = known.map(|name| {
        let mut environment = template.environment.clone();
        environment.name = name.to_owned();
        environment
    });
    Creation {
        release: release("v2"),
        service: "web".into(),
        environments: environments.iter().map(|e| (*e).to_owned()).collect(),
        project: ProjectSpec {
            project: "shop".into(),
            home: None,
            services: vec![template.service],
            environments: environments_of_project.to_vec(),
            checks: template.checks,
            unsupported: Vec::new(),
        },
        principal: "ada".into(),
    }
}

/// Asks and folds; the environments whose lanes were asked.
fn ask(state: &mut State, input: Input) -> Result<Vec<String>, Rejected> {
    let events = ReleaseMachine::accept(&id(), state, Stimulus::Ask(input), NOW)?;
    let mut asked = Vec::new();
    for event in events {
        let text = serde_json::to_string(&event).expect("written");
        assert_eq!(serde_json::from_str::<Event>(&text).expect("read"), event);
        ReleaseMachine::apply(state, &event, NOW);
        for command in ReleaseMachine::decide(&id(), state, &event, NOW) {
            if let Command::Send { to, .. } = command {
                asked.push(to.id);
            }
        }
        let view = ReleaseMachine::view(&id(), state, &());
        assert_eq!(view.open, ReleaseMachine::is_open(state));
    }
    Ok(asked)
}

fn create(state: &mut State, environments: &[&str]) -> Result<Vec<String>, Rejected> {
    ask(state, Input::Create(Box::new(creation(environments))))
}

fn ended(state: &mut State, environment: &str, outcome: Outcome) -> Vec<String> {
    let (environment, rollout) = (environment.to_owned(), format!("{environment}-web-2"));
    ask(state, Input::RolloutEnded { environment, rollout, outcome }).expect("accepted")
}

#[test]
fn environments_are_asked_one_after_the_other() {
    let mut state = State::default();
    assert_eq!(create(&mut state, &["staging", "production"]).expect("new"), ["staging/web"]);
    assert_eq!(ended(&mut state, "staging", Outcome::Promoted), ["production/web"]);
    assert!(ended(&mut state, "staging", Outcome::Promoted).is_empty(), "told twice");
    assert!(ended(&mut state, "production", Outcome::Promoted).is_empty());
    assert_eq!(state.outcome, Some(Outcome::Promoted));
    assert!(!ReleaseMachine::is_open(&state));
}

#[test]
fn a_version_that_does_not_stay_goes_no_further() {
    for outcome in [Outcome::RolledBack, Outcome::Superseded, Outcome::Held] {
        let mut state = State::default();
        create(&mut state, &["staging", "production"]).expect("new");
        assert!(ended(&mut state, "staging", outcome).is_empty());
        assert_eq!(state.outcome, Some(outcome));
        let again = create(&mut state, &["staging", "production"]).expect_err("not twice");
        assert_eq!(again.code, "tried", "{outcome:?}");
    }
}

#[test]
fn an_environment_that_is_left_behind_does_not_start_again_behind_a_later_one() {
    let mut state = State::default();
    create(&mut state, &["staging", "production", "far"]).expect("new");
    ended(&mut state, "staging", Outcome::Promoted);
    // Out of the bake window of staging, while production is under way.
    assert!(ended(&mut state, "staging", Outcome::RolledBack).is_empty());
    assert!(ReleaseMachine::is_open(&state), "production is still under way");
    assert_eq!(ended(&mut state, "production", Outcome::Promoted), ["far/web"]);
}

#[test]
fn the_same_again_is_a_no_op_and_another_digest_is_refused() {
    let mut state = State::default();
    create(&mut state, &["production"]).expect("new");
    assert_eq!(create(&mut state, &["production"]).expect_err("twice").code, "underWay");
    let mut other = creation(&["production"]);
    other.release.digest = Digest::of(b"other files");
    let refused = ask(&mut state, Input::Create(Box::new(other))).expect_err("changed");
    assert_eq!(refused.code, "digestChanged");
    ended(&mut state, "production", Outcome::Promoted);
    assert_eq!(create(&mut state, &["production"]).expect_err("there").code, "promoted");
    assert_eq!(create(&mut state, &["production", "far"]).expect("further"), ["far/web"]);
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_asked() {
    let mut state = State::default();
    for environments in [&[][..], &["nowhere"][..]] {
        assert!(create(&mut state, environments).is_err());
        assert_eq!(state, State::default());
    }
}

#[test]
fn messages_to_a_release_that_was_never_made_change_nothing() {
    let mut state = State::default();
    assert!(ended(&mut state, "production", Outcome::Promoted).is_empty());
    assert_eq!(state, State::default());
}
