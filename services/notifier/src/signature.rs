//! Secrets of subscriptions and the signatures made with them, as Standard Webhooks has them
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use zeroize::Zeroizing;

/// What the text of a secret begins with.
const PREFIX: &str = "whsec_";

/// The key a subscriber verifies messages with: 32 random bytes.
pub struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    /// A new one.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate() -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut bytes = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(bytes.as_mut_slice())?;
        Ok(Self(bytes))
    }

    /// One that was stored.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|bytes| Self(Zeroizing::new(bytes)))
    }

    /// Its bytes, to be stored encrypted.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// Its text, for its subscriber alone: `whsec_…`.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{PREFIX}{}", STANDARD.encode(self.expose())))
    }

    /// The `webhook-signature` of a message: `v1,` and the HMAC-SHA-256 of id, time and body in base64.
    #[must_use]
    pub fn sign(&self, id: &str, at: Timestamp, body: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.expose());
        let tag = hmac::sign(&key, format!("{id}.{}.{body}", at.as_second()).as_bytes());
        format!("v1,{}", STANDARD.encode(tag))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with another implementation: `printf 'msg_1.1614265330.{"test": 2432232314}' | openssl dgst -sha256 -hmac
    /// 0123456789abcdef0123456789abcdef -binary | base64`.
    #[test]
    fn a_message_is_signed_as_the_specification_says() {
        let secret = Secret::from_bytes(b"0123456789abcdef0123456789abcdef").unwrap();
        let at = Timestamp::from_second(1_614_265_330).unwrap();
        assert_eq!(
            secret.sign("msg_1", at, r#"{"test": 2432232314}"#),
            "v1,aTF4+pE6A/FmvKM0YSVBBUfRhLIlBiaBUR+EjGls6Mc="
        );
        assert_eq!(*secret.text(), "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    }

    #[test]
    fn secrets_do_not_repeat_and_are_not_printed() {
        let (one, two) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        assert_ne!(one.expose(), two.expose());
        assert_eq!(format!("{one:?}"), "[secret]");
        assert!(Secret::from_bytes(&[0; 31]).is_none());
    }
}
