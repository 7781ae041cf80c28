//! JSON bodies.

use std::error::Error;

use axum::{
    extract::{FromRequest, OptionalFromRequest, Request},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt as _, LengthLimitError};
use serde::{
    Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::{Value, error::Category};
use serde_path_to_error::Segment;

use super::{NUL, NUL_MESSAGE, objects::Objects, shortened};
use crate::problem::{INVALID_FIELD, MALFORMED_REQUEST, PAYLOAD_TOO_LARGE, Problem, UNSUPPORTED_MEDIA_TYPE};

/// A JSON body, read or written.
///
/// Rejects with 415 another media type, 413 a body over the server's limit, 400 what is no JSON (line and column), 422 what is
/// JSON and not a `T` (JSON pointer); a struct must be an object. Whether unknown members are refused is up to `T`: `#[serde(deny_unknown_fields)]`.
/// Strings with U+0000 are always refused: PostgreSQL cannot store them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(UNSUPPORTED_MEDIA_TYPE
                .detail("The body must be JSON.")
                .request_header(&header::CONTENT_TYPE, "must be application/json"));
        }
        decode(&read(request).await?).map(Self)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> OptionalFromRequest<S> for Json<T> {
    type Rejection = Problem;

    /// `None` when there is neither a body nor a media type.
    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Problem> {
        use http_body::Body as _;

        if !request.headers().contains_key(header::CONTENT_TYPE) && request.body().is_end_stream() {
            return Ok(None);
        }
        <Self as FromRequest<S>>::from_request(request, state).await.map(Some)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(bytes) => ([(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
            Err(error) => Problem::internal(error).into_response(),
        }
    }
}

/// `application/json` and `application/*+json`, with or without parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.strip_prefix("application/").is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

async fn read(request: Request) -> Result<Bytes, Problem> {
    request.into_body().collect().await.map(http_body_util::Collected::to_bytes).map_err(|error| {
        let causes = std::iter::successors(Some(&error as &(dyn Error + 'static)), |error: &&(dyn Error + 'static)| {
            (*error).source()
        });
        if causes.into_iter().any(|cause| cause.is::<LengthLimitError>()) {
            PAYLOAD_TOO_LARGE.detail("The body is larger than this service takes.")
        } else {
            MALFORMED_REQUEST.detail("The body broke off before its end.").caused_by(error)
        }
    })
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(Objects(&mut deserializer)).map_err(|error| {
        let pointer = pointer(error.path());
        let error = error.into_inner();
        // A field can only be wrong in what is JSON to its end.
        match serde_json::from_slice::<IgnoredAny>(bytes) {
            Err(broken) if error.is_data() => problem(&broken, String::new()),
            _ => problem(&error, pointer),
        }
    })?;
    deserializer.end().map_err(|error| problem(&error, String::new()))?;
    match pointer_to_nul(bytes) {
        Some(pointer) => {
            Err(INVALID_FIELD.detail("A text holds a character that cannot be stored.").field(pointer, NUL_MESSAGE))
        }
        None => Ok(value),
    }
}

fn problem(error: &serde_json::Error, pointer: String) -> Problem {
    let place = format!(" at line {} column {}", error.line(), error.column());
    let message = error.to_string();
    let message = message.strip_suffix(&place).unwrap_or(&message);
    match error.classify() {
        Category::Data => {
            let pointer = match member_in(message) {
                Some(name) => format!("{pointer}/{}", escaped(name)),
                None => pointer,
            };
            INVALID_FIELD.detail("A field of the body is wrong.").field(pointer, shortened(message.to_owned()))
        }
        Category::Syntax | Category::Eof | Category::Io => {
            let problem = MALFORMED_REQUEST
                .detail(format!("The body is no valid JSON: {message}{place}."))
                .with("line", error.line())
                .with("column", error.column());
            if pointer.is_empty() { problem } else { problem.field(pointer, message) }
        }
    }
}

/// serde reports a missing or repeated member at its parent, with the name only in the message.
fn member_in(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `").or_else(|| message.strip_prefix("duplicate field `"))?.strip_suffix('`')
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => pointer.push_str(&format!("/{}", escaped(key))),
            // A variant of an enum is a value and not a member.
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

/// RFC 6901 §3.
fn escaped(key: &str) -> String {
    shortened(key.replace('~', "~0").replace('/', "~1"))
}

/// The string or key that holds U+0000. JSON can only write it escaped, so that most bodies need no second look.
fn pointer_to_nul(bytes: &[u8]) -> Option<String> {
    const ESCAPED: &[u8] = b"\\u0000";
    bytes
        .windows(ESCAPED.len())
        .any(|window| window == ESCAPED)
        .then(|| serde_json::from_slice(bytes).ok())
        .flatten()
        .and_then(|value| find_nul(&value, ""))
}

fn find_nul(value: &Value, pointer: &str) -> Option<String> {
    match value {
        Value::String(text) => text.contains(NUL).then(|| pointer.to_owned()),
        Value::Array(values) => {
            values.iter().enumerate().find_map(|(index, value)| find_nul(value, &format!("{pointer}/{index}")))
        }
        Value::Object(members) => members.iter().find_map(|(key, value)| {
            if key.contains(NUL) {
                Some(pointer.to_owned())
            } else {
                find_nul(value, &format!("{pointer}/{}", escaped(key)))
            }
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::Limited;
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read into")]
    struct Order {
        customer: String,
        lines: Vec<Line>,
        #[serde(default)]
        note: Option<String>,
        #[serde(default)]
        tags: Value,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read into")]
    struct Line {
        quantity: u32,
        #[serde(default, rename = "a/b~c")]
        odd: bool,
    }

    #[test]
    fn each_wrong_member_is_named_by_its_pointer() {
        for (body, pointer, message) in [
            (r#"{"customer":"a"}"#, "/lines", "missing field"),
            (r#"{"customer":1,"lines":[]}"#, "/customer", "expected a string"),
            (r#"{"customer":"a","lines":[{"quantity":1},{"quantity":"2"}]}"#, "/lines/1/quantity", "expected u32"),
            (r#"{"customer":"a","lines":[{"quantity":-1}]}"#, "/lines/0/quantity", "expected u32"),
            (r#"{"customer":"a","lines":[{"quantity":4294967296}]}"#, "/lines/0/quantity", "expected u32"),
            (r#"{"customer":"a","lines":[{"quantity":1.5}]}"#, "/lines/0/quantity", "expected u32"),
            (r#"{"customer":"a","lines":[{}]}"#, "/lines/0/quantity", "missing field"),
            (r#"{"customer":"a","lines":[],"colour":"red"}"#, "/colour", "unknown field"),
            (r#"{"customer":"a","lines":[{"quantity":1,"x~/y":0}]}"#, "/lines/0/x~0~1y", "unknown field"),
            (r#"{"customer":"a","lines":[{"quantity":1,"a/b~c":0}]}"#, "/lines/0/a~1b~0c", "expected a boolean"),
            (r#"{"customer":"a","customer":"b","lines":[]}"#, "/customer", "duplicate field"),
            (r#"{"customer":"a\u0000b","lines":[]}"#, "/customer", "U+0000"),
            (r#"{"customer":"a","lines":[],"tags":{"deep":["x","\u0000"]}}"#, "/tags/deep/1", "U+0000"),
            ("[]", "", "expected struct Order"),
            ("null", "", "expected struct Order"),
        ] {
            let problem = decode::<Order>(body.as_bytes()).unwrap_err().document();
            assert_eq!(problem["type"], "urn:berth:problem:invalid-field", "{body}");
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
            assert!(problem["errors"][0]["message"].as_str().unwrap().contains(message), "{body}: {problem}");
        }
    }

    #[test]
    fn what_is_no_json_is_located_by_line_and_column() {
        let deep = format!("{{\"customer\":\"a\",\"lines\":[],\"tags\":{}{}}}", "[".repeat(200), "]".repeat(200));
        for (body, line, column) in [
            ("", 1, 0),
            ("{", 1, 1),
            ("{\"customer\":\"a\",\n  lines: []}", 2, 3),
            (r#"{"customer":"a","lines":[]} x"#, 1, 29),
            (r#"{"customer":"a","lines":[],}"#, 1, 28),
            (r#"{"customer":"\ud800","lines":[]}"#, 1, 20),
            (r#"{"customer":"a","lines":[{"quantity":1e999}]}"#, 1, 42),
            (deep.as_str(), 1, 161),
            // Where it breaks off says more than what is wrong before.
            (r#"{"customer":1,"#, 1, 14),
            (&"[".repeat(100_000), 1, 100_000),
        ] {
            let problem = decode::<Order>(body.as_bytes()).unwrap_err().document();
            assert_eq!(problem["type"], "urn:berth:problem:malformed-request", "{body}: {problem}");
            assert_eq!((&problem["line"], &problem["column"]), (&line.into(), &column.into()), "{body}: {problem}");
        }
    }

    #[test]
    fn bytes_that_are_no_utf8_are_malformed() {
        let problem = decode::<Order>(b"{\"customer\":\"\xff\",\"lines\":[]}").unwrap_err();
        assert_eq!(problem.status(), 400);
    }

    #[test]
    fn an_escaped_backslash_before_u0000_is_just_text() {
        assert!(decode::<Order>(br#"{"customer":"\\u0000","lines":[]}"#).is_ok());
    }

    #[test]
    fn a_message_does_not_repeat_a_huge_value() {
        let body = format!(r#"{{"customer":"a","lines":[{{"quantity":"{}"}}]}}"#, "é".repeat(100_000));
        assert!(decode::<Order>(body.as_bytes()).unwrap_err().document().to_string().len() < 1000);
    }

    #[tokio::test]
    async fn only_json_is_read_as_json() {
        for (content_type, accepted) in [
            (Some("application/json"), true),
            (Some("Application/JSON; charset=utf-8"), true),
            (Some("application/merge-patch+json"), true),
            (Some("text/plain"), false),
            (Some("application/jsonp"), false),
            (Some("application/x-www-form-urlencoded"), false),
            (None, false),
        ] {
            let mut request = http::Request::post("/");
            if let Some(content_type) = content_type {
                request = request.header(header::CONTENT_TYPE, content_type);
            }
            let extracted =
                <Json<Value> as FromRequest<()>>::from_request(request.body(Body::from("{}")).unwrap(), &()).await;
            assert_eq!(
                extracted.as_ref().map_or_else(|problem| problem.status().as_u16(), |_| 200),
                if accepted { 200 } else { 415 },
                "{content_type:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_too_large() {
        let body = Body::new(Limited::new(Body::from("[1,2,3]"), 4));
        let request = http::Request::post("/").header(header::CONTENT_TYPE, "application/json").body(body).unwrap();
        let problem = <Json<Value> as FromRequest<()>>::from_request(request, &()).await.unwrap_err();
        assert_eq!(problem.status(), 413);
    }

    #[tokio::test]
    async fn an_optional_body_may_be_absent_but_not_wrong() {
        let request = |body: &'static str, content_type: bool| {
            let request = http::Request::post("/");
            let request = if content_type { request.header(header::CONTENT_TYPE, "application/json") } else { request };
            request.body(Body::from(body)).unwrap()
        };
        let extract = |request| <Json<Value> as OptionalFromRequest<()>>::from_request(request, &());
        assert!(extract(request("", false)).await.unwrap().is_none());
        assert!(extract(request("{}", true)).await.unwrap().is_some());
        assert_eq!(extract(request("", true)).await.unwrap_err().status(), 400);
        assert_eq!(extract(request("{}", false)).await.unwrap_err().status(), 415);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            let _ = decode::<Order>(&bytes);
        }

        #[test]
        fn almost_right_bodies_are_survived(body in r#"\{("(customer|lines|x)":("a"|\[\{\}\]|[0-9e]{1,4}|null|\\u0000),?){0,4}\}?"#) {
            let _ = decode::<Order>(body.as_bytes());
        }
    }
}
