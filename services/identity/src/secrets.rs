//! Secrets this service makes or keeps: random tokens and their hashes, and the keys derived from the key-encryption key.

use std::fmt;

use auth::seal::Sealer;
pub use auth::seal::{CryptoError, Unopenable};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use runtime::credentials::{CredentialError, Credentials};
use zeroize::Zeroizing;

/// The credential that holds the key-encryption key: 32 bytes, base64.
const CREDENTIAL: &str = "key-encryption-key";

/// Something only its holder knows, 256 random bits as base64url: a code, a session, a refresh token.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

/// What is stored of a [`Token`]. It needs neither salt nor stretching: nobody can guess 256 bits.
pub type TokenHash = [u8; 32];

impl Token {
    /// A fresh one.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate() -> Result<Self, CryptoError> {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        aws_lc_rs::rand::fill(bytes.as_mut_slice())?;
        Ok(Self(Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()))))
    }

    /// The token itself, for its holder.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        hash(&self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// The hash under which a token somebody shows would be stored.
#[must_use]
pub fn hash(token: &str) -> TokenHash {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    out
}

/// The keys derived from the key-encryption key, one for each purpose.
pub struct MasterKeys {
    sealing: Sealer,
    forms: hmac::Key,
}

impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// The key-encryption key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// It is not there.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// It is not 32 bytes in base64.
    #[error("the credential `{CREDENTIAL}` must be 32 bytes in base64: make one with `openssl rand -base64 32`")]
    Malformed,
    /// A primitive failed.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

impl MasterKeys {
    /// Reads the credential `key-encryption-key`.
    ///
    /// # Errors
    /// When it is missing or not 32 bytes in base64.
    pub fn load(credentials: &Credentials) -> Result<Self, MasterKeyError> {
        let secret = credentials.read(CREDENTIAL)?;
        let decoded = Zeroizing::new(STANDARD.decode(secret.text()?).map_err(|_| MasterKeyError::Malformed)?);
        let key: &[u8; 32] = decoded.as_slice().try_into().map_err(|_| MasterKeyError::Malformed)?;
        Ok(Self::derive(key)?)
    }

    /// Derives the keys.
    ///
    /// # Errors
    /// When a primitive fails.
    pub fn derive(key: &[u8; 32]) -> Result<Self, CryptoError> {
        let root = Salt::new(HKDF_SHA256, b"berth identity").extract(key);
        let derived = |purpose: &[u8]| -> Result<Zeroizing<[u8; 32]>, CryptoError> {
            let mut out = Zeroizing::new([0; 32]);
            root.expand(&[purpose], Bytes32)?.fill(out.as_mut_slice())?;
            Ok(out)
        };
        let signing_keys = derived(b"signing keys")?;
        Ok(Self {
            sealing: Sealer::new(&signing_keys)?,
            forms: hmac::Key::new(hmac::HMAC_SHA256, derived(b"forms")?.as_slice()),
        })
    }

    /// What signing keys are kept with.
    #[must_use]
    pub fn sealer(&self) -> &Sealer {
        &self.sealing
    }

    /// What a form must carry to prove that it was made for the browser that holds `cookie`, and for `request` alone.
    #[must_use]
    pub fn form_proof(&self, cookie: &str, request: &str) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.forms, &bound(cookie, request)))
    }

    /// Whether it is that proof. Takes the same time whatever is wrong with it.
    #[must_use]
    pub fn is_form_proof(&self, proof: &str, cookie: &str, request: &str) -> bool {
        URL_SAFE_NO_PAD
            .decode(proof)
            .is_ok_and(|proof| hmac::verify(&self.forms, &bound(cookie, request), &proof).is_ok())
    }
}

/// Both texts, so that no two pairs look the same.
fn bound(cookie: &str, request: &str) -> Vec<u8> {
    [&cookie.len().to_be_bytes()[..], cookie.as_bytes(), request.as_bytes()].concat()
}

struct Bytes32;

impl KeyType for Bytes32 {
    fn len(&self) -> usize {
        32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(byte: u8) -> MasterKeys {
        MasterKeys::derive(&[byte; 32]).unwrap()
    }

    #[test]
    fn a_form_is_good_for_one_browser_and_one_request() {
        let proof = keys(1).form_proof("cookie", "request");
        assert!(keys(1).is_form_proof(&proof, "cookie", "request"));
        assert!(!keys(2).is_form_proof(&proof, "cookie", "request"));
        assert!(!keys(1).is_form_proof(&proof, "cookie2", "request"));
        assert!(!keys(1).is_form_proof(&proof, "cookier", "equest"));
        assert!(!keys(1).is_form_proof(&proof, "cookie", "request2"));
        for proof in ["", "x", "====", &proof[1..]] {
            assert!(!keys(1).is_form_proof(proof, "cookie", "request"), "{proof}");
        }
    }

    #[test]
    fn tokens_do_not_repeat_and_are_not_printed() {
        let (one, two) = (Token::generate().unwrap(), Token::generate().unwrap());
        assert_ne!(one.expose(), two.expose());
        assert_eq!(one.expose().len(), 43);
        assert_eq!(one.hash(), hash(one.expose()));
        assert_eq!(format!("{one:?}"), "[secret]");
    }

    #[test]
    fn a_key_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let credentials = Credentials::at(folder.path());
        let load = |content: &str| {
            std::fs::write(folder.path().join(CREDENTIAL), content).unwrap();
            MasterKeys::load(&credentials).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(load(&format!("{}\n", STANDARD.encode([7; 32]))), Ok(()));
        for content in ["", "not base64!", &STANDARD.encode([7; 31]), &STANDARD.encode([7; 33])] {
            assert!(load(content).unwrap_err().contains("openssl rand -base64 32"), "{content}");
        }
    }
}
