//! The compact JWS form (RFC 7515), its algorithms (RFC 7518, RFC 8037, RFC 9864) and key sets (RFC 7517), as strict as
//! RFC 8725 wants them. `jsonwebtoken` is wrapped here and nowhere else: it chooses the primitive, this module decides
//! what is put before it.
//!
//! Symmetric algorithms and `none` have no name here, so no configuration can allow them and no public key can be
//! mistaken for a shared secret.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::{MAX_TOKEN_BYTES, TokenError};

/// The most keys a key set may hold. A real issuer publishes two or three.
const MAX_KEYS: usize = 64;
/// RSA moduli shorter than 2048 bits are not usable (RFC 7518 §3.3).
const MIN_RSA_BYTES: usize = 256;

/// A signature algorithm by its registered name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are those of the IANA registry")]
pub enum Algorithm {
    EdDsa,
    Es256,
    Es384,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
}

impl Algorithm {
    const RSA: [Self; 6] = [Self::Rs256, Self::Rs384, Self::Rs512, Self::Ps256, Self::Ps384, Self::Ps512];

    /// The registered name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
        }
    }

    fn primitive(self) -> jsonwebtoken::Algorithm {
        use jsonwebtoken::Algorithm as J;
        match self {
            Self::EdDsa => J::EdDSA,
            Self::Es256 => J::ES256,
            Self::Es384 => J::ES384,
            Self::Rs256 => J::RS256,
            Self::Rs384 => J::RS384,
            Self::Rs512 => J::RS512,
            Self::Ps256 => J::PS256,
            Self::Ps384 => J::PS384,
            Self::Ps512 => J::PS512,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name is not that of an asymmetric signature algorithm supported here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a supported signature algorithm; use EdDSA, ES256, ES384, RS256, RS384, RS512, PS256, PS384 or PS512"
)]
pub struct UnknownAlgorithm(String);

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        Ok(match name {
            // RFC 9864 names the curve where RFC 8037 named the family; only Ed25519 is supported of it.
            "EdDSA" | "Ed25519" => Self::EdDsa,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            other => return Err(UnknownAlgorithm(other.to_owned())),
        })
    }
}

/// Why a private key or a key set cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not an Ed25519 private key in PKCS#8.
    #[error("not an Ed25519 private key in PKCS#8 form")]
    NotEd25519,
    /// A key could not be generated.
    #[error("no key could be generated")]
    Generate,
    /// Not a JSON object `{"keys": […]}`.
    #[error("not a JWK set: {0}")]
    NotAKeySet(String),
    /// Too many keys.
    #[error("a JWK set of more than {MAX_KEYS} keys is not accepted")]
    TooManyKeys,
}

/// An Ed25519 key that signs tokens. Its `kid` is the RFC 7638 thumbprint of its public half, so that two keys never
/// share one and nobody has to invent names.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: Jwk,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.public.kid).finish_non_exhaustive()
    }
}

/// The public half of a [`SigningKey`] as a JWK (RFC 8037 §2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    kty: String,
    crv: String,
    alg: String,
    #[serde(rename = "use")]
    usage: String,
    /// The key's name: its RFC 7638 thumbprint.
    pub kid: String,
    /// The public key, base64url.
    pub x: String,
}

impl Jwk {
    fn ed25519(public: &[u8]) -> Self {
        let x = URL_SAFE_NO_PAD.encode(public);
        // RFC 7638 §3: required members only, in lexicographic order, no white space.
        let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        let thumbprint = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, members.as_bytes());
        Self {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            alg: "EdDSA".to_owned(),
            usage: "sig".to_owned(),
            kid: URL_SAFE_NO_PAD.encode(thumbprint),
            x,
        }
    }
}

impl SigningKey {
    /// A fresh key and its PKCS#8 form for keeping.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate() -> Result<(Self, Zeroizing<Vec<u8>>), KeyError> {
        let document =
            Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).map_err(|_| KeyError::Generate)?;
        let der = Zeroizing::new(document.as_ref().to_vec());
        Ok((Self::from_pkcs8(&der)?, der))
    }

    /// Reads a PKCS#8 document (DER).
    ///
    /// # Errors
    /// When it holds anything but an Ed25519 key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8(der).map_err(|_| KeyError::NotEd25519)?;
        let public = Jwk::ed25519(pair.public_key().as_ref());
        Ok(Self { pair, public })
    }

    /// The key that these 32 random bytes are (RFC 8032 §5.1.5).
    ///
    /// # Errors
    /// When it is none.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::NotEd25519)?;
        let public = Jwk::ed25519(pair.public_key().as_ref());
        Ok(Self { pair, public })
    }

    /// Reads a PKCS#8 document in PEM.
    ///
    /// # Errors
    /// When it holds anything but an Ed25519 key.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| KeyError::NotEd25519)?;
        Self::from_pkcs8(der.secret_pkcs8_der())
    }

    /// The name under which the public half is published.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.public.kid
    }

    /// The public half, for a key set.
    #[must_use]
    pub fn jwk(&self) -> &Jwk {
        &self.public
    }

    /// Signs `claims` into a compact JWS whose header names its type, so that it cannot pass for another kind of token.
    ///
    /// # Errors
    /// When the claims do not serialize to JSON.
    pub fn sign(&self, typ: &str, claims: &impl Serialize) -> Result<String, serde_json::Error> {
        #[derive(Serialize)]
        struct Header<'a> {
            alg: &'a str,
            typ: &'a str,
            kid: &'a str,
        }
        let header = Header { alg: "EdDSA", typ, kid: self.kid() };
        let mut token = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&header)?);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(serde_json::to_vec(claims)?, &mut token);
        let signature = self.pair.sign(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        Ok(token)
    }
}

/// The claims of a compact JWS that [`SigningKey::sign`] made with one of these keys, as this type.
///
/// # Errors
/// When it did not. What the claims say, such as until when they hold, is for the caller to check.
pub fn verify(token: &str, typ: &str, keys: &KeySet) -> Result<Map<String, Value>, TokenError> {
    let token = Unverified::parse(token)?;
    token.expect(&[typ], &[Algorithm::EdDsa])?;
    token.verify(keys)
}

/// The public keys of one issuer.
#[derive(Clone, Default)]
pub struct KeySet {
    keys: Vec<PublicKey>,
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.kid)).finish()
    }
}

#[derive(Clone)]
struct PublicKey {
    kid: Option<String>,
    /// What it may verify. Never empty.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
    /// The public parameters, to tell whether a key was taken away.
    material: String,
}

/// A JWK as it may come from anywhere. Members that are of no use here (`x5c`, `x5t`, …) are not even read.
#[derive(Deserialize)]
struct RawJwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<serde::de::IgnoredAny>,
}

impl KeySet {
    /// Reads `{"keys": […]}`. Keys that cannot verify a signature here — of an unknown type or curve, too short, for
    /// encryption, symmetric, private — are passed over, as RFC 7517 §5 has it.
    ///
    /// # Errors
    /// When the document is not a JWK set, or holds more than 64 keys.
    pub fn parse(document: &[u8]) -> Result<Self, KeyError> {
        let value = serde_json::from_slice(document).map_err(|error| KeyError::NotAKeySet(error.to_string()))?;
        Self::from_value(value)
    }

    /// Like [`KeySet::parse`], from JSON that is parsed already.
    ///
    /// # Errors
    /// As [`KeySet::parse`].
    pub fn from_value(document: Value) -> Result<Self, KeyError> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        let document: Document =
            serde_json::from_value(document).map_err(|error| KeyError::NotAKeySet(error.to_string()))?;
        if document.keys.len() > MAX_KEYS {
            return Err(KeyError::TooManyKeys);
        }
        let keys = document
            .keys
            .into_iter()
            .filter_map(|key| serde_json::from_value::<RawJwk>(key).ok())
            .filter_map(PublicKey::from_raw)
            .collect();
        Ok(Self { keys })
    }

    /// Whether no key in it can verify anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether every key of this set is still in `newer`.
    pub(crate) fn is_kept_by(&self, newer: &Self) -> bool {
        self.keys
            .iter()
            .all(|key| newer.keys.iter().any(|other| other.kid == key.kid && other.material == key.material))
    }

    /// The keys a token with this header may have been signed with. Several when the issuer gives several keys one
    /// `kid`, which RFC 7517 §4.5 allows. A token without `kid` is taken when there is no doubt which key is meant.
    fn candidates(&self, kid: Option<&str>, algorithm: Algorithm) -> Vec<&PublicKey> {
        let fitting = self.keys.iter().filter(|key| key.algorithms.contains(&algorithm));
        match kid {
            Some(kid) => fitting.filter(|key| key.kid.as_deref() == Some(kid)).collect(),
            None => {
                let all: Vec<_> = fitting.collect();
                if all.len() == 1 { all } else { Vec::new() }
            }
        }
    }
}

impl PublicKey {
    fn from_raw(raw: RawJwk) -> Option<Self> {
        let for_signatures = raw.usage.as_deref().is_none_or(|usage| usage == "sig")
            && raw.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !for_signatures || raw.d.is_some() {
            return None;
        }
        let decoded = |part: &Option<String>| URL_SAFE_NO_PAD.decode(part.as_ref()?).ok();
        let (possible, key) = match (raw.kty.as_str(), raw.crv.as_deref()) {
            ("OKP", Some("Ed25519")) => {
                let x = decoded(&raw.x).filter(|x| x.len() == 32)?;
                (vec![Algorithm::EdDsa], DecodingKey::from_ed_der(&x))
            }
            ("EC", Some(curve)) => {
                let (algorithm, width) = match curve {
                    "P-256" => (Algorithm::Es256, 32),
                    "P-384" => (Algorithm::Es384, 48),
                    _ => return None,
                };
                let x = decoded(&raw.x).filter(|x| x.len() == width)?;
                let y = decoded(&raw.y).filter(|y| y.len() == width)?;
                // SEC 1 §2.3.3, uncompressed.
                let point = [&[4][..], &x, &y].concat();
                (vec![algorithm], DecodingKey::from_ec_der(&point))
            }
            ("RSA", _) => {
                let n = decoded(&raw.n)?;
                let significant = n.iter().skip_while(|byte| **byte == 0).count();
                let e = decoded(&raw.e).filter(|_| significant >= MIN_RSA_BYTES)?;
                (Algorithm::RSA.to_vec(), DecodingKey::from_rsa_raw_components(&n, &e))
            }
            _ => return None,
        };
        let algorithms = match raw.alg {
            None => possible,
            Some(name) => {
                let only = name.parse().ok()?;
                if !possible.contains(&only) {
                    return None;
                }
                vec![only]
            }
        };
        let material = [raw.kty, raw.x.or(raw.n).unwrap_or_default(), raw.y.or(raw.e).unwrap_or_default()].join(":");
        Some(Self { kid: raw.kid, algorithms, key, material })
    }
}

/// A token whose form is right and of which nothing is proved yet.
#[derive(Debug)]
pub(crate) struct Unverified<'a> {
    algorithm: Algorithm,
    typ: Option<String>,
    kid: Option<String>,
    claims: Map<String, Value>,
    signed: &'a str,
    signature: &'a str,
}

impl<'a> Unverified<'a> {
    /// Takes a compact JWS apart.
    pub(crate) fn parse(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLarge);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed("it must have three parts"))?;
        let (header, payload) = signed
            .split_once('.')
            .filter(|(_, payload)| !payload.contains('.'))
            .ok_or(TokenError::Malformed("it must have three parts"))?;
        let mut header = object(header)?;
        if header.contains_key("crit") {
            return Err(TokenError::CriticalExtension);
        }
        let algorithm = text(&mut header, "alg")?
            .ok_or(TokenError::Malformed("the header names no algorithm"))?
            .parse()
            .map_err(|_| TokenError::WrongAlgorithm)?;
        Ok(Self {
            algorithm,
            typ: text(&mut header, "typ")?,
            kid: text(&mut header, "kid")?,
            claims: object(payload)?,
            signed,
            signature,
        })
    }

    /// The claims, to choose the issuer by and for nothing else.
    pub(crate) fn claim(&self, name: &str) -> Option<&Value> {
        self.claims.get(name)
    }

    /// Checks the type and the algorithm against what the issuer uses.
    pub(crate) fn expect(&self, types: &[&str], algorithms: &[Algorithm]) -> Result<(), TokenError> {
        // Media types compare without case, and `application/` may be left out (RFC 7515 §4.1.9).
        let typ = self.typ.as_deref().unwrap_or_default().to_ascii_lowercase();
        let typ = typ.strip_prefix("application/").unwrap_or(&typ);
        if !types.iter().any(|accepted| accepted.eq_ignore_ascii_case(typ)) {
            return Err(TokenError::WrongType);
        }
        if !algorithms.contains(&self.algorithm) {
            return Err(TokenError::WrongAlgorithm);
        }
        Ok(())
    }

    /// Whether the set holds a key this token could have been signed with.
    pub(crate) fn has_key_in(&self, keys: &KeySet) -> bool {
        !keys.candidates(self.kid.as_deref(), self.algorithm).is_empty()
    }

    /// Verifies the signature and gives the claims.
    pub(crate) fn verify(self, keys: &KeySet) -> Result<Map<String, Value>, TokenError> {
        let candidates = keys.candidates(self.kid.as_deref(), self.algorithm);
        if candidates.is_empty() {
            return Err(TokenError::UnknownKey);
        }
        let genuine = candidates.into_iter().any(|candidate| {
            jsonwebtoken::crypto::verify(
                self.signature,
                self.signed.as_bytes(),
                &candidate.key,
                self.algorithm.primitive(),
            )
            .unwrap_or(false)
        });
        if genuine { Ok(self.claims) } else { Err(TokenError::BadSignature) }
    }
}

/// One claim of a token, read without verifying anything: for what the verifier of a token does not pass on, after it has
/// accepted the token. `None` when there is no such claim, or the token is none.
#[must_use]
pub fn unverified_claim(token: &str, name: &str) -> Option<Value> {
    Unverified::parse(token).ok()?.claims.remove(name)
}

fn text(header: &mut Map<String, Value>, name: &str) -> Result<Option<String>, TokenError> {
    match header.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(TokenError::Malformed("a header parameter is not a string")),
    }
}

/// Decodes one part of a token into a JSON object in which no name stands twice: of duplicate names, one parser takes the
/// first and another the last, and an attacker lives in between (RFC 7519 §4).
fn object(part: &str) -> Result<Map<String, Value>, TokenError> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed("a part is not base64url"))?;
    let mut deserializer = serde_json::Deserializer::from_slice(&json);
    let value = UniqueNames.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    match value {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(TokenError::Malformed("a part is not a JSON object")),
        Err(_) => Err(TokenError::Malformed("a part is not JSON, or names something twice")),
    }
}

/// Deserializes any JSON value, refusing duplicate names at every depth.
struct UniqueNames;

impl<'de> DeserializeSeed<'de> for UniqueNames {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueNames {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(UniqueNames)? {
            array.push(item);
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(UniqueNames)?;
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("duplicate name"));
            }
        }
        Ok(object.into())
    }
}
