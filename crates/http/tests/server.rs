//! The mesh server over real sockets: what it answers, what it refuses, what it survives, and how it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod mesh;

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    response::Html,
    routing::{get, post},
};
use berth_http::{
    extract::{Json, Path},
    problem::{CONFLICT, Problem},
    server::{Limits, Peer, ProbeError, probe},
};
use futures_util::stream;
use http::{Method, Request, StatusCode};
use runtime::trace::TraceContext;
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    sync::{Notify, Semaphore},
};
use uuid::Uuid;

use crate::mesh::{Answer, Mesh, Running, absolute, limits, read_to_close, settings, start, with_host};

/// Time that passes without the test's doing; long enough that nothing depends on it.
const SHORT: Duration = Duration::from_millis(200);

fn router() -> Router {
    Router::new()
        .route("/items/{id}", get(async |Path(id): Path<Uuid>| id.to_string()))
        .route("/who", get(async |Extension(Peer(peer)): Extension<Peer>| peer.to_string()))
        .route(
            "/trace",
            get(async |Extension(trace): Extension<TraceContext>| {
                format!("{trace} {}", TraceContext::current().unwrap())
            }),
        )
        .route("/echo", post(async |Json(value): Json<Value>| Json(value)))
        .route("/bytes", post(async |bytes: Bytes| bytes.len().to_string()))
        .route("/axum", post(async |_: axum::Json<Value>| "ok"))
        .route("/panic", get(async || -> String { panic!("it is made of glass") }))
        .route("/conflict", get(async || CONFLICT.detail("taken").with("state", "PENDING")))
        .route("/defect", get(async || Problem::internal(std::io::Error::other("the password is hunter2"))))
        .route("/page", get(async || (StatusCode::BAD_REQUEST, Html("<p>no</p>"))))
        .route("/never", get(async || std::future::pending::<()>().await))
}

fn get_request(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

fn post_json(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).header("content-type", "application/json").body(body.into()).unwrap()
}

/// A body that is sent in pieces without a declared length, and does not end if it holds a pending piece.
fn chunked(pieces: usize, bytes: usize) -> Body {
    Body::from_stream(stream::iter((0..pieces).map(move |_| Ok::<_, std::io::Error>(Bytes::from(vec![b'1'; bytes])))))
}

fn unfinished() -> Body {
    use futures_util::StreamExt as _;
    Body::from_stream(stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"[1,"))]).chain(stream::pending()))
}

#[tokio::test]
async fn both_protocols_are_served_to_the_peer_that_the_certificate_names() {
    let server = start(router(), limits());
    for answer in server.over_both(|| get_request("/who")).await {
        assert_eq!((answer.status(), answer.text()), (StatusCode::OK, "spiffe://eshop.internal/gateway"));
    }
}

#[tokio::test]
async fn a_peer_of_another_authority_is_not_served() {
    let server = start(router(), limits());
    let stranger = Mesh::new().identity("gateway");
    assert!(server.try_connect(&stranger, b"http/1.1").await.is_err());
    server
        .until(|server| server.metric("http_connections_refused_total{reason=\"handshake-failed\"}") == Some(1.0))
        .await;
}

#[tokio::test]
async fn a_trace_is_continued_or_started() {
    let server = start(router(), limits());
    let parent = TraceContext::new();
    let answer = server
        .send(Request::get("/trace").header("traceparent", parent.to_string()).body(Body::empty()).unwrap())
        .await;
    let (extension, current) = answer.text().split_once(' ').unwrap();
    assert_eq!(extension, current);
    let child = TraceContext::parse(current).unwrap();
    assert_eq!(child.trace_id(), parent.trace_id());
    assert_ne!(child.span_id(), parent.span_id());

    for broken in ["nonsense", ""] {
        let answer =
            server.send(Request::get("/trace").header("traceparent", broken).body(Body::empty()).unwrap()).await;
        assert!(TraceContext::parse(answer.text().split(' ').next().unwrap()).is_some());
    }
    let answer = server
        .send(Request::get("/conflict").header("traceparent", parent.to_string()).body(Body::empty()).unwrap())
        .await;
    assert_eq!(answer.problem("conflict")["instance"], format!("urn:berth:trace:{}", parent.trace_id()));
}

#[tokio::test]
async fn every_rejection_is_a_problem() {
    let server = start(router(), limits());
    for (request, slug, status) in [
        (get_request("/nowhere"), "not-found", 404),
        (Request::delete("/echo").body(Body::empty()).unwrap(), "method-not-allowed", 405),
        (Request::builder().method("BREW").uri("/echo").body(Body::empty()).unwrap(), "method-not-allowed", 405),
        (get_request("/items/42"), "invalid-parameter", 400),
        (post_json("/echo", "{"), "malformed-request", 400),
        (Request::post("/echo").body(Body::from("{}")).unwrap(), "unsupported-media-type", 415),
        (post_json("/axum", "{"), "malformed-request", 400),
        (Request::post("/axum").body(Body::from("{}")).unwrap(), "unsupported-media-type", 415),
        (get_request("/conflict"), "conflict", 409),
        (get_request("/defect"), "internal", 500),
        (get_request("/panic"), "internal", 500),
        (Request::post("/livez").body(Body::empty()).unwrap(), "method-not-allowed", 405),
    ] {
        let uri = request.uri().clone();
        let answer = server.send(request).await;
        assert_eq!(answer.status(), status, "{uri}");
        let document = answer.problem(slug);
        assert!(!document.to_string().contains("hunter2") && !document.to_string().contains("glass"), "{document}");
        assert_eq!(answer.header("content-length"), Some(answer.response.body().len().to_string().as_str()), "{uri}");
    }
    let answer = server.send(Request::delete("/echo").body(Body::empty()).unwrap()).await;
    assert_eq!(answer.header("allow"), Some("POST"));
    assert!(answer.problem("method-not-allowed")["detail"].as_str().unwrap().contains("/echo"));
}

#[tokio::test]
async fn an_answer_in_a_form_of_its_own_passes() {
    let server = start(router(), limits());
    let answer = server.get("/page").await;
    assert_eq!((answer.status(), answer.text()), (StatusCode::BAD_REQUEST, "<p>no</p>"));
}

#[tokio::test]
async fn a_panic_ends_neither_the_connection_nor_the_process() {
    let server = start(router(), limits());
    let mut client = server.http2().await;
    let answer = Answer::of(client.send_request(absolute(get_request("/panic"))).await.unwrap()).await;
    answer.problem("internal");
    let answer = Answer::of(client.send_request(absolute(get_request("/who"))).await.unwrap()).await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whether_its_length_is_declared_or_not() {
    let server = start(router(), Limits { body_bytes: 1000, ..limits() });
    for path in ["/echo", "/bytes"] {
        for answer in server.over_both(|| post_json(path, vec![b'1'; 1001])).await {
            assert_eq!(answer.status(), 413);
            answer.problem("payload-too-large");
        }
        for answer in server.over_both(|| post_json(path, chunked(11, 100))).await {
            assert_eq!(answer.status(), 413);
            answer.problem("payload-too-large");
        }
        for answer in server.over_both(|| Request::post("/bytes").body(chunked(10, 100)).unwrap()).await {
            assert_eq!((answer.status(), answer.text()), (StatusCode::OK, "1000"));
        }
    }
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_a_timeout_and_an_answer_that_is_not_found_is_unavailable() {
    let server = start(router(), Limits { request_timeout: SHORT, ..limits() });
    for answer in server.over_both(|| post_json("/echo", unfinished())).await {
        assert_eq!(answer.status(), 408);
        answer.problem("request-timeout");
    }
    for answer in server.over_both(|| get_request("/never")).await {
        assert_eq!((answer.status().as_u16(), answer.header("retry-after")), (503, Some("1")));
        answer.problem("unavailable");
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_or_has_too_many_fields_is_refused() {
    let server = start(router(), Limits { header_bytes: 16 * 1024, ..limits() });
    let huge = format!("GET /who HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "a".repeat(20 * 1024));
    assert!(server.raw(huge.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    let many = format!("GET /who HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: y\r\n".repeat(150));
    assert!(server.raw(many.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    let request = Request::get("/who").header("x", "a".repeat(20 * 1024)).body(Body::empty()).unwrap();
    let answer = server.http2().await.send_request(absolute(request)).await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status() == 431));
    assert_eq!(server.get("/who").await.status(), 200);
}

#[tokio::test]
async fn a_head_that_does_not_arrive_ends_its_connection() {
    let server = start(router(), Limits { header_timeout: SHORT, ..limits() });
    let mut connection = server.connect(b"http/1.1").await;
    connection.write_all(b"GET /who HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    read_to_close(&mut connection).await;
}

#[tokio::test]
async fn an_idle_connection_ends_whichever_the_protocol() {
    let server = start(router(), Limits { idle_timeout: SHORT, linger_timeout: SHORT, ..limits() });
    for alpn in [b"h2" as &[u8], b"http/1.1"] {
        let mut silent = server.connect(alpn).await;
        read_to_close(&mut silent).await;
    }
    server.until(|server| server.metric("http_connections") == Some(0.0)).await;
}

#[tokio::test]
async fn what_is_too_much_at_once_is_refused_and_health_is_still_answered() {
    let (entered, leave) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
    let handler = {
        let (entered, leave) = (Arc::clone(&entered), Arc::clone(&leave));
        move || async move {
            let left = leave.notified();
            entered.add_permits(1);
            left.await;
            "done"
        }
    };
    let server = start(router().route("/wait", get(handler)), Limits { requests: 2, ..limits() });
    let mut client = server.http2().await;
    let waiting: Vec<_> = (0..2).map(|_| tokio::spawn(client.send_request(absolute(get_request("/wait"))))).collect();
    let _entered = entered.acquire_many(2).await.unwrap();

    let refused = Answer::of(client.send_request(absolute(get_request("/who"))).await.unwrap()).await;
    assert_eq!((refused.status().as_u16(), refused.header("retry-after")), (503, Some("1")));
    refused.problem("unavailable");
    for path in ["/livez", "/readyz", "/metrics"] {
        let answer = Answer::of(client.send_request(absolute(get_request(path))).await.unwrap()).await;
        assert_eq!(answer.status(), 200, "{path}");
    }

    leave.notify_waiters();
    for answer in waiting {
        assert_eq!(Answer::of(answer.await.unwrap().unwrap()).await.text(), "done");
    }
    let answer = Answer::of(client.send_request(absolute(get_request("/who"))).await.unwrap()).await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_connection_too_many_is_closed_and_a_closed_one_makes_room() {
    let server = start(router(), Limits { connections: 1, ..limits() });
    let mut first = server.http1().await;
    assert_eq!(first.send_request(with_host(get_request("/who"))).await.unwrap().status(), 200);
    let mut second = server.connect(b"http/1.1").await;
    assert_eq!(read_to_close(&mut second).await, "");
    drop(first);
    server.until(|server| server.metric("http_connections") == Some(0.0)).await;
    server.until(|server| server.metric("http_connections_refused_total{reason=\"too-many\"}") == Some(1.0)).await;
    assert_eq!(server.get("/who").await.status(), 200);
}

#[tokio::test]
async fn clients_that_connect_and_say_nothing_keep_nobody_out() {
    let server = start(router(), Limits { handshakes: 8, handshake_timeout: Duration::from_secs(3600), ..limits() });
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    assert_eq!(server.get("/who").await.status(), 200);
    server
        .until(|server| {
            server
                .metric("http_connections_refused_total{reason=\"handshake-displaced\"}")
                .is_some_and(|count| count >= 92.0)
        })
        .await;
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_ended() {
    let server = start(router(), Limits { handshake_timeout: SHORT, ..limits() });
    let _silent = TcpStream::connect(server.address).await.unwrap();
    server
        .until(|server| server.metric("http_connections_refused_total{reason=\"handshake-timeout\"}") == Some(1.0))
        .await;
}

#[tokio::test]
async fn a_peer_that_opens_streams_only_to_reset_them_is_disconnected() {
    let server = start(router(), limits());
    let (client, connection) = h2::client::handshake(server.connect(b"h2").await).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let ended = async {
        loop {
            let Ok(ready) = client.clone().ready().await else { return };
            client = ready;
            let request = Request::get("https://x/never").body(()).unwrap();
            let Ok((_, mut stream)) = client.send_request(request, true) else { return };
            stream.send_reset(h2::Reason::CANCEL);
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ended).await.expect("the server gave up on it");
    connection.await.unwrap().unwrap_err();
    assert_eq!(server.get("/who").await.status(), 200);
}

#[tokio::test]
async fn labels_do_not_grow_with_what_clients_send() {
    let server = start(router(), limits());
    for _ in 0..3 {
        server.get(&format!("/items/{}", Uuid::now_v7())).await;
        server.get(&format!("/{}", Uuid::now_v7())).await;
    }
    server
        .send(Request::builder().method(Method::from_bytes(b"BREW").unwrap()).uri("/who").body(Body::empty()).unwrap())
        .await;
    server.until(|server| server.metric("http_requests_in_flight") == Some(0.0)).await;
    let metric = |labels: &str| server.metric(&format!("http_requests_total{{{labels}}}"));
    assert_eq!(metric("method=\"GET\",route=\"/items/{id}\",status=\"200\""), Some(3.0));
    assert_eq!(metric("method=\"GET\",route=\"none\",status=\"404\""), Some(3.0));
    assert_eq!(metric("method=\"OTHER\",route=\"/who\",status=\"405\""), Some(1.0));
    assert_eq!(server.metric("http_request_duration_seconds_count{method=\"GET\",route=\"/items/{id}\"}"), Some(3.0));
    let answer = server.get("/metrics").await;
    assert_eq!(answer.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(answer.text().contains("process_resident_memory_bytes"));
}

#[tokio::test]
async fn a_client_that_leaves_is_counted() {
    let server = start(router(), limits());
    let mut client = server.http2().await;
    let waiting = tokio::spawn(client.send_request(absolute(get_request("/never"))));
    server.until(|server| server.metric("http_requests_in_flight") == Some(1.0)).await;
    waiting.abort();
    drop(client);
    server
        .until(|server| {
            server.metric("http_requests_total{method=\"GET\",route=\"/never\",status=\"499\"}") == Some(1.0)
        })
        .await;
    assert_eq!(server.metric("http_requests_in_flight"), Some(0.0));
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let server = start(router(), limits());
    let answer = server.get("/readyz").await;
    assert_eq!((answer.status(), answer.json()), (StatusCode::OK, json!({"ready": true, "checks": {}})));
    server.health.check("database", async || Err("connection refused".to_owned()));
    let answer = async || server.get("/readyz").await;
    let unready = loop {
        let answer = answer().await;
        if answer.status() != 200 {
            break answer;
        }
    };
    let document = unready.problem("unavailable");
    assert_eq!(document["checks"]["database"], json!({"state": "unready", "reason": "connection refused"}));
    assert!(document["detail"].as_str().unwrap().contains("database"));
    assert_eq!(server.get("/livez").await.status(), 200);
}

/// Starts a request that waits in its handler, begins the drain, and returns with what lets the request finish.
async fn drain_during_a_request(http2: bool) -> (Running, tokio::task::JoinHandle<Answer>, Arc<Notify>) {
    let (entered, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (entered, leave) = (Arc::clone(&entered), Arc::clone(&leave));
        move || async move {
            entered.notify_one();
            leave.notified().await;
            "done"
        }
    };
    let server = start(Router::new().route("/wait", get(handler)), limits());
    let request = if http2 {
        let mut client = server.http2().await;
        tokio::spawn(async move {
            let answer = Answer::of(client.send_request(absolute(get_request("/wait"))).await.unwrap()).await;
            assert!(
                client.send_request(absolute(get_request("/wait"))).await.is_err(),
                "a drained connection takes nothing new"
            );
            answer
        })
    } else {
        let mut client = server.http1().await;
        tokio::spawn(
            async move { Answer::of(client.send_request(with_host(get_request("/wait"))).await.unwrap()).await },
        )
    };
    entered.notified().await;
    server.lifecycle.drain();
    (server, request, leave)
}

#[tokio::test]
async fn until_it_is_prepared_it_says_so_and_calls_no_handler() {
    let server = start(router(), limits());
    let schema = server.health.awaits("schema", "not up to date yet");
    for request in [|| get_request("/panic"), || post_json("/echo", "{")] {
        for answer in server.over_both(request).await {
            let document = answer.problem("unavailable");
            assert_eq!(document["detail"], "The service is starting: its schema is not up to date yet.");
            assert_eq!((answer.status(), answer.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, Some("1")));
        }
    }
    assert_eq!(server.get("/livez").await.status(), StatusCode::OK);
    assert_eq!(server.get("/readyz").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    schema.happened();
    assert_eq!(server.get("/who").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_drain_lets_requests_finish_and_lets_nobody_in() {
    for http2 in [false, true] {
        let (mut server, request, leave) = drain_during_a_request(http2).await;
        (&mut server.serving).await.unwrap();
        assert!(TcpStream::connect(server.address).await.is_err(), "the socket is closed");
        leave.notify_one();
        let answer = request.await.unwrap();
        assert_eq!((answer.status(), answer.text()), (StatusCode::OK, "done"));
        server.lifecycle.drained(Duration::from_secs(3600)).await;
        assert_eq!(server.lifecycle.tasks().len(), 0);
    }
}

#[tokio::test]
async fn a_drain_ends_connections_that_are_idle_or_still_shaking_hands() {
    let server = start(router(), Limits { linger_timeout: SHORT, ..limits() });
    let mut idle = [server.connect(b"http/1.1").await, server.connect(b"h2").await];
    let _silent = TcpStream::connect(server.address).await.unwrap();
    server.until(|server| server.metric("http_connections") == Some(2.0)).await;
    server.lifecycle.drain();
    server.lifecycle.drained(Duration::from_secs(3600)).await;
    for connection in &mut idle {
        read_to_close(connection).await;
    }
}

#[tokio::test]
async fn a_drain_does_not_wait_longer_than_its_grace_period() {
    let (server, _request, _leave) = drain_during_a_request(true).await;
    server.lifecycle.drained(SHORT).await;
    assert_eq!(server.lifecycle.tasks().len(), 1);
}

#[tokio::test]
async fn the_probe_passes_when_the_instance_is_ready_and_says_why_when_not() {
    let mut server = start(router(), limits());
    let settings = settings(server.address);
    probe(&settings, &server.identity).await.unwrap();

    let other = server.mesh.identity("eshop-documents");
    assert!(matches!(probe(&settings, &other).await, Err(ProbeError::Handshake(_))));

    server.health.check("database", async || Err("connection refused".to_owned()));
    let error = loop {
        if let Err(error) = probe(&settings, &server.identity).await {
            break error;
        }
    };
    assert!(error.to_string().contains("503") && error.to_string().contains("database"), "{error}");

    server.lifecycle.drain();
    server.serving.await.unwrap();
    assert!(matches!(probe(&settings, &server.identity).await, Err(ProbeError::Connect(_))));
}
