//! Declared users and clients, brought about again and again.

use http::StatusCode;
use identity::bootstrap::Bootstrap;
use identity::store;
use serde_json::json;

use crate::world::{ALICE, Browser, PASSWORD, REDIRECT, World, declared, request};

#[tokio::test]
async fn the_same_declaration_changes_nothing_and_another_one_changes_what_it_says() {
    let world = World::start().await;
    let db = world.database.get().await.unwrap();
    let before = store::find_user_by_name(&*db, "alice").await.unwrap().unwrap();
    let query = request("web", "https://web.test/cb?shop=1", "openid", "");
    let mut browser = Browser::new(&world, "192.0.2.1");
    browser.sign_in(&query, "alice", PASSWORD).await.redirected("code");

    world.declare(&declared()).await;
    assert_eq!(store::find_user_by_name(&*db, "ALICE").await.unwrap().unwrap(), before, "not even a new salt");
    browser.open(&query).await.redirected("code");

    let mut document = declared();
    document["users"] = json!([{ "id": ALICE, "name": "Alicia", "password": "another password", "roles": ["admin"] }]);
    document["clients"][2]["redirect_uris"] = json!(["https://web.test/new"]);
    world.declare(&document).await;
    assert_eq!(store::find_user_by_name(&*db, "alice").await.unwrap(), None);
    let alicia = store::find_user_by_name(&*db, "alicia").await.unwrap().unwrap();
    assert_eq!((alicia.id, alicia.roles), (before.id, ["admin".to_owned()].into()));
    assert!(store::find_user_by_name(&*db, "bob").await.unwrap().is_some(), "who is not declared is left alone");
    assert_eq!(browser.open(&query).await.status, StatusCode::BAD_REQUEST, "the old redirect URI");
    let query = request("web", "https://web.test/new", "openid", "");
    assert!(browser.open(&query).await.body.contains("name=\"password\""), "a new password signs out");
    browser.sign_in(&query, "alicia", "another password").await.redirected("code");
}

#[tokio::test]
async fn a_name_that_is_taken_is_told_and_nothing_is_half_done() {
    let world = World::start().await;
    let document = json!({ "users": [
        { "id": ALICE, "name": "renamed", "password": PASSWORD },
        { "id": "01890000-0000-7000-8000-0000000000ff", "name": "bob", "password": PASSWORD },
    ] });
    let bootstrap = Bootstrap::parse(document.to_string().as_bytes()).unwrap();
    let error = bootstrap.apply(&world.database, &world.passwords, &world.clock).await.unwrap_err();
    assert!(error.to_string().contains("users[1].name: bob is the name of another user"), "{error}");
    assert!(!error.is_transient());
    let db = world.database.get().await.unwrap();
    assert!(store::find_user_by_name(&*db, "alice").await.unwrap().is_some());
}

#[tokio::test]
async fn two_instances_may_start_at_once() {
    let world = World::start().await;
    let bootstrap = Bootstrap::parse(declared().to_string().as_bytes()).unwrap();
    let apply = || bootstrap.apply(&world.database, &world.passwords, &world.clock);
    let (one, two, three) = tokio::join!(apply(), apply(), apply());
    for outcome in [one, two, three] {
        outcome.unwrap();
    }
    let mut browser = Browser::new(&world, "192.0.2.1");
    browser.sign_in(&request("cli", REDIRECT, "openid", ""), "alice", PASSWORD).await.redirected("code");
}
