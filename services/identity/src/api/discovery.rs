//! What clients and verifiers need to know: OpenID Connect Discovery 1.0, RFC 8414, RFC 7517.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use berth_http::problem::{self, Problem};
use http::{HeaderValue, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::{App, RETRY_AFTER};
use crate::domain::client::GrantType;
use crate::domain::{OFFLINE_ACCESS, OPENID, PROFILE};

/// The provider's metadata (OpenID Connect Discovery 1.0 §3).
#[derive(Serialize, ToSchema)]
pub(super) struct Metadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    userinfo_endpoint: String,
    jwks_uri: String,
    revocation_endpoint: String,
    end_session_endpoint: String,
    scopes_supported: [&'static str; 3],
    response_types_supported: [&'static str; 1],
    response_modes_supported: [&'static str; 1],
    grant_types_supported: [&'static str; 3],
    subject_types_supported: [&'static str; 1],
    id_token_signing_alg_values_supported: [&'static str; 1],
    token_endpoint_auth_methods_supported: [&'static str; 3],
    revocation_endpoint_auth_methods_supported: [&'static str; 3],
    code_challenge_methods_supported: [&'static str; 1],
    prompt_values_supported: [&'static str; 4],
    claims_supported: [&'static str; 8],
    authorization_response_iss_parameter_supported: bool,
    claims_parameter_supported: bool,
    request_parameter_supported: bool,
    request_uri_parameter_supported: bool,
}

/// The provider's metadata.
#[utoipa::path(
    get,
    path = "/identity/.well-known/openid-configuration",
    tag = "metadata",
    responses((status = 200, description = "The metadata.", body = Metadata)),
)]
pub(super) async fn discovery(State(app): State<App>) -> Response {
    let at = |path: &str| format!("{}{path}", app.issuer);
    let methods = ["client_secret_basic", "client_secret_post", "none"];
    let metadata = Metadata {
        issuer: app.issuer.to_string(),
        authorization_endpoint: at("/authorize"),
        token_endpoint: at("/token"),
        userinfo_endpoint: at("/userinfo"),
        jwks_uri: at("/.well-known/jwks.json"),
        revocation_endpoint: at("/revoke"),
        end_session_endpoint: at("/logout"),
        scopes_supported: [OPENID, PROFILE, OFFLINE_ACCESS],
        response_types_supported: ["code"],
        response_modes_supported: ["query"],
        grant_types_supported: GrantType::ALL.map(GrantType::name),
        subject_types_supported: ["public"],
        id_token_signing_alg_values_supported: ["EdDSA"],
        token_endpoint_auth_methods_supported: methods,
        revocation_endpoint_auth_methods_supported: methods,
        code_challenge_methods_supported: ["S256"],
        prompt_values_supported: ["none", "login", "consent", "select_account"],
        claims_supported: ["iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "preferred_username"],
        authorization_response_iss_parameter_supported: true,
        claims_parameter_supported: false,
        request_parameter_supported: false,
        request_uri_parameter_supported: false,
    };
    (CACHED, Json(metadata)).into_response()
}

/// Far shorter than a key is published before it signs.
const CACHED: [(header::HeaderName, HeaderValue); 1] =
    [(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"))];

/// The public keys tokens are signed with (RFC 7517 §5).
#[derive(Serialize, ToSchema)]
pub(super) struct KeySet {
    /// Those that sign, are about to, or did so until a moment ago.
    #[schema(value_type = Vec<Object>)]
    keys: Vec<auth::jws::Jwk>,
}

/// The keys tokens are signed with.
#[utoipa::path(
    get,
    path = "/identity/.well-known/jwks.json",
    tag = "metadata",
    responses(
        (status = 200, description = "The keys.", body = KeySet),
        (status = 503, description = "The keys are not known yet.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn jwks(State(app): State<App>) -> Result<Response, Problem> {
    let keys = app.keyring.published();
    if keys.is_empty() {
        return Err(problem::UNAVAILABLE.detail("The signing keys are not known yet.").retry_after(RETRY_AFTER));
    }
    Ok((CACHED, Json(KeySet { keys })).into_response())
}
