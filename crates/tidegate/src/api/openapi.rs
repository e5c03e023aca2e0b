//! `GET /v1/openapi.json`: the API's description, made from the types that it speaks.

use axum::Json;
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};
use tidegate_wire::api::{
    EngineStatus, Event, ReleaseAccepted, ReleaseRequest, Rollout, Status, VerbAccepted,
    VerbRequest,
};
use tidegate_wire::error::ErrorDoc;

/// The route.
pub(super) async fn route() -> Json<Value> {
    Json(document())
}

/// A parameter in a path or in a query.
fn parameter(name: &str, place: &str, kind: &str, what: &str) -> Value {
    json!({
        "name": name, "in": place, "required": place == "path", "description": what,
        "schema": { "type": kind },
    })
}

/// Collects the types that the calls refer to.
struct Calls {
    types: SchemaGenerator,
    paths: Map<String, Value>,
}

impl Calls {
    fn schema<T: JsonSchema>(&mut self) -> Value {
        self.types.subschema_for::<T>().to_value()
    }

    fn content<T: JsonSchema>(&mut self, media: &str) -> Value {
        json!({ media: { "schema": self.schema::<T>() } })
    }

    /// All answers of a call: the good one, and the refusals as error documents.
    fn answers<T: JsonSchema>(&mut self, media: &str) -> Value {
        let good = self.content::<T>(media);
        let refused = self.content::<ErrorDoc>("application/json");
        let refusal = |what: &str| json!({ "description": what, "content": refused });
        json!({
            "200": { "description": "As asked, or it is so already.", "content": good },
            "400": refusal("The input is wrong; nothing changed (exit code 2)."),
            "404": refusal("There is no such thing (exit code 2)."),
            "409": refusal("Refused; nothing changed (exit code 3)."),
            "503": refusal("The engine ends or cannot answer (exit code 5)."),
        })
    }

    fn get<T: JsonSchema>(&mut self, path: &str, what: &str, media: &str, parameters: &Value) {
        let responses = self.answers::<T>(media);
        let call = json!({ "summary": what, "parameters": parameters, "responses": responses });
        self.paths.insert(path.to_owned(), json!({ "get": call }));
    }

    fn post<B: JsonSchema, T: JsonSchema>(&mut self, path: &str, what: &str, parameters: &Value) {
        let body = self.content::<B>("application/json");
        let responses = self.answers::<T>("application/json");
        let call = json!({
            "summary": what,
            "parameters": parameters,
            "requestBody": { "required": true, "content": body },
            "responses": responses,
        });
        self.paths.insert(path.to_owned(), json!({ "post": call }));
    }
}

/// OpenAPI 3.1, whose schemas are JSON Schema 2020-12.
pub(crate) fn document() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    let mut calls = Calls { types: settings.into_generator(), paths: Map::new() };
    let json_media = "application/json";
    calls.get::<EngineStatus>("/v1/engine", "The engine of the home", json_media, &json!([]));
    calls.get::<Status>("/v1/status", "Every lane and its rollout", json_media, &json!([]));
    let id = || parameter("id", "path", "string", "The rollout's id.");
    calls.get::<Rollout>("/v1/rollouts/{id}", "One rollout", json_media, &json!([id()]));
    let since = parameter("since", "query", "integer", "Only events behind this `seq`.");
    let limit = parameter("limit", "query", "integer", "At most so many.");
    let wait = parameter("waitMs", "query", "integer", "Wait so long for the first one.");
    calls.get::<Event>(
        "/v1/events",
        "Events in the order of the journal, one JSON document a line; server-sent events where \
         `Accept: text/event-stream` asks for them",
        "application/jsonl",
        &json!([since, limit, wait]),
    );
    calls.post::<ReleaseRequest, ReleaseAccepted>(
        "/v1/releases",
        "Make a release and drive it through environments",
        &json!([]),
    );
    let verb = || parameter("verb", "path", "string", "promote, pause, resume, abort or retry.");
    calls.post::<VerbRequest, VerbAccepted>(
        "/v1/rollouts/{id}/{verb}",
        "Steer a rollout",
        &json!([id(), verb()]),
    );
    calls.post::<VerbRequest, VerbAccepted>(
        "/v1/lanes/{environment}/{service}/{verb}",
        "Steer a lane",
        &json!([
            parameter("environment", "path", "string", "The environment."),
            parameter("service", "path", "string", "The service."),
            parameter("verb", "path", "string", "undo or retry."),
        ]),
    );
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tidegate",
            "version": "v1",
            "description": "The engine's API, on the home's socket. Times are RFC 3339 in UTC, \
                durations seconds, weights percent. Fields are added, never renamed.",
        },
        "paths": calls.paths,
        "components": { "schemas": calls.types.take_definitions(true) },
    })
}

#[cfg(test)]
mod tests {
    use super::document;

    #[test]
    fn the_published_description_is_the_one_of_the_code() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
        let ours = format!("{}\n", serde_json::to_string_pretty(&document()).unwrap());
        if std::env::var_os("SNAPSHOTS").is_some_and(|how| how == "overwrite") {
            std::fs::write(&path, &ours).unwrap();
        }
        let published = std::fs::read_to_string(&path).unwrap();
        assert!(
            published == ours,
            "docs/openapi.json is not what the code says; \
             SNAPSHOTS=overwrite cargo test -p tidegate openapi writes it"
        );
    }

    #[test]
    fn every_reference_has_its_schema() {
        let document = document();
        let text = document.to_string();
        for part in text.split("\"$ref\":\"#").skip(1) {
            let pointer = part.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
        assert!(text.contains("/components/schemas/Rollout"));
    }
}
