//! Refresh tokens: each good once, and the whole family gone when one is shown again.

use http::StatusCode;
use serde_json::Value;

use crate::world::{World, claims, declared, post};

fn refresh_token(tokens: &Value) -> String {
    tokens["refresh_token"].as_str().unwrap().to_owned()
}

const INVALID: (u16, &str) = (400, "invalid_grant");

fn is_invalid(answer: &crate::world::Answer) -> bool {
    let (status, error) = answer.oauth_error();
    (status, error.as_str()) == INVALID
}

#[tokio::test]
async fn each_refresh_token_is_good_once_and_its_reuse_ends_the_family() {
    let world = World::start().await;
    let first = world.tokens_of_alice("openid offline_access shop").await;
    world.pass(3600);
    let second = world.refresh(&refresh_token(&first)).await.json();
    let third = world.refresh(&refresh_token(&second)).await.json();
    assert_ne!(refresh_token(&second), refresh_token(&third));
    let access = third["access_token"].as_str().unwrap();
    let (before, after) = (claims(first["access_token"].as_str().unwrap()), claims(access));
    assert_eq!((&before["sub"], &before["scope"], &before["grant"]), (&after["sub"], &after["scope"], &after["grant"]));
    assert!(claims(third["id_token"].as_str().unwrap())["auth_time"].as_i64() < after["iat"].as_i64());

    // Somebody else has the second one.
    assert!(is_invalid(&world.refresh(&refresh_token(&second)).await));
    assert!(is_invalid(&world.refresh(&refresh_token(&third)).await), "the newest one of the family is gone, too");
    assert_eq!(world.userinfo(access).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn of_two_refreshes_at_once_one_wins_and_the_family_is_gone() {
    let world = World::start().await;
    let token = refresh_token(&world.tokens_of_alice("offline_access").await);
    let (one, two) = tokio::join!(world.refresh(&token), world.refresh(&token));
    let good: Vec<_> = [one, two].into_iter().filter(|answer| answer.status == StatusCode::OK).collect();
    assert_eq!(good.len(), 1);
    assert!(is_invalid(&world.refresh(&refresh_token(&good[0].json())).await));
}

#[tokio::test]
async fn it_may_ask_for_less_and_not_for_more() {
    let world = World::start().await;
    let token = refresh_token(&world.tokens_of_alice("openid offline_access").await);
    let ask = |scope: &'static str, token: String| {
        let world = &world;
        async move {
            let fields = [
                ("grant_type", "refresh_token"),
                ("client_id", "cli"),
                ("refresh_token", token.as_str()),
                ("scope", scope),
            ];
            world.token(&fields).await
        }
    };
    for scope in ["openid shop", "admin", "openid  offline_access"] {
        assert_eq!(ask(scope, token.clone()).await.oauth_error(), (400, "invalid_scope".to_owned()), "{scope}");
    }
    let less = ask("offline_access", token).await.json();
    assert_eq!(less["scope"], "offline_access");
    assert_eq!(less["id_token"], Value::Null);
    let full = world.refresh(&refresh_token(&less)).await.json();
    assert_eq!(full["scope"], "offline_access openid", "what was given up once is not lost");
}

#[tokio::test]
async fn it_ends_unused_after_two_weeks_and_in_any_case_after_ninety_days() {
    let world = World::start().await;
    let day = 24 * 60 * 60;
    let unused = refresh_token(&world.tokens_of_alice("offline_access").await);
    world.pass(14 * day);
    assert!(is_invalid(&world.refresh(&unused).await));

    let mut token = refresh_token(&world.tokens_of_alice("offline_access").await);
    for _ in 0..8 {
        world.pass(11 * day);
        token = refresh_token(&world.refresh(&token).await.json());
    }
    world.pass(2 * day);
    assert!(is_invalid(&world.refresh(&token).await));
}

#[tokio::test]
async fn in_another_clients_hands_it_ends_the_family() {
    let world = World::start().await;
    let token = refresh_token(&world.tokens_of_alice("offline_access").await);
    let fields = [("grant_type", "refresh_token"), ("client_id", "other-cli"), ("refresh_token", token.as_str())];
    assert!(is_invalid(&world.token(&fields).await));
    assert!(is_invalid(&world.refresh(&token).await));
}

#[tokio::test]
async fn revoking_either_token_ends_the_family() {
    let world = World::start().await;
    for which in ["refresh_token", "access_token"] {
        let tokens = world.tokens_of_alice("openid offline_access").await;
        let token = tokens[which].as_str().unwrap();
        let by = |client: &'static str| {
            post("/identity/revoke", &[("client_id", client), ("token", token), ("token_type_hint", "x")])
        };
        // Another client's attempt is answered alike, and changes nothing.
        assert_eq!(world.send(by("other-cli")).await.status, StatusCode::OK);
        assert_eq!(world.userinfo(tokens["access_token"].as_str().unwrap()).await.status, StatusCode::OK);
        assert_eq!(world.send(by("cli")).await.status, StatusCode::OK);
        assert_eq!(world.userinfo(tokens["access_token"].as_str().unwrap()).await.status, StatusCode::UNAUTHORIZED);
        assert!(is_invalid(&world.refresh(&refresh_token(&tokens)).await));
        assert_eq!(world.send(by("cli")).await.status, StatusCode::OK, "again");
    }
    let unknown = post("/identity/revoke", &[("client_id", "cli"), ("token", "unknown")]);
    assert_eq!(world.send(unknown).await.status, StatusCode::OK);
}

#[tokio::test]
async fn new_roles_come_with_the_next_token_and_a_new_password_ends_all() {
    let world = World::start().await;
    let tokens = world.tokens_of_alice("offline_access").await;
    let mut document = declared();
    document["users"][0]["roles"] = serde_json::json!(["clerk"]);
    world.declare(&document).await;
    let tokens = world.refresh(&refresh_token(&tokens)).await.json();
    assert_eq!(claims(tokens["access_token"].as_str().unwrap())["roles"], serde_json::json!(["clerk"]));

    document["users"][0]["password"] = "another password".into();
    world.declare(&document).await;
    assert!(is_invalid(&world.refresh(&refresh_token(&tokens)).await));
}

#[tokio::test]
async fn a_client_that_may_ask_for_less_than_before_gets_no_more_than_that() {
    let world = World::start().await;
    let token = refresh_token(&world.tokens_of_alice("offline_access shop").await);
    let mut document = declared();
    document["clients"][0]["scopes"] = serde_json::json!(["openid", "offline_access", "profile"]);
    world.declare(&document).await;
    assert_eq!(world.refresh(&token).await.oauth_error(), (400, "invalid_scope".to_owned()));
    let fields = [
        ("grant_type", "refresh_token"),
        ("client_id", "cli"),
        ("refresh_token", token.as_str()),
        ("scope", "offline_access"),
    ];
    assert_eq!(world.token(&fields).await.json()["scope"], "offline_access");
}
