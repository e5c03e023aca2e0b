//! The schema agrees with the reader, as far as a schema can say what the reader says.
#![expect(clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use common::{COMPOSE, GOOD, SHOP, completed, read};
use serde_json::{Value, json};
use tidegate_syntax::schema;

/// Whether a value has the structure that a schema asks for: a small part of JSON Schema, all that
/// ours uses but for patterns.
fn fits(value: &Value, schema: &Value, root: &Value) -> Result<(), String> {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let pointer = reference.strip_prefix('#').expect("a local reference");
        fits(value, root.pointer(pointer).expect("a definition"), root)?;
    }
    if let Some(kind) = schema.get("type") {
        let kinds: Vec<&str> = match kind.as_array() {
            Some(several) => several.iter().filter_map(Value::as_str).collect(),
            None => kind.as_str().into_iter().collect(),
        };
        let is = |kind: &str| match kind {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            other => panic!("type {other}"),
        };
        if !kinds.iter().any(|kind| is(kind)) {
            return Err(format!("{value} is not {kinds:?}"));
        }
    }
    let allowed = schema.get("enum").and_then(Value::as_array);
    if let Some(allowed) = allowed.filter(|allowed| !allowed.contains(value)) {
        return Err(format!("{value} is not one of {allowed:?}"));
    }
    if let Some(number) = value.as_f64() {
        let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
        if bound("minimum").is_some_and(|min| number < min)
            || bound("maximum").is_some_and(|max| number > max)
        {
            return Err(format!("{value} is out of range"));
        }
    }
    combined(value, schema, root)?;
    object(value, schema, root)?;
    if let (Some(items), Some(array)) = (schema.get("items"), value.as_array()) {
        array.iter().try_for_each(|item| fits(item, items, root))?;
        let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0);
        if (array.len() as u64) < least {
            return Err("too few items".to_owned());
        }
    }
    Ok(())
}

fn combined(value: &Value, schema: &Value, root: &Value) -> Result<(), String> {
    for (key, exactly) in [("anyOf", false), ("oneOf", true)] {
        let Some(schemas) = schema.get(key).and_then(Value::as_array) else { continue };
        let good = schemas.iter().filter(|schema| fits(value, schema, root).is_ok()).count();
        if good == 0 || exactly && good > 1 {
            return Err(format!("{value} fits {good} of {key}"));
        }
    }
    Ok(())
}

fn object(value: &Value, schema: &Value, root: &Value) -> Result<(), String> {
    let Some(object) = value.as_object() else { return Ok(()) };
    let keys = |key: &str| schema.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    for required in keys("required").iter().filter_map(Value::as_str) {
        if !object.contains_key(required) {
            return Err(format!("{required} is missing"));
        }
    }
    for (key, value) in object {
        let known = schema.get("properties").and_then(|properties| properties.get(key));
        let own = schema.get("patternProperties").is_some() && key.starts_with("x-");
        match known.or_else(|| schema.get("additionalProperties").filter(|_| !own)) {
            Some(Value::Bool(false)) => return Err(format!("{key} is not known")),
            Some(inner) => fits(value, inner, root)?,
            None => {}
        }
        if let Some(dependent) = schema.pointer(&format!("/dependentSchemas/{key}")) {
            fits(&json!(object), dependent, root)?;
        }
    }
    Ok(())
}

/// YAML as JSON, through the filled-in file's own reader: by way of the JSON of the same tree.
fn json_of(text: &str) -> Value {
    tidegate_syntax::yaml_to_json(text).expect("YAML")
}

#[test]
fn the_examples_fit_the_schema() {
    let schema = schema();
    for text in [GOOD, SHOP, COMPOSE] {
        assert_eq!(fits(&json_of(text), &schema, &schema), Ok(()));
        let filled = tidegate_syntax::config(&common::good(text));
        assert_eq!(fits(&json_of(&filled), &schema, &schema), Ok(()));
    }
}

#[test]
fn what_the_reader_refuses_for_its_structure_the_schema_refuses_too() {
    let schema = schema();
    let cases = include_str!("bad/structure.md").split("\n## ").skip(1);
    let mut refused = 0;
    for case in cases {
        let (title, rest) = case.split_once('\n').expect("a title");
        let fragment = rest.split("```yaml\n").nth(1).and_then(|r| r.split("```").next());
        let fragment = fragment.expect("a fragment");
        let whole = title.ends_with("(whole file)");
        let file = if whole { fragment.to_owned() } else { completed(fragment) };
        let by_hand = [
            "project without services",
            "without artifact",
            "without command",
            "artifact and image",
            "empty program",
        ];
        if by_hand.iter().any(|part| title.contains(part)) {
            continue;
        }
        assert!(read(file.as_bytes()).is_err(), "{title}");
        assert!(fits(&json_of(&file), &schema, &schema).is_err(), "{title} fits the schema");
        refused += 1;
    }
    assert!(refused >= 25, "{refused}");
}

#[test]
fn defaults_of_the_schema_are_the_ones_that_the_reader_fills_in() {
    let schema = schema();
    let of = |definition: &str, key: &str| {
        schema.pointer(&format!("/$defs/{definition}/properties/{key}/default")).cloned()
    };
    for (definition, key, expected) in [
        ("probe", "periodSeconds", json!(10)),
        ("probe", "timeoutSeconds", json!(1)),
        ("probe", "failureThreshold", json!(3)),
        ("probe", "successThreshold", json!(1)),
        ("probe", "initialDelaySeconds", json!(0)),
        ("service", "instances", json!(1)),
        ("stop", "signal", json!("SIGTERM")),
        ("stop", "grace", json!("30s")),
        ("errors", "status", json!(["5xx"])),
        ("errors", "timeout", json!("60s")),
        ("environment", "bake", json!("1h")),
        ("environment", "strategy", json!("default")),
        ("ifEngineLost", "after", json!("10m")),
        ("canary", "progressDeadline", json!("10m")),
        ("canary", "scaleDownDelay", json!("30s")),
        ("check", "noData", json!("hold")),
    ] {
        assert_eq!(of(definition, key), Some(expected), "{definition}.{key}");
    }
    // A file without any optional key, filled in, has each default that the schema names.
    let least = completed(
        "environments:\n  production: { platform: { process: { listen: 127.0.0.1:8080 } } }\n",
    );
    let filled = json_of(&tidegate_syntax::config(&common::good(&least)));
    for (definition, at) in [
        ("service", "/services/web"),
        ("environment", "/environments/production"),
        ("stop", "/services/web/stop"),
        ("errors", "/services/web/errors"),
        ("ifEngineLost", "/environments/production/ifEngineLost"),
    ] {
        let fields = schema.pointer(&format!("/$defs/{definition}/properties")).expect("fields");
        for (key, field) in fields.as_object().expect("an object") {
            let Some(default) = field.get("default").filter(|default| **default != json!({}))
            else {
                continue;
            };
            assert_eq!(filled.pointer(&format!("{at}/{key}")), Some(default), "{at}/{key}");
        }
    }
}

#[test]
fn every_key_of_the_schema_says_what_it_means() {
    let schema = schema();
    let definitions = schema["$defs"].as_object().expect("definitions").values();
    for definition in definitions.chain([&schema]) {
        for (key, field) in definition["properties"].as_object().expect("properties") {
            let text = field["description"].as_str().unwrap_or_default();
            assert!(text.ends_with('.') || text.ends_with('…'), "{key}: {text}");
        }
    }
}

#[test]
fn the_published_schema_is_the_one_of_the_code() {
    let path =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/tidegate.schema.json");
    let ours = format!("{}\n", serde_json::to_string_pretty(&schema()).expect("JSON"));
    if std::env::var_os("SNAPSHOTS").is_some_and(|how| how == "overwrite") {
        std::fs::write(&path, &ours).expect("the published schema is written");
    }
    let published = std::fs::read_to_string(&path).expect("the published schema");
    assert!(
        published == ours,
        "docs/tidegate.schema.json is not what `tidegate schema` prints; \
         SNAPSHOTS=overwrite cargo test -p tidegate-syntax --test schema writes it"
    );
}
