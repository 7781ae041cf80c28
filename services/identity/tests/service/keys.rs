//! The ring of signing keys, turned by two instances under one clock.

use std::sync::Arc;

use identity::api;
use identity::keyring::KeyringError;
use serde_json::Value;

use crate::world::{World, instance, send, token_header};

const DAY: u64 = 24 * 60 * 60;

async fn published(router: &axum::Router) -> Vec<String> {
    let request = http::Request::get("/identity/.well-known/jwks.json").body(axum::body::Body::empty()).unwrap();
    let answer = send(router, request).await;
    assert_eq!(answer.header("cache-control"), "public, max-age=300");
    let keys = answer.json()["keys"].as_array().unwrap().clone();
    for key in &keys {
        assert_eq!(
            (&key["kty"], &key["crv"], &key["alg"], &key["use"]),
            (&"OKP".into(), &"Ed25519".into(), &"EdDSA".into(), &"sig".into())
        );
        assert_eq!(key["d"], Value::Null, "never the private half");
    }
    keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn two_instances_agree_on_every_turn_and_no_token_loses_its_key() {
    let world = World::start().await;
    let second = instance(&world.database, &world.clock, &world.passwords, 1);
    let other = api::router(second.clone());
    let turn = async || {
        let (one, two) =
            tokio::join!(world.app.keyring().turn(&world.database), second.keyring().turn(&world.database));
        one.unwrap();
        two.unwrap();
        // Whichever came second may have made the key: read once more.
        world.app.keyring().turn(&world.database).await.unwrap();
        let (one, two) = (published(&world.router).await, published(&other).await);
        assert_eq!(one, two);
        one
    };
    let kid = async || {
        let tokens = world.tokens_of_alice("openid").await;
        let token = tokens["access_token"].as_str().unwrap().to_owned();
        (token_header(&token)["kid"].as_str().unwrap().to_owned(), token)
    };
    let first = turn().await;
    assert_eq!(first.len(), 1);

    world.pass(29 * DAY);
    let both = turn().await;
    assert_eq!((both.len(), &both[0]), (2, &first[0]), "the next one is published");
    assert_eq!(kid().await.0, first[0], "and does not sign yet");

    world.pass(DAY - 30);
    let (signed_by, last_of_first) = kid().await;
    assert_eq!(signed_by, first[0]);
    world.pass(30);
    assert_eq!(turn().await, both);
    assert_eq!(kid().await.0, both[1], "from here on the next one signs");
    assert!(world.verifier().verify(&last_of_first).await.is_ok(), "what the old one signed is still good");

    world.pass(20 * 60 - 1);
    assert_eq!(turn().await, both);
    world.pass(1);
    assert_eq!(turn().await, both[1..], "its last token has expired: the old one is gone");
}

#[tokio::test]
async fn without_keys_it_says_try_again() {
    let world = World::start().await;
    let fresh = api::router(instance(&world.database, &world.clock, &world.passwords, 1));
    let request = |path: &str| http::Request::get(path).body(axum::body::Body::empty()).unwrap();
    let answer = send(&fresh, request("/identity/.well-known/jwks.json")).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "1"));
    assert_eq!(send(&fresh, request("/identity/.well-known/openid-configuration")).await.status.as_u16(), 200);
}

#[tokio::test]
async fn keys_are_stored_encrypted_and_another_master_key_does_not_open_them() {
    let world = World::start().await;
    let client = world.at.client().await;
    let rows = client.query("SELECT kid, sealed FROM signing_keys", &[]).await.unwrap();
    assert_eq!(rows.len(), 1);
    let sealed: Vec<u8> = rows[0].get("sealed");
    // PKCS#8 of an Ed25519 key holds this object identifier (1.3.101.112).
    assert!(!sealed.windows(5).any(|window| window == [0x06, 0x03, 0x2b, 0x65, 0x70]));

    let stranger = instance(&world.database, &world.clock, &world.passwords, 2);
    let error = stranger.keyring().turn(&world.database).await.unwrap_err();
    assert!(
        matches!(error, KeyringError::Unopenable(_)) && error.to_string().contains("key-encryption-key"),
        "{error}"
    );

    // A key that was put in another one's place is noticed, too.
    client.execute("UPDATE signing_keys SET kid = 'other'", &[]).await.unwrap();
    let fresh = instance(&world.database, &world.clock, &world.passwords, 1);
    assert!(matches!(fresh.keyring().turn(&world.database).await, Err(KeyringError::Unopenable(_))));
}

#[tokio::test]
async fn while_the_database_is_away_the_known_keys_sign() {
    let mut world = World::start().await;
    let before = published(&world.router).await;
    world.postgres.kill();
    let keyring = Arc::clone(world.app.keyring());
    assert!(matches!(keyring.turn(&world.database).await, Err(KeyringError::Database(_))));
    assert_eq!(published(&world.router).await, before);
    assert!(keyring.signer().is_some());
}
