//! Proof Key for Code Exchange (RFC 7636), method S256 alone: `plain` protects against nobody who can read the request.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What a client shows first: the hash of what it will show later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge([u8; 32]);

impl Challenge {
    /// Reads the `code_challenge` parameter: 43 characters of base64url.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::from_bytes(&URL_SAFE_NO_PAD.decode(text).ok()?)
    }

    /// As it is stored.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    /// For storing.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this `code_verifier` is the one that was meant. It must have 43 to 128 unreserved characters (§4.1).
    #[must_use]
    pub fn is_met_by(&self, verifier: &str) -> bool {
        let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        (43..=128).contains(&verifier.len())
            && verifier.bytes().all(unreserved)
            && aws_lc_rs::constant_time::verify_slices_are_equal(digest(&SHA256, verifier.as_bytes()).as_ref(), &self.0)
                .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 7636, appendix B.
        let challenge = Challenge::parse("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM").unwrap();
        assert!(challenge.is_met_by("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"));
        assert!(!challenge.is_met_by("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"));
    }

    #[test]
    fn only_a_hash_is_a_challenge() {
        for text in [
            "",
            "abc",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM=",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw+cM",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cMA",
        ] {
            assert_eq!(Challenge::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_verifier_has_its_length_and_its_characters() {
        for verifier in
            ["a".repeat(42), "a".repeat(129), format!("{} ", "a".repeat(42)), format!("{}ä", "a".repeat(42))]
        {
            let challenge = Challenge::from_bytes(digest(&SHA256, verifier.as_bytes()).as_ref()).unwrap();
            assert!(!challenge.is_met_by(&verifier), "{verifier}");
        }
    }

    proptest! {
        #[test]
        fn each_challenge_is_met_by_its_own_verifier_alone(verifier in "[A-Za-z0-9._~-]{43,128}", other in "[A-Za-z0-9._~-]{43,128}") {
            let hash = digest(&SHA256, verifier.as_bytes());
            let challenge = Challenge::parse(&URL_SAFE_NO_PAD.encode(hash)).unwrap();
            prop_assert!(challenge.is_met_by(&verifier));
            prop_assert_eq!(challenge.is_met_by(&other), other == verifier);
        }
    }
}
