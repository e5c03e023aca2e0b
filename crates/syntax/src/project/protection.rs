//! Protection of an environment, in the words of GitHub's environments. Checked as a whole; no
//! part of it is enforced by this version, so releases are refused for it.

use crate::diagnostic::{Code, nearest, shown};
use crate::shape::leaf::{
    BOOL, CLOCK, COUNT, DURATION, NAME, POSITIVE_DURATION, TEXT, ZONE, clock,
};
use crate::shape::{Field, Object, Shape, View};
use crate::yaml::Node;

use super::context::Context;

const DAYS: &[&str] = &["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

static REVIEWERS: Object = Object::new(
    "required reviewers",
    &[
        Field::new("count", Shape::Leaf(&COUNT), "How many have to approve.").or("1"),
        Field::new("roles", Shape::List(&Shape::Leaf(&NAME), 1), "People with one of these roles."),
        Field::new("people", Shape::List(&Shape::Leaf(&NAME), 1), "These people."),
        Field::new(
            "preventSelfReview",
            Shape::Leaf(&BOOL),
            "Who started the release cannot approve it.",
        )
        .or("false"),
        Field::new("expires", Shape::Leaf(&POSITIVE_DURATION), "How long an approval holds.")
            .or("24h"),
    ],
);
static WINDOW: Object = Object::new(
    "a window",
    &[
        Field::new("days", Shape::List(&Shape::Word(DAYS), 1), "Days of the week.").required(),
        Field::new("from", Shape::Leaf(&CLOCK), "Start, included.").required(),
        Field::new("to", Shape::Leaf(&CLOCK), "End; before the start it is on the next day.")
            .required(),
        Field::new("timeZone", Shape::Leaf(&ZONE), "Time zone.").or("UTC"),
    ],
);
/// `protection:`.
pub(crate) static PROTECTION: Object = Object::new(
    "protection",
    &[
        Field::new("requiredReviewers", Shape::Object(&REVIEWERS), "Who has to approve."),
        Field::new("waitTimer", Shape::Leaf(&DURATION), "Wait before the rollout starts."),
        Field::new(
            "deploymentBranches",
            Shape::List(&Shape::Leaf(&TEXT), 1),
            "Branches and tags that may be released, `*` as in GitHub.",
        ),
        Field::new("windows", Shape::List(&Shape::Object(&WINDOW), 1), "When it may be released."),
    ],
);

/// What the structure check cannot see: windows without length, names that nobody has.
pub(super) fn check(view: View<'_>, people: View<'_>, context: &mut Context<'_>) {
    for node in view.items("windows") {
        let window = View::new(node);
        let (from, to) = (window.text("from"), window.text("to"));
        if from == to && from.is_some_and(|from| clock(from).is_ok()) {
            context.error(
                Code::Window,
                "window has no length",
                window.span("to"),
                "ends when it starts",
                "for whole days write from \"00:00\" to \"23:59\"",
            );
        }
    }
    let Some(reviewers) = view.view("requiredReviewers") else {
        return;
    };
    let everybody: Vec<&str> = people.entries("people").iter().map(|entry| &*entry.key).collect();
    let roles: Vec<&str> = people
        .entries("people")
        .iter()
        .flat_map(|entry| View::new(&entry.value).items("roles"))
        .filter_map(Node::as_text)
        .collect();
    known(reviewers.items("people"), &everybody, "person", context);
    known(reviewers.items("roles"), &roles, "role", context);
    let wanted = reviewers.whole::<usize>("count").unwrap_or(1);
    let able = everybody.len();
    if able > 0 && wanted > able {
        context.error(
            Code::Range,
            format!("{wanted} reviewers are required, and only {able} can approve"),
            reviewers.span("count"),
            "can never be reached",
            "lower the count, or add people under `people`",
        );
    }
}

fn known(nodes: &[Node], names: &[&str], what: &str, context: &mut Context<'_>) {
    for node in nodes {
        let Some(name) = node.as_text() else {
            continue;
        };
        if names.contains(&name) {
            continue;
        }
        let fix = match nearest(name, names.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "define it under `people`".to_owned(),
        };
        let message = format!("{what} `{}` is not defined", shown(name));
        context.error(Code::Undefined, message, node.span, "", fix);
    }
}
