//! The registered claims (RFC 7519 §4.1), read and checked the same way for every kind of token.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::TokenError;

/// How far the clocks of two machines may be apart.
const LEEWAY: Duration = Duration::from_secs(5);
/// Longest subject, issuer, role… that is accepted, in bytes.
const MAX_TEXT: usize = 512;

/// The claims of a token whose signature has been verified.
pub(crate) struct Claims(pub(crate) Map<String, Value>);

impl Claims {
    /// A claim that, if there, is a string of sensible length.
    pub(crate) fn optional(&self, name: &'static str) -> Result<Option<&str>, TokenError> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() && text.len() <= MAX_TEXT => Ok(Some(text)),
            Some(_) => Err(TokenError::InvalidClaim(name)),
        }
    }

    /// A claim that must be there.
    pub(crate) fn required(&self, name: &'static str) -> Result<&str, TokenError> {
        self.optional(name)?.ok_or(TokenError::MissingClaim(name))
    }

    /// An array of strings, or one string. Absent means none.
    pub(crate) fn set(value: Option<&Value>, name: &'static str) -> Result<BTreeSet<String>, TokenError> {
        let one = |value: &Value| match value {
            Value::String(text) if text.len() <= MAX_TEXT => Ok(text.clone()),
            _ => Err(TokenError::InvalidClaim(name)),
        };
        match value {
            None => Ok(BTreeSet::new()),
            Some(Value::Array(items)) => items.iter().map(one).collect(),
            Some(value) => Ok(BTreeSet::from([one(value)?])),
        }
    }

    /// A string of words apart by spaces, such as `scope` (RFC 8693 §4.2). Absent means none.
    pub(crate) fn words(&self, name: &'static str) -> Result<BTreeSet<String>, TokenError> {
        match self.0.get(name) {
            None => Ok(BTreeSet::new()),
            Some(Value::String(words)) => Ok(words.split_ascii_whitespace().map(str::to_owned).collect()),
            Some(_) => Err(TokenError::InvalidClaim(name)),
        }
    }

    /// `aud` must name us: as the string itself or as one of an array.
    pub(crate) fn expect_audience(&self, audience: &str) -> Result<(), TokenError> {
        let value = self.0.get("aud").ok_or(TokenError::MissingClaim("aud"))?;
        if Self::set(Some(value), "aud")?.contains(audience) { Ok(()) } else { Err(TokenError::WrongAudience) }
    }

    /// Checks `exp` (required), `nbf` and `iat` (if there) against the clock, and gives `exp`.
    pub(crate) fn expect_current(&self, now: Timestamp) -> Result<Timestamp, TokenError> {
        let expires = self.time("exp")?.ok_or(TokenError::MissingClaim("exp"))?;
        if now.duration_since(expires) >= leeway() {
            return Err(TokenError::Expired);
        }
        for name in ["nbf", "iat"] {
            if self.time(name)?.is_some_and(|time| time.duration_since(now) > leeway()) {
                return Err(TokenError::NotYetValid);
            }
        }
        Ok(expires)
    }

    /// A NumericDate (RFC 7519 §2): seconds since the epoch, possibly with a fraction.
    pub(crate) fn time(&self, name: &'static str) -> Result<Option<Timestamp>, TokenError> {
        let Some(value) = self.0.get(name) else {
            return Ok(None);
        };
        let seconds = match value {
            Value::Number(number) => number.as_i64().or_else(|| whole_seconds(number.as_f64()?)),
            _ => None,
        };
        seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()).map(Some).ok_or(TokenError::InvalidClaim(name))
    }
}

fn leeway() -> jiff::SignedDuration {
    jiff::SignedDuration::from_secs(LEEWAY.as_secs().cast_signed())
}

#[allow(clippy::cast_possible_truncation, reason = "the range is checked")]
fn whole_seconds(seconds: f64) -> Option<i64> {
    let limit = 1e15;
    (seconds.is_finite() && seconds.abs() < limit).then(|| seconds.floor() as i64)
}
