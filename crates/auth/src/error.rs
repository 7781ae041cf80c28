//! Why a token was refused.

use berth_http::problem::{self, Problem};

/// Why a token was refused. Nothing in it repeats what the token said, so it can be logged and shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No token came with the request.
    #[error("no token was sent")]
    Absent,
    /// Longer than [`crate::MAX_TOKEN_BYTES`].
    #[error("the token is longer than 8 KiB")]
    TooLarge,
    /// Not a compact JWS with a JSON header and JSON claims, each name once.
    #[error("the token is not a well-formed compact JWS: {0}")]
    Malformed(&'static str),
    /// The `typ` header is not what is accepted here (RFC 8725 §3.11).
    #[error("the token is of another type than is accepted here")]
    WrongType,
    /// The `alg` header is not one this issuer signs with (RFC 8725 §3.1).
    #[error("the token is signed with an algorithm that its issuer does not use")]
    WrongAlgorithm,
    /// The header asks for an extension to be understood (`crit`, RFC 7515 §4.1.11). None is.
    #[error("the token demands a critical header extension that is not understood")]
    CriticalExtension,
    /// The issuer is not one that is trusted here.
    #[error("the token comes from an issuer that is not trusted here")]
    UnknownIssuer,
    /// No key of the issuer fits the `kid` and `alg` of the token.
    #[error("the token is signed with a key its issuer does not publish")]
    UnknownKey,
    /// The signature does not verify.
    #[error("the signature of the token does not verify")]
    BadSignature,
    /// A claim that is required is not there.
    #[error("the token lacks the claim `{0}`")]
    MissingClaim(&'static str),
    /// A claim has the wrong JSON type or an impossible value.
    #[error("the claim `{0}` of the token is not valid")]
    InvalidClaim(&'static str),
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` or `iat` lies in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// Made for somebody else.
    #[error("the token is meant for another audience")]
    WrongAudience,
    /// Lives longer than this kind of token may.
    #[error("the token lives longer than is accepted here")]
    LifetimeTooLong,
    /// The workload that sent the token is not the one that made it.
    #[error("the token was made by another workload than the one that sent it")]
    WrongPeer,
    /// The issuer's keys were never fetched and cannot be fetched now.
    #[error("the keys of the issuer cannot be fetched at the moment")]
    KeysUnavailable,
}

impl TokenError {
    /// A short stable word for metrics and logs.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::TooLarge => "too-large",
            Self::Malformed(_) => "malformed",
            Self::WrongType => "wrong-type",
            Self::WrongAlgorithm => "wrong-algorithm",
            Self::CriticalExtension => "critical-extension",
            Self::UnknownIssuer => "unknown-issuer",
            Self::UnknownKey => "unknown-key",
            Self::BadSignature => "bad-signature",
            Self::MissingClaim(_) => "missing-claim",
            Self::InvalidClaim(_) => "invalid-claim",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::WrongAudience => "wrong-audience",
            Self::LifetimeTooLong => "lifetime-too-long",
            Self::WrongPeer => "wrong-peer",
            Self::KeysUnavailable => "keys-unavailable",
        }
    }

    /// Whether the fault is on this side, so that the caller should try again rather than log in again.
    #[must_use]
    pub fn is_unavailable(self) -> bool {
        self == Self::KeysUnavailable
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        if error.is_unavailable() {
            problem::UNAVAILABLE.detail(error.to_string()).retry_after(std::time::Duration::from_secs(1))
        } else {
            // RFC 6750 §3.1: a request without a token is told the scheme and no more.
            let challenge = match error {
                TokenError::Absent => "Bearer",
                _ => r#"Bearer error="invalid_token""#,
            };
            problem::UNAUTHENTICATED
                .detail(error.to_string())
                .header(http::header::WWW_AUTHENTICATE, http::HeaderValue::from_static(challenge))
        }
    }
}
