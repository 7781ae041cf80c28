//! Transaction tokens: minted by one workload, good for one other, over its own connection, for a minute.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, unreachable_pub)]

mod common;

use std::time::Duration;

use auth::internal::{Issuers, LoadError, Minter, Verifier};
use auth::jws::{KeySet, SigningKey};
use auth::{Kind, Principal, TokenError};
use common::{Key, merged};
use jiff::Timestamp;
use proptest::prelude::*;
use runtime::clock::Clock;
use runtime::credentials::Credentials;
use serde_json::{Value, json};
use tls::SpiffeId;

const NOW: i64 = 1_800_000_000;

fn id(name: &str) -> SpiffeId {
    SpiffeId::new("shop.test", name).unwrap()
}

fn clock() -> Clock {
    Clock::manual(Timestamp::from_second(NOW).unwrap())
}

fn minter(name: &str, clock: &Clock) -> (Minter, KeySet) {
    let (key, _) = SigningKey::generate().unwrap();
    let keys = KeySet::from_value(json!({ "keys": [key.jwk()] })).unwrap();
    (Minter::new(&id(name), key, clock.clone()), keys)
}

/// gateway → documents → items, each knowing who may call it.
struct Mesh {
    clock: Clock,
    gateway: Minter,
    documents: Minter,
    at_documents: Verifier,
    at_items: Verifier,
}

fn mesh() -> Mesh {
    let clock = clock();
    let (gateway, gateway_keys) = minter("gateway", &clock);
    let (documents, documents_keys) = minter("documents", &clock);
    let callers = Issuers::from([(id("gateway"), gateway_keys.clone())]);
    let at_documents = Verifier::new(&id("documents"), callers, clock.clone());
    let callers = Issuers::from([(id("gateway"), gateway_keys), (id("documents"), documents_keys)]);
    let at_items = Verifier::new(&id("items"), callers, clock.clone());
    Mesh { clock, gateway, documents, at_documents, at_items }
}

#[test]
fn a_user_is_passed_on_with_everyone_who_acted_for_them() {
    let mesh = mesh();
    let alice = Principal { name: Some("alice".to_owned()), ..Principal::user("7a2c", ["customer"]) };
    let token = mesh.gateway.mint(&alice, &id("documents")).unwrap();
    let seen = mesh.at_documents.verify(&token, &id("gateway")).unwrap();
    assert_eq!(*seen, Principal { actors: vec!["spiffe://shop.test/gateway".to_owned()], ..alice.clone() });

    let token = mesh.documents.mint(&seen, &id("items")).unwrap();
    let seen = mesh.at_items.verify(&token, &id("documents")).unwrap();
    assert_eq!(seen.actors, ["spiffe://shop.test/documents", "spiffe://shop.test/gateway"]);
    assert_eq!((seen.kind, &seen.subject, &seen.transaction), (Kind::User, &alice.subject, &alice.transaction));
}

#[test]
fn a_workload_that_acts_for_itself_has_no_actor() {
    let mesh = mesh();
    let own = Principal::service(&id("documents"));
    let token = mesh.documents.mint(&own, &id("items")).unwrap();
    assert_eq!(*mesh.at_items.verify(&token, &id("documents")).unwrap(), own);
}

#[test]
fn a_token_is_good_for_one_service_and_from_its_maker_alone() {
    let mesh = mesh();
    let alice = Principal::user("7a2c", ["customer"]);
    let for_items = mesh.gateway.mint(&alice, &id("items")).unwrap();
    assert!(mesh.at_items.verify(&for_items, &id("gateway")).is_ok());
    // documents got hold of it and tries it: now it is in the cache, and still it is refused.
    assert_eq!(mesh.at_items.verify(&for_items, &id("documents")), Err(TokenError::WrongPeer));
    assert_eq!(mesh.at_documents.verify(&for_items, &id("gateway")), Err(TokenError::WrongAudience));
    let for_documents = mesh.documents.mint(&alice, &id("documents")).unwrap();
    assert_eq!(mesh.at_documents.verify(&for_documents, &id("documents")), Err(TokenError::UnknownIssuer));
}

#[test]
fn it_lives_for_a_minute_and_the_leeway() {
    let mesh = mesh();
    let alice = Principal::user("7a2c", ["customer"]);
    let token = mesh.gateway.mint(&alice, &id("items")).unwrap();
    mesh.at_items.verify(&token, &id("gateway")).unwrap();
    mesh.clock.advance(Duration::from_secs(64));
    assert!(mesh.at_items.verify(&token, &id("gateway")).is_ok());
    mesh.clock.advance(Duration::from_secs(1));
    assert_eq!(mesh.at_items.verify(&token, &id("gateway")), Err(TokenError::Expired));
}

#[test]
fn a_chain_without_end_is_not_minted() {
    let mesh = mesh();
    let looping = Principal { actors: vec!["spiffe://shop.test/items".to_owned(); 8], ..Principal::user("a", ["b"]) };
    assert!(mesh.gateway.mint(&looping, &id("items")).is_err());
}

#[test]
fn attacks_are_refused() {
    use TokenError as E;
    let key = Key::ed25519();
    let keys = KeySet::from_value(json!({ "keys": [key.named("k"), Key::p256().named("ec")] })).unwrap();
    let verifier = Verifier::new(&id("items"), Issuers::from([(id("gateway"), keys)]), clock());
    let header = json!({ "alg": "EdDSA", "typ": "txntoken+jwt", "kid": "k" });
    let gateway = "spiffe://shop.test/gateway";
    let claims = json!({
        "iss": gateway, "aud": "spiffe://shop.test/items", "sub": "7a2c", "kind": "user", "txn": "t", "jti": "j",
        "iat": NOW, "exp": NOW + 60, "roles": ["customer"], "scope": "shop", "act": { "sub": gateway },
    });
    let verify = |header: &Value, claims: &Value| verifier.verify(&key.token(header, claims), &id("gateway"));
    assert!(verify(&header, &claims).is_ok());

    for (name, change, expected) in [
        ("an access token", json!({ "typ": "at+jwt" }), E::WrongType),
        ("no type", json!({ "typ": null }), E::WrongType),
        ("no signature", json!({ "alg": "none" }), E::WrongAlgorithm),
        ("a shared secret", json!({ "alg": "HS256" }), E::WrongAlgorithm),
        ("another algorithm", json!({ "alg": "ES256", "kid": "ec" }), E::WrongAlgorithm),
        ("another key", json!({ "kid": "x" }), E::UnknownKey),
        ("critical", json!({ "crit": ["x"] }), E::CriticalExtension),
    ] {
        assert_eq!(verify(&merged(header.clone(), change), &claims), Err(expected), "{name}");
    }
    for (name, change, expected) in [
        ("another issuer", json!({ "iss": "spiffe://shop.test/documents" }), E::WrongPeer),
        ("another domain", json!({ "iss": "spiffe://evil.test/gateway" }), E::WrongPeer),
        ("no issuer", json!({ "iss": null }), E::WrongPeer),
        ("another audience", json!({ "aud": "spiffe://shop.test/documents" }), E::WrongAudience),
        ("several audiences", json!({ "aud": ["spiffe://shop.test/items"] }), E::InvalidClaim("aud")),
        ("no audience", json!({ "aud": null }), E::MissingClaim("aud")),
        ("no subject", json!({ "sub": null }), E::MissingClaim("sub")),
        ("no kind", json!({ "kind": null }), E::MissingClaim("kind")),
        ("a kind nobody knows", json!({ "kind": "root" }), E::InvalidClaim("kind")),
        ("no transaction", json!({ "txn": null }), E::MissingClaim("txn")),
        ("no expiry", json!({ "exp": null }), E::MissingClaim("exp")),
        ("no time of issue", json!({ "iat": null }), E::MissingClaim("iat")),
        ("expired", json!({ "iat": NOW - 65, "exp": NOW - 5 }), E::Expired),
        ("from the future", json!({ "iat": NOW + 6, "exp": NOW + 66 }), E::NotYetValid),
        ("lives too long", json!({ "exp": NOW + 61 }), E::LifetimeTooLong),
        ("lives backwards", json!({ "iat": NOW + 5, "exp": NOW - 4 }), E::InvalidClaim("exp")),
        ("somebody else acts", json!({ "act": { "sub": "spiffe://shop.test/documents" } }), E::InvalidClaim("act")),
        ("nobody acts for the user", json!({ "act": null }), E::InvalidClaim("act")),
        ("an actor without a name", json!({ "act": { "sub": gateway, "act": {} } }), E::InvalidClaim("act")),
        ("roles of numbers", json!({ "roles": [1] }), E::InvalidClaim("roles")),
    ] {
        assert_eq!(verify(&header, &merged(claims.clone(), change)), Err(expected), "{name}");
    }
    let endless = (0..100).fold(json!({ "sub": gateway }), |act, _| json!({ "sub": gateway, "act": act }));
    let endless = merged(claims.clone(), json!({ "act": endless }));
    assert_eq!(verify(&header, &endless), Err(E::InvalidClaim("act")));
    let oversized = format!("{}.{}.{}", "a".repeat(4000), "b".repeat(4000), "c".repeat(1000));
    assert_eq!(verifier.verify(&oversized, &id("gateway")), Err(E::TooLarge));
}

/// A credentials folder as a runner would fill it.
fn folder(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Credentials) {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    let credentials = Credentials::at(folder.path());
    (folder, credentials)
}

fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
}

#[test]
fn keys_come_from_credentials_and_are_rotated_by_a_reload() {
    let clock = clock();
    let alice = Principal::user("7a2c", ["customer"]);
    let (old, old_der) = SigningKey::generate().unwrap();
    let (new, new_der) = SigningKey::generate().unwrap();
    let issuers = |keys: &[&SigningKey]| {
        let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
        json!({ "spiffe://shop.test/gateway": { "keys": keys } }).to_string()
    };
    let (at_gateway, gateway_credentials) = folder(&[("token-key.pem", pem(&old_der).as_bytes())]);
    let (at_items, items_credentials) = folder(&[("token-issuers.json", issuers(&[&old]).as_bytes())]);
    let minter = Minter::load(&gateway_credentials, &id("gateway"), clock.clone()).unwrap();
    let verifier = Verifier::load(&items_credentials, &id("items"), clock).unwrap();
    let with_old = minter.mint(&alice, &id("items")).unwrap();
    assert!(verifier.verify(&with_old, &id("gateway")).is_ok());

    // Both keys are known before the new one is used.
    std::fs::write(at_items.path().join("token-issuers.json"), issuers(&[&old, &new])).unwrap();
    verifier.reload(&items_credentials).unwrap();
    std::fs::write(at_gateway.path().join("token-key.pem"), pem(&new_der)).unwrap();
    minter.reload(&gateway_credentials).unwrap();
    let with_new = minter.mint(&alice, &id("items")).unwrap();
    assert!(verifier.verify(&with_new, &id("gateway")).is_ok());
    assert!(verifier.verify(&with_old, &id("gateway")).is_ok());

    // The old one goes, and with it what it had signed.
    std::fs::write(at_items.path().join("token-issuers.json"), issuers(&[&new])).unwrap();
    verifier.reload(&items_credentials).unwrap();
    assert_eq!(verifier.verify(&with_old, &id("gateway")), Err(TokenError::UnknownKey));

    // A broken file changes nothing.
    std::fs::write(at_items.path().join("token-issuers.json"), "{").unwrap();
    assert!(matches!(verifier.reload(&items_credentials), Err(LoadError::Issuers(_))));
    std::fs::write(at_gateway.path().join("token-key.pem"), "not a key").unwrap();
    assert!(matches!(minter.reload(&gateway_credentials), Err(LoadError::Key(_))));
    let token = minter.mint(&alice, &id("items")).unwrap();
    assert!(verifier.verify(&token, &id("gateway")).is_ok());
}

#[test]
fn a_broken_credential_is_named() {
    for (content, expected) in [
        ("[]", "token-issuers.json"),
        (r#"{"gateway": {"keys": []}}"#, "no SPIFFE ID"),
        (r#"{"spiffe://shop.test/gateway": []}"#, "spiffe://shop.test/gateway"),
    ] {
        let (_folder, credentials) = folder(&[("token-issuers.json", content.as_bytes())]);
        let error = Verifier::load(&credentials, &id("items"), clock()).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let (_folder, credentials) = folder(&[]);
    let error = Minter::load(&credentials, &id("gateway"), clock()).err().unwrap().to_string();
    assert!(error.contains("token-key.pem"), "{error}");
}

proptest! {
    #[test]
    fn whoever_is_minted_is_who_is_verified(
        kind in prop::sample::select(vec![Kind::User, Kind::Service, Kind::Anonymous]),
        subject in "[^\u{0}]{1,64}", name in prop::option::of(".{1,64}"),
        roles in prop::collection::btree_set(".{1,16}", 0..5), scopes in prop::collection::btree_set("[!-~]{1,16}", 0..5),
        actors in prop::collection::vec("spiffe://[a-z.]{1,9}/[a-z]{1,9}", 0..7), transaction in "[!-~]{1,64}",
    ) {
        let mesh = mesh();
        let principal = Principal { kind, subject, name, roles, scopes, actors, transaction };
        let token = mesh.gateway.mint(&principal, &id("items")).unwrap();
        let seen = mesh.at_items.verify(&token, &id("gateway")).unwrap();
        let mut expected = principal;
        expected.actors.insert(0, "spiffe://shop.test/gateway".to_owned());
        prop_assert_eq!(&*seen, &expected);
    }

    #[test]
    fn any_text_is_refused_without_a_panic(token in "\\PC{0,200}|[A-Za-z0-9_.-]{0,300}") {
        prop_assert!(mesh().at_items.verify(&token, &id("gateway")).is_err());
    }
}
