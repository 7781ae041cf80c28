//! The protocols, the drain, the reload, another issuer.

use std::{convert::Infallible, sync::Arc};

use axum::{Json, Router, body::Body, http::StatusCode, routing};
use berth_http::testing::Instance;
use bytes::Bytes;
use futures_util::{FutureExt as _, stream::once};
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh::plan::{Algorithm, JwksFrom, RouteAuth};
use rustls::version::{TLS12, TLS13};
use serde_json::json;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpListener,
    sync::{Semaphore, mpsc, oneshot},
};

use crate::world::{LONG, World, bearer, echo, read_all, read_one};

#[tokio::test]
async fn http2_is_spoken_and_held_to_the_same_rules() {
    let world = World::echoing();
    let gateway = world.start().await;
    let stream = gateway.connect_as(b"h2", &[&TLS13]).await;
    let (mut sender, connection) =
        http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let token = format!("Bearer {}", world.alice());
    for (target, host, status) in [
        ("https://localhost/items/%7e", None, 200),
        ("https://localhost/items", Some("localhost"), 200),
        ("https://localhost/items", Some("elsewhere"), 400),
        ("https://localhost/items/..%2fx", None, 400),
        ("https://localhost/internal", None, 404),
    ] {
        let mut request = Request::get(target).header("authorization", &token);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let response = sender.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
        assert_eq!(response.status(), status, "{target} {host:?}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        if status == 200 {
            let seen: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(seen["headers"]["x-forwarded-host"], "localhost");
        }
    }
    gateway.lifecycle.drain();
    // GOAWAY: the connection ends although nothing closed it from here.
    let ended = async {
        while !sender.is_closed() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, ended).await.unwrap();
}

#[tokio::test]
async fn a_refusal_waits_for_the_end_of_a_short_request() {
    let world = World::echoing();
    let gateway = world.start().await;
    let stream = gateway.connect_as(b"h2", &[&TLS13]).await;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = |text: oneshot::Receiver<Bytes>| {
        let frame = once(async { Ok::<_, Infallible>(Frame::data(text.await.unwrap())) });
        let request = Request::post("https://localhost/items").header("content-length", "5");
        request.body(StreamBody::new(Box::pin(frame))).unwrap()
    };
    let (slow, fast) = (oneshot::channel(), oneshot::channel());
    let mut refusal = Box::pin(sender.send_request(request(slow.1)));
    assert!((&mut refusal).now_or_never().is_none());
    fast.0.send(Bytes::from("hello")).unwrap();
    assert_eq!(sender.send_request(request(fast.1)).await.unwrap().status(), 401);
    assert!((&mut refusal).now_or_never().is_none(), "the answer came before the request had ended");
    slow.0.send(Bytes::from("hello")).unwrap();
    assert_eq!(refusal.await.unwrap().status(), 401);
}

#[tokio::test]
async fn tls_1_2_is_spoken_to_those_who_need_it() {
    let world = World::echoing();
    let gateway = world.start().await;
    let mut connection = gateway.connect_as(b"http/1.1", &[&TLS12]).await;
    let request = format!("GET /items HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n", bearer(&world.alice()));
    connection.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(read_one(&mut connection).await.status, 200);
}

#[tokio::test]
async fn a_drain_finishes_what_has_begun_and_begins_nothing() {
    let gate = Arc::new(Semaphore::new(0));
    let (asked, mut arrivals) = mpsc::unbounded_channel();
    let waiting = Arc::clone(&gate);
    let world = World::new(Router::new().fallback(move || {
        asked.send(()).unwrap();
        let waiting = Arc::clone(&waiting);
        async move { waiting.acquire().await.map_or(StatusCode::GONE, |_| StatusCode::OK) }
    }));
    let gateway = world.start().await;
    let request = format!("GET /items HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n", bearer(&world.alice()));
    let mut busy = gateway.connect().await;
    let mut idle = gateway.connect().await;
    busy.write_all(request.as_bytes()).await.unwrap();
    arrivals.recv().await.unwrap();

    gateway.lifecycle.drain();
    assert_eq!(read_all(&mut idle).await, "", "an idle connection is closed at once");
    let refused = async { while tokio::net::TcpStream::connect(gateway.address).await.is_ok() {} };
    tokio::time::timeout(LONG, refused).await.unwrap();

    gate.add_permits(1);
    let answer = crate::world::parse(&read_all(&mut busy).await);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("connection"), Some("close"));
    tokio::time::timeout(LONG, gateway.lifecycle.drained(LONG)).await.unwrap();
}

#[tokio::test]
async fn a_reload_puts_the_new_into_force_and_keeps_the_old_when_the_new_is_broken() {
    let mut world = World::echoing();
    let gateway = world.start().await;
    let token = world.alice();
    gateway.get("/open", "").await;
    let open = Instance::mesh(&world.mesh, "open", Router::new().fallback(echo));
    world.place("open", &[open.address()]);
    std::fs::write(world.plan_path(), world.plan.to_json()).unwrap();
    assert_eq!(gateway.reloadable.reload().await, 0);
    assert_eq!(gateway.get("/open", &token).await.status, 200);
    assert_eq!(world.items.connections(), 2, "what has not changed stays connected");

    std::fs::write(world.plan_path(), "{ \"version\": 2 }").unwrap();
    assert_eq!(gateway.reloadable.reload().await, 1);
    assert_eq!(gateway.get("/open", &token).await.status, 200);

    world.plan.domain = mesh::Domain::new("other.internal").unwrap();
    std::fs::write(world.plan_path(), world.plan.to_json()).unwrap();
    assert_eq!(gateway.reloadable.reload().await, 1);
    assert_eq!(gateway.get("/items", &token).await.status, 200);
    assert!(gateway.metrics.encode().contains("gateway_reloads_total{reason=\"failed\"} 2"));
}

#[tokio::test]
async fn the_public_certificate_is_replaced_under_way() {
    let world = World::echoing();
    let gateway = world.start().await;
    let certificate = async || {
        let connection = gateway.connect().await;
        connection.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let before = certificate().await;
    std::fs::write(world.plan_path(), world.plan.to_json()).unwrap();
    let new = world.mesh.authority().issue_public(&["localhost"], &[]).unwrap();
    std::fs::write(world.mesh.folder("gateway").join("public-cert.pem"), "half").unwrap();
    assert_eq!(gateway.reloadable.reload().await, 1);
    assert_eq!(certificate().await, before);
    std::fs::write(world.mesh.folder("gateway").join("public-cert.pem"), new.cert_pem).unwrap();
    std::fs::write(world.mesh.folder("gateway").join("public-key.pem"), &*new.key_pem).unwrap();
    assert_eq!(gateway.reloadable.reload().await, 0);
    assert_ne!(certificate().await, before);
}

/// An OpenID provider as far as a gateway sees it, outside the mesh: https with a certificate that only `issuer-ca.pem`
/// vouches for.
async fn outside_issuer(world: &World) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let authority = tls::authority::Authority::create("outside.example").unwrap();
    let leaf = authority.issue_public(&["localhost"], &[]).unwrap();
    let folder = world.mesh.folder("issuer");
    std::fs::write(folder.join("public-cert.pem"), leaf.cert_pem).unwrap();
    std::fs::write(folder.join("public-key.pem"), &*leaf.key_pem).unwrap();
    std::fs::write(world.mesh.folder("gateway").join("issuer-ca.pem"), authority.ca_pem()).unwrap();
    let certificate = tls::PublicCertificate::load(&world.mesh.credentials("issuer")).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(certificate.server_config(&[b"http/1.1"]).unwrap());
    let discovery = json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/keys") });
    let keys = json!({ "keys": [world.issuer.jwk()] });
    let router = Router::new()
        .route("/.well-known/openid-configuration", routing::get(async || Json(discovery)))
        .route("/keys", routing::get(async || Json(keys)));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, router) = (acceptor.clone(), router.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper_util::service::TowerToHyperService::new(router);
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    issuer
}

#[tokio::test]
async fn an_outside_issuer_takes_the_place_of_identity_by_configuration_alone() {
    let mut world = World::echoing();
    let issuer = outside_issuer(&world).await;
    let gateway = world.start().await;
    let (inside, outside) = (world.alice(), world.token(&json!({ "iss": issuer })));
    assert_eq!(gateway.get("/items", &inside).await.status, 200);
    assert_eq!(gateway.get("/items", &outside).await.status, 401);

    world.plan.auth.issuer = issuer;
    world.plan.auth.jwks = JwksFrom::Discovery;
    world.plan.auth.algorithms = vec![Algorithm::EdDSA];
    std::fs::write(world.plan_path(), world.plan.to_json()).unwrap();
    assert_eq!(gateway.reloadable.reload().await, 0);
    assert_eq!(gateway.get("/items", &outside).await.status, 200);
    assert_eq!(gateway.get("/items", &inside).await.status, 401);

    // An issuer that cannot be reached does not take the place of one that can.
    world.plan.auth.issuer = "https://localhost:1".to_owned();
    std::fs::write(world.plan_path(), world.plan.to_json()).unwrap();
    assert_eq!(gateway.reloadable.reload().await, 1);
    assert_eq!(gateway.get("/items", &outside).await.status, 200);
}

#[tokio::test]
async fn an_issuer_that_has_moved_is_found_again() {
    let mut world = World::echoing();
    let gateway = world.start().await;
    assert_eq!(gateway.get("/items", &world.alice()).await.status, 200);
    world.move_identity();
    std::fs::write(world.plan_path(), world.plan.to_json()).unwrap();
    assert_eq!(gateway.reloadable.reload().await, 0);
    assert_eq!(gateway.get("/items", &world.alice()).await.status, 200);
}

#[tokio::test]
async fn a_route_of_the_new_plan_may_ask_for_less() {
    let mut world = World::echoing();
    let gateway = world.start().await;
    assert_eq!(gateway.ask("GET", "/items", &[], "").await.status, 401);
    for route in &mut world.plan.gateway.routes {
        route.auth = RouteAuth::Optional;
    }
    std::fs::write(world.plan_path(), world.plan.to_json()).unwrap();
    assert_eq!(gateway.reloadable.reload().await, 0);
    assert_eq!(gateway.ask("GET", "/items", &[], "").await.status, 200);
}

#[tokio::test]
async fn what_happened_is_counted() {
    let world = World::new(Router::new().route("/items", routing::get(async || Body::from("x"))));
    let gateway = world.start().await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/items", &world.alice()).await.status, 200);
    }
    gateway.ask("GET", "/items", &[], "").await;
    gateway.ask("GET", "/nowhere", &[], "").await;
    let metrics = gateway.metrics.encode();
    for line in [
        "gateway_requests_total{route=\"/items\",status=\"200\"} 3",
        "gateway_requests_total{route=\"/items\",status=\"401\"} 1",
        "gateway_requests_total{route=\"\",status=\"404\"} 1",
        "gateway_rejected_tokens_total{reason=\"absent\"} 1",
        "upstream_attempts_total{service=\"items\",outcome=\"answered\"} 3",
        "upstream_links{service=\"items\",state=\"up\"} 2",
        "gateway_in_flight_requests 0",
    ] {
        assert!(metrics.contains(line), "no {line} in\n{metrics}");
    }
}
