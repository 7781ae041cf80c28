//! What passes the gateway, in what form, and what does not.

use axum::{
    Router,
    body::Body,
    http::{StatusCode, header},
    response::IntoResponse as _,
    routing,
};
use mesh::plan::TokenType;
use serde_json::json;

use crate::world::{self, World, bearer, parse};

#[tokio::test]
async fn a_request_arrives_with_all_that_the_service_needs() {
    let world = World::echoing();
    let gateway = world.start().await;
    let answer = gateway
        .ask(
            "POST",
            "/items/a%7eb/../42?q=%2F&secret=1",
            &[&bearer(&world.alice()), "Content-Type: text/plain"],
            "hello",
        )
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = answer.json();
    assert_eq!(
        (&seen["method"], &seen["target"], &seen["body"]),
        (&json!("POST"), &json!("/items/42?q=%2F&secret=1"), &json!("hello"))
    );
    let headers = &seen["headers"];
    assert_eq!(headers["content-type"], "text/plain");
    assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(headers["x-forwarded-proto"], "https");
    assert_eq!(headers["x-forwarded-host"], "localhost");
    assert!(runtime::trace::TraceContext::parse(headers["traceparent"].as_str().unwrap()).is_some());
    assert!(headers.get("authorization").is_none());

    let token = headers["txn-token"].as_str().unwrap();
    let gateway_id = berth_http::testing::TestMesh::id("gateway");
    let principal = world.items_verifier.verify(token, &gateway_id).unwrap();
    assert_eq!(principal.subject, "0193a5b2-0000-7000-8000-000000000001");
    assert!(principal.has_role("customer") && principal.scopes.contains("shop"));
    assert_eq!(principal.actors, [gateway_id.to_string()]);

    // Made once for this client and this service.
    let again = gateway.get("/items", &world.alice()).await.json()["headers"]["txn-token"].clone();
    assert_ne!(again, json!(null));
}

#[tokio::test]
async fn one_access_token_is_turned_into_one_internal_token() {
    let world = World::echoing();
    let gateway = world.start().await;
    let (alice, other) = (world.alice(), world.token(&json!({ "sub": "bob" })));
    let internal = async |token: &str| gateway.get("/items", token).await.json()["headers"]["txn-token"].clone();
    let first = internal(&alice).await;
    assert_eq!(internal(&alice).await, first);
    assert_ne!(internal(&other).await, first);
}

#[tokio::test]
async fn a_trace_is_continued() {
    let world = World::echoing();
    let gateway = world.start().await;
    let theirs = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = gateway
        .ask("GET", "/items", &[&bearer(&world.alice()), &format!("traceparent: {theirs}"), "tracestate: a=b"], "")
        .await;
    let headers = &answer.json()["headers"];
    let ours = headers["traceparent"].as_str().unwrap();
    assert!(ours.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && ours != theirs);
    assert_eq!(headers["tracestate"], "a=b");
    let answer = gateway.ask("GET", "/items", &[&bearer(&world.alice()), "tracestate: a=b"], "").await;
    assert!(answer.json()["headers"].get("tracestate").is_none(), "state without its trace");
    let answer = gateway.ask("GET", "/nowhere", &[&format!("traceparent: {theirs}")], "").await;
    assert_eq!(answer.json()["instance"], "urn:berth:trace:0af7651916cd43dd8448eb211c80319c");
}

#[tokio::test]
async fn what_only_we_may_say_is_taken_away() {
    let world = World::echoing();
    let gateway = world.start().await;
    let answer = gateway
        .ask(
            "GET",
            "/items",
            &[
                &bearer(&world.alice()),
                "txn-token: forged",
                "X-Forwarded-For: 1.2.3.4",
                "X-Forwarded-User: admin",
                "Forwarded: for=1.2.3.4",
                "X-User: admin",
                "X_User: admin",
                "X-Roles: admin",
                "X-Auth-Request-Email: a@b",
                "Cookie: session=1",
                "Keep-Alive: timeout=5",
                "TE: gzip",
                "Upgrade: websocket",
                "Connection: X-Private",
                "X-Private: 1",
                "X-Request-Id: kept",
            ],
            "",
        )
        .await;
    let seen = answer.json();
    let mut names: Vec<&str> = seen["headers"].as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["traceparent", "txn-token", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id"]
    );
    assert_eq!(seen["headers"]["x-forwarded-for"], "127.0.0.1");
    assert_ne!(seen["headers"]["txn-token"], "forged");
}

#[tokio::test]
async fn only_the_issuer_sees_credentials_and_a_foreign_program_no_token() {
    let world = World::echoing();
    let gateway = world.start().await;
    let sent = ["Authorization: Basic YTpi", "Cookie: session=1"];
    let seen = gateway.ask("GET", "/identity/echo", &sent, "").await.json();
    assert_eq!(seen["headers"]["authorization"], "Basic YTpi");
    assert_eq!(seen["headers"]["cookie"], "session=1");
    let answer = gateway.get("/legacy/a", &world.alice()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = answer.json();
    assert_eq!(seen["headers"]["host"], "localhost");
    assert!(seen["headers"].get("txn-token").is_none() && seen["headers"].get("authorization").is_none());
}

#[tokio::test]
async fn who_may_enter() {
    let mut world = World::echoing();
    let open = berth_http::testing::Instance::mesh(&world.mesh, "open", Router::new().fallback(world::echo));
    world.place("open", &[open.address()]);
    let gateway = world.start().await;
    let now = jiff::Timestamp::now().as_second();
    let (good, expired) = (world.alice(), world.token(&json!({ "exp": now - 60, "nbf": now - 120, "iat": now - 120 })));
    let (stranger, _) = auth::jws::SigningKey::generate().unwrap();
    let forged = stranger.sign("at+jwt", &json!({ "iss": world::ISSUER, "sub": "admin", "exp": now + 60 })).unwrap();
    let foreign = world.token(&json!({ "aud": "https://elsewhere" }));
    let nobody = world.token(&json!({ "sub": null }));
    for (path, token, status) in [
        ("/items", None, 401),
        ("/items", Some(&good), 200),
        ("/items", Some(&expired), 401),
        ("/items", Some(&forged), 401),
        ("/items", Some(&foreign), 401),
        ("/items", Some(&nobody), 401),
        ("/items", Some(&"nonsense".to_owned()), 401),
        ("/open", None, 200),
        ("/open", Some(&good), 200),
        ("/open", Some(&expired), 401),
        ("/identity/echo", None, 200),
        ("/identity/echo", Some(&expired), 200),
    ] {
        let headers: Vec<String> = token.iter().map(|token| bearer(token)).collect();
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let answer = gateway.ask("GET", path, &headers, "").await;
        assert_eq!(answer.status, status, "{path} with {token:?}: {answer:?}");
        if status == 401 {
            answer.problem(401, "unauthenticated");
            let challenge = answer.header("www-authenticate").unwrap();
            assert!(challenge.starts_with("Bearer realm=\"test\""), "{challenge}");
            assert_eq!(challenge.contains("error=\"invalid_token\""), token.is_some(), "{challenge}");
        }
    }
    assert_eq!(world.items.requests(), 1, "what is refused does not arrive");
    let answer = gateway.ask("GET", "/items", &[&bearer(&good), &bearer(&good)], "").await;
    answer.problem(401, "unauthenticated");
    let long = gateway.get("/items", &"a".repeat(9 * 1024)).await;
    long.problem(401, "unauthenticated");
}

/// Issuers that write `JWT` write it on ID tokens too, whose audience is the client.
#[tokio::test]
async fn what_a_token_must_say_it_is_follows_the_plan() {
    for (plan, typ, audience, status) in [
        (TokenType::AtJwt, "at+jwt", None, 200),
        (TokenType::AtJwt, "JWT", None, 401),
        (TokenType::AtJwt, "JWT", Some("shop"), 401),
        (TokenType::Jwt, "at+jwt", None, 200),
        (TokenType::Jwt, "JWT", None, 200),
        (TokenType::Jwt, "JWT", Some("shop"), 401),
        (TokenType::Jwt, "at+jwt", Some("shop"), 401),
        (TokenType::Jwt, "logout+jwt", None, 401),
    ] {
        let mut world = World::echoing();
        world.plan.auth.typ = plan;
        let gateway = world.start().await;
        let changes = audience.map_or(json!({}), |audience| json!({ "aud": audience }));
        let answer = gateway.get("/items", &world.token_of_type(typ, &changes)).await;
        assert_eq!(answer.status, status, "{plan:?} {typ} for {audience:?}: {answer:?}");
    }
}

#[tokio::test]
async fn what_is_matched_is_what_is_forwarded() {
    let world = World::echoing();
    let gateway = world.start().await;
    let token = world.alice();
    for (target, forwarded) in [
        ("/items", "/items"),
        ("/items/", "/items/"),
        ("/%69tems/%7e", "/items/~"),
        ("//items///1", "/items/1"),
        ("/legacy/../items/./1", "/items/1"),
        ("/legacy/%2e%2E/items/x?a=../b", "/items/x?a=../b"),
        ("/items/%252e%252e/y", "/items/%252e%252e/y"),
        ("https://localhost/items/absolute", "/items/absolute"),
    ] {
        let answer = gateway.get(target, &token).await;
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        assert_eq!(answer.json()["target"], forwarded, "{target}");
    }
    for (target, status, slug) in [
        ("/", 404, "not-found"),
        ("/nowhere", 404, "not-found"),
        ("/items-old", 404, "not-found"),
        ("/internal/quotes", 404, "not-found"),
        ("/items/../internal/quotes", 404, "not-found"),
        ("/items/%2e%2e/internal/quotes", 404, "not-found"),
        ("//internal/quotes", 404, "not-found"),
        ("/items%2F1", 400, "malformed-request"),
        ("/items/..%2finternal", 400, "malformed-request"),
        ("/items/%5c..", 400, "malformed-request"),
        ("/items/%00", 400, "malformed-request"),
        ("/items/%zz", 400, "malformed-request"),
        ("/items/..;/internal", 400, "malformed-request"),
    ] {
        gateway.get(target, &token).await.problem(status, slug);
    }
}

#[tokio::test]
async fn every_request_names_its_host_once() {
    let world = World::echoing();
    let gateway = world.start().await;
    let token = bearer(&world.alice());
    for (line, hosts) in [
        ("GET /items HTTP/1.1", ""),
        ("GET /items HTTP/1.0", ""),
        ("GET /items HTTP/1.1", "Host: a\r\nHost: a\r\n"),
        ("GET /items HTTP/1.1", "Host: a\r\nHost: b\r\n"),
        ("GET /items HTTP/1.1", "Host: \r\n"),
        ("GET /items HTTP/1.1", "Host: a b\r\n"),
        ("GET /items HTTP/1.1", "Host: user@a\r\n"),
        ("GET /items HTTP/1.1", "Host: a/b\r\n"),
        ("GET https://a/items HTTP/1.1", "Host: b\r\n"),
        ("GET https://a/items HTTP/1.1", ""),
    ] {
        let answer = gateway.ask_raw(format!("{line}\r\n{hosts}{token}\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(answer.status, 400, "{line} {hosts:?}: {answer:?}");
    }
    assert_eq!(world.items.requests(), 0);
}

#[tokio::test]
async fn nothing_is_smuggled() {
    let world = World::echoing();
    let gateway = world.start().await;
    let token = bearer(&world.alice());
    let smuggled = format!("GET /items/smuggled HTTP/1.1\r\nHost: localhost\r\n{token}\r\n\r\n");
    for framing in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 0\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length : 5\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
    ] {
        let before = world.items.requests();
        let bytes = format!("POST /items HTTP/1.1\r\nHost: localhost\r\n{token}\r\n{framing}\r\n0\r\n\r\n{smuggled}");
        let answers = gateway.raw(bytes).await;
        assert_eq!(parse(&answers).status, 400, "{framing:?}: {answers:?}");
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "the connection is closed: {framing:?}: {answers:?}");
        assert_eq!(world.items.requests(), before, "{framing:?}");
    }
    // After a chunk that cannot be read, the connection is of no use either.
    let bytes = format!(
        "POST /items HTTP/1.1\r\nHost: localhost\r\n{token}\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n{smuggled}"
    );
    let answers = gateway.raw(bytes).await;
    assert!(!answers.contains("smuggled"), "{answers:?}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let world = World::echoing();
    let gateway = world.start().await;
    let token = bearer(&world.alice());
    let get = |n: u32, last: bool| {
        let close = if last { "Connection: close\r\n" } else { "" };
        format!(
            "POST /items/{n} HTTP/1.1\r\nHost: localhost\r\n{token}\r\n{close}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        )
    };
    let answers = gateway.raw((0..5).map(|n| get(n, n == 4)).collect::<String>()).await;
    let order: Vec<usize> = (0..5).map(|n| answers.find(&format!("\"/items/{n}\"")).unwrap()).collect();
    assert!(order.is_sorted(), "{answers}");
}

#[tokio::test]
async fn methods_that_are_not_for_a_gateway() {
    let world = World::echoing();
    let gateway = world.start().await;
    let trace = gateway.ask("TRACE", "/items", &[&bearer(&world.alice())], "").await;
    let connect =
        gateway.ask_raw("CONNECT localhost:22 HTTP/1.1\r\nHost: localhost:22\r\nConnection: close\r\n\r\n").await;
    for answer in [trace, connect] {
        answer.problem(405, "method-not-allowed");
        assert_eq!(answer.header("allow"), Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    let answer = gateway.ask("OPTIONS", "*", &[], "").await;
    assert_eq!(answer.status, 400, "{answer:?}");
}

#[tokio::test]
async fn a_response_passes_without_what_means_one_connection() {
    let world = World::new(Router::new().route(
        "/items",
        routing::get(async || {
            let mut response = (StatusCode::IM_A_TEAPOT, Body::from("tea")).into_response();
            for (name, value) in
                [("x-kept", "1"), ("proxy-authenticate", "x"), ("txn-token", "x"), ("x-frame-options", "SAMEORIGIN")]
            {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            response
        }),
    ));
    let gateway = world.start().await;
    let answer = gateway.get("/items", &world.alice()).await;
    assert_eq!((answer.status, answer.body.as_str()), (418, "tea"));
    assert_eq!(answer.header("x-kept"), Some("1"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("x-frame-options"), Some("SAMEORIGIN"), "the service knows better");
    for gone in ["proxy-authenticate", "txn-token", header::STRICT_TRANSPORT_SECURITY.as_str()] {
        assert_eq!(answer.header(gone), None, "{gone}");
    }
}
