//! Every operation of the OpenAPI document: with nothing to show, with what is somebody else's, and with what it takes. An
//! operation that is neither in this table nor in the list of public ones fails the test.

use std::collections::BTreeSet;

use axum::body::Body;
use berth_http::openapi;
use http::{Request, header};
use identity::api;

use crate::world::{Answer, Browser, PASSWORD, REDIRECT, SECRET, VERIFIER, World, post, request};

/// Open to everybody, because what they tell is public or holds nothing yet.
const PUBLIC: [&str; 4] = ["discovery", "jwks", "style", "logout_page"];

/// A request, and its answer in short.
type Expected = (Request<Body>, &'static str);

struct Case {
    operation: &'static str,
    /// With nothing to show.
    bare: Expected,
    /// With what is wrong, or somebody else's.
    refused: Vec<Expected>,
    permitted: Expected,
}

/// The status, and what is told beside it: a code, or the error of RFC 6749 or of a problem.
fn in_short(answer: &Answer) -> String {
    let told = match answer.header("content-type") {
        "application/json" => answer.json()["error"].as_str().map(str::to_owned),
        "application/problem+json" => answer.json()["type"].as_str().map(|kind| kind.replace("urn:berth:problem:", "")),
        _ if answer.status == 303 => {
            let mut sent_back = answer.redirect();
            sent_back.remove("error").or_else(|| sent_back.remove("code").map(|_| "code".to_owned()))
        }
        _ => None,
    };
    format!("{} {}", answer.status.as_u16(), told.unwrap_or_default()).trim_end().to_owned()
}

fn ask(query: &str) -> Request<Body> {
    Request::get(format!("/identity/authorize?{query}")).body(Body::empty()).unwrap()
}

fn ask_by_form(query: &str) -> Request<Body> {
    let content_type = "application/x-www-form-urlencoded";
    let request = Request::post("/identity/authorize").header(header::CONTENT_TYPE, content_type);
    request.body(Body::from(query.to_owned())).unwrap()
}

fn userinfo(method: &str, token: Option<&str>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri("/identity/userinfo");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    request.body(Body::empty()).unwrap()
}

fn from(browser: &Browser<'_>, mut request: Request<Body>) -> Request<Body> {
    for (name, value) in &browser.cookies {
        request.headers_mut().append(header::COOKIE, format!("{name}={value}").parse().unwrap());
    }
    request
}

async fn cases(world: &World) -> Vec<Case> {
    let mut cases = vec![login(world).await, logout(world).await, token(world).await, revoke(world).await];
    cases.extend(authorize());
    cases.extend(read_userinfo(world).await);
    cases
}

/// The client named must be registered, for this grant type and these scopes, and be answered where it is.
fn authorize() -> [Case; 2] {
    [("authorize", ask as fn(&str) -> Request<Body>), ("authorize_by_form", ask_by_form)].map(|(operation, ask)| Case {
        operation,
        bare: (ask(""), "400 invalid-parameter"),
        refused: vec![
            (ask(&request("nobody", REDIRECT, "openid", "")), "400 invalid-parameter"),
            (ask(&request("cli", "https://web.test/cb?shop=1", "openid", "")), "400 invalid-parameter"),
            (ask(&request("reporting", REDIRECT, "shop", "")), "400 invalid-parameter"),
            (ask(&request("batch", REDIRECT, "shop", "")), "303 unauthorized_client"),
            (ask(&request("other-cli", REDIRECT, "profile", "")), "303 invalid_scope"),
        ],
        permitted: (ask(&request("cli", REDIRECT, "openid", "")), "200"),
    })
}

/// The form must have been made for this browser and this request, and the password be the user's.
async fn login(world: &World) -> Case {
    let query = request("cli", REDIRECT, "openid", "");
    let (mut browser, mut other) = (Browser::new(world, "192.0.2.1"), Browser::new(world, "192.0.2.2"));
    let (page, others_page) = (browser.open(&query).await, other.open(&query).await);
    let filled_in = |page: &Answer, username: &str, password: &str| {
        let (proof, request) = (page.input("proof"), page.input("request"));
        let fields = [("proof", proof.as_str()), ("request", &request), ("username", username), ("password", password)];
        post("/identity/login", &fields)
    };
    Case {
        operation: "login",
        bare: (post("/identity/login", &[]), "400 invalid-parameter"),
        refused: vec![
            (filled_in(&page, "alice", PASSWORD), "403"),
            (from(&browser, filled_in(&others_page, "alice", PASSWORD)), "403"),
            (from(&browser, filled_in(&page, "alice", "wrong")), "403"),
            (from(&browser, filled_in(&page, "nobody", PASSWORD)), "403"),
        ],
        permitted: (from(&browser, filled_in(&page, "alice", PASSWORD)), "303 code"),
    }
}

/// The form must have been made for this browser, and for signing out.
async fn logout(world: &World) -> Case {
    let page = Request::get("/identity/logout").body(Body::empty()).unwrap();
    let mut browser = Browser::new(world, "192.0.2.1");
    let proof = browser.send(page).await.input("proof");
    let of_login = browser.open(&request("cli", REDIRECT, "openid", "")).await.input("proof");
    let with = |proof: &str| post("/identity/logout", &[("proof", proof)]);
    Case {
        operation: "logout",
        bare: (post("/identity/logout", &[]), "403 forbidden"),
        refused: vec![(with(&proof), "403 forbidden"), (from(&browser, with(&of_login)), "403 forbidden")],
        permitted: (from(&browser, with(&proof)), "200"),
    }
}

/// The client must prove itself, may use its own grant types for its own scopes, and redeems its own codes and tokens.
async fn token(world: &World) -> Case {
    let code = world.code_of_alice("openid offline_access").await;
    let tokens = world.tokens_of_alice("openid offline_access").await;
    let refresh_token = tokens["refresh_token"].as_str().unwrap();
    let with = |fields: &[(&str, &str)]| post("/identity/token", fields);
    let own = ("grant_type", "client_credentials");
    let exchange = |client: &str| {
        with(&[
            ("grant_type", "authorization_code"),
            ("client_id", client),
            ("code", &code),
            ("redirect_uri", REDIRECT),
            ("code_verifier", VERIFIER),
        ])
    };
    let refresh = [("grant_type", "refresh_token"), ("client_id", "other-cli"), ("refresh_token", refresh_token)];
    Case {
        operation: "token",
        bare: (with(&[]), "401 invalid_client"),
        refused: vec![
            (with(&[own, ("client_id", "reporting")]), "401 invalid_client"),
            (with(&[own, ("client_id", "reporting"), ("client_secret", "wrong")]), "401 invalid_client"),
            (with(&[own, ("client_id", "cli")]), "400 unauthorized_client"),
            (with(&[own, ("client_id", "web"), ("client_secret", SECRET)]), "400 unauthorized_client"),
            (
                with(&[own, ("client_id", "reporting"), ("client_secret", SECRET), ("scope", "profile")]),
                "400 invalid_scope",
            ),
            (exchange("other-cli"), "400 invalid_grant"),
            (with(&refresh), "400 invalid_grant"),
        ],
        permitted: (with(&[own, ("client_id", "reporting"), ("client_secret", SECRET), ("scope", "shop")]), "200"),
    }
}

/// The client must prove itself; of another one's tokens it learns and changes nothing.
async fn revoke(world: &World) -> Case {
    let tokens = world.tokens_of_alice("offline_access").await;
    let token = ("token", tokens["refresh_token"].as_str().unwrap());
    let with = |fields: &[(&str, &str)]| post("/identity/revoke", fields);
    Case {
        operation: "revoke",
        bare: (with(&[token]), "401 invalid_client"),
        refused: vec![
            (with(&[token, ("client_id", "web")]), "401 invalid_client"),
            (with(&[token, ("client_id", "web"), ("client_secret", "wrong")]), "401 invalid_client"),
            // As RFC 7009 §2.2 wants it; that the grant is still there is seen by the rows.
            (with(&[token, ("client_id", "other-cli")]), "200"),
        ],
        permitted: (with(&[token, ("client_id", "cli")]), "200"),
    }
}

/// The access token must be of this issuer, for a user, and have the scope `openid`.
async fn read_userinfo(world: &World) -> [Case; 2] {
    let token_of = |tokens: serde_json::Value| tokens["access_token"].as_str().unwrap().to_owned();
    let good = token_of(world.tokens_of_alice("openid").await);
    let without_scope = token_of(world.tokens_of_alice("shop").await);
    let own = [("grant_type", "client_credentials"), ("client_id", "reporting"), ("client_secret", SECRET)];
    let of_client = token_of(world.token(&own).await.json());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let forged = format!("{signed}.{}", signature.chars().rev().collect::<String>());
    [("userinfo", "GET"), ("userinfo_by_post", "POST")].map(|(operation, method)| Case {
        operation,
        bare: (userinfo(method, None), "401 unauthenticated"),
        refused: vec![
            (userinfo(method, Some(&forged)), "401 unauthenticated"),
            (userinfo(method, Some(&without_scope)), "403 forbidden"),
            (userinfo(method, Some(&of_client)), "403 forbidden"),
        ],
        permitted: (userinfo(method, Some(&good)), "200"),
    })
}

/// What a refused request must leave as it is: who has signed in, and what may come of what users let clients do.
async fn rows(world: &World) -> Vec<i64> {
    let counted = "SELECT (SELECT count(*) FROM sessions), (SELECT count(*) FROM grants WHERE revoked_at IS NULL),
        (SELECT count(*) FROM codes), (SELECT count(*) FROM refresh_tokens)";
    let row = world.at.client().await.query_one(counted, &[]).await.unwrap();
    (0..row.len()).map(|column| row.get(column)).collect()
}

#[tokio::test]
async fn every_operation_is_authorized() {
    let world = World::start().await;
    // A client that may be answered, and yet not ask users for anything.
    let batch = serde_json::json!({
        "id": "batch", "secret": SECRET, "redirect_uris": ["http://127.0.0.1/callback"], "scopes": ["shop"],
        "grants": ["client_credentials"],
    });
    world.declare(&serde_json::json!({ "clients": [batch] })).await;
    let cases = cases(&world).await;
    let operations = openapi::operations(&api::document());
    let known: BTreeSet<&str> = operations.iter().map(|operation| operation.id.as_str()).collect();
    let called: BTreeSet<&str> = cases.iter().map(|case| case.operation).chain(PUBLIC).collect();
    assert_eq!(known, called, "an operation has no case here, or a case no operation");

    for operation in operations.iter().filter(|operation| PUBLIC.contains(&operation.id.as_str())) {
        let request = Request::builder().method(&operation.method).uri(&operation.path).body(Body::empty()).unwrap();
        assert_eq!(in_short(&world.send(request).await), "200", "{operation:?}");
    }
    for Case { operation, bare, refused, permitted } in cases {
        let known = operations.iter().find(|known| known.id == operation).unwrap();
        let call = async |(request, expected): Expected| {
            assert_eq!((request.method(), request.uri().path()), (&known.method, known.path.as_str()));
            let sent = format!("{request:?}");
            let answer = world.send(request).await;
            assert_eq!(in_short(&answer), expected, "{operation}: {sent}: {}", answer.body);
        };
        assert!(!refused.is_empty(), "{operation}");
        call(bare).await;
        for request in refused {
            let before = rows(&world).await;
            let ends_a_family = request.1 == "400 invalid_grant";
            call(request).await;
            assert!(
                rows(&world).await == before || ends_a_family,
                "{operation}: a refused request has changed something"
            );
        }
        call(permitted).await;
    }
}
