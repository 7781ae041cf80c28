//! From a client's access token to the token that tells one service who is asking.

use std::{sync::Arc, time::Duration};

use auth::{
    Principal, TokenError,
    internal::{self, MintError, Minter},
};
use berth_http::problem::{self, Problem};
use http::{HeaderMap, HeaderValue, header};
use quick_cache::sync::Cache;
use tls::SpiffeId;
use tokio::time::Instant;

/// Internal tokens kept per service.
const CAPACITY: usize = 16 * 1024;
/// How long one is used: half its life, so that it is still valid when it arrives.
const REUSE: Duration = Duration::from_secs(internal::LIFETIME.as_secs() / 2);

/// The bearer token of a request (RFC 6750, §2.1), if it has one. Tokens in the query or in a form are not looked at:
/// they end up in logs.
///
/// # Errors
/// When there is something in `Authorization` that is no bearer token.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Refusal::Malformed("there is more than one Authorization header"));
    }
    let value = value.to_str().map_err(|_| Refusal::Malformed("the Authorization header is not ASCII"))?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refusal::Malformed("the Authorization header must have the scheme Bearer"));
    }
    let token = token.trim_start_matches(' ');
    let letters = token.trim_end_matches('=');
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/');
    if letters.is_empty() || !letters.bytes().all(allowed) {
        return Err(Refusal::Malformed("the bearer token is malformed"));
    }
    Ok(Some(token))
}

/// Why a request is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It has no token and needs one.
    Absent,
    /// What it has is no token.
    Malformed(&'static str),
    /// Its token is not accepted.
    Token(TokenError),
}

impl Refusal {
    /// A word for metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Malformed(_) => "malformed-header",
            Self::Token(error) => error.reason(),
        }
    }

    /// The answer, with the challenge of RFC 6750, §3. `realm` is the mesh.
    pub(crate) fn problem(self, realm: &str) -> Problem {
        let (problem, error) = match self {
            Self::Absent => (problem::UNAUTHENTICATED.detail("Send an access token: Authorization: Bearer …"), None),
            Self::Malformed(why) => {
                let problem = problem::UNAUTHENTICATED.detail(why);
                (problem.request_header(&header::AUTHORIZATION, why), Some(("invalid_request", why.to_owned())))
            }
            Self::Token(error) if error.is_unavailable() => return error.into(),
            Self::Token(error) => {
                (problem::UNAUTHENTICATED.detail(error.to_string()), Some(("invalid_token", error.to_string())))
            }
        };
        let challenge = match error {
            None => format!("Bearer realm=\"{realm}\""),
            Some((error, why)) => {
                let why: String = why.chars().filter(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\')).collect();
                format!("Bearer realm=\"{realm}\", error=\"{error}\", error_description=\"{why}\"")
            }
        };
        match HeaderValue::try_from(challenge) {
            Ok(challenge) => problem.header(header::WWW_AUTHENTICATE, challenge),
            Err(_) => problem,
        }
    }
}

/// The internal tokens of one service, each made once and used for a part of its life.
pub(crate) struct ForService {
    audience: SpiffeId,
    minter: Arc<Minter>,
    /// By the address of the principal, which the entry keeps alive: whoever shows the same access token gets the same
    /// principal from the verifier's cache, so that the token need not be hashed a second time.
    minted: Cache<usize, Minted>,
}

#[derive(Clone)]
struct Minted {
    _principal: Arc<Principal>,
    header: HeaderValue,
    until: Instant,
}

impl ForService {
    pub(crate) fn new(audience: SpiffeId, minter: Arc<Minter>) -> Self {
        Self { audience, minter, minted: Cache::new(CAPACITY) }
    }

    /// The header value that tells the service who is asking.
    pub(crate) fn token(&self, principal: &Arc<Principal>) -> Result<HeaderValue, MintError> {
        let key = Arc::as_ptr(principal).addr();
        let now = Instant::now();
        if let Some(minted) = self.minted.get(&key)
            && now < minted.until
        {
            return Ok(minted.header);
        }
        let token = self.minter.mint(principal, &self.audience)?;
        // A compact JWS is base64url and dots.
        let mut header = HeaderValue::try_from(token).unwrap_or(HeaderValue::from_static(""));
        header.set_sensitive(true);
        let minted = Minted { _principal: Arc::clone(principal), header: header.clone(), until: now + REUSE };
        self.minted.insert(key, minted);
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authorization(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (header::AUTHORIZATION, value.parse().unwrap())).collect()
    }

    #[test]
    fn a_bearer_token_is_taken_from_its_one_header() {
        for (values, token) in [
            (vec![], Ok(None)),
            (vec!["Bearer abc.def-_~+/=="], Ok(Some("abc.def-_~+/=="))),
            (vec!["bearer abc"], Ok(Some("abc"))),
            (vec!["BEARER  abc"], Ok(Some("abc"))),
            (vec!["Bearer"], Err(())),
            (vec!["Bearer "], Err(())),
            (vec!["Bearer =="], Err(())),
            (vec!["Bearer a b"], Err(())),
            (vec!["Bearer a,b"], Err(())),
            (vec!["Bearer \u{e9}"], Err(())),
            (vec!["Basic abc"], Err(())),
            (vec!["abc"], Err(())),
            (vec!["Bearer a", "Bearer b"], Err(())),
        ] {
            let headers = authorization(&values);
            assert_eq!(bearer(&headers).map_err(|_| ()), token, "{values:?}");
        }
    }

    #[test]
    fn a_refusal_challenges_as_rfc_6750_says() {
        let challenge = |refusal: Refusal| {
            let response = refusal.problem("eshop").to_response();
            let challenge =
                response.headers().get(header::WWW_AUTHENTICATE).map(|value| value.to_str().unwrap().to_owned());
            (response.status().as_u16(), challenge)
        };
        assert_eq!(challenge(Refusal::Absent), (401, Some("Bearer realm=\"eshop\"".to_owned())));
        let (status, expired) = challenge(Refusal::Token(TokenError::Expired));
        assert_eq!(status, 401);
        assert!(expired.unwrap().starts_with("Bearer realm=\"eshop\", error=\"invalid_token\", error_description=\""));
        let (status, malformed) = challenge(Refusal::Malformed("x"));
        assert_eq!((status, malformed.unwrap().contains("error=\"invalid_request\"")), (401, true));
        assert_eq!(challenge(Refusal::Token(TokenError::KeysUnavailable)), (503, None));
    }
}
