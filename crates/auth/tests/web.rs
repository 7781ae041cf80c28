//! The layer and the extractor, on a router as services build it.
#![allow(clippy::unwrap_used, missing_docs)]

use auth::testing::{TestIssuer, unsigned_from};
use auth::web::{self, Caller};
use auth::{Principal, internal};
use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::BodyExt;
use runtime::clock::Clock;
use tower::ServiceExt;

fn issuer() -> TestIssuer {
    TestIssuer::with_callers("items", &["gateway", "documents"], Clock::system())
}

fn router(issuer: &TestIssuer) -> Router {
    let name = async |caller: Caller| format!("{} via {}", caller.subject, caller.actors.len());
    Router::new().route("/", get(name)).layer(web::require(issuer.verifier()))
}

fn request() -> Request<Body> {
    Request::get("/").body(Body::empty()).unwrap()
}

async fn send(router: Router, request: Request<Body>) -> (StatusCode, String) {
    let response = router.oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn a_handler_sees_the_verified_caller() {
    let issuer = issuer();
    let request = issuer.sign(request(), &Principal::user("alice", ["customer"]));
    assert_eq!(send(router(&issuer), request).await, (StatusCode::OK, "alice via 1".to_owned()));
}

#[tokio::test]
async fn nobody_comes_in_without_exactly_one_good_token_from_the_peer() {
    let issuer = issuer();
    let alice = Principal::user("alice", ["customer"]);
    let token = HeaderValue::try_from(issuer.token_from("gateway", &alice)).unwrap();

    let without = unsigned_from("gateway", request());
    let mut without_peer = request();
    without_peer.headers_mut().insert(internal::HEADER, token.clone());
    let mut from_another = unsigned_from("documents", request());
    from_another.headers_mut().insert(internal::HEADER, token.clone());
    let mut twice = issuer.sign(request(), &alice);
    twice.headers_mut().append(internal::HEADER, token);
    let mut garbled = unsigned_from("gateway", request());
    garbled.headers_mut().insert(internal::HEADER, HeaderValue::from_bytes(&[0xff]).unwrap());

    for (name, request) in [
        ("without", without),
        ("without a peer", without_peer),
        ("from another", from_another),
        ("twice", twice),
        ("garbled", garbled),
    ] {
        let (status, body) = send(router(&issuer), request).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{name}: {body}");
    }
}

#[tokio::test]
async fn a_handler_that_was_not_put_behind_the_layer_lets_nobody_in() {
    let router = Router::new().route("/", get(async |_: Caller| "in"));
    assert_eq!(send(router, request()).await.0, StatusCode::UNAUTHORIZED);
}
