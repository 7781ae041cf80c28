//! Helpers that keep the OpenAPI documents true: committed, compared, and complete about errors.

use std::{
    borrow::Cow,
    env, fs,
    path::{Path, PathBuf},
};

use http::Method;
use serde::Serialize;
use utoipa::{
    Modify, PartialSchema, ToSchema,
    openapi::{
        ContentBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder, Schema,
        path::PathItem,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use crate::problem::{
    FORBIDDEN, INTERNAL, INVALID_FIELD, INVALID_PARAMETER, MALFORMED_REQUEST, PAYLOAD_TOO_LARGE, Problem, ProblemType,
    REQUEST_TIMEOUT, UNAUTHENTICATED, UNAVAILABLE, UNSUPPORTED_MEDIA_TYPE,
};

/// One operation of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its `operationId`; empty when it has none.
    pub id: String,
    /// Its method.
    pub method: Method,
    /// Its path template, `/items/{id}`.
    pub path: String,
}

/// All operations, by path and method: what a test walks that calls each of them.
pub fn operations(document: &OpenApi) -> Vec<Operation> {
    let of_path = |(path, item): (&String, &PathItem)| {
        let path = path.clone();
        let operations = by_method(item).into_iter().map(move |(method, operation)| Operation {
            id: operation.operation_id.clone().unwrap_or_default(),
            method,
            path: path.clone(),
        });
        operations.collect::<Vec<_>>()
    };
    document.paths.paths.iter().flat_map(of_path).collect()
}

fn by_method(item: &PathItem) -> Vec<(Method, &utoipa::openapi::path::Operation)> {
    let all = [
        (Method::GET, &item.get),
        (Method::PUT, &item.put),
        (Method::POST, &item.post),
        (Method::DELETE, &item.delete),
        (Method::OPTIONS, &item.options),
        (Method::HEAD, &item.head),
        (Method::PATCH, &item.patch),
        (Method::TRACE, &item.trace),
    ];
    all.into_iter().filter_map(|(method, operation)| operation.as_ref().map(|operation| (method, operation))).collect()
}

/// Adds to each operation the problems that it can answer whatever its handler does: wrong parameters and bodies, timeouts,
/// overload, defects, and 401 and 403 where it has a `security` requirement. What it declares itself stays.
pub fn add_standard_problems(document: &mut OpenApi) {
    let secured = document.security.as_ref().is_some_and(|security| !security.is_empty());
    for item in document.paths.paths.values_mut() {
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
            &mut item.options,
            &mut item.head,
            &mut item.patch,
            &mut item.trace,
        ];
        for operation in operations.into_iter().flatten() {
            let secured = operation.security.as_ref().map_or(secured, |security| !security.is_empty());
            let mut kinds: Vec<&ProblemType> = vec![&INTERNAL, &UNAVAILABLE];
            if operation.parameters.as_ref().is_some_and(|parameters| !parameters.is_empty()) {
                kinds.push(&INVALID_PARAMETER);
            }
            if operation.request_body.is_some() {
                kinds.extend([
                    &MALFORMED_REQUEST,
                    &REQUEST_TIMEOUT,
                    &PAYLOAD_TOO_LARGE,
                    &UNSUPPORTED_MEDIA_TYPE,
                    &INVALID_FIELD,
                ]);
            }
            if secured {
                kinds.extend([&UNAUTHENTICATED, &FORBIDDEN]);
            }
            for kind in kinds {
                let status = kind.status().as_str().to_owned();
                operation.responses.responses.entry(status).or_insert_with(|| response(kind).into());
            }
        }
    }
    let components = document.components.get_or_insert_default();
    components.schemas.insert(Problem::name().into(), Problem::schema());
}

fn response(kind: &ProblemType) -> Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(Problem::name()))).build();
    ResponseBuilder::new().description(kind.title()).content("application/problem+json", content).build()
}

/// Callers outside the mesh show an access token to the gateway, which turns it into the token a service verifies. As a modifier of
/// a description, it declares the scheme `access-token`.
#[derive(Debug)]
pub struct AccessToken;

impl Modify for AccessToken {
    fn modify(&self, document: &mut OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        document.components.get_or_insert_default().add_security_scheme("access-token", SecurityScheme::Http(scheme));
    }
}

/// Compares the document with the committed one at `path`, seen from the workspace's root. For tests.
///
/// # Panics
/// When they differ. `BERTH_BLESS=1` writes the file instead.
#[expect(clippy::panic, reason = "a test helper")]
pub fn assert_committed(document: &impl Serialize, path: &str) {
    let file = workspace_root().join(path);
    let mut wanted =
        serde_json::to_string_pretty(document).unwrap_or_else(|error| panic!("the document has no JSON form: {error}"));
    wanted.push('\n');
    if env::var_os("BERTH_BLESS").is_some_and(|bless| bless == "1") {
        write(&file, &wanted);
        return;
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    if committed != wanted {
        panic!(
            "{path} is not what the service says.\n{}\nIf the change is meant, run this test with BERTH_BLESS=1 and commit the file.",
            first_difference(&committed, &wanted)
        );
    }
}

#[expect(clippy::panic, reason = "a test helper")]
fn write(file: &Path, text: &str) {
    let written = file.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(file, text));
    written.unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
}

fn first_difference(committed: &str, wanted: &str) -> String {
    let mut lines = (1..).zip(committed.lines().zip(wanted.lines()));
    match lines.find(|(_, (committed, wanted))| committed != wanted) {
        Some((number, (committed, wanted))) => {
            format!("line {number}:\n  committed: {}\n  served:    {}", committed.trim(), wanted.trim())
        }
        None => format!("committed: {} lines, served: {} lines", committed.lines().count(), wanted.lines().count()),
    }
}

/// Cargo and nextest run a test with its package's folder in `CARGO_MANIFEST_DIR`; the root is where the lock file is.
#[expect(clippy::panic, reason = "a test helper")]
fn workspace_root() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    let root = package.ancestors().find(|folder| folder.join("Cargo.lock").exists());
    root.unwrap_or_else(|| panic!("no Cargo.lock above {}: run the test with cargo", package.display())).to_owned()
}

impl PartialSchema for Problem {
    fn schema() -> RefOr<Schema> {
        ProblemDocument::schema()
    }
}

impl ToSchema for Problem {
    fn name() -> Cow<'static, str> {
        "Problem".into()
    }
}

/// A problem document (RFC 9457). Some kinds have further members; docs/problems.md tells which.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is only described")]
struct ProblemDocument {
    /// The kind of problem, for programs: `urn:berth:problem:` and the slug under which docs/problems.md explains it.
    #[schema(format = "uri", example = "urn:berth:problem:invalid-field")]
    r#type: String,
    /// The kind of problem, for people.
    #[schema(example = "A field is invalid")]
    title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599, example = 422)]
    status: u16,
    /// What is wrong this time and how to mend it.
    detail: String,
    /// The trace it happened in.
    #[schema(format = "uri", example = "urn:berth:trace:0af7651916cd43dd8448eb211c80319c")]
    instance: Option<String>,
    /// The parts of the request that are wrong.
    #[schema(inline)]
    errors: Option<Vec<FieldErrorDocument>>,
}

/// One part of the request that is wrong. Exactly one of `pointer`, `parameter` and `header` says which.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is only described")]
struct FieldErrorDocument {
    /// A member of the body, as JSON pointer.
    #[schema(format = "json-pointer", example = "/lines/0/quantity")]
    pointer: Option<String>,
    /// A path or query parameter.
    parameter: Option<String>,
    /// A request header.
    header: Option<String>,
    /// What is wrong with it.
    message: String,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn document() -> OpenApi {
        serde_json::from_value(json!({
            "openapi": "3.1.0",
            "info": {"title": "t", "version": "1"},
            "paths": {
                "/items": {
                    "get": {"operationId": "list_items", "security": [{"bearer": []}], "responses": {"200": {"description": "ok"}}},
                    "post": {
                        "operationId": "create_item",
                        "requestBody": {"content": {}},
                        "responses": {"422": {"description": "its own"}},
                    },
                },
                "/items/{id}": {"delete": {"parameters": [{"name": "id", "in": "path", "required": true}], "responses": {}}},
            },
        }))
        .unwrap()
    }

    fn statuses(document: &Value, path: &str, method: &str) -> Vec<String> {
        document["paths"][path][method]["responses"].as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn every_operation_is_found() {
        let found: Vec<String> = operations(&document())
            .into_iter()
            .map(|operation| format!("{} {} {}", operation.method, operation.path, operation.id))
            .collect();
        assert_eq!(found, ["GET /items list_items", "POST /items create_item", "DELETE /items/{id} "]);
    }

    #[test]
    fn each_operation_gets_the_problems_that_fit_it() {
        let mut document = document();
        add_standard_problems(&mut document);
        let json = serde_json::to_value(&document).unwrap();
        assert_eq!(statuses(&json, "/items", "get"), ["200", "401", "403", "500", "503"]);
        assert_eq!(statuses(&json, "/items", "post"), ["400", "408", "413", "415", "422", "500", "503"]);
        assert_eq!(statuses(&json, "/items/{id}", "delete"), ["400", "500", "503"]);
        assert_eq!(json["paths"]["/items"]["post"]["responses"]["422"]["description"], "its own");
        assert_eq!(
            json["paths"]["/items"]["get"]["responses"]["401"]["content"]["application/problem+json"]["schema"]["$ref"],
            "#/components/schemas/Problem"
        );
    }

    #[test]
    fn the_schema_describes_what_is_sent() {
        let schema = serde_json::to_value(Problem::schema()).unwrap();
        let properties = schema["properties"].as_object().unwrap();
        let sent = INVALID_FIELD.detail("wrong").field("/a", "b").parameter("c", "d").document();
        for member in sent.as_object().unwrap().keys() {
            assert!(properties.contains_key(member), "{member} in {schema}");
        }
        assert_eq!(schema["required"], json!(["type", "title", "status", "detail"]));
        let of_error = properties["errors"]["items"]["properties"].as_object().unwrap();
        for member in ["pointer", "parameter", "header", "message"] {
            assert!(of_error.contains_key(member), "{member} in {schema}");
        }
    }

    #[test]
    #[should_panic(expected = "BERTH_BLESS=1")]
    fn a_document_that_is_not_committed_fails() {
        assert_committed(&document(), "openapi/there-is-no-such-service.json");
    }

    #[test]
    fn a_difference_is_located() {
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), "line 2:\n  committed: b\n  served:    c");
        assert_eq!(first_difference("", "a\n"), "committed: 0 lines, served: 1 lines");
    }
}
