//! Access tokens: what a client sends the gateway to prove who it is.
//!
//! Follows RFC 9068 (the `at+jwt` profile) under RFC 8725: the algorithms of an issuer are fixed beforehand, its keys come
//! from its JWK set and from nowhere in the token, and every claim that limits a token must be there and must hold.
//! Keys are fetched before they are needed and kept when the issuer is away.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures_util::future::join_all;
use runtime::clock::Clock;
use runtime::retry::Backoff;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cache::{self, Verified};
use crate::claims::Claims;
use crate::jws::{Algorithm, KeySet, Unverified};
use crate::{Kind, Principal, TokenError};

/// At most one fetch of an issuer's keys in this time, however many tokens name a key nobody knows.
const REFETCH_AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// Longest wait between two attempts to fetch keys that could not be fetched.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Where an issuer's JWK set comes from. The gateway implements it over HTTPS or over the mesh, with a timeout and a bound
/// on the size of the answer.
pub trait JwksSource: Send + Sync + 'static {
    /// Fetches the JWK set document as it is now.
    fn fetch(&self) -> Pin<Box<dyn Future<Output = Result<Bytes, FetchError>> + Send + '_>>;
}

/// Why a JWK set could not be fetched.
pub type FetchError = Box<dyn std::error::Error + Send + Sync>;

/// Which `typ` headers are taken for an access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenTypes {
    /// `at+jwt` alone, as RFC 9068 §4 wants it.
    #[default]
    AtJwt,
    /// Also `JWT` and no type at all, for issuers that do not follow RFC 9068. What then keeps an ID token from passing
    /// for an access token is the audience alone.
    AlsoJwt,
}

impl TokenTypes {
    fn accepted(self) -> &'static [&'static str] {
        match self {
            Self::AtJwt => &["at+jwt"],
            Self::AlsoJwt => &["at+jwt", "jwt", ""],
        }
    }
}

/// What is known beforehand of an issuer that is trusted.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// The `iss` of its tokens, compared byte by byte.
    pub issuer: String,
    /// The `aud` its tokens for this system carry.
    pub audience: String,
    /// What it signs with. A token signed with anything else is refused unseen.
    pub algorithms: Vec<Algorithm>,
    /// Which `typ` headers it writes.
    pub types: TokenTypes,
    /// The claim that holds the roles: a name, or a JSON pointer such as `/realm_access/roles`.
    pub roles_claim: String,
}

struct Trusted {
    issuer: Issuer,
    source: Box<dyn JwksSource>,
    keys: ArcSwapOption<KeySet>,
    /// When the last fetch ended. Held while a fetch runs, so that there is only one.
    fetched: Mutex<Option<Instant>>,
}

/// Verifies access tokens of the issuers that are trusted.
pub struct Verifier {
    trusted: Vec<Trusted>,
    verified: Verified<Arc<Principal>>,
    clock: Clock,
}

impl Verifier {
    /// A verifier that trusts these issuers. Nothing is fetched yet: see [`Verifier::refresh`] and [`Verifier::run`].
    #[must_use]
    pub fn new(issuers: impl IntoIterator<Item = (Issuer, Box<dyn JwksSource>)>, clock: Clock) -> Self {
        let trusted = issuers
            .into_iter()
            .map(|(issuer, source)| Trusted { issuer, source, keys: ArcSwapOption::empty(), fetched: Mutex::new(None) })
            .collect();
        Self { trusted, verified: Verified::new(), clock }
    }

    /// Verifies one token. Costs a hash and a look-up when it was verified before.
    ///
    /// # Errors
    /// When anything about it is not exactly right; [`TokenError::KeysUnavailable`] when that cannot be told at the moment.
    pub async fn verify(&self, token: &str) -> Result<Arc<Principal>, TokenError> {
        if token.len() > crate::MAX_TOKEN_BYTES {
            return Err(TokenError::TooLarge);
        }
        let now = self.clock.now();
        let hash = cache::hash(token);
        if let Some(principal) = self.verified.get(&hash, now) {
            return Ok(principal);
        }

        let token = Unverified::parse(token)?;
        let issuer = match token.claim("iss") {
            Some(Value::String(issuer)) => issuer,
            Some(_) => return Err(TokenError::InvalidClaim("iss")),
            None => return Err(TokenError::MissingClaim("iss")),
        };
        let trusted =
            self.trusted.iter().find(|trusted| trusted.issuer.issuer == *issuer).ok_or(TokenError::UnknownIssuer)?;
        token.expect(trusted.issuer.types.accepted(), &trusted.issuer.algorithms)?;
        let keys = self.keys_for(trusted, &token).await?;
        let claims = Claims(token.verify(&keys)?);
        claims.expect_audience(&trusted.issuer.audience)?;
        let expires = claims.expect_current(now)?;
        let principal = Arc::new(principal(&claims, &trusted.issuer.roles_claim)?);
        self.verified.insert(hash, principal.clone(), expires);
        Ok(principal)
    }

    /// The issuer's keys, fetched once more when none of them fits the token.
    async fn keys_for(&self, trusted: &Trusted, token: &Unverified<'_>) -> Result<Arc<KeySet>, TokenError> {
        let fits = |keys: &Option<Arc<KeySet>>| keys.as_ref().is_some_and(|keys| token.has_key_in(keys));
        let mut keys = trusted.keys.load_full();
        if !fits(&keys) {
            let mut fetched = trusted.fetched.lock().await;
            // Whoever waited here for somebody else's fetch finds its outcome, and does not fetch again.
            keys = trusted.keys.load_full();
            if !fits(&keys) && fetched.is_none_or(|at| at.elapsed() >= REFETCH_AT_MOST_EVERY) {
                if let Err(error) = self.fetch(trusted).await {
                    tracing::warn!(issuer = trusted.issuer.issuer, %error, "the keys of an issuer cannot be fetched");
                }
                *fetched = Some(Instant::now());
                keys = trusted.keys.load_full();
            }
        }
        keys.ok_or(TokenError::KeysUnavailable)
    }

    async fn fetch(&self, trusted: &Trusted) -> Result<(), FetchError> {
        let document = trusted.source.fetch().await?;
        let keys = Arc::new(KeySet::parse(&document)?);
        if keys.is_empty() {
            return Err("the JWK set holds no key that could verify a signature".into());
        }
        let old = trusted.keys.swap(Some(keys.clone()));
        if old.is_some_and(|old| !old.is_kept_by(&keys)) {
            self.verified.clear();
        }
        Ok(())
    }

    /// Fetches the keys of every issuer now. Keys that cannot be fetched stay as they are.
    ///
    /// # Errors
    /// Names the first issuer whose keys could not be fetched.
    pub async fn refresh(&self) -> Result<(), RefreshError> {
        let outcomes = join_all(self.trusted.iter().map(|trusted| async {
            let mut fetched = trusted.fetched.lock().await;
            let outcome = self.fetch(trusted).await;
            *fetched = Some(Instant::now());
            outcome.map_err(|source| RefreshError { issuer: trusted.issuer.issuer.clone(), source })
        }));
        outcomes.await.into_iter().collect()
    }

    /// Whether the keys of every issuer were fetched at least once.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.trusted.iter().all(|trusted| trusted.keys.load().is_some())
    }

    /// Keeps the keys fresh until `stop`: fetches them at once and then every `period`; sooner, with backoff and jitter,
    /// after a failure. Until a fetch succeeds the old keys go on being used.
    pub async fn run(&self, period: Duration, stop: CancellationToken) {
        let mut retries = Backoff::new(REFETCH_AT_MOST_EVERY, LONGEST_RETRY.min(period));
        loop {
            let pause = match self.refresh().await {
                Ok(()) => {
                    retries.reset();
                    period
                }
                Err(error) => {
                    tracing::warn!(%error, "the keys of an issuer cannot be refreshed; the old ones stay in use");
                    retries.delay()
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// The keys of an issuer could not be fetched.
#[derive(Debug, thiserror::Error)]
#[error("the keys of {issuer} cannot be fetched: {source}")]
pub struct RefreshError {
    issuer: String,
    source: FetchError,
}

fn principal(claims: &Claims, roles_claim: &str) -> Result<Principal, TokenError> {
    let subject = claims.required("sub")?;
    // Workload identities are proved by certificates. An issuer of access tokens has no say in them.
    if subject.starts_with("spiffe:") {
        return Err(TokenError::InvalidClaim("sub"));
    }
    // RFC 9068 §2.2: where no person is involved, the subject is the client itself.
    let kind = match claims.optional("client_id")? {
        Some(client) if client == subject => Kind::Service,
        _ => Kind::User,
    };
    let roles = if roles_claim.starts_with('/') {
        // Borrowed as a whole value only here: nested role claims are rare.
        Value::Object(claims.0.clone()).pointer(roles_claim).cloned()
    } else {
        claims.0.get(roles_claim).cloned()
    };
    let scopes: BTreeSet<String> = claims.words("scope")?;
    let name = match claims.optional("preferred_username")? {
        Some(name) => Some(name),
        None => claims.optional("name")?,
    };
    Ok(Principal {
        name: name.map(str::to_owned),
        roles: Claims::set(roles.as_ref(), "roles")?,
        scopes,
        ..Principal::new(kind, subject)
    })
}
