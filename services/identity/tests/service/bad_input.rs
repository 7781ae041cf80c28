//! Whatever is sent to whichever operation: an answer that says what is wrong, and never a failure of ours.

use axum::body::Body;
use berth_http::openapi;
use http::{Method, Request, StatusCode, header};
use identity::api;

use crate::world::{REDIRECT, World, form, post, request as asking};

const FORM: &str = "application/x-www-form-urlencoded";

#[test]
fn the_openapi_document_is_committed() {
    openapi::assert_committed(&api::document(), "openapi/identity.json");
}

fn request(method: &Method, path: &str, media_type: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, media_type).body(body.into()).unwrap()
}

#[tokio::test]
async fn no_operation_fails_whatever_it_is_sent() {
    let world = World::start().await;
    let operations = openapi::operations(&api::document());
    assert!(operations.len() >= 12, "{operations:?}");
    let huge = "a=".to_owned() + &"x".repeat(100_000);
    let many = "a=1&".repeat(100);
    let long = "client_id=".to_owned() + &"x".repeat(9000);
    let bodies: [&[u8]; 9] = [
        b"",
        b"{\"grant_type\": \"client_credentials\"}",
        b"\xff\xfe\x00",
        b"client_id=%ff%fe&token=%00&request=%zz&proof=%",
        b"client_id=cli&client_id=cli&grant_type=refresh_token&refresh_token=%00",
        b"client_id=cli&grant_type=refresh_token&refresh_token=%F0%9F%A6%80",
        huge.as_bytes(),
        many.as_bytes(),
        long.as_bytes(),
    ];
    for operation in &operations {
        for body in bodies {
            for media_type in [
                FORM,
                "application/json",
                "",
                "text/plain; charset=\"",
                "application/x-www-form-urlencoded; charset=utf-8",
            ] {
                let sent = request(&operation.method, &operation.path, media_type, body.to_vec());
                let answer = world.send(sent).await;
                assert!(
                    answer.status.as_u16() < 500,
                    "{operation:?} {media_type:?} {body:?}: {} {}",
                    answer.status,
                    answer.body
                );
            }
        }
        for query in [
            "%00",
            "%ff",
            "client_id=%00&redirect_uri=%00",
            "a=1&a=2",
            "client_id=cli&redirect_uri=%F0%9F%A6%80",
            "&&&===",
        ] {
            let sent = request(&operation.method, &format!("{}?{query}", operation.path), FORM, Body::empty());
            let answer = world.send(sent).await;
            assert!(answer.status.as_u16() < 500, "{operation:?} {query}: {} {}", answer.status, answer.body);
        }
    }
    let rows = world.at.client().await.query_one("SELECT count(*) FROM grants", &[]).await.unwrap();
    assert_eq!(rows.get::<_, i64>(0), 0, "nothing was written");
}

#[tokio::test]
async fn a_body_that_is_no_form_is_told_apart() {
    let world = World::start().await;
    let huge = format!("a={}", "x".repeat(40_000));
    for (path, is_oauth) in [
        ("/identity/token", true),
        ("/identity/revoke", true),
        ("/identity/login", false),
        ("/identity/logout", false),
        ("/identity/authorize", false),
    ] {
        for (media_type, body, status) in [
            ("application/json", "{}".to_owned(), StatusCode::UNSUPPORTED_MEDIA_TYPE),
            (FORM, huge.clone(), StatusCode::PAYLOAD_TOO_LARGE),
            (FORM, format!("colour={}", "x".repeat(8193)), StatusCode::BAD_REQUEST),
            (FORM, form(&[("colour", "\0")]), StatusCode::BAD_REQUEST),
        ] {
            // As a whole an authorization request is too long before one looks into it.
            let whole = path == "/identity/authorize" && body.len() > 8192;
            let answer = world.send(request(&Method::POST, path, media_type, body)).await;
            assert_eq!(answer.status, status, "{path} {media_type}: {}", answer.body);
            if is_oauth {
                assert_eq!(answer.oauth_error().1, "invalid_request");
            } else {
                assert_eq!(answer.header("content-type"), "application/problem+json", "{path}");
            }
            if status == StatusCode::BAD_REQUEST && !whole {
                assert!(answer.body.contains("colour"), "{path} names what is wrong: {}", answer.body);
            }
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_form_is_named() {
    let world = World::start().await;
    let code = [("client_id", "cli"), ("grant_type", "authorization_code")];
    let with = |fields: &[(&'static str, &'static str)]| [&code[..], fields].concat();
    for (path, fields, error, named) in [
        ("/identity/token", vec![("client_id", "cli")], "invalid_request", "grant_type"),
        ("/identity/token", vec![("client_id", "cli"), ("grant_type", "x")], "unsupported_grant_type", "grant_type"),
        ("/identity/token", with(&[]), "invalid_request", "code is missing"),
        ("/identity/token", with(&[("code", "x")]), "invalid_request", "code_verifier"),
        ("/identity/token", with(&[("code", "x"), ("code", "x")]), "invalid_request", "code"),
        (
            "/identity/token",
            vec![("client_id", "cli"), ("grant_type", "refresh_token")],
            "invalid_request",
            "refresh_token is missing",
        ),
        ("/identity/revoke", vec![("client_id", "cli")], "invalid_request", "token is missing"),
        ("/identity/revoke", with(&[("token", "x"), ("token", "y")]), "invalid_request", "token"),
    ] {
        let answer = world.send(post(path, &fields)).await;
        assert_eq!(answer.oauth_error(), (400, error.to_owned()), "{path} {fields:?}");
        let described = answer.json();
        assert!(described["error_description"].as_str().unwrap().contains(named), "{path} {fields:?}: {described}");
    }
    let good = asking("cli", REDIRECT, "openid", "");
    for (query, named) in [
        (good.replace("client_id=", "x="), "client_id"),
        (good.replace("client_id=cli", "client_id=nobody"), "client_id"),
        (good.replace("redirect_uri=", "x="), "redirect_uri"),
        (good.replace("127.0.0.1", "192.0.2.1"), "redirect_uri"),
        (format!("{good}&colour=%ff"), "colour"),
    ] {
        let answer = world.get(&format!("/identity/authorize?{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}: {}", answer.body);
        assert_eq!(answer.json()["errors"][0]["parameter"], named, "{query}");
    }
}

#[tokio::test]
async fn userinfo_wants_a_good_token() {
    let world = World::start().await;
    for (name, value) in [
        ("none", None),
        ("empty", Some("")),
        ("another scheme", Some("Basic YTpi")),
        ("no token", Some("Bearer")),
        ("an empty token", Some("Bearer ")),
        ("nonsense", Some("Bearer x.y.z")),
    ] {
        let mut request = Request::get("/identity/userinfo");
        if let Some(value) = value {
            request = request.header(header::AUTHORIZATION, value);
        }
        let answer = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{name}");
        assert!(answer.header("www-authenticate").starts_with("Bearer"), "{name}");
    }
    let tokens = world.tokens_of_alice("openid").await;
    let token = tokens["access_token"].as_str().unwrap();
    let by_post = Request::post("/identity/userinfo").header(header::AUTHORIZATION, format!("bearer {token}"));
    assert_eq!(world.send(by_post.body(Body::empty()).unwrap()).await.status, StatusCode::OK);
    assert_eq!(
        world.userinfo(token).await.json(),
        serde_json::json!({ "sub": crate::world::ALICE }),
        "no profile was asked for"
    );
    world.pass(606);
    assert_eq!(world.userinfo(token).await.status, StatusCode::UNAUTHORIZED, "it has expired");
}
