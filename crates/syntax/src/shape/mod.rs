//! Shapes: one table of every key of the format. Structure checks, defaults, the filled-in file
//! and the JSON Schema are all made from it, so they cannot disagree.

mod check;
mod fill;
pub(crate) mod leaf;
mod parse;
mod view;

use crate::diagnostic::Code;
use crate::yaml::Scalar;

pub(crate) use check::Checker;
pub(crate) use fill::{default_node, fill};
pub(crate) use view::View;

/// What may stand somewhere.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// A scalar.
    Leaf(&'static Leaf),
    /// One of some words.
    Word(&'static [&'static str]),
    /// A program and its arguments.
    Command,
    /// A list with at least so many items.
    List(&'static Shape, usize),
    /// A mapping from names to values of one shape.
    Map(&'static Leaf, &'static Shape),
    /// A mapping with known keys.
    Object(&'static Object),
    /// Different shapes for a scalar, a list and a mapping; the first that fits the kind of value.
    Either(&'static [Shape]),
    /// Anything: understood as a whole, and not in this version.
    Any,
}

/// A kind of scalar.
#[derive(Debug)]
pub(crate) struct Leaf {
    /// With its article: `a duration`.
    pub(crate) what: &'static str,
    /// For the schema: JSON types.
    pub(crate) types: &'static [&'static str],
    /// For the schema: what text looks like.
    pub(crate) pattern: Option<&'static str>,
    /// For the schema: least and largest number.
    pub(crate) range: Option<(f64, f64)>,
    /// Code of a scalar that is not one.
    pub(crate) code: Code,
    /// Whether a scalar is one.
    pub(crate) check: fn(&Scalar) -> Result<(), Trouble>,
}

/// Why a scalar is not what it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// What is wrong, as a short sentence.
    pub(crate) message: String,
    /// What to write beside the place.
    pub(crate) label: String,
    /// What to do.
    pub(crate) fix: Option<String>,
}

impl Trouble {
    /// A trouble from its sentence and its label.
    pub(crate) fn new(message: impl Into<String>, label: impl Into<String>) -> Self {
        Self { message: message.into(), label: label.into(), fix: None }
    }

    /// With what to do.
    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// A mapping with known keys.
#[derive(Debug)]
pub(crate) struct Object {
    /// What it is, as in "unknown key of a service".
    pub(crate) name: &'static str,
    /// Its keys.
    pub(crate) fields: &'static [Field],
    /// Exactly one of these keys; empty: no such rule.
    pub(crate) one_of: &'static [&'static str],
    /// Whether keys that start with `x-` are the user's own.
    pub(crate) extensible: bool,
}

/// A key of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    /// The key.
    pub(crate) key: &'static str,
    /// What may stand there.
    pub(crate) shape: Shape,
    /// What it means, for the schema.
    pub(crate) doc: &'static str,
    /// Whether it has to be there.
    pub(crate) required: bool,
    /// What it is when it is left out, as YAML.
    pub(crate) default: Option<&'static str>,
    /// Beside this key the default is this one instead, as YAML.
    pub(crate) default_beside: Option<(&'static str, &'static str)>,
    /// It only makes sense beside one of these keys; empty: always.
    pub(crate) with: &'static [&'static str],
}

impl Field {
    /// A key that may be left out.
    pub(crate) const fn new(key: &'static str, shape: Shape, doc: &'static str) -> Self {
        Self { key, shape, doc, required: false, default: None, default_beside: None, with: &[] }
    }

    /// It has to be there.
    pub(crate) const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// What it is when it is left out.
    pub(crate) const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    /// What it is when it is left out beside another key.
    pub(crate) const fn or_beside(mut self, key: &'static str, default: &'static str) -> Self {
        self.default_beside = Some((key, default));
        self
    }

    /// Only beside one of these keys.
    pub(crate) const fn with(mut self, keys: &'static [&'static str]) -> Self {
        self.with = keys;
        self
    }
}

impl Object {
    /// An object from its name and its keys.
    pub(crate) const fn new(name: &'static str, fields: &'static [Field]) -> Self {
        Self { name, fields, one_of: &[], extensible: false }
    }

    /// Exactly one of these keys.
    pub(crate) const fn one_of(mut self, keys: &'static [&'static str]) -> Self {
        self.one_of = keys;
        self
    }

    /// Keys that start with `x-` are the user's own.
    pub(crate) const fn extensible(mut self) -> Self {
        self.extensible = true;
        self
    }

    /// The field of a key.
    pub(crate) fn field(&self, key: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.key == key)
    }

    /// Whether the key is the user's own.
    pub(crate) fn is_extension(&self, key: &str) -> bool {
        self.extensible && key.starts_with("x-")
    }
}
