//! Token revocation (RFC 7009). Either token of a user's grant ends the whole grant: no refresh token of it works any more, and
//! userinfo refuses its access tokens. Services accept those until they expire, within ten minutes.

use auth::jws::unverified_claim;
use axum::extract::State;
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use utoipa::ToSchema;

use super::App;
use super::forms::Form;
use super::oauth::{ErrorResponse, OAuthError};
use crate::logins::Source;
use crate::tokens::GRANT_CLAIM;

/// A revocation request.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is only described")]
pub(super) struct RevocationRequest {
    /// The refresh token or access token.
    token: String,
    /// Which of them it is; not needed.
    #[schema(example = "refresh_token")]
    token_type_hint: Option<String>,
    /// The client, unless it proves itself in the `Authorization` header.
    client_id: Option<String>,
    /// Its secret, if it has one and does not show it in the `Authorization` header.
    client_secret: Option<String>,
}

/// Takes a token back, and all others of its grant.
#[utoipa::path(
    post,
    path = "/identity/revoke",
    tag = "tokens",
    request_body(content = RevocationRequest, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The token is worth nothing now, if it ever was worth anything to this client."),
        (status = 400, description = "The request is not good, or the token cannot be revoked.", body = ErrorResponse),
        (status = 401, description = "The client did not prove itself.", body = ErrorResponse),
        (status = 413, description = "The body is too large.", body = ErrorResponse),
        (status = 415, description = "The body is no form.", body = ErrorResponse),
        (status = 429, description = "Too many wrong secrets; `Retry-After` says how long to wait.", body = ErrorResponse),
        (status = 503, description = "Not at the moment; `Retry-After` says how long to wait.", body = ErrorResponse),
    ),
)]
pub(super) async fn revoke(
    State(app): State<App>,
    headers: HeaderMap,
    source: Source,
    Form(form): Form,
) -> Result<StatusCode, OAuthError> {
    let parameters = form?;
    if let Some(name) = parameters.repeated() {
        return Err(OAuthError::invalid_request(&format!("{name} stands there more than once")));
    }
    let client = app.authenticate(&headers, &parameters, &source).await?;
    let token = parameters.get("token").ok_or_else(|| OAuthError::invalid_request("token is missing"))?;
    if app.grants.revoke_by_refresh_token(&client, token).await? || app.verifier.verify(token).await.is_err() {
        return Ok(StatusCode::OK);
    }
    let grant = unverified_claim(token, GRANT_CLAIM);
    let grant = grant.as_ref().and_then(Value::as_str).and_then(|grant| grant.parse().ok());
    app.grants.revoke(&client, grant.ok_or_else(OAuthError::unsupported_token_type)?).await?;
    Ok(StatusCode::OK)
}
