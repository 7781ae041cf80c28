//! Errors in the form of RFC 6749 §5.2.

use axum::Json;
use axum::response::{IntoResponse, Response};
use berth_http::problem::Problem;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::forms::FormError;
use super::{NO_STORE, grant_problem, login_problem};
use crate::grants::GrantError;
use crate::logins::LoginError;

/// Why a client does not get what it asks for.
#[derive(Debug)]
pub(super) struct OAuthError {
    status: StatusCode,
    body: ErrorResponse,
    retry_after: Option<HeaderValue>,
}

/// An error of the token or revocation endpoint (RFC 6749 §5.2).
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorResponse {
    /// The kind of error, for programs.
    #[schema(example = "invalid_grant")]
    error: &'static str,
    /// What is wrong, for whoever writes the client.
    #[schema(example = "code_verifier does not fit the code_challenge")]
    error_description: String,
}

impl OAuthError {
    fn new(status: StatusCode, error: &'static str, description: &str) -> Self {
        // RFC 6749, appendix A.8: printable ASCII without quote and backslash.
        let allowed = |c: char| matches!(c, ' '..='~') && c != '"' && c != '\\';
        let error_description = description.chars().map(|c| if allowed(c) { c } else { '?' }).collect();
        Self { status, body: ErrorResponse { error, error_description }, retry_after: None }
    }

    pub(super) fn invalid_request(description: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", description)
    }

    pub(super) fn invalid_client() -> Self {
        // One answer for all that can be wrong: it must not tell which clients there are.
        Self::new(
            StatusCode::UNAUTHORIZED,
            "invalid_client",
            "the client is unknown, or did not prove itself in the way it must",
        )
    }

    pub(super) fn unauthorized_client() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "unauthorized_client", "this client may not use this grant type")
    }

    pub(super) fn unsupported_grant_type() -> Self {
        let description = "grant_type must be authorization_code, client_credentials or refresh_token";
        Self::new(StatusCode::BAD_REQUEST, "unsupported_grant_type", description)
    }

    pub(super) fn unsupported_token_type() -> Self {
        let description =
            "an access token of a client that acts for itself cannot be revoked; it expires within ten minutes";
        Self::new(StatusCode::BAD_REQUEST, "unsupported_token_type", description)
    }

    /// What is not the client's fault, said in the client's language.
    fn of_problem(problem: &Problem) -> Self {
        let response = problem.to_response();
        let error = if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
            "server_error"
        } else {
            "temporarily_unavailable"
        };
        let detail = problem.document();
        let description = detail.get("detail").and_then(serde_json::Value::as_str).unwrap_or_default();
        let retry_after = response.headers().get(header::RETRY_AFTER).cloned();
        Self { retry_after, ..Self::new(response.status(), error, description) }
    }
}

impl From<FormError> for OAuthError {
    fn from(error: FormError) -> Self {
        Self::new(error.status(), "invalid_request", &error.to_string())
    }
}

impl From<LoginError> for OAuthError {
    fn from(error: LoginError) -> Self {
        Self::of_problem(&login_problem(error))
    }
}

impl From<GrantError> for OAuthError {
    fn from(error: GrantError) -> Self {
        match error {
            GrantError::InvalidGrant(why) => Self::new(StatusCode::BAD_REQUEST, "invalid_grant", why),
            GrantError::InvalidScope => Self::new(StatusCode::BAD_REQUEST, "invalid_scope", &error.to_string()),
            other => Self::of_problem(&grant_problem(other)),
        }
    }
}

impl IntoResponse for OAuthError {
    fn into_response(self) -> Response {
        let mut response = (self.status, [NO_STORE], Json(self.body)).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static(r#"Basic realm="identity", charset="UTF-8""#),
            );
        }
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, after);
        }
        response
    }
}
