//! The token endpoint (RFC 6749 §3.2).

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;

use super::forms::Form;
use super::oauth::{ErrorResponse, OAuthError};
use super::{App, NO_STORE};
use crate::domain::ACCESS_TOKEN_LIFETIME;
use crate::domain::client::GrantType;
use crate::domain::parameters::spaced;
use crate::logins::Source;

/// A token request. Which fields it needs depends on `grant_type`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is only described")]
pub(super) struct TokenRequest {
    /// `authorization_code`, `client_credentials` or `refresh_token`.
    #[schema(example = "authorization_code")]
    grant_type: String,
    /// The client, unless it proves itself in the `Authorization` header.
    client_id: Option<String>,
    /// Its secret, if it has one and does not show it in the `Authorization` header.
    client_secret: Option<String>,
    /// `authorization_code`: the code.
    code: Option<String>,
    /// `authorization_code`: where the code was sent.
    redirect_uri: Option<String>,
    /// `authorization_code`: what the `code_challenge` was made of (RFC 7636).
    code_verifier: Option<String>,
    /// `refresh_token`: the refresh token. It is spent by this.
    refresh_token: Option<String>,
    /// `client_credentials`, `refresh_token`: what the access token shall be able to do; all that is allowed without it.
    scope: Option<String>,
}

/// Tokens (RFC 6749 §5.1).
#[derive(Serialize, ToSchema)]
pub(super) struct TokenResponse {
    /// For services (RFC 9068).
    access_token: String,
    /// Always `Bearer`.
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds until the access token expires.
    #[schema(example = 600)]
    expires_in: u64,
    /// What the access token can.
    #[schema(example = "openid shop")]
    scope: String,
    /// For more access tokens, once. Only with the scope `offline_access`.
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    /// Who signed in, for the client. Only with the scope `openid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    id_token: Option<String>,
}

/// Gives tokens for a code, a refresh token or a client's own credentials.
#[utoipa::path(
    post,
    path = "/identity/token",
    tag = "tokens",
    request_body(content = TokenRequest, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The tokens.", body = TokenResponse),
        (status = 400, description = "The request, the grant or the scope is not good.", body = ErrorResponse),
        (status = 401, description = "The client did not prove itself.", body = ErrorResponse),
        (status = 413, description = "The body is too large.", body = ErrorResponse),
        (status = 415, description = "The body is no form.", body = ErrorResponse),
        (status = 429, description = "Too many wrong secrets; `Retry-After` says how long to wait.", body = ErrorResponse),
        (status = 503, description = "Not at the moment; `Retry-After` says how long to wait.", body = ErrorResponse),
    ),
)]
pub(super) async fn token(
    State(app): State<App>,
    headers: HeaderMap,
    source: Source,
    Form(form): Form,
) -> Result<Response, OAuthError> {
    let parameters = form?;
    if let Some(name) = parameters.repeated() {
        return Err(OAuthError::invalid_request(&format!("{name} stands there more than once")));
    }
    let client = app.authenticate(&headers, &parameters, &source).await?;
    let required =
        |name: &str| parameters.get(name).ok_or_else(|| OAuthError::invalid_request(&format!("{name} is missing")));
    let grant: GrantType = required("grant_type")?.parse().map_err(|()| OAuthError::unsupported_grant_type())?;
    app.policy.use_grant_type(&client, grant).map_err(|_| OAuthError::unauthorized_client())?;
    let scope = parameters.get("scope");
    let tokens = match grant {
        GrantType::AuthorizationCode => {
            let (code, verifier) = (required("code")?, required("code_verifier")?);
            app.grants.exchange(&client, code, parameters.get("redirect_uri"), verifier).await?
        }
        GrantType::RefreshToken => app.grants.refresh(&client, required("refresh_token")?, scope).await?,
        GrantType::ClientCredentials => app.grants.for_client(&client, scope)?,
    };
    app.counters.token(grant.name());
    let response = TokenResponse {
        access_token: tokens.access_token,
        token_type: "Bearer",
        expires_in: ACCESS_TOKEN_LIFETIME.as_secs(),
        scope: spaced(&tokens.scopes),
        refresh_token: tokens.refresh_token.map(|token| token.expose().to_owned()),
        id_token: tokens.id_token,
    };
    Ok(([NO_STORE], Json(response)).into_response())
}
