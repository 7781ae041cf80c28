//! From the sign-in page to tokens, and what a code is not good for.

use auth::Kind;
use axum::body::Body;
use http::{Request, StatusCode, header};
use serde_json::json;

use crate::world::{
    ALICE, AUDIENCE, Browser, ISSUER, NOW, PASSWORD, REDIRECT, SECRET, VERIFIER, World, basic, claims, form, request,
    token_header,
};

#[tokio::test]
async fn a_user_signs_in_and_the_client_gets_tokens() {
    let world = World::start().await;
    let mut browser = Browser::new(&world, "192.0.2.1");
    let page = browser.open(&request("cli", REDIRECT, "openid profile shop", "")).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.body.contains("cli") && page.body.contains("name=\"username\"") && !page.body.contains("<script"));
    assert_eq!(page.header("cache-control"), "no-store");
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(policy.ends_with("form-action 'self' http://127.0.0.1:5555"), "{policy}");

    world.pass(5);
    let answer = browser.submit(&page, &[("username", "ALICE"), ("password", PASSWORD)]).await;
    assert!(answer.header("location").starts_with("http://127.0.0.1:5555/callback?"));
    let sent_back = answer.redirect();
    assert_eq!((sent_back["state"].as_str(), sent_back["iss"].as_str()), ("a state & more", ISSUER));

    world.pass(10);
    let answer = world.exchange(&sent_back["code"]).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(answer.header("cache-control"), "no-store");
    let tokens = answer.json();
    assert_eq!((&tokens["token_type"], &tokens["expires_in"]), (&json!("Bearer"), &json!(600)));
    assert_eq!(tokens["scope"], "openid profile shop");
    assert_eq!(tokens["refresh_token"], json!(null), "offline_access was not asked for");

    let access = tokens["access_token"].as_str().unwrap();
    let issued = NOW + 15;
    let mut found = claims(access);
    for name in ["jti", "grant"] {
        found[name].take().as_str().unwrap().parse::<uuid::Uuid>().unwrap();
    }
    let expected = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": ALICE, "client_id": "cli", "iat": issued, "nbf": issued, "exp": issued + 600,
        "jti": null, "grant": null, "scope": "openid profile shop", "roles": ["customer"], "preferred_username": "alice",
    });
    assert_eq!(found, expected);
    assert_eq!(token_header(access)["typ"], "at+jwt");
    let principal = world.verifier().verify(access).await.unwrap();
    assert_eq!(
        (principal.kind, principal.subject.as_str(), principal.name.as_deref()),
        (Kind::User, ALICE, Some("alice"))
    );

    let id_token = tokens["id_token"].as_str().unwrap();
    let expected = json!({
        "iss": ISSUER, "aud": "cli", "sub": ALICE, "iat": issued, "exp": issued + 600, "auth_time": NOW + 5,
        "nonce": "a nonce", "preferred_username": "alice",
    });
    assert_eq!(claims(id_token), expected);
    assert_eq!(token_header(id_token)["typ"], "JWT");
    assert!(world.verifier().verify(id_token).await.is_err(), "an ID token is no access token");

    let userinfo = world.userinfo(access).await;
    assert_eq!(userinfo.json(), json!({ "sub": ALICE, "preferred_username": "alice" }));
}

#[tokio::test]
async fn a_client_with_a_secret_gets_tokens_in_either_way_and_no_more_than_it_asked_for() {
    let world = World::start().await;
    let redirect = "https://web.test/cb?shop=1";
    for in_header in [true, false] {
        let mut browser = Browser::new(&world, "192.0.2.1");
        let answer = browser.sign_in(&request("web", redirect, "shop", ""), "alice", PASSWORD).await;
        assert!(answer.header("location").starts_with("https://web.test/cb?shop=1&code="));
        let code = answer.redirected("code");
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", redirect),
            ("code_verifier", VERIFIER),
        ];
        let mut token =
            Request::post("/identity/token").header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        if in_header {
            token = token.header(header::AUTHORIZATION, basic("web", SECRET));
        } else {
            fields.extend([("client_id", "web"), ("client_secret", SECRET)]);
        }
        let answer = world.send(token.body(Body::from(form(&fields))).unwrap()).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        let tokens = answer.json();
        assert_eq!((&tokens["id_token"], &tokens["refresh_token"]), (&json!(null), &json!(null)));
        let denied = world.userinfo(tokens["access_token"].as_str().unwrap()).await;
        assert_eq!(denied.status, StatusCode::FORBIDDEN);
        assert!(denied.header("www-authenticate").contains("insufficient_scope"));
    }
}

#[tokio::test]
async fn a_code_is_good_for_its_client_at_its_redirect_uri_with_its_verifier_for_a_minute() {
    let world = World::start().await;
    let other_verifier = "x".repeat(43);
    for (name, change, wait) in [
        ("another client", ("client_id", "other-cli"), 0),
        ("another redirect URI", ("redirect_uri", "http://127.0.0.1:5556/callback"), 0),
        ("no redirect URI", ("redirect_uri", ""), 0),
        ("another verifier", ("code_verifier", other_verifier.as_str()), 0),
        ("the challenge as verifier", ("code_verifier", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"), 0),
        ("too late", ("client_id", "cli"), 60),
    ] {
        let code = world.code_of_alice("openid").await;
        world.pass(wait);
        let fields = [
            ("grant_type", "authorization_code"),
            ("client_id", "cli"),
            ("code", code.as_str()),
            ("redirect_uri", REDIRECT),
            ("code_verifier", VERIFIER),
        ];
        let fields = fields.map(|field| if field.0 == change.0 { change } else { field });
        assert_eq!(world.token(&fields).await.oauth_error(), (400, "invalid_grant".to_owned()), "{name}");
        assert_eq!(world.exchange(&code).await.oauth_error(), (400, "invalid_grant".to_owned()), "{name}: it is spent");
    }
    let code = world.code_of_alice("openid").await;
    world.pass(59);
    assert_eq!(world.exchange(&code).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_code_shown_twice_takes_everything_back_that_came_of_it() {
    let world = World::start().await;
    let code = world.code_of_alice("openid offline_access").await;
    let tokens = world.exchange(&code).await.json();
    let (access, refresh) = (tokens["access_token"].as_str().unwrap(), tokens["refresh_token"].as_str().unwrap());
    assert_eq!(world.userinfo(access).await.status, StatusCode::OK);

    assert_eq!(world.exchange(&code).await.oauth_error(), (400, "invalid_grant".to_owned()));
    assert_eq!(world.refresh(refresh).await.oauth_error(), (400, "invalid_grant".to_owned()));
    let userinfo = world.userinfo(access).await;
    assert_eq!(userinfo.status, StatusCode::UNAUTHORIZED);
    assert!(userinfo.header("www-authenticate").starts_with("Bearer"));
    assert_eq!(userinfo.header("content-type"), "application/problem+json");
}

#[tokio::test]
async fn of_two_exchanges_at_once_one_wins_and_both_lose_their_tokens() {
    let world = World::start().await;
    let code = world.code_of_alice("openid offline_access").await;
    let (one, two) = tokio::join!(world.exchange(&code), world.exchange(&code));
    let good: Vec<_> = [one, two].into_iter().filter(|answer| answer.status == StatusCode::OK).collect();
    assert_eq!(good.len(), 1);
    let refresh = good[0].json()["refresh_token"].as_str().unwrap().to_owned();
    assert_eq!(world.refresh(&refresh).await.oauth_error(), (400, "invalid_grant".to_owned()));
}
