//! The tokens this service signs: access tokens (RFC 9068) and ID tokens (OpenID Connect Core §2).

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use runtime::clock::Clock;
use serde::Serialize;
use uuid::Uuid;

use crate::domain::client::Client;
use crate::domain::parameters::spaced;
use crate::domain::{ACCESS_TOKEN_LIFETIME, Grant, PROFILE, User, after};
use crate::keyring::Keyring;

/// The claim of an access token that names the grant it came of. Only this service reads it.
pub const GRANT_CLAIM: &str = "grant";

/// Why a token could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The signing keys were not read yet.
    #[error("the signing keys are not known yet")]
    NoKey,
    /// The claims do not serialize.
    #[error(transparent)]
    Claims(#[from] serde_json::Error),
}

/// Signs tokens in the name of the issuer.
#[derive(Debug, Clone)]
pub struct Signer {
    /// `iss`: the URL of this service as the public knows it.
    pub issuer: Arc<str>,
    /// `aud` of access tokens.
    pub audience: Arc<str>,
    /// The keys.
    pub keyring: Arc<Keyring>,
    /// For `iat` and `exp`.
    pub clock: Clock,
}

#[derive(Serialize)]
struct AccessClaims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    client_id: &'a str,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: Uuid,
    scope: String,
    roles: &'a BTreeSet<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preferred_username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant: Option<Uuid>,
}

#[derive(Serialize)]
struct IdClaims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: Uuid,
    iat: i64,
    exp: i64,
    auth_time: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preferred_username: Option<&'a str>,
}

impl Signer {
    /// An access token for a client that acts for `user`.
    ///
    /// # Errors
    /// When there is no key to sign with yet.
    pub fn access_token(&self, grant: &Grant, user: &User, scopes: &BTreeSet<String>) -> Result<String, SignError> {
        self.sign_access(&user.id.to_string(), &grant.client_id, &user.roles, scopes, Some((&user.name, grant.id)))
    }

    /// An access token for a client that acts for itself.
    ///
    /// # Errors
    /// When there is no key to sign with yet.
    pub fn client_access_token(&self, client: &Client, scopes: &BTreeSet<String>) -> Result<String, SignError> {
        self.sign_access(&client.id, &client.id, &client.roles, scopes, None)
    }

    fn sign_access(
        &self,
        sub: &str,
        client_id: &str,
        roles: &BTreeSet<String>,
        scopes: &BTreeSet<String>,
        user: Option<(&str, Uuid)>,
    ) -> Result<String, SignError> {
        let (iat, exp) = self.lifetime();
        let claims = AccessClaims {
            iss: &self.issuer,
            aud: &self.audience,
            sub,
            client_id,
            iat,
            nbf: iat,
            exp,
            jti: Uuid::now_v7(),
            scope: spaced(scopes),
            roles,
            preferred_username: user.map(|(name, _)| name),
            grant: user.map(|(_, grant)| grant),
        };
        self.sign("at+jwt", &claims)
    }

    /// An ID token that tells the client who `user` is.
    ///
    /// # Errors
    /// When there is no key to sign with yet.
    pub fn id_token(
        &self,
        grant: &Grant,
        user: &User,
        scopes: &BTreeSet<String>,
        nonce: Option<&str>,
    ) -> Result<String, SignError> {
        let (iat, exp) = self.lifetime();
        let claims = IdClaims {
            iss: &self.issuer,
            aud: &grant.client_id,
            sub: user.id,
            iat,
            exp,
            auth_time: grant.authenticated_at.as_second(),
            nonce,
            preferred_username: scopes.contains(PROFILE).then_some(&user.name),
        };
        self.sign("JWT", &claims)
    }

    fn lifetime(&self) -> (i64, i64) {
        let now: Timestamp = self.clock.now();
        (now.as_second(), after(now, ACCESS_TOKEN_LIFETIME).as_second())
    }

    fn sign(&self, typ: &str, claims: &impl Serialize) -> Result<String, SignError> {
        let key = self.keyring.signer().ok_or(SignError::NoKey)?;
        Ok(key.sign(typ, claims)?)
    }
}
