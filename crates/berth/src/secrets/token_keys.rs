//! The Ed25519 keys that internal tokens are signed with, and their public halves as JWKs (RFC 8037).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::failure::Failure;

/// A new key, PKCS#8 in PEM.
pub(super) fn generate() -> Result<String, Failure> {
    Ok(KeyPair::generate_for(&PKCS_ED25519).map_err(Failure::other)?.serialize_pem())
}

/// The public half of a key, with its RFC 7638 thumbprint as `kid`.
pub(super) fn public_jwk(key_pem: &str) -> Result<Value, rcgen::Error> {
    let key = KeyPair::from_pem(key_pem)?;
    let x = URL_SAFE_NO_PAD.encode(key.der_bytes());
    // The members of the thumbprint, in the order RFC 7638 wants them.
    let kid = Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#));
    Ok(
        json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": URL_SAFE_NO_PAD.encode(kid), "x": x }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thumbprint_is_that_of_rfc_8037_appendix_a_3() {
        let key = "-----BEGIN PRIVATE KEY-----\n\
                   MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
                   -----END PRIVATE KEY-----\n";
        let jwk = public_jwk(key).unwrap();
        assert_eq!(jwk["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(jwk["kid"], "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn a_generated_key_reads_back() {
        let key = generate().unwrap();
        assert!(public_jwk(&key).unwrap()["x"].is_string());
    }
}
