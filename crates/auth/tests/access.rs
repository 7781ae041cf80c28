//! Access tokens: what is taken, what is refused, and where the keys come from.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, unreachable_pub)]

mod common;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use auth::access::{FetchError, Issuer, JwksSource, TokenTypes, Verifier};
use auth::jws::Algorithm;
use auth::{Kind, TokenError};
use bytes::Bytes;
use common::{Key, b64, merged};
use futures_util::FutureExt;
use jiff::Timestamp;
use proptest::prelude::*;
use runtime::clock::Clock;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const ISSUER: &str = "https://issuer.test";
const AUDIENCE: &str = "https://shop.test";
const NOW: i64 = 1_800_000_000;

/// An issuer's JWK set, as it is at the moment; `None` while the issuer is away.
#[derive(Clone, Default)]
struct Published {
    document: Arc<Mutex<Option<Value>>>,
    fetches: Arc<AtomicUsize>,
}

impl Published {
    fn keys(keys: impl IntoIterator<Item = Value>) -> Self {
        let published = Self::default();
        published.publish(keys);
        published
    }

    fn publish(&self, keys: impl IntoIterator<Item = Value>) {
        let keys: Vec<Value> = keys.into_iter().collect();
        *self.document.lock().unwrap() = Some(json!({ "keys": keys }));
    }

    fn go_away(&self) {
        *self.document.lock().unwrap() = None;
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

impl JwksSource for Published {
    fn fetch(&self) -> Pin<Box<dyn Future<Output = Result<Bytes, FetchError>> + Send + '_>> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let document = self.document.lock().unwrap().clone();
        async move {
            // A fetch takes a while, so that others find it under way.
            tokio::time::sleep(Duration::from_millis(100)).await;
            match document {
                Some(document) => Ok(document.to_string().into()),
                None => Err("away".into()),
            }
        }
        .boxed()
    }
}

fn issuer(algorithms: &[Algorithm]) -> Issuer {
    Issuer {
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        algorithms: algorithms.to_vec(),
        types: TokenTypes::AtJwt,
        roles_claim: "roles".to_owned(),
    }
}

fn verifier(issuer: Issuer, published: &Published) -> (Verifier, Clock) {
    let clock = Clock::manual(Timestamp::from_second(NOW).unwrap());
    let source: Box<dyn JwksSource> = Box::new(published.clone());
    (Verifier::new([(issuer, source)], clock.clone()), clock)
}

fn header() -> Value {
    json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": "k" })
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "7a2c", "client_id": "shop-cli", "jti": "1",
        "iat": NOW, "nbf": NOW, "exp": NOW + 600,
        "scope": "openid shop", "roles": ["customer"], "preferred_username": "alice",
    })
}

#[tokio::test(start_paused = true)]
async fn a_genuine_token_gives_its_principal() {
    let key = Key::ed25519();
    let (verifier, _) = verifier(issuer(&[Algorithm::EdDsa]), &Published::keys([key.named("k")]));
    let principal = verifier.verify(&key.token(&header(), &claims())).await.unwrap();
    assert_eq!(principal.kind, Kind::User);
    assert_eq!(principal.subject, "7a2c");
    assert_eq!(principal.name.as_deref(), Some("alice"));
    assert!(principal.has_role("customer"));
    assert_eq!(principal.scopes.iter().collect::<Vec<_>>(), ["openid", "shop"]);
    assert!(principal.actors.is_empty());
}

#[tokio::test(start_paused = true)]
async fn every_algorithm_is_verified_when_its_issuer_uses_it_and_refused_when_not() {
    let (ed, p256, p384, rsa) = (Key::ed25519(), Key::p256(), Key::p384(), Key::rsa());
    let published = Published::keys([&ed, &p256, &p384, &rsa].map(|key| key.named("k")));
    for (name, key) in [
        ("EdDSA", &ed),
        ("Ed25519", &ed),
        ("ES256", &p256),
        ("ES384", &p384),
        ("RS256", &rsa),
        ("RS384", &rsa),
        ("RS512", &rsa),
        ("PS256", &rsa),
        ("PS384", &rsa),
        ("PS512", &rsa),
    ] {
        let algorithm: Algorithm = name.parse().unwrap();
        let token = key.token(&merged(header(), json!({ "alg": name })), &claims());
        let (uses_it, _) = verifier(issuer(&[algorithm]), &published);
        assert!(uses_it.verify(&token).await.is_ok(), "{name}");

        let others: Vec<Algorithm> = [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256, Algorithm::Ps256]
            .into_iter()
            .filter(|other| *other != algorithm)
            .collect();
        let (does_not, _) = verifier(issuer(&others), &published);
        assert_eq!(does_not.verify(&token).await, Err(TokenError::WrongAlgorithm), "{name}");
    }
}

/// Every way to be wrong that the literature knows, each with the one error it must give.
#[tokio::test(start_paused = true)]
async fn attacks_are_refused() {
    use TokenError as E;

    let key = Key::ed25519();
    let rsa = Key::rsa();
    let stranger = Key::ed25519();
    let published = Published::keys([key.named("k"), rsa.named("rsa")]);
    let (verifier, _) = verifier(issuer(&[Algorithm::EdDsa, Algorithm::Rs256]), &published);
    let genuine = key.token(&header(), &claims());
    assert!(verifier.verify(&genuine).await.is_ok());

    let with_header = |change: Value| key.token(&merged(header(), change), &claims());
    let with_claims = |change: Value| key.token(&header(), &merged(claims(), change));
    let parts: Vec<&str> = genuine.split('.').collect();
    let (head, body, signature) = (parts[0], parts[1], parts[2]);
    let unsigned = |alg: &str| {
        let header = json!({ "alg": alg, "typ": "at+jwt", "kid": "k" }).to_string();
        format!("{}.{body}.", b64(header))
    };
    let hmac = |secret: &[u8], kid: &str| {
        let header = json!({ "alg": "HS256", "typ": "at+jwt", "kid": kid }).to_string();
        let signed = format!("{}.{body}", b64(header));
        let secret = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
        let tag = aws_lc_rs::hmac::sign(&secret, signed.as_bytes());
        format!("{signed}.{}", b64(tag))
    };
    let public = key.jwk()["x"].as_str().unwrap().to_owned();
    let long = "x".repeat(9000);

    let table: Vec<(&str, String, E)> = vec![
        // No signature at all.
        ("alg none", unsigned("none"), E::WrongAlgorithm),
        ("alg nOnE", unsigned("nOnE"), E::WrongAlgorithm),
        ("alg empty", unsigned(""), E::WrongAlgorithm),
        ("signature cut off", format!("{head}.{body}."), E::BadSignature),
        (
            "signature of another token",
            format!("{head}.{}.{signature}", b64(merged(claims(), json!({ "roles": ["admin"] })).to_string())),
            E::BadSignature,
        ),
        // The public key as a shared secret.
        ("HS256 with the public key's text", hmac(public.as_bytes(), "k"), E::WrongAlgorithm),
        ("HS256 with the public JWK", hmac(key.named("k").to_string().as_bytes(), "k"), E::WrongAlgorithm),
        ("HS256 with nothing", hmac(b"", "k"), E::WrongAlgorithm),
        // Keys that are not the issuer's.
        ("a stranger's key under a known name", stranger.token(&header(), &claims()), E::BadSignature),
        (
            "a stranger's key in the header",
            stranger.token(&merged(header(), json!({ "jwk": stranger.jwk() })), &claims()),
            E::BadSignature,
        ),
        (
            "a stranger's key by reference",
            stranger.token(
                &merged(header(), json!({ "jku": "https://evil.test/jwks", "x5u": "https://evil.test/x" })),
                &claims(),
            ),
            E::BadSignature,
        ),
        ("a key of the issuer of another type", with_header(json!({ "kid": "rsa" })), E::UnknownKey),
        ("an algorithm of another key", with_header(json!({ "alg": "RS256" })), E::UnknownKey),
        (
            "PS256 where RS256 is used",
            rsa.token(&merged(header(), json!({ "alg": "PS256", "kid": "rsa" })), &claims()),
            E::WrongAlgorithm,
        ),
        // Names of keys that try to be something else.
        ("kid of a file", with_header(json!({ "kid": "../../dev/null" })), E::UnknownKey),
        ("kid of a query", with_header(json!({ "kid": "k' OR '1'='1" })), E::UnknownKey),
        ("kid with a NUL", with_header(json!({ "kid": "k\u{0}" })), E::UnknownKey),
        ("kid in capitals", with_header(json!({ "kid": "K" })), E::UnknownKey),
        ("kid empty", with_header(json!({ "kid": "" })), E::UnknownKey),
        ("kid a number", with_header(json!({ "kid": 7 })), E::Malformed("a header parameter is not a string")),
        // Tokens of another kind.
        ("an ID token", with_header(json!({ "typ": "JWT" })), E::WrongType),
        ("a transaction token", with_header(json!({ "typ": "txntoken+jwt" })), E::WrongType),
        ("no type", with_header(json!({ "typ": null })), E::WrongType),
        ("a type that merely starts right", with_header(json!({ "typ": "at+jwt2" })), E::WrongType),
        ("critical extension", with_header(json!({ "crit": ["exp"] })), E::CriticalExtension),
        ("critical extension, empty", with_header(json!({ "crit": [] })), E::CriticalExtension),
        ("unencoded payload", with_header(json!({ "crit": ["b64"], "b64": false })), E::CriticalExtension),
        // Claims.
        ("another issuer", with_claims(json!({ "iss": "https://evil.test" })), E::UnknownIssuer),
        ("issuer with a slash more", with_claims(json!({ "iss": format!("{ISSUER}/") })), E::UnknownIssuer),
        ("no issuer", with_claims(json!({ "iss": null })), E::MissingClaim("iss")),
        ("issuers in a list", with_claims(json!({ "iss": [ISSUER] })), E::InvalidClaim("iss")),
        ("another audience", with_claims(json!({ "aud": "https://other.test" })), E::WrongAudience),
        ("audiences without ours", with_claims(json!({ "aud": ["a", "b"] })), E::WrongAudience),
        ("no audience at all", with_claims(json!({ "aud": [] })), E::WrongAudience),
        ("no audience claim", with_claims(json!({ "aud": null })), E::MissingClaim("aud")),
        ("audience an object", with_claims(json!({ "aud": { "x": AUDIENCE } })), E::InvalidClaim("aud")),
        ("no subject", with_claims(json!({ "sub": null })), E::MissingClaim("sub")),
        ("empty subject", with_claims(json!({ "sub": "" })), E::InvalidClaim("sub")),
        ("subject a number", with_claims(json!({ "sub": 7 })), E::InvalidClaim("sub")),
        ("subject a workload", with_claims(json!({ "sub": "spiffe://shop.test/gateway" })), E::InvalidClaim("sub")),
        ("no expiry", with_claims(json!({ "exp": null })), E::MissingClaim("exp")),
        ("expired", with_claims(json!({ "exp": NOW - 5 })), E::Expired),
        ("expired long ago", with_claims(json!({ "exp": -1 })), E::Expired),
        ("expiry a text", with_claims(json!({ "exp": "2099-01-01" })), E::InvalidClaim("exp")),
        ("expiry beyond time", with_claims(json!({ "exp": 1e300 })), E::InvalidClaim("exp")),
        ("expiry beyond i64", with_claims(json!({ "exp": u64::MAX })), E::InvalidClaim("exp")),
        ("not yet valid", with_claims(json!({ "nbf": NOW + 6 })), E::NotYetValid),
        ("issued in the future", with_claims(json!({ "iat": NOW + 6 })), E::NotYetValid),
        ("not before a text", with_claims(json!({ "nbf": "now" })), E::InvalidClaim("nbf")),
        ("roles an object", with_claims(json!({ "roles": { "admin": true } })), E::InvalidClaim("roles")),
        ("roles of numbers", with_claims(json!({ "roles": [1] })), E::InvalidClaim("roles")),
        ("scope a list", with_claims(json!({ "scope": ["shop"] })), E::InvalidClaim("scope")),
        ("client a list", with_claims(json!({ "client_id": ["a"] })), E::InvalidClaim("client_id")),
        // Two readings of one token.
        (
            "duplicate claim",
            key.raw("EdDSA", &header().to_string(), &format!(r#"{{"sub":"evil",{}"#, &claims().to_string()[1..])),
            E::Malformed("a part is not JSON, or names something twice"),
        ),
        (
            "duplicate claim, nested",
            key.raw(
                "EdDSA",
                &header().to_string(),
                &format!(r#"{{"x":{{"a":1,"a":2}},{}"#, &claims().to_string()[1..]),
            ),
            E::Malformed("a part is not JSON, or names something twice"),
        ),
        (
            "duplicate claim, escaped",
            key.raw("EdDSA", &header().to_string(), &format!(r#"{{"\u0073ub":"evil",{}"#, &claims().to_string()[1..])),
            E::Malformed("a part is not JSON, or names something twice"),
        ),
        (
            "duplicate header",
            key.raw("EdDSA", &format!(r#"{{"alg":"none",{}"#, &header().to_string()[1..]), &claims().to_string()),
            E::Malformed("a part is not JSON, or names something twice"),
        ),
        (
            "something after the claims",
            key.raw("EdDSA", &header().to_string(), &format!("{}{{}}", claims())),
            E::Malformed("a part is not JSON, or names something twice"),
        ),
        // Forms.
        ("oversized", with_claims(json!({ "x": long })), E::TooLarge),
        ("nothing", String::new(), E::Malformed("it must have three parts")),
        ("dots", "..".to_owned(), E::Malformed("a part is not JSON, or names something twice")),
        ("two parts", format!("{head}.{body}"), E::Malformed("it must have three parts")),
        ("a dot more at the end", format!("{genuine}."), E::Malformed("it must have three parts")),
        ("a dot more in front", format!(".{genuine}"), E::Malformed("it must have three parts")),
        (
            "five parts, as encrypted ones have",
            format!("{head}.{body}.{signature}.a.b"),
            E::Malformed("it must have three parts"),
        ),
        ("a space in front", format!(" {genuine}"), E::Malformed("a part is not base64url")),
        ("a line end", format!("{genuine}\n"), E::BadSignature),
        ("padding", format!("{head}=.{body}.{signature}"), E::Malformed("a part is not base64url")),
        (
            "header not an object",
            key.raw("EdDSA", "[]", &claims().to_string()),
            E::Malformed("a part is not a JSON object"),
        ),
        (
            "claims not an object",
            key.raw("EdDSA", &header().to_string(), "7"),
            E::Malformed("a part is not a JSON object"),
        ),
        (
            "claims not UTF-8",
            format!("{head}.{}.{signature}", b64([0xff, 0xfe])),
            E::Malformed("a part is not JSON, or names something twice"),
        ),
        (
            "claims nested without end",
            key.raw("EdDSA", &header().to_string(), &"[".repeat(3000)),
            E::Malformed("a part is not JSON, or names something twice"),
        ),
        ("no algorithm", with_header(json!({ "alg": null })), E::Malformed("the header names no algorithm")),
        (
            "algorithm a list",
            with_header(json!({ "alg": ["EdDSA"] })),
            E::Malformed("a header parameter is not a string"),
        ),
    ];
    for (name, token, expected) in table {
        assert_eq!(verifier.verify(&token).await, Err(expected), "{name}");
        // A second time: nothing of a refused token may have been remembered.
        assert_eq!(verifier.verify(&token).await, Err(expected), "{name}, again");
    }
    assert!(verifier.verify(&genuine).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn forms_an_honest_issuer_may_choose_are_taken() {
    let key = Key::ed25519();
    let (verifier, _) = verifier(issuer(&[Algorithm::EdDsa]), &Published::keys([key.named("k")]));
    for (name, header_change, claims_change) in [
        ("long type", json!({ "typ": "application/at+jwt" }), json!({})),
        ("type in capitals", json!({ "typ": "AT+JWT" }), json!({})),
        ("no kid, and only one key it could be", json!({ "kid": null }), json!({})),
        ("several audiences", json!({}), json!({ "aud": ["a", AUDIENCE] })),
        ("fraction of a second", json!({}), json!({ "exp": NOW as f64 + 0.5, "iat": NOW as f64 - 0.5 })),
        ("at the edge of the leeway", json!({}), json!({ "exp": NOW - 4 })),
        ("a clock a little ahead", json!({}), json!({ "nbf": NOW + 5, "iat": NOW + 5 })),
        ("no nbf, iat, scope, roles", json!({}), json!({ "nbf": null, "iat": null, "scope": null, "roles": null })),
        ("one role, not in a list", json!({}), json!({ "roles": "clerk" })),
        ("claims nobody knows", json!({}), json!({ "x": { "y": [1, 2.5, true, { "z": "w" }] } })),
    ] {
        let token = key.token(&merged(header(), header_change), &merged(claims(), claims_change));
        assert!(verifier.verify(&token).await.is_ok(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_writes_jwt_is_taken_by_configuration_alone() {
    let key = Key::ed25519();
    let published = Published::keys([key.named("k")]);
    let lenient = Issuer {
        types: TokenTypes::AlsoJwt,
        roles_claim: "/realm_access/roles".to_owned(),
        ..issuer(&[Algorithm::EdDsa])
    };
    let (verifier, _) = verifier(lenient, &published);
    let claims = merged(claims(), json!({ "roles": null, "realm_access": { "roles": ["clerk"] } }));
    for typ in [json!("JWT"), json!(null), json!("at+jwt")] {
        let token = key.token(&merged(header(), json!({ "typ": typ })), &claims);
        let principal = verifier.verify(&token).await.unwrap();
        assert!(principal.has_role("clerk"));
    }
    let token = key.token(&merged(header(), json!({ "typ": "logout+jwt" })), &claims);
    assert_eq!(verifier.verify(&token).await, Err(TokenError::WrongType));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_acts_for_itself_is_a_service() {
    let key = Key::ed25519();
    let (verifier, _) = verifier(issuer(&[Algorithm::EdDsa]), &Published::keys([key.named("k")]));
    let claims = merged(claims(), json!({ "sub": "reporting", "client_id": "reporting" }));
    let principal = verifier.verify(&key.token(&header(), &claims)).await.unwrap();
    assert_eq!(principal.kind, Kind::Service);
}

#[tokio::test(start_paused = true)]
async fn a_verified_token_is_remembered_until_it_expires_and_not_longer() {
    let key = Key::ed25519();
    let published = Published::keys([key.named("k")]);
    let (verifier, clock) = verifier(issuer(&[Algorithm::EdDsa]), &published);
    let token = key.token(&header(), &claims());
    let first = verifier.verify(&token).await.unwrap();
    clock.advance(Duration::from_secs(599));
    let second = verifier.verify(&token).await.unwrap();
    assert!(Arc::ptr_eq(&first, &second), "it was verified again");
    clock.advance(Duration::from_secs(6));
    assert_eq!(verifier.verify(&token).await, Err(TokenError::Expired));
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_not_for_this_are_passed_over() {
    let (key, other) = (Key::ed25519(), Key::ed25519());
    let rsa = Key::rsa();
    let ed = |change: Value| merged(other.named("other"), change);
    let oct = json!({ "kty": "oct", "kid": "other", "k": b64("secret") });
    for (name, unusable) in [
        ("for encryption", ed(json!({ "use": "enc" }))),
        ("not for verifying", ed(json!({ "key_ops": ["sign"] }))),
        ("of another algorithm", ed(json!({ "alg": "ES256" }))),
        ("of an unknown algorithm", ed(json!({ "alg": "EdDSA2" }))),
        ("of an unknown curve", ed(json!({ "crv": "Ed448" }))),
        ("of an unknown type", ed(json!({ "kty": "AKP" }))),
        ("private", ed(json!({ "d": b64([1; 32]) }))),
        ("of the wrong length", ed(json!({ "x": b64([1; 31]) }))),
        ("without its parameter", ed(json!({ "x": null }))),
        ("symmetric", oct),
        ("no key at all", json!("other")),
        ("a kid that is no text", ed(json!({ "kid": 7 }))),
        ("short RSA", json!({ "kty": "RSA", "kid": "other", "n": b64([0xc1; 128]), "e": "AQAB" })),
        (
            "short RSA with zeros in front",
            json!({ "kty": "RSA", "kid": "other", "n": b64([[0; 128], [0xc1; 128]].concat()), "e": "AQAB" }),
        ),
        ("RSA for encryption", merged(rsa.named("other"), json!({ "alg": "RSA-OAEP" }))),
    ] {
        let published = Published::keys([unusable, key.named("k")]);
        let (verifier, _) = verifier(issuer(&[Algorithm::EdDsa, Algorithm::Rs256]), &published);
        let good = key.token(&header(), &claims());
        assert!(verifier.verify(&good).await.is_ok(), "{name}: the usable key beside it");
        let bad = other.token(&merged(header(), json!({ "kid": "other" })), &claims());
        assert_eq!(verifier.verify(&bad).await, Err(TokenError::UnknownKey), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_that_share_a_name_are_all_tried() {
    let (one, two) = (Key::ed25519(), Key::ed25519());
    let published = Published::keys([one.named("k"), two.named("k")]);
    let (verifier, _) = verifier(issuer(&[Algorithm::EdDsa]), &published);
    assert!(verifier.verify(&one.token(&header(), &claims())).await.is_ok());
    assert!(verifier.verify(&two.token(&header(), &claims())).await.is_ok());
    let nameless = one.token(&merged(header(), json!({ "kid": null })), &claims());
    assert_eq!(verifier.verify(&nameless).await, Err(TokenError::UnknownKey), "in doubt which key is meant");
}

#[tokio::test(start_paused = true)]
async fn a_key_set_without_end_is_refused() {
    let key = Key::ed25519();
    let published = Published::keys((0..65).map(|n| key.named(&n.to_string())));
    let (verifier, _) = verifier(issuer(&[Algorithm::EdDsa]), &published);
    assert!(verifier.refresh().await.is_err());
    assert!(!verifier.is_ready());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_is_looked_for_once_a_second_however_many_ask() {
    let (old, new) = (Key::ed25519(), Key::ed25519());
    let published = Published::keys([old.named("old")]);
    let (verifier, _) = verifier(issuer(&[Algorithm::EdDsa]), &published);
    verifier.refresh().await.unwrap();
    assert_eq!(published.fetches(), 1);

    let token = |key: &Key, kid: &str, jti: usize| {
        key.token(&merged(header(), json!({ "kid": kid })), &merged(claims(), json!({ "jti": jti.to_string() })))
    };
    // Within the second nothing is fetched.
    assert_eq!(verifier.verify(&token(&new, "new", 0)).await, Err(TokenError::UnknownKey));
    assert_eq!(published.fetches(), 1);

    tokio::time::advance(Duration::from_secs(1)).await;
    let tokens: Vec<String> = (0..50).map(|n| token(&new, &format!("made-up-{n}"), n)).collect();
    let outcomes = futures_util::future::join_all(tokens.iter().map(|token| verifier.verify(token))).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Err(TokenError::UnknownKey)));
    assert_eq!(published.fetches(), 2, "fifty unknown keys at once are one fetch");

    tokio::time::advance(Duration::from_secs(1)).await;
    published.publish([old.named("old"), new.named("new")]);
    let waiting: Vec<String> = (0..20).map(|n| token(&new, "new", n)).collect();
    let outcomes = futures_util::future::join_all(waiting.iter().map(|token| verifier.verify(token))).await;
    assert!(outcomes.iter().all(Result::is_ok), "all that waited see the new key");
    assert_eq!(published.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn while_the_issuer_is_away_its_old_keys_serve() {
    let key = Key::ed25519();
    let published = Published::keys([key.named("k")]);
    let (verifier, _) = verifier(issuer(&[Algorithm::EdDsa]), &published);
    verifier.refresh().await.unwrap();
    published.go_away();
    assert!(verifier.refresh().await.is_err());
    assert!(verifier.verify(&key.token(&header(), &claims())).await.is_ok());
    let unknown = key.token(&merged(header(), json!({ "kid": "x" })), &claims());
    assert_eq!(verifier.verify(&unknown).await, Err(TokenError::UnknownKey));
    // An issuer that answers with nothing usable is as good as away.
    published.publish([]);
    assert!(verifier.refresh().await.is_err());
    assert!(verifier.verify(&key.token(&header(), &claims())).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn without_keys_it_says_try_again_and_not_go_away() {
    let key = Key::ed25519();
    let published = Published::default();
    let (verifier, _) = verifier(issuer(&[Algorithm::EdDsa]), &published);
    let token = key.token(&header(), &claims());
    assert_eq!(verifier.verify(&token).await, Err(TokenError::KeysUnavailable));
    published.publish([key.named("k")]);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(verifier.verify(&token).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_taken_away_takes_its_tokens_with_it() {
    let (stolen, next) = (Key::ed25519(), Key::ed25519());
    let published = Published::keys([stolen.named("k")]);
    let (verifier, _) = verifier(issuer(&[Algorithm::EdDsa]), &published);
    let token = stolen.token(&header(), &claims());
    assert!(verifier.verify(&token).await.is_ok());
    published.publish([next.named("next")]);
    verifier.refresh().await.unwrap();
    assert_eq!(verifier.verify(&token).await, Err(TokenError::UnknownKey));
    // The same name with another key behind it is another key.
    published.publish([next.named("k")]);
    verifier.refresh().await.unwrap();
    assert_eq!(verifier.verify(&token).await, Err(TokenError::BadSignature));
}

#[tokio::test(start_paused = true)]
async fn keys_are_refreshed_in_the_background_and_sooner_after_a_failure() {
    let key = Key::ed25519();
    let published = Published::default();
    let (verifier, _) = verifier(issuer(&[Algorithm::EdDsa]), &published);
    let verifier = Arc::new(verifier);
    let stop = CancellationToken::new();
    let period = Duration::from_secs(300);
    let task = tokio::spawn({
        let (verifier, stop) = (verifier.clone(), stop.clone());
        async move { verifier.run(period, stop).await }
    });
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(published.fetches() >= 4, "{} fetches in two minutes of failure", published.fetches());
    assert!(!verifier.is_ready());

    published.publish([key.named("k")]);
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert!(verifier.is_ready());
    let fetches = published.fetches();
    tokio::time::sleep(period).await;
    assert_eq!(published.fetches(), fetches + 1);

    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn each_issuer_is_held_to_its_own_keys_and_algorithms() {
    let (one, two) = (Key::ed25519(), Key::p256());
    let source = |key: &Key| -> Box<dyn JwksSource> { Box::new(Published::keys([key.named("k")])) };
    let second = Issuer { issuer: "https://two.test".to_owned(), ..issuer(&[Algorithm::Es256]) };
    let clock = Clock::manual(Timestamp::from_second(NOW).unwrap());
    let verifier = Verifier::new([(issuer(&[Algorithm::EdDsa]), source(&one)), (second, source(&two))], clock);

    let es256 = merged(header(), json!({ "alg": "ES256" }));
    let from_two = merged(claims(), json!({ "iss": "https://two.test" }));
    assert!(verifier.verify(&one.token(&header(), &claims())).await.is_ok());
    assert!(verifier.verify(&two.token(&es256, &from_two)).await.is_ok());
    assert_eq!(verifier.verify(&one.token(&header(), &from_two)).await, Err(TokenError::WrongAlgorithm));
    assert_eq!(verifier.verify(&two.token(&es256, &claims())).await, Err(TokenError::WrongAlgorithm));
}

fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_refused_without_a_panic(token in "\\PC{0,200}|[A-Za-z0-9_.-]{0,300}") {
        let (verifier, _) = verifier(issuer(&[Algorithm::EdDsa]), &Published::keys([]));
        prop_assert!(now_or_never(verifier.verify(&token)).is_err());
    }

    #[test]
    fn a_token_changed_anywhere_is_refused(position: prop::sample::Index, replacement in "[A-Za-z0-9_.=-]") {
        let key = Key::ed25519();
        let (verifier, _) = verifier(issuer(&[Algorithm::EdDsa]), &Published::keys([key.named("k")]));
        let token = key.token(&header(), &claims());
        let at = position.index(token.len());
        let mut changed = token.clone();
        changed.replace_range(at..=at, &replacement);
        let outcome = now_or_never(verifier.verify(&changed));
        prop_assert_eq!(outcome.is_ok(), changed == token);
    }

    #[test]
    fn claims_of_any_shape_are_refused_or_taken_without_a_panic(
        name in prop::sample::select(vec!["iss", "aud", "sub", "exp", "nbf", "iat", "roles", "scope", "client_id", "name"]),
        value in prop_oneof![
            Just(json!(null)), any::<bool>().prop_map(Value::from), any::<i64>().prop_map(Value::from), any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from), ".{0,40}".prop_map(Value::from), prop::collection::vec(".{0,8}", 0..4).prop_map(Value::from),
        ],
    ) {
        let key = Key::ed25519();
        let (verifier, _) = verifier(issuer(&[Algorithm::EdDsa]), &Published::keys([key.named("k")]));
        let mut claims = claims();
        claims[name] = value;
        let _ = now_or_never(verifier.verify(&key.token(&header(), &claims)));
    }
}
