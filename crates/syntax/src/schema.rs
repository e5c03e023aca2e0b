//! The JSON Schema of `tidegate.yaml`, made from the tables that the reader works with.

use serde_json::{Map, Value, json};

use crate::diagnostic::Sink;
use crate::project::PROJECT;
use crate::shape::{Field, Leaf, Object, Shape};
use crate::source::{Source, Sources};
use crate::yaml::{self, Budget, Kind, Node};

/// The schema, draft 2020-12. Its defaults are the ones that [`crate::read_project`] fills in.
#[must_use]
pub fn schema() -> Value {
    let mut definitions = Map::new();
    let mut root = object(&PROJECT, &mut definitions);
    if let Value::Object(map) = &mut root {
        map.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        map.insert("title".to_owned(), json!("tidegate.yaml"));
        map.insert("$defs".to_owned(), Value::Object(definitions));
    }
    root
}

fn of(shape: Shape, definitions: &mut Map<String, Value>) -> Value {
    match shape {
        Shape::Leaf(leaf) => of_leaf(leaf),
        Shape::Word(words) => json!({"type": "string", "enum": words}),
        Shape::Command => json!({
            "type": "array",
            "items": {"type": ["string", "number", "boolean"]},
            "minItems": 1,
        }),
        Shape::List(inner, least) => {
            let items = of(*inner, definitions);
            json!({"type": "array", "items": items, "minItems": least})
        }
        Shape::Map(names, inner) => {
            let values = of(*inner, definitions);
            let names = names.pattern.map(|pattern| json!({"pattern": pattern}));
            json!({
                "type": "object",
                "propertyNames": names.unwrap_or_else(|| json!({})),
                "additionalProperties": values,
            })
        }
        Shape::Object(inner) => {
            let name = definition_name(inner);
            if !definitions.contains_key(&name) {
                // Known before its parts, so that no object could be made twice.
                definitions.insert(name.clone(), Value::Null);
                let made = object(inner, definitions);
                definitions.insert(name.clone(), made);
            }
            json!({"$ref": format!("#/$defs/{name}")})
        }
        Shape::Either(shapes) => {
            let any: Vec<Value> = shapes.iter().map(|shape| of(*shape, definitions)).collect();
            json!({"anyOf": any})
        }
        Shape::Any => json!({}),
    }
}

/// `a version probe` as `versionProbe`.
fn definition_name(object: &Object) -> String {
    let words = object.name.split([' ', '/']).filter(|word| !matches!(*word, "a" | "an" | "the"));
    let mut name = String::new();
    for word in words {
        let mut letters = word.chars();
        if let Some(first) = letters.next() {
            if name.is_empty() {
                name.extend(first.to_lowercase());
            } else {
                name.extend(first.to_uppercase());
            }
            name.extend(letters);
        }
    }
    name
}

fn of_leaf(leaf: &Leaf) -> Value {
    let one = |kind: &str| {
        let mut map = Map::new();
        map.insert("type".to_owned(), json!(kind));
        if kind == "string" {
            if let Some(pattern) = leaf.pattern {
                map.insert("pattern".to_owned(), json!(pattern));
            }
        } else if let Some((least, most)) = leaf.range {
            map.insert("minimum".to_owned(), number(least));
            map.insert("maximum".to_owned(), number(most));
        }
        Value::Object(map)
    };
    match leaf.types {
        [only] => one(only),
        several => json!({"anyOf": several.iter().map(|kind| one(kind)).collect::<Vec<_>>()}),
    }
}

/// A number without a point where it has none.
fn number(value: f64) -> Value {
    format!("{value}").parse::<i64>().map_or_else(|_| json!(value), |whole| json!(whole))
}

fn object(object: &Object, definitions: &mut Map<String, Value>) -> Value {
    let mut properties = Map::new();
    for field in object.fields {
        properties.insert(field.key.to_owned(), property(field, definitions));
    }
    let mut map = Map::new();
    map.insert("type".to_owned(), json!("object"));
    map.insert("properties".to_owned(), Value::Object(properties));
    map.insert("additionalProperties".to_owned(), json!(false));
    let required: Vec<&str> =
        object.fields.iter().filter(|field| field.required).map(|field| field.key).collect();
    if !required.is_empty() {
        map.insert("required".to_owned(), json!(required));
    }
    if object.extensible {
        map.insert("patternProperties".to_owned(), json!({"^x-": {}}));
    }
    if !object.one_of.is_empty() {
        let one: Vec<Value> = object.one_of.iter().map(|key| json!({"required": [key]})).collect();
        map.insert("oneOf".to_owned(), Value::Array(one));
    }
    let beside: Map<String, Value> = object
        .fields
        .iter()
        .filter(|field| !field.with.is_empty())
        .map(|field| {
            let any: Vec<Value> = field.with.iter().map(|key| json!({"required": [key]})).collect();
            (field.key.to_owned(), json!({"anyOf": any}))
        })
        .collect();
    if !beside.is_empty() {
        map.insert("dependentSchemas".to_owned(), Value::Object(beside));
    }
    Value::Object(map)
}

fn property(field: &Field, definitions: &mut Map<String, Value>) -> Value {
    let mut value = of(field.shape, definitions);
    if let Value::Object(map) = &mut value {
        map.insert("description".to_owned(), json!(field.doc));
        if let Some(default) = field.default.and_then(default_value) {
            map.insert("default".to_owned(), default);
        }
    }
    value
}

/// A default's YAML as JSON.
fn default_value(text: &str) -> Option<Value> {
    let mut sources = Sources::default();
    let file = sources.add(Source::new("default", text));
    let node = yaml::read(file, &sources, &mut Sink::default(), &mut Budget::default())?;
    Some(json_of(&node))
}

/// YAML as JSON, within the budgets of a project file: for tools that check a file against the
/// schema. None if it is not YAML, or more than a project may be.
#[must_use]
pub fn yaml_to_json(text: &str) -> Option<Value> {
    let mut sources = Sources::default();
    let mut sink = Sink::default();
    let file = yaml::decode("file", text.as_bytes(), &mut sources, &mut sink)?;
    let node = yaml::read(file, &sources, &mut sink, &mut Budget::default())?;
    Some(json_of(&node))
}

/// A tree as JSON.
fn json_of(node: &Node) -> Value {
    match &node.value {
        yaml::Value::Scalar(scalar) => match scalar.kind() {
            Kind::Null => Value::Null,
            Kind::Bool(value) => json!(value),
            Kind::Whole(value) => {
                i64::try_from(value).map_or_else(|_| json!(&*scalar.text), |v| json!(v))
            }
            Kind::Number(value) => json!(value),
            Kind::Text => json!(&*scalar.text),
        },
        yaml::Value::List(items) => Value::Array(items.iter().map(json_of).collect()),
        yaml::Value::Map(entries) => Value::Object(
            entries.iter().map(|entry| (entry.key.to_string(), json_of(&entry.value))).collect(),
        ),
    }
}
