//! What users do, and when.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidegate_core::StreamId;

use crate::shop::{self, Shop};

/// When a user acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// At that time.
    At(u64),
    /// When an event of a stream (by id) has been seen so many times.
    Seen(String, &'static str, u32),
}

/// What a user wants.
#[derive(Debug, Clone)]
pub struct Wish {
    /// When.
    pub when: When,
    /// Whom it is asked of.
    pub stream: StreamId,
    /// What.
    pub input: Value,
    /// The events of its stream by which a user sees that it has happened: nothing is asked twice
    /// that has happened once.
    pub signs: &'static [&'static str],
    /// The token of the question under way, with the process that was asked.
    pub asked: Option<(u64, u64)>,
    /// Answered or seen.
    pub done: bool,
}

/// All that users want, and what they have seen.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// In any order.
    pub wishes: Vec<Wish>,
    /// How often each event of a stream was seen.
    pub seen: BTreeMap<(String, String), u32>,
    tokens: u64,
}

impl Script {
    /// A release at some time.
    #[must_use]
    pub fn release(mut self, when: When, shop: &Shop, version: &str) -> Self {
        let (stream, input) = shop.release(shop::SERVICE, version);
        self.wishes.push(Wish {
            when,
            stream,
            input,
            signs: &["created"],
            asked: None,
            done: false,
        });
        self
    }

    /// A verb on a rollout.
    #[must_use]
    pub fn verb(mut self, when: When, number: u64, verb: &str) -> Self {
        let stream = shop::rollout(number);
        let (input, signs): (_, &[&str]) = match verb {
            "abort" => (json!({ "abort": { "principal": "ada", "reason": null } }), &["aborting"]),
            "pause" => (json!({ "pause": { "principal": "ada" } }), &["paused"]),
            "resume" => (json!({ "resume": { "principal": "ada" } }), &["resumed"]),
            "promote --full" => {
                (json!({ "promote": { "full": true, "principal": "ada" } }), &["fullPromotion"])
            }
            _ => (json!({ "promote": { "full": false, "principal": "ada" } }), &["stepEnded"]),
        };
        self.wishes.push(Wish { when, stream, input, signs, asked: None, done: false });
        self
    }

    /// A verb on the lane: `undo` or `retry`.
    #[must_use]
    pub fn lane(mut self, when: When, verb: &str) -> Self {
        let stream = shop::lane();
        let (input, signs): (_, &[&str]) = match verb {
            "undo" => (
                json!({ "undo": { "to": null, "principal": "ada", "reason": null } }),
                &["undoRequested", "started"],
            ),
            _ => (json!({ "retry": { "principal": "ada" } }), &["started"]),
        };
        self.wishes.push(Wish { when, stream, input, signs, asked: None, done: false });
        self
    }

    /// Notes an event that users can see.
    pub fn note(&mut self, stream: &str, event: &str) {
        *self.seen.entry((stream.to_owned(), event.to_owned())).or_default() += 1;
        for wish in &mut self.wishes {
            let is_sign = wish.stream.id == stream && wish.signs.contains(&event);
            wish.done |= wish.asked.is_some() && is_sign;
        }
    }

    /// What is asked now of this process: (token, stream, input).
    pub fn due(&mut self, now: u64, process: u64) -> Vec<(u64, StreamId, Value)> {
        let mut asks = Vec::new();
        for wish in self.wishes.iter_mut().filter(|wish| !wish.done) {
            let due = match &wish.when {
                When::At(at) => now >= *at,
                When::Seen(stream, event, times) => {
                    let key = (stream.clone(), (*event).to_owned());
                    self.seen.get(&key).copied().unwrap_or(0) >= *times
                }
            };
            let asked_here = wish.asked.is_some_and(|(_, asked)| asked == process);
            if !due || asked_here {
                continue;
            }
            self.tokens += 1;
            wish.asked = Some((self.tokens, process));
            asks.push((self.tokens, wish.stream.clone(), wish.input.clone()));
        }
        asks
    }

    /// A question was answered.
    pub fn answered(&mut self, token: u64) {
        for wish in &mut self.wishes {
            wish.done |= wish.asked.is_some_and(|(asked, _)| asked == token);
        }
    }

    /// Whether users want nothing any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.wishes.iter().all(|wish| wish.done)
    }
}
