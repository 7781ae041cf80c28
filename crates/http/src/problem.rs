//! Errors as clients see them: problem documents (RFC 9457).
//!
//! Every answer above 399 of every service is one. Its `type` is `urn:berth:problem:<slug>`; docs/problems.md explains
//! each of them. What went wrong inside is for the log alone.

use std::{error::Error, fmt, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use runtime::trace::TraceContext;
use serde::Serialize;
use serde_json::{Map, Value};

/// The media type of a problem document.
pub const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

/// A kind of problem: stable, so that clients may decide by it.
#[derive(Debug, PartialEq, Eq)]
pub struct ProblemType {
    slug: &'static str,
    status: u16,
    title: &'static str,
}

impl ProblemType {
    /// Declares a kind of problem, to be kept in a `static`. Describe it in docs/problems.md as well.
    ///
    /// # Panics
    /// When `status` is no error status; in a `static` that is a compile error.
    pub const fn new(slug: &'static str, status: u16, title: &'static str) -> Self {
        assert!(status >= 400 && status < 600, "a problem's status is 4xx or 5xx");
        Self { slug, status, title }
    }

    /// One occurrence, described for the person who has to mend it.
    pub fn detail(&'static self, text: impl Into<String>) -> Problem {
        Problem(Box::new(Inner {
            kind: self,
            detail: text.into(),
            errors: Vec::new(),
            extensions: Map::new(),
            headers: Vec::new(),
            cause: None,
        }))
    }

    /// The last part of [`uri`](Self::uri).
    pub const fn slug(&self) -> &'static str {
        self.slug
    }

    /// Its name for people.
    pub const fn title(&self) -> &'static str {
        self.title
    }

    /// The status of its answers.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The identifier in `type`.
    pub fn uri(&self) -> String {
        format!("urn:berth:problem:{}", self.slug)
    }

    /// The common kind for a status that something outside our hands chose.
    pub(crate) fn of_status(status: StatusCode) -> &'static Self {
        let same = COMMON.iter().find(|kind| kind.status == status.as_u16());
        same.copied().unwrap_or(if status.is_server_error() { &INTERNAL } else { &MALFORMED_REQUEST })
    }
}

macro_rules! common {
    ($($(#[$doc:meta])+ $name:ident = ($slug:literal, $status:literal, $title:literal);)+) => {
        $($(#[$doc])+ pub static $name: ProblemType = ProblemType::new($slug, $status, $title);)+

        /// All kinds declared here. The first of a status stands for that status.
        pub static COMMON: &[&ProblemType] = &[$(&$name),+];
    };
}

common! {
    /// The request cannot be read at all.
    MALFORMED_REQUEST = ("malformed-request", 400, "The request is malformed");
    /// A path, query or header parameter is missing or wrong.
    INVALID_PARAMETER = ("invalid-parameter", 400, "A parameter is invalid");
    /// The caller is not known.
    UNAUTHENTICATED = ("unauthenticated", 401, "Authentication is required");
    /// The caller is known and may not do this.
    FORBIDDEN = ("forbidden", 403, "This is not permitted");
    /// There is no such thing, or the caller may not know that there is.
    NOT_FOUND = ("not-found", 404, "There is no such resource");
    /// The resource has no such method.
    METHOD_NOT_ALLOWED = ("method-not-allowed", 405, "The method is not allowed here");
    /// The request did not arrive in time.
    REQUEST_TIMEOUT = ("request-timeout", 408, "The request took too long to arrive");
    /// The state does not allow it.
    CONFLICT = ("conflict", 409, "The request conflicts with the current state");
    /// Somebody else changed the thing since the caller read it.
    PRECONDITION_FAILED = ("precondition-failed", 412, "The resource has changed");
    /// The body is larger than the service takes.
    PAYLOAD_TOO_LARGE = ("payload-too-large", 413, "The body is too large");
    /// The body's media type is not one the service reads.
    UNSUPPORTED_MEDIA_TYPE = ("unsupported-media-type", 415, "The media type is not supported");
    /// The body can be read and a field of it is wrong.
    INVALID_FIELD = ("invalid-field", 422, "A field is invalid");
    /// An idempotency key came with another request than before.
    IDEMPOTENCY_KEY_REUSED = ("idempotency-key-reused", 422, "The idempotency key belongs to another request");
    /// A write must say which version it is based on.
    PRECONDITION_REQUIRED = ("precondition-required", 428, "A precondition is required");
    /// The caller sends more than its share.
    TOO_MANY_REQUESTS = ("too-many-requests", 429, "Too many requests");
    /// A defect of the service.
    INTERNAL = ("internal", 500, "The service failed");
    /// The service behind answered with nonsense or not at all.
    UPSTREAM_FAILED = ("upstream-failed", 502, "The service behind failed");
    /// The service, or something it needs, cannot answer just now.
    UNAVAILABLE = ("unavailable", 503, "The service is unavailable");
    /// The service behind did not answer in time.
    UPSTREAM_TIMEOUT = ("upstream-timeout", 504, "The service behind took too long");
}

/// One occurrence of a [`ProblemType`]: the error type of every handler.
#[derive(Debug)]
pub struct Problem(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: &'static ProblemType,
    detail: String,
    errors: Vec<FieldError>,
    extensions: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

/// What is wrong with one part of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct FieldError {
    #[serde(flatten)]
    place: Place,
    message: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Place {
    Pointer(String),
    Parameter(String),
    Header(String),
}

/// The members RFC 9457 and this module give a meaning; extensions must not shadow them.
const MEMBERS: [&str; 6] = ["type", "title", "status", "detail", "instance", "errors"];

impl Problem {
    /// A defect of the service. `cause` goes to the log with its own causes, never to the client.
    pub fn internal(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        INTERNAL.detail("This is a defect of the service, not of the request. Its log tells more under the trace in `instance`.").caused_by(cause)
    }

    /// Its kind.
    pub fn kind(&self) -> &'static ProblemType {
        self.0.kind
    }

    /// The status of its answer.
    pub fn status(&self) -> StatusCode {
        self.0.kind.status()
    }

    /// Names a member of the body by its JSON pointer (RFC 6901; `""` is the whole body) and says what is wrong with it.
    #[must_use]
    pub fn field(self, pointer: impl Into<String>, message: impl Into<String>) -> Self {
        self.error(Place::Pointer(pointer.into()), message.into())
    }

    /// Names a path or query parameter and says what is wrong with it.
    #[must_use]
    pub fn parameter(self, name: impl Into<String>, message: impl Into<String>) -> Self {
        self.error(Place::Parameter(name.into()), message.into())
    }

    /// Names a request header and says what is wrong with it.
    #[must_use]
    pub fn request_header(self, name: &HeaderName, message: impl Into<String>) -> Self {
        self.error(Place::Header(name.as_str().to_owned()), message.into())
    }

    fn error(mut self, place: Place, message: String) -> Self {
        self.0.errors.push(FieldError { place, message });
        self
    }

    /// Adds an extension member, such as the state that stands in the way. Those RFC 9457 defines are not overwritten.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Serialize) -> Self {
        if !MEMBERS.contains(&key)
            && let Ok(value) = serde_json::to_value(value)
        {
            self.0.extensions.insert(key.to_owned(), value);
        }
        self
    }

    /// Tells the client when to try again, in whole seconds, rounded up.
    #[must_use]
    pub fn retry_after(self, delay: Duration) -> Self {
        let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
        self.header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Adds a header to the answer, such as `WWW-Authenticate`.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Keeps the error that led here, for the log.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// The document. `instance` is the trace it happened in, if one is running.
    pub fn document(&self) -> Value {
        let Inner { kind, detail, errors, extensions, .. } = &*self.0;
        let mut document = extensions.clone();
        document.insert("type".into(), kind.uri().into());
        document.insert("title".into(), kind.title.into());
        document.insert("status".into(), kind.status.into());
        document.insert("detail".into(), detail.as_str().into());
        if let Some(trace) = TraceContext::current() {
            document.insert("instance".into(), format!("urn:berth:trace:{}", trace.trace_id()).into());
        }
        if !errors.is_empty() {
            document.insert("errors".into(), serde_json::to_value(errors).unwrap_or_default());
        }
        document.into()
    }

    /// The whole answer, for servers without axum. A problem of the server is logged here.
    pub fn to_response(&self) -> http::Response<Bytes> {
        self.log();
        let mut response = http::Response::new(Bytes::from(self.document().to_string()));
        *response.status_mut() = self.status();
        response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
        for (name, value) in &self.0.headers {
            response.headers_mut().append(name, value.clone());
        }
        response
    }

    fn log(&self) {
        let Inner { kind, detail, cause, .. } = &*self.0;
        let cause = cause.as_deref().map(|cause| cause as &(dyn Error + 'static));
        if kind.status == 500 {
            tracing::error!(problem = kind.slug, error = cause, "{detail}");
        } else if kind.status > 500 {
            tracing::warn!(problem = kind.slug, error = cause, "{detail}");
        } else {
            tracing::debug!(problem = kind.slug, error = cause, "{detail}");
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.0.kind.slug, self.0.detail)
    }
}

impl Error for Problem {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.to_response().map(Body::from)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, io};

    use serde_json::json;

    use super::*;

    static OUT_OF_STOCK: ProblemType = ProblemType::new("out-of-stock", 409, "Not enough stock");

    #[test]
    fn a_document_has_the_members_of_rfc_9457() {
        let problem = OUT_OF_STOCK
            .detail("2 of 5 are left")
            .field("/lines/0/quantity", "at most 2")
            .parameter("limit", "must be a number")
            .request_header(&header::IF_MATCH, "must be an entity tag")
            .with("available", 2)
            .with("status", "cannot be overwritten")
            .retry_after(Duration::from_millis(1500));
        assert_eq!(
            problem.document(),
            json!({
                "type": "urn:berth:problem:out-of-stock",
                "title": "Not enough stock",
                "status": 409,
                "detail": "2 of 5 are left",
                "available": 2,
                "errors": [
                    {"pointer": "/lines/0/quantity", "message": "at most 2"},
                    {"parameter": "limit", "message": "must be a number"},
                    {"header": "if-match", "message": "must be an entity tag"},
                ],
            })
        );
        let response = problem.to_response();
        assert_eq!(response.status(), 409);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    }

    #[test]
    fn an_inner_error_stays_inside() {
        let problem = Problem::internal(io::Error::other("password is hunter2"));
        assert!(!problem.document().to_string().contains("hunter2"));
        assert_eq!(problem.source().unwrap().to_string(), "password is hunter2");
    }

    #[tokio::test]
    async fn an_occurrence_names_its_trace() {
        let trace = TraceContext::new();
        let document = trace.scope(async { NOT_FOUND.detail("no item").document() }).await;
        assert_eq!(document["instance"], format!("urn:berth:trace:{}", trace.trace_id()));
    }

    #[test]
    fn slugs_are_unique_and_each_status_has_its_kind() {
        let slugs: BTreeSet<_> = COMMON.iter().map(|kind| kind.slug()).collect();
        assert_eq!(slugs.len(), COMMON.len());
        for kind in COMMON {
            assert_eq!(ProblemType::of_status(kind.status()).status(), kind.status());
        }
        assert_eq!(ProblemType::of_status(StatusCode::IM_A_TEAPOT), &MALFORMED_REQUEST);
        assert_eq!(ProblemType::of_status(StatusCode::LOOP_DETECTED), &INTERNAL);
    }
}
