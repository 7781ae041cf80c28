//! What a client may cost.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request, http::StatusCode, routing};
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh::{Bytes as Size, Millis};
use rustls::version::TLS13;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{Semaphore, mpsc},
};

use crate::world::{Connection, LONG, World, bearer, echo, parse, read_all, read_one};

const SHORT: Millis = Millis::new(300);

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_however_it_comes() {
    let mut world = World::echoing();
    world.limit_body(100_000);
    let gateway = world.start().await;
    let token = bearer(&world.alice());
    let fits = gateway.ask("POST", "/items", &[&token], &"a".repeat(100_000)).await;
    assert_eq!(fits.status, 200);
    gateway.ask("POST", "/items", &[&token], &"a".repeat(100_001)).await.problem(413, "payload-too-large");
    let chunk = format!("186a1\r\n{}\r\n0\r\n\r\n", "a".repeat(100_001));
    let chunked = format!(
        "POST /items HTTP/1.1\r\nHost: a\r\n{token}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"
    );
    gateway.ask_raw(chunked).await.problem(413, "payload-too-large");
    // Refused by what it says, before anything of it has come.
    let mut connection = gateway.connect().await;
    let head = format!("POST /items HTTP/1.1\r\nHost: a\r\n{token}\r\nContent-Length: 99999999999\r\n\r\n");
    connection.write_all(head.as_bytes()).await.unwrap();
    parse(&read_all(&mut connection).await).problem(413, "payload-too-large");
}

#[tokio::test]
async fn a_body_that_is_not_said_to_end_is_passed_on() {
    let world = World::echoing();
    let gateway = world.start().await;
    let token = bearer(&world.alice());
    let chunked = format!(
        "POST /items HTTP/1.1\r\nHost: a\r\n{token}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-Trailer: 1\r\n\r\n"
    );
    assert_eq!(gateway.ask_raw(chunked).await.json()["body"], "hello world");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let mut world = World::echoing();
    world.plan.gateway.limits.max_header_bytes = Size::new(16 * 1024);
    let gateway = world.start().await;
    let field = |length: usize| format!("X-Padding: {}", "a".repeat(length));
    gateway.ask("GET", "/items", &[&field(17_000)], "").await.problem(431, "request-header-fields-too-large");
    let answer = gateway.ask("GET", "/items", &[&field(100_000)], "").await;
    assert_eq!(answer.status, 431);
    let many: Vec<String> = (0..200).map(|n| format!("X-{n}: 1")).collect();
    let answer = gateway.ask("GET", "/items", &many.iter().map(String::as_str).collect::<Vec<_>>(), "").await;
    assert_eq!(answer.status, 431);
    let line = gateway.ask("GET", &format!("/items?{}", "a".repeat(17_000)), &[], "").await;
    line.problem(431, "request-header-fields-too-large");
}

/// What passes the gateway's measure passes the service's, with what the gateway adds and however it is encoded: a head
/// that is too large for an instance would end the connection that all clients share.
#[tokio::test]
async fn a_head_that_passes_the_gateway_is_not_too_large_for_a_service() {
    // The default, and the most that can be declared.
    for kib in [16, 24] {
        a_service_takes_what_passes(kib * 1024).await;
    }
}

async fn a_service_takes_what_passes(most: usize) {
    let gate = Arc::new(Semaphore::new(0));
    let (asked, mut arrivals) = mpsc::unbounded_channel();
    let waiting = Arc::clone(&gate);
    let hold = move || {
        asked.send(()).unwrap();
        let waiting = Arc::clone(&waiting);
        async move { waiting.acquire().await.map_or(StatusCode::GONE, |_| StatusCode::OK) }
    };
    let mut world = World::echoing();
    let service = Router::new().route("/items/hold", routing::post(hold)).route("/items", routing::get(echo));
    let _serving = world.serve_items(service);
    world.plan.gateway.limits.max_header_bytes = Size::new(most as u64);
    let gateway = world.start().await;
    let stream = gateway.connect_as(b"h2", &[&TLS13]).await;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let token = format!("Bearer {}", world.alice());
    let request = |method, path: &str| {
        let request = http::Request::builder().method(method).uri(format!("https://localhost{path}"));
        request.header("authorization", &token).body(Empty::<Bytes>::new()).unwrap()
    };

    // A request that is not sent again when its connection fails.
    let held = tokio::spawn(sender.send_request(request("POST", "/items/hold")));
    arrivals.recv().await.unwrap();
    // Of the bytes a value may have, this one has the longest code in HPACK: 28 bits.
    let large = |length: usize| vec![("x-large".to_owned(), vec![0xf9; length])];
    let tiny = |count: usize| (0..count).map(|n| (format!("x-{n}"), b"1".to_vec())).collect::<Vec<_>>();
    for (name, fields, status) in [
        ("one large value", large(most - 1000), 200),
        ("too large a value", large(most + 10), 431),
        ("many tiny fields", tiny(most / 43), 200),
        ("too many tiny fields", tiny(most / 32), 431),
        ("far too many", tiny(most / 22), 431),
    ] {
        let mut request = request("GET", "/items");
        for (name, value) in fields {
            request.headers_mut().append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
        }
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), status, "{name}, {most} at most");
        let expected = if status == 200 { "application/json" } else { "application/problem+json" };
        assert_eq!(response.headers()["content-type"], expected, "{name}");
        response.into_body().collect().await.unwrap();
    }
    let unbroken = "upstream_attempts_total{service=\"items\",outcome=\"failed\"} 0";
    assert!(gateway.metrics.encode().contains(unbroken), "a request broke on its way to the service");
    gate.add_permits(1);
    assert_eq!(held.await.unwrap().unwrap().status(), 200, "the connection to the service did not survive");
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let mut world = World::echoing();
    world.plan.gateway.limits.header_timeout_ms = SHORT;
    let gateway = world.start().await;
    let mut connection = gateway.connect().await;
    connection.write_all(b"GET /items HTTP/1.1\r\nHost: a\r\nX-Slow: ").await.unwrap();
    assert_eq!(read_all(&mut connection).await, "");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let mut world = World::echoing();
    world.plan.gateway.limits.header_timeout_ms = SHORT;
    let gateway = world.start().await;
    let token = bearer(&world.alice());
    for framing in ["Content-Length: 100", "Content-Length: 100000", "Transfer-Encoding: chunked"] {
        let mut connection = gateway.connect().await;
        let head = format!("POST /items HTTP/1.1\r\nHost: a\r\n{token}\r\n{framing}\r\n\r\n5\r\nhello\r\n");
        connection.write_all(head.as_bytes()).await.unwrap();
        parse(&read_all(&mut connection).await).problem(408, "request-timeout");
    }
}

/// A body that never pauses for long ends with the request's time, and that is the client's fault, not the service's.
#[tokio::test]
async fn a_body_that_drips_is_given_up_before_the_service_is() {
    let mut world = World::echoing();
    world.plan.gateway.limits.total_timeout_ms = Millis::new(600);
    let gateway = world.start().await;
    let token = bearer(&world.alice());
    for (framing, drop) in
        [("Content-Length: 1000", "a"), ("Content-Length: 100000", "a"), ("Transfer-Encoding: chunked", "1\r\na\r\n")]
    {
        let connection = gateway.connect().await;
        let (mut from, mut to) = tokio::io::split(connection);
        let head = format!("POST /items HTTP/1.1\r\nHost: a\r\n{token}\r\n{framing}\r\n\r\n");
        to.write_all(head.as_bytes()).await.unwrap();
        let dripping = async {
            let mut often = tokio::time::interval(Duration::from_millis(20));
            // Until nobody listens any more.
            while to.write_all(drop.as_bytes()).await.is_ok() {
                often.tick().await;
            }
        };
        let mut answer = Vec::new();
        let reading = tokio::time::timeout(LONG, from.read_to_end(&mut answer));
        let (read, ()) = tokio::join!(reading, dripping);
        assert!(read.is_ok(), "{framing}: the connection stays open");
        parse(&String::from_utf8_lossy(&answer)).problem(408, "request-timeout");
    }
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_and_one_with_many_is_not() {
    let mut world = World::echoing();
    world.plan.gateway.limits.header_timeout_ms = SHORT;
    world.plan.gateway.limits.idle_timeout_ms = Millis::new(1000);
    let gateway = world.start().await;
    let request = format!("GET /items HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n", bearer(&world.alice()));
    let mut connection = gateway.connect().await;
    let started = tokio::time::Instant::now();
    while started.elapsed() < Duration::from_millis(1500) {
        connection.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(read_one(&mut connection).await.status, 200);
    }
    assert_eq!(read_all(&mut connection).await, "");
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_given_up() {
    let mut world = World::new(Router::new().fallback(std::future::pending::<StatusCode>));
    world.plan.gateway.limits.total_timeout_ms = SHORT;
    let gateway = world.start().await;
    gateway.get("/items", &world.alice()).await.problem(504, "upstream-timeout");
}

#[tokio::test]
async fn requests_in_flight_are_bounded() {
    let gate = Arc::new(Semaphore::new(0));
    let (asked, mut arrivals) = mpsc::unbounded_channel();
    let waiting = Arc::clone(&gate);
    let mut world =
        World::new(Router::new().fallback(move || {
            asked.send(()).unwrap();
            let waiting = Arc::clone(&waiting);
            async move {
                waiting.acquire().await.map(|permit| permit.forget()).map_or(StatusCode::GONE, |()| StatusCode::OK)
            }
        }));
    world.plan.gateway.limits.max_requests = 1;
    let gateway = world.start().await;
    let alice = world.alice();
    let held = gateway.get("/items", &alice);
    let other = async {
        arrivals.recv().await.unwrap();
        let answer = gateway.get("/items", &alice).await;
        gate.add_permits(2);
        answer
    };
    let (held, other) = tokio::join!(held, other);
    assert_eq!(held.status, 200);
    other.problem(503, "unavailable");
    assert!(other.header("retry-after").is_some());
    assert_eq!(gateway.get("/items", &alice).await.status, 200);
}

#[tokio::test]
async fn whoever_fails_to_enter_too_often_is_told_to_wait() {
    let world = World::echoing();
    let gateway = world.start().await;
    let request = "GET /items HTTP/1.1\r\nHost: a\r\n\r\n".repeat(300);
    let last = "GET /items HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answers = gateway.raw(format!("{request}{last}")).await;
    assert!(answers.matches("HTTP/1.1 401").count() >= 100);
    assert!(answers.matches("HTTP/1.1 429").count() >= 100, "{}", answers.matches("HTTP/1.1 429").count());
    assert!(answers.contains("too-many-requests") && answers.contains("retry-after"));
    // Whoever has a token is let in all the same.
    assert_eq!(gateway.get("/items", &world.alice()).await.status, 200);
}

#[tokio::test]
async fn a_rate_of_the_plan_bounds_every_client() {
    let mut world = World::echoing();
    world.plan.gateway.limits.rate_per_second = Some(1);
    world.plan.gateway.limits.rate_burst = Some(3);
    let gateway = world.start().await;
    let token = world.alice();
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(gateway.get("/items", &token).await.status);
    }
    assert_eq!(statuses[..3], [200, 200, 200]);
    assert!(statuses.contains(&429), "{statuses:?}");
}

#[tokio::test]
async fn bodies_stream_through_without_being_kept() {
    // The service answers each part before it has the next.
    let world = World::new(Router::new().route("/items", routing::post(async |request: Request| request.into_body())));
    let gateway = world.start().await;
    let mut connection = gateway.connect().await;
    let head = format!(
        "POST /items HTTP/1.1\r\nHost: a\r\n{}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
        bearer(&world.alice())
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    for n in 0..10 {
        connection.write_all(format!("6\r\npart {n}\r\n").as_bytes()).await.unwrap();
        wait_for(&mut connection, &format!("part {n}")).await;
    }
    connection.write_all(b"0\r\n\r\n").await.unwrap();
    read_all(&mut connection).await;
}

async fn wait_for(connection: &mut Connection, wanted: &str) {
    let mut text = String::new();
    while !text.contains(wanted) {
        let byte = tokio::time::timeout(LONG, connection.read_u8()).await.unwrap().unwrap();
        text.push(char::from(byte));
    }
}

#[tokio::test]
async fn a_client_that_reads_slowly_slows_the_service_down() {
    let (sent, mut parts) = mpsc::unbounded_channel();
    let world = World::new(Router::new().route(
        "/items",
        routing::get(move || {
            let sent = sent.clone();
            async move {
                Body::from_stream(futures_util::stream::unfold(0, move |n| {
                    let _ = sent.send(n);
                    std::future::ready(Some((Ok::<_, std::io::Error>(Bytes::from(vec![b'a'; 64 * 1024])), n + 1)))
                }))
            }
        }),
    ));
    let gateway = world.start().await;
    let mut connection = gateway.connect().await;
    let head = format!("GET /items HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n", bearer(&world.alice()));
    connection.write_all(head.as_bytes()).await.unwrap();
    // The endless body stops when every buffer on the way is full, and goes no further for a while.
    let mut produced = 0;
    while let Ok(Some(n)) = tokio::time::timeout(Duration::from_secs(1), parts.recv()).await {
        produced = n;
        assert!(n < 2000, "more than 125 MB were taken for a client that reads nothing");
    }
    assert!(produced > 0);
}
