//! Clients that act for themselves, and how clients prove themselves.

use auth::Kind;
use axum::body::Body;
use http::{Request, StatusCode, header};
use serde_json::json;

use crate::world::{SECRET, World, basic, claims, form, post};

fn with_header(authorization: &str, fields: &[(&str, &str)]) -> Request<Body> {
    Request::post("/identity/token")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::AUTHORIZATION, authorization)
        .body(Body::from(form(fields)))
        .unwrap()
}

#[tokio::test]
async fn a_client_gets_a_token_for_itself() {
    let world = World::start().await;
    let grant = ("grant_type", "client_credentials");
    let in_header = world.send(with_header(&basic("reporting", SECRET), &[grant])).await;
    let in_form = world.token(&[grant, ("client_id", "reporting"), ("client_secret", SECRET), ("scope", "shop")]).await;
    for answer in [in_header, in_form] {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        let tokens = answer.json();
        assert_eq!(tokens["scope"], "shop");
        assert_eq!((&tokens["refresh_token"], &tokens["id_token"]), (&json!(null), &json!(null)));
        let access = tokens["access_token"].as_str().unwrap();
        let principal = world.verifier().verify(access).await.unwrap();
        assert_eq!((principal.kind, principal.subject.as_str()), (Kind::Service, "reporting"));
        assert!(principal.has_role("auditor"));
        assert_eq!(claims(access)["client_id"], "reporting");
        assert_eq!(world.userinfo(access).await.status, StatusCode::FORBIDDEN);
        let revoke = [("client_id", "reporting"), ("client_secret", SECRET), ("token", access)];
        let refused = world.send(post("/identity/revoke", &revoke)).await;
        assert_eq!(refused.oauth_error(), (400, "unsupported_token_type".to_owned()));
    }
}

#[tokio::test]
async fn each_mistake_has_the_error_of_the_rfc() {
    let world = World::start().await;
    let secret = ("client_secret", SECRET);
    let own = ("grant_type", "client_credentials");
    for (name, fields, status, error) in [
        ("no client", vec![own], 401, "invalid_client"),
        ("an unknown client", vec![own, ("client_id", "nobody"), secret], 401, "invalid_client"),
        ("an unknown client without secret", vec![own, ("client_id", "nobody")], 401, "invalid_client"),
        ("no secret", vec![own, ("client_id", "reporting")], 401, "invalid_client"),
        ("an empty secret", vec![own, ("client_id", "reporting"), ("client_secret", "")], 401, "invalid_client"),
        ("a wrong secret", vec![own, ("client_id", "reporting"), ("client_secret", "wrong")], 401, "invalid_client"),
        (
            "a secret of one that has none",
            vec![("grant_type", "refresh_token"), ("client_id", "cli"), secret],
            401,
            "invalid_client",
        ),
        ("a public client for itself", vec![own, ("client_id", "cli")], 400, "unauthorized_client"),
        (
            "a grant that is not the client's",
            vec![("grant_type", "refresh_token"), ("client_id", "reporting"), secret],
            400,
            "unauthorized_client",
        ),
        ("a grant nobody has", vec![("grant_type", "password"), ("client_id", "cli")], 400, "unsupported_grant_type"),
        ("no grant", vec![("client_id", "cli")], 400, "invalid_request"),
        ("twice the same", vec![own, own, ("client_id", "reporting"), secret], 400, "invalid_request"),
        (
            "a scope that is not the client's",
            vec![own, ("client_id", "reporting"), secret, ("scope", "admin")],
            400,
            "invalid_scope",
        ),
        (
            "an ID token for nobody",
            vec![own, ("client_id", "reporting"), secret, ("scope", "openid")],
            400,
            "invalid_scope",
        ),
        (
            "a refresh token for itself",
            vec![own, ("client_id", "reporting"), secret, ("scope", "offline_access")],
            400,
            "invalid_scope",
        ),
        (
            "no code",
            vec![("grant_type", "authorization_code"), ("client_id", "cli"), ("code_verifier", "x")],
            400,
            "invalid_request",
        ),
        (
            "no verifier",
            vec![("grant_type", "authorization_code"), ("client_id", "cli"), ("code", "x")],
            400,
            "invalid_request",
        ),
        ("no refresh token", vec![("grant_type", "refresh_token"), ("client_id", "cli")], 400, "invalid_request"),
        (
            "an unknown code",
            vec![("grant_type", "authorization_code"), ("client_id", "cli"), ("code", "x"), ("code_verifier", "x")],
            400,
            "invalid_grant",
        ),
        (
            "an unknown refresh token",
            vec![("grant_type", "refresh_token"), ("client_id", "cli"), ("refresh_token", "x")],
            400,
            "invalid_grant",
        ),
    ] {
        let answer = world.token(&fields).await;
        assert_eq!(answer.oauth_error(), (status, error.to_owned()), "{name}: {}", answer.body);
        assert_eq!(answer.header("www-authenticate").starts_with("Basic"), status == 401, "{name}");
        let description = answer.json()["error_description"].as_str().unwrap().to_owned();
        assert!(
            !description.is_empty() && description.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'"'),
            "{name}"
        );
    }
    for (name, authorization, fields, status, error) in [
        ("two ways", basic("reporting", SECRET), vec![own, secret], 400, "invalid_request"),
        ("two clients", basic("reporting", SECRET), vec![own, ("client_id", "cli")], 400, "invalid_request"),
        ("a wrong secret", basic("reporting", "wrong"), vec![own], 401, "invalid_client"),
        ("another scheme", "Bearer x".to_owned(), vec![own, ("client_id", "cli")], 401, "invalid_client"),
        ("not base64", "Basic !".to_owned(), vec![own], 401, "invalid_client"),
    ] {
        let answer = world.send(with_header(&authorization, &fields)).await;
        assert_eq!(answer.oauth_error(), (status, error.to_owned()), "{name}: {}", answer.body);
    }
}

#[tokio::test]
async fn who_guesses_secrets_has_to_wait() {
    let world = World::start().await;
    let guess = [("grant_type", "client_credentials"), ("client_id", "reporting"), ("client_secret", "wrong")];
    for _ in 0..5 {
        assert_eq!(world.token(&guess).await.status, StatusCode::UNAUTHORIZED);
    }
    let answer = world.token(&guess).await;
    assert_eq!(answer.oauth_error(), (429, "temporarily_unavailable".to_owned()));
    assert_eq!(answer.header("retry-after"), "1");
}
