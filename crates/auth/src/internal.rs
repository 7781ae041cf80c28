//! Transaction tokens: what one workload of the mesh hands another so that it knows on whose behalf it is called.
//!
//! Shaped after draft-ietf-oauth-transaction-tokens and RFC 8693: made by the calling workload with its own key, for one
//! service alone, for at most a minute. A verifier accepts a token only over a connection whose certificate names the
//! workload that made it, so a stolen one is worth nothing elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use runtime::clock::Clock;
use runtime::credentials::{CredentialError, Credentials};
use serde::Serialize;
use serde_json::Value;
use tls::SpiffeId;
use uuid::Uuid;

use crate::cache::{self, Verified};
use crate::claims::Claims;
use crate::jws::{Algorithm, KeyError, KeySet, SigningKey, Unverified};
use crate::{Kind, Principal, TokenError};

/// The `typ` header of a transaction token.
pub const TOKEN_TYPE: &str = "txntoken+jwt";
/// The HTTP header a transaction token travels in.
pub const HEADER: &str = "txn-token";
/// How long a transaction token lives.
pub const LIFETIME: Duration = Duration::from_secs(60);
/// More workloads than this in a row are a loop, not a design.
const MAX_ACTORS: usize = 8;
/// The credential that holds the key a workload signs with: Ed25519, PKCS#8, PEM.
const KEY_CREDENTIAL: &str = "token-key.pem";
/// The credential that holds the public keys of the workloads that may call: `{"<SPIFFE ID>": <JWK set>, …}`.
const ISSUERS_CREDENTIAL: &str = "token-issuers.json";

/// Why the keys could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The credential cannot be read.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The signing key is not usable.
    #[error(
        "the credential `{KEY_CREDENTIAL}` is not usable: {0}; remove it and run `berth secrets init`, which makes a new one"
    )]
    Key(KeyError),
    /// The issuers' keys are not usable.
    #[error(
        "the credential `{ISSUERS_CREDENTIAL}` is not usable: {0}; it must be {{\"spiffe://domain/name\": {{\"keys\": […]}}}}"
    )]
    Issuers(String),
}

/// The token could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The chain of workloads acting for the caller is too long.
    #[error("more than {MAX_ACTORS} workloads call each other in one transaction")]
    TooManyActors,
    /// The claims do not serialize.
    #[error("the claims do not serialize")]
    Claims(#[from] serde_json::Error),
}

/// Who the caller acts through, nested as RFC 8693 §4.1 has it.
#[derive(Debug, Serialize)]
struct Act<'a> {
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<Box<Act<'a>>>,
}

#[derive(Serialize)]
struct OutgoingClaims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    kind: Kind,
    iat: i64,
    exp: i64,
    jti: Uuid,
    txn: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    roles: Vec<&'a str>,
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<Box<Act<'a>>>,
}

/// Makes transaction tokens in the name of one workload.
pub struct Minter {
    own: SpiffeId,
    key: ArcSwap<SigningKey>,
    clock: Clock,
}

impl Minter {
    /// Takes the signing key from the credential `token-key.pem`.
    ///
    /// # Errors
    /// When the credential is missing or is no Ed25519 key.
    pub fn load(credentials: &Credentials, own: &SpiffeId, clock: Clock) -> Result<Self, LoadError> {
        Ok(Self::new(own, read_key(credentials)?, clock))
    }

    /// A minter with this key.
    #[must_use]
    pub fn new(own: &SpiffeId, key: SigningKey, clock: Clock) -> Self {
        Self { own: own.clone(), key: ArcSwap::from_pointee(key), clock }
    }

    /// Takes up a rotated key. A key that is not usable leaves the old one in place.
    ///
    /// # Errors
    /// As [`Minter::load`].
    pub fn reload(&self, credentials: &Credentials) -> Result<(), LoadError> {
        self.key.store(Arc::new(read_key(credentials)?));
        Ok(())
    }

    /// A token for `audience` alone that speaks for `principal`. This workload is added to the actors, unless it acts
    /// for itself. A token may be sent more than once during its life; [`LIFETIME`] is how long that is.
    ///
    /// # Errors
    /// When the chain of actors has grown too long.
    pub fn mint(&self, principal: &Principal, audience: &SpiffeId) -> Result<String, MintError> {
        let own = (principal.subject != self.own.as_str()).then_some(self.own.as_str());
        let actors: Vec<&str> = own.into_iter().chain(principal.actors.iter().map(String::as_str)).collect();
        if actors.len() > MAX_ACTORS {
            return Err(MintError::TooManyActors);
        }
        let act = actors.into_iter().rev().fold(None, |act, sub| Some(Box::new(Act { sub, act })));
        let issued = self.clock.now().as_second();
        let scopes: Vec<&str> = principal.scopes.iter().map(String::as_str).collect();
        let claims = OutgoingClaims {
            iss: self.own.as_str(),
            aud: audience.as_str(),
            sub: &principal.subject,
            kind: principal.kind,
            iat: issued,
            exp: issued.saturating_add(LIFETIME.as_secs().cast_signed()),
            jti: Uuid::now_v7(),
            txn: &principal.transaction,
            name: principal.name.as_deref(),
            roles: principal.roles.iter().map(String::as_str).collect(),
            scope: scopes.join(" "),
            act,
        };
        Ok(self.key.load().sign(TOKEN_TYPE, &claims)?)
    }
}

fn read_key(credentials: &Credentials) -> Result<SigningKey, LoadError> {
    let pem = credentials.read(KEY_CREDENTIAL)?;
    SigningKey::from_pem(pem.expose()).map_err(LoadError::Key)
}

/// The public keys of each workload that may call, by its SPIFFE ID.
pub type Issuers = BTreeMap<SpiffeId, KeySet>;

/// What a token proved, and the workload it proved it about.
#[derive(Clone)]
struct Proof {
    issuer: SpiffeId,
    principal: Arc<Principal>,
}

/// Verifies transaction tokens made for one workload.
pub struct Verifier {
    own: SpiffeId,
    issuers: ArcSwap<Issuers>,
    verified: Verified<Proof>,
    clock: Clock,
}

impl Verifier {
    /// Takes the callers' public keys from the credential `token-issuers.json`.
    ///
    /// # Errors
    /// When the credential is missing or is not the object it should be.
    pub fn load(credentials: &Credentials, own: &SpiffeId, clock: Clock) -> Result<Self, LoadError> {
        Ok(Self::new(own, read_issuers(credentials)?, clock))
    }

    /// A verifier that trusts these callers.
    #[must_use]
    pub fn new(own: &SpiffeId, issuers: Issuers, clock: Clock) -> Self {
        Self { own: own.clone(), issuers: ArcSwap::from_pointee(issuers), verified: Verified::new(), clock }
    }

    /// Takes up rotated keys. A file that is not usable leaves the old ones in place.
    ///
    /// # Errors
    /// As [`Verifier::load`].
    pub fn reload(&self, credentials: &Credentials) -> Result<(), LoadError> {
        self.issuers.store(Arc::new(read_issuers(credentials)?));
        self.verified.clear();
        Ok(())
    }

    /// Verifies a token that came over a connection from `peer`.
    ///
    /// # Errors
    /// When anything about it is not exactly right; see [`TokenError`].
    pub fn verify(&self, token: &str, peer: &SpiffeId) -> Result<Arc<Principal>, TokenError> {
        if token.len() > crate::MAX_TOKEN_BYTES {
            return Err(TokenError::TooLarge);
        }
        let now = self.clock.now();
        let hash = cache::hash(token);
        if let Some(proof) = self.verified.get(&hash, now) {
            if proof.issuer != *peer {
                return Err(TokenError::WrongPeer);
            }
            return Ok(proof.principal);
        }

        let token = Unverified::parse(token)?;
        token.expect(&[TOKEN_TYPE], &[Algorithm::EdDsa])?;
        if token.claim("iss").and_then(Value::as_str) != Some(peer.as_str()) {
            return Err(TokenError::WrongPeer);
        }
        let issuers = self.issuers.load();
        let keys = issuers.get(peer).ok_or(TokenError::UnknownIssuer)?;
        let claims = Claims(token.verify(keys)?);
        // One service alone: an array, even one that names us, is not what a minter writes.
        if claims.required("aud")? != self.own.as_str() {
            return Err(TokenError::WrongAudience);
        }
        let expires = claims.expect_current(now)?;
        let issued = claims.time("iat")?.ok_or(TokenError::MissingClaim("iat"))?;
        let lifetime = expires.duration_since(issued);
        if lifetime.is_negative() {
            return Err(TokenError::InvalidClaim("exp"));
        }
        if lifetime.unsigned_abs() > LIFETIME {
            return Err(TokenError::LifetimeTooLong);
        }
        let principal = Arc::new(principal(&claims, peer.as_str())?);
        let proof = Proof { issuer: peer.clone(), principal: principal.clone() };
        self.verified.insert(hash, proof, expires);
        Ok(principal)
    }
}

fn principal(claims: &Claims, issuer: &str) -> Result<Principal, TokenError> {
    let subject = claims.required("sub")?;
    let kind = match claims.required("kind")? {
        "user" => Kind::User,
        "service" => Kind::Service,
        "anonymous" => Kind::Anonymous,
        _ => return Err(TokenError::InvalidClaim("kind")),
    };
    let actors = actors(claims.0.get("act"))?;
    // Whoever speaks for another says so first; whoever does not, speaks for itself.
    let speaker = actors.first().map_or(subject, String::as_str);
    if speaker != issuer {
        return Err(TokenError::InvalidClaim("act"));
    }
    Ok(Principal {
        kind,
        subject: subject.to_owned(),
        name: claims.optional("name")?.map(str::to_owned),
        roles: Claims::set(claims.0.get("roles"), "roles")?,
        scopes: claims.words("scope")?,
        actors,
        transaction: claims.required("txn")?.to_owned(),
    })
}

fn actors(mut act: Option<&Value>) -> Result<Vec<String>, TokenError> {
    let mut actors = Vec::new();
    while let Some(value) = act {
        let actor = value
            .get("sub")
            .and_then(Value::as_str)
            .filter(|_| actors.len() < MAX_ACTORS)
            .ok_or(TokenError::InvalidClaim("act"))?;
        actors.push(actor.to_owned());
        act = value.get("act");
    }
    Ok(actors)
}

fn read_issuers(credentials: &Credentials) -> Result<Issuers, LoadError> {
    let file = credentials.read(ISSUERS_CREDENTIAL)?;
    let sets: BTreeMap<String, Value> =
        serde_json::from_slice(file.expose()).map_err(|error| LoadError::Issuers(error.to_string()))?;
    sets.into_iter()
        .map(|(id, set)| {
            let id: SpiffeId = id.parse().map_err(|_| LoadError::Issuers(format!("`{id}` is no SPIFFE ID")))?;
            let keys = KeySet::from_value(set).map_err(|error| LoadError::Issuers(format!("{id}: {error}")))?;
            Ok((id, keys))
        })
        .collect()
}
