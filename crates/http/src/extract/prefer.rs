//! The `Prefer` header (RFC 7240).

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::FromRequestParts,
    response::{IntoResponseParts, ResponseParts},
};
use http::{HeaderMap, HeaderName, HeaderValue, request::Parts};

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// What the client would like, and need not get. What is not understood is ignored (§2), so nothing is ever rejected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefer {
    /// `wait=N`: how many seconds the client would wait for the outcome rather than be told to come back (§4.3).
    pub wait: Option<Duration>,
}

impl Prefer {
    fn from_headers(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(PREFER).iter().filter_map(|line| line.to_str().ok());
        // Of a preference given twice the first counts (§2).
        let wait = lines.flat_map(|line| split(line, ',')).find_map(wait);
        Self { wait }
    }

    /// How long to wait, if asked to: no longer than `limit`.
    pub fn wait_at_most(self, limit: Duration) -> Option<Duration> {
        self.wait.map(|wait| wait.min(limit))
    }
}

impl<S: Sync> FromRequestParts<S> for Prefer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::from_headers(&parts.headers))
    }
}

/// As part of a response: says with `Preference-Applied` that the wait was granted, and how long it was (§3).
#[derive(Clone, Copy, Debug)]
pub struct WaitApplied(pub Duration);

impl IntoResponseParts for WaitApplied {
    type Error = Infallible;

    fn into_response_parts(self, mut response: ResponseParts) -> Result<ResponseParts, Infallible> {
        if let Ok(value) = HeaderValue::from_str(&format!("wait={}", self.0.as_secs())) {
            response.headers_mut().append(PREFERENCE_APPLIED, value);
        }
        Ok(response)
    }
}

/// `wait=10`, `wait="10"`, with parameters after a semicolon that mean nothing to us.
fn wait(preference: &str) -> Option<Duration> {
    let (name, value) = split(preference, ';').next()?.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("wait") {
        return None;
    }
    let value = value.trim();
    let digits = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    if all_digits { digits.parse().ok().map(Duration::from_secs) } else { None }
}

/// The parts between separators that are not inside a quoted string.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |character| {
        if escaped {
            escaped = false;
        } else if quoted && character == '\\' {
            escaped = true;
        } else if character == '"' {
            quoted = !quoted;
        }
        character == separator && !quoted
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefer(lines: &[&str]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(PREFER, HeaderValue::from_str(line).unwrap());
        }
        Prefer::from_headers(&headers).wait.map(|wait| wait.as_secs())
    }

    #[test]
    fn a_wait_is_found_wherever_it_stands() {
        for (lines, wait) in [
            (&["wait=10"] as &[&str], Some(10)),
            (&["WAIT = 10"], Some(10)),
            (&["wait=\"10\""], Some(10)),
            (&["wait=0"], Some(0)),
            (&["respond-async, wait=100"], Some(100)),
            (&["respond-async; x=\"a,wait=5\", wait=7;foo=bar"], Some(7)),
            (&["foo=\"a\\\", wait=5\", wait=6"], Some(6)),
            (&["respond-async", "wait=3"], Some(3)),
            (&["wait=3, wait=4"], Some(3)),
            (&["wait=soon, wait=4"], Some(4)),
        ] {
            assert_eq!(prefer(lines), wait, "{lines:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_ignored() {
        for line in [
            "",
            ",",
            "wait",
            "wait=",
            "wait=-1",
            "wait=+1",
            "wait=1.5",
            "wait=99999999999999999999",
            "wait=\"1",
            "waits=1",
            "\"wait=1",
            "x; wait=1",
        ] {
            assert_eq!(prefer(&[line]), None, "{line}");
        }
    }

    #[test]
    fn a_wait_is_bounded() {
        let prefer = Prefer { wait: Some(Duration::from_secs(1_000_000)) };
        assert_eq!(prefer.wait_at_most(Duration::from_secs(10)), Some(Duration::from_secs(10)));
        assert_eq!(Prefer::default().wait_at_most(Duration::from_secs(10)), None);
    }

    proptest! {
        #[test]
        fn any_line_is_survived(line in "[ -~]*") {
            let _ = prefer(&[&line]);
        }
    }
}
