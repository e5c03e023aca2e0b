//! People who may approve, and who is told what.

use crate::diagnostic::{Code, Diagnostic};
use crate::shape::leaf::{NAME, TEXT, VARIABLE};
use crate::shape::{Field, Leaf, Object, Shape, Trouble, View};

use super::context::{Context, Missing};
use super::environment::Dependents;

static SSH_KEY: Leaf = Leaf {
    what: "an SSH public key",
    types: &["string"],
    pattern: Some("^(ssh-|ecdsa-|sk-)[^ ]* +[^ ]+"),
    range: None,
    code: Code::WrongType,
    check: |scalar| {
        let mut words = scalar.text.split_whitespace();
        let kind = words.next().unwrap_or_default();
        let known = ["ssh-", "ecdsa-", "sk-"].iter().any(|start| kind.starts_with(start));
        if known && words.next().is_some() {
            return Ok(());
        }
        let trouble = Trouble::new("not an SSH public key", "kind and key, as in a .pub file");
        Err(if scalar.text.contains("PRIVATE KEY") {
            trouble.fix("this looks like a private key: take it out of the file and renew it")
        } else {
            trouble.fix("write the first two words of a .pub file: `ssh-ed25519 AAAA…`")
        })
    },
};
/// One person.
pub(crate) static PERSON: Object = Object::new(
    "a person",
    &[
        Field::new("ssh", Shape::Leaf(&SSH_KEY), "SSH public key.").required(),
        Field::new("roles", Shape::List(&Shape::Leaf(&NAME), 1), "Roles, for `requiredReviewers`."),
    ],
);

static SECRET: Object = Object::new(
    "a secret",
    &[Field::new("secret", Shape::Leaf(&VARIABLE), "Name of the secret in the secret store.")
        .required()],
);
static SLACK: Object = Object::new(
    "slack",
    &[
        Field::new("webhook", Shape::Object(&SECRET), "Address of the webhook, as a secret.")
            .required(),
        Field::new("channel", Shape::Leaf(&TEXT), "Channel."),
    ],
);
static WEBHOOK: Object = Object::new(
    "a webhook",
    &[Field::new("url", Shape::Object(&SECRET), "Its address, as a secret.").required()],
);
const OCCASIONS: &[&str] = &[
    "started",
    "promoted",
    "baked",
    "rolledBack",
    "held",
    "approvalNeeded",
    "superseded",
    "refused",
];
/// One notification.
pub(crate) static NOTIFY: Object = Object::new(
    "a notification",
    &[
        Field::new("slack", Shape::Object(&SLACK), "A Slack webhook."),
        Field::new("webhook", Shape::Object(&WEBHOOK), "Any webhook."),
        Field::new("on", Shape::List(&Shape::Word(OCCASIONS), 1), "When.").required(),
    ],
)
.one_of(&["slack", "webhook"]);

/// Names what this build does not do with them.
pub(super) fn unsupported(root: View<'_>, context: &mut Context<'_>) {
    if !root.items("notify").is_empty() {
        context.unsupported_everywhere(
            "notifications are not in this version: nobody would be told",
            root.key_span("notify"),
            Some("remove `notify`; a script can follow `tidegate watch -o jsonl`".to_owned()),
        );
    }
    if root.entries("people").is_empty() {
        return;
    }
    let asked: Vec<&str> = root
        .entries("environments")
        .iter()
        .filter(|entry| {
            let protection = entry.value.get("protection");
            protection.is_some_and(|node| node.get("requiredReviewers").is_some())
        })
        .map(|entry| &*entry.key)
        .collect();
    let at = root.key_span("people");
    if asked.is_empty() {
        let diagnostic = Diagnostic::warning(
            Code::NotInThisVersion,
            "approvals are not in this version",
        )
        .at(context.sources, at, "nobody is asked yet, so no release is refused");
        context.sink.push(diagnostic);
    } else {
        let missing = Missing::new(
            "approvals by people are not in this version",
            at,
            Some("remove `requiredReviewers`"),
        );
        context.unsupported_in(missing, Dependents::of(root).touched(&asked));
    }
}
