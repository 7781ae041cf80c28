//! Secrets that a service has to keep in its database and to read again, encrypted under a key that is not in there.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use runtime::credentials::{CredentialError, Credentials};
use zeroize::Zeroizing;

/// The system gave no randomness, or a primitive failed: nothing a caller could mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cryptographic operation failed")]
pub struct CryptoError;

impl From<aws_lc_rs::error::Unspecified> for CryptoError {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self
    }
}

/// What was sealed cannot be opened with this key, or was meant to be something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored secret cannot be decrypted: the key is not the one it was encrypted with")]
pub struct Unopenable;

/// The credential holds no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It is not there.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// It is not 32 bytes in base64url, as generated secrets are.
    #[error("the credential `{0}` must be 32 bytes in base64url without padding, as the mesh generates it")]
    Malformed(String),
    /// A primitive failed.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

/// Encrypts and decrypts with one key: AES-256-GCM with random nonces.
pub struct Sealer(RandomizedNonceKey);

impl Sealer {
    /// With this key.
    ///
    /// # Errors
    /// When the primitive fails.
    pub fn new(key: &[u8; 32]) -> Result<Self, CryptoError> {
        Ok(Self(RandomizedNonceKey::new(&AES_256_GCM, key)?))
    }

    /// With the key in a credential that the mesh generated.
    ///
    /// # Errors
    /// When it is missing or is none.
    pub fn load(credentials: &Credentials, name: &str) -> Result<Self, KeyError> {
        let malformed = || KeyError::Malformed(name.to_owned());
        let secret = credentials.read(name)?;
        let decoded = Zeroizing::new(URL_SAFE_NO_PAD.decode(secret.text()?).map_err(|_| malformed())?);
        Ok(Self::new(decoded.as_slice().try_into().map_err(|_| malformed())?)?)
    }

    /// Encrypts `plain` for storage under `name`, so that it cannot be put in another one's place: nonce, ciphertext, tag.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn seal(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let mut sealed = Zeroizing::new(plain.to_vec());
        let nonce = self.0.seal_in_place_append_tag(Aad::from(name), &mut *sealed)?;
        Ok([&nonce.as_ref()[..], &sealed].concat())
    }

    /// Decrypts what [`seal`](Self::seal) gave.
    ///
    /// # Errors
    /// When it was encrypted with another key, stored under another name, or changed.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unopenable> {
        let (nonce, sealed) = sealed.split_first_chunk::<12>().ok_or(Unopenable)?;
        let mut buffer = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.0.open_in_place(nonce, Aad::from(name), &mut buffer).map_err(|_| Unopenable)?;
        Ok(Zeroizing::new(plain.to_vec()))
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(byte: u8) -> Sealer {
        Sealer::new(&[byte; 32]).unwrap()
    }

    #[test]
    fn what_is_sealed_is_opened_by_its_key_under_its_name_unchanged() {
        let sealed = sealer(1).seal("a", b"secret").unwrap();
        assert_eq!(sealer(1).open("a", &sealed).unwrap().as_slice(), b"secret");
        assert_ne!(sealer(1).seal("a", b"secret").unwrap(), sealed, "each time another nonce");
        assert_eq!(sealer(2).open("a", &sealed), Err(Unopenable));
        assert_eq!(sealer(1).open("b", &sealed), Err(Unopenable));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(sealer(1).open("a", &changed), Err(Unopenable));
        }
        for length in 0..sealed.len() {
            assert_eq!(sealer(1).open("a", &sealed[..length]), Err(Unopenable));
        }
    }
}
