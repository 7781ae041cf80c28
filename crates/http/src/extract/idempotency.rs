//! The `Idempotency-Key` header (draft-ietf-httpapi-idempotency-key-header).

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::{HeaderMap, HeaderName, request::Parts};

use crate::problem::{INVALID_PARAMETER, Problem};

/// The header's name.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

const MAX_LENGTH: usize = 128;

/// What makes a repeated request the same request: 1 to 128 visible ASCII characters, best a UUID.
///
/// The draft asks for a quoted string (RFC 8941 §3.3.3), while many clients send the bare value: both are read, and are
/// the same key. As an extractor it is required; `Option<IdempotencyKey>` where it is not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The key, without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(invalid("must be given once"));
        }
        let key = value.to_str().ok().and_then(parse);
        key.map(|key| Some(Self(key))).ok_or_else(|| invalid("must be 1 to 128 visible ASCII characters"))
    }
}

fn invalid(message: &str) -> Problem {
    INVALID_PARAMETER
        .detail("Send a key of your own with each new request, and the same key when you repeat one.")
        .request_header(&IDEMPOTENCY_KEY, message)
}

fn parse(text: &str) -> Option<String> {
    let text = text.trim_matches([' ', '\t']);
    let key = match text.strip_prefix('"') {
        Some(quoted) => unescaped(quoted.strip_suffix('"')?)?,
        None => text.to_owned(),
    };
    let valid = (1..=MAX_LENGTH).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    valid.then_some(key)
}

/// Inside a quoted string a backslash stands before a quote or a backslash, and a quote never alone.
fn unescaped(quoted: &str) -> Option<String> {
    let mut text = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.push(characters.next().filter(|next| matches!(next, '"' | '\\'))?),
            '"' => return None,
            other => text.push(other),
        }
    }
    Some(text)
}

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::from_headers(&parts.headers)?.ok_or_else(|| invalid("is required"))
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Problem> {
        Self::from_headers(&parts.headers)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quoted_and_bare_are_the_same_key() {
        for (text, key) in [
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            ("\"8e03978e\"", "8e03978e"),
            (" \"a\\\"b\\\\c\" ", "a\"b\\c"),
            ("a\"b", "a\"b"),
        ] {
            assert_eq!(parse(text).as_deref(), Some(key), "{text}");
        }
    }

    #[test]
    fn other_values_are_refused() {
        let long = "x".repeat(MAX_LENGTH + 1);
        for text in ["", "\"\"", "\"", "\"a", "a b", "\"a b\"", "\"a\"b\"", "\"a\\b\"", "\"a\\\"", "é", long.as_str()]
        {
            assert_eq!(parse(text), None, "{text}");
        }
        assert!(parse(&"x".repeat(MAX_LENGTH)).is_some());
    }

    #[test]
    fn two_keys_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(IDEMPOTENCY_KEY, HeaderValue::from_static("a"));
        headers.append(IDEMPOTENCY_KEY, HeaderValue::from_static("a"));
        let problem = IdempotencyKey::from_headers(&headers).unwrap_err();
        assert_eq!(problem.document()["errors"][0]["header"], "idempotency-key");
    }

    proptest! {
        #[test]
        fn any_text_is_survived_and_every_key_is_clean(text in ".*") {
            if let Some(key) = parse(&text) {
                prop_assert!(key.bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }

        #[test]
        fn what_is_quoted_is_read(key in "[!-~]{1,128}") {
            let quoted = format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""));
            prop_assert_eq!(parse(&quoted), Some(key));
        }
    }
}
