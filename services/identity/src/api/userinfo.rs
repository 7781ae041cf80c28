//! Userinfo (OpenID Connect Core §5.3).

use auth::TokenError;
use auth::jws::unverified_claim;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use berth_http::problem::{self, Problem};
use http::{HeaderMap, HeaderValue, header};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{App, NO_STORE, grant_problem};
use crate::domain::PROFILE;
use crate::tokens::GRANT_CLAIM;

/// Who signed in.
#[derive(Serialize, ToSchema)]
pub(super) struct UserInfo {
    /// The user's id.
    sub: Uuid,
    /// The user's name. Only with the scope `profile`.
    #[serde(skip_serializing_if = "Option::is_none")]
    preferred_username: Option<String>,
}

/// Tells who signed in. Needs an access token with the scope `openid`.
#[utoipa::path(
    get,
    path = "/identity/userinfo",
    tag = "tokens",
    responses(
        (status = 200, description = "The user.", body = UserInfo),
        (status = 401, description = "There is no good access token.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The access token lacks the scope `openid`.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not at the moment; `Retry-After` says how long to wait.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn userinfo(State(app): State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    let token = bearer(&headers)?;
    let principal = app.verifier.verify(token).await?;
    app.policy.read_userinfo(&principal).map_err(|_| {
        let challenge = HeaderValue::from_static(r#"Bearer error="insufficient_scope", scope="openid""#);
        problem::FORBIDDEN
            .detail("The access token must have the scope openid.")
            .header(header::WWW_AUTHENTICATE, challenge)
    })?;
    let grant = unverified_claim(token, GRANT_CLAIM);
    let grant = grant.as_ref().and_then(Value::as_str).and_then(|grant| grant.parse().ok());
    let grant: Uuid = grant.ok_or(TokenError::InvalidClaim("grant"))?;
    let user = app.grants.user_of(grant).await.map_err(grant_problem)?;
    // Revoked: to whoever asks here it is as if it had expired.
    let user = user.ok_or(TokenError::Expired)?;
    let preferred_username = principal.scopes.contains(PROFILE).then_some(user.name);
    Ok(([NO_STORE], Json(UserInfo { sub: user.id, preferred_username })).into_response())
}

/// The same by POST, as OpenID Connect wants it.
#[utoipa::path(
    post,
    path = "/identity/userinfo",
    tag = "tokens",
    responses(
        (status = 200, description = "The user.", body = UserInfo),
        (status = 401, description = "There is no good access token.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The access token lacks the scope `openid`.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not at the moment; `Retry-After` says how long to wait.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn userinfo_by_post(app: State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    userinfo(app, headers).await
}

fn bearer(headers: &HeaderMap) -> Result<&str, TokenError> {
    let header = headers.get(header::AUTHORIZATION).ok_or(TokenError::Absent)?;
    let header = header.to_str().map_err(|_| TokenError::Malformed("it must be visible ASCII"))?;
    let (scheme, token) = header.split_once(' ').ok_or(TokenError::Absent)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(TokenError::Absent) }
}
