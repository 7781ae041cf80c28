//! Instances that die, and what clients see of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, body::Body, http::StatusCode, routing};
use berth_http::testing::Instance;
use bytes::Bytes;
use tokio::{io::AsyncWriteExt as _, sync::mpsc};

use crate::world::{Running, World, bearer, echo, read_all, read_one};

/// Asks until the answer is this one.
async fn until_status(gateway: &Running, token: &str, status: u16) {
    let asking = async {
        while gateway.get("/items", token).await.status != status {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::world::LONG, asking).await.unwrap();
}

#[tokio::test]
async fn a_service_that_is_away_comes_back_without_anybodys_help() {
    let mut world = World::echoing();
    let gateway = world.start().await;
    let token = world.alice();
    assert_eq!(gateway.get("/items", &token).await.status, 200);
    for _ in 0..3 {
        world.items.kill().await;
        let answer = gateway.ask("POST", "/items", &[&bearer(&token)], "x").await;
        answer.problem(503, "unavailable");
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(gateway.get("/identity/echo", &token).await.status, 200, "the others go on");
        world.items.restart().await;
        until_status(&gateway, &token, 200).await;
    }
}

#[tokio::test]
async fn killing_an_instance_under_load_loses_no_request_that_can_be_repeated() {
    let mut world = World::echoing();
    let mut other = Instance::mesh(&world.mesh, "items", Router::new().fallback(echo));
    world.place("items", &[world.items.address(), other.address()]);
    let gateway = Arc::new(world.start().await);
    let token = world.alice();
    gateway.until_counted("upstream_links{service=\"items\",state=\"up\"} 4").await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (gateway, token, stop, done) =
                (Arc::clone(&gateway), token.clone(), Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                let mut connection = gateway.connect().await;
                let request = format!("GET /items HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n", bearer(&token));
                while !stop.load(SeqCst) {
                    connection.write_all(request.as_bytes()).await.unwrap();
                    let answer = read_one(&mut connection).await;
                    assert_eq!(answer.status, 200, "{answer:?}");
                    done.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    let progress = async || {
        let before = done.load(SeqCst);
        while done.load(SeqCst) < before + 100 && !load.iter().any(tokio::task::JoinHandle::is_finished) {
            tokio::task::yield_now().await;
        }
    };
    for _ in 0..3 {
        progress().await;
        other.kill().await;
        progress().await;
        other.restart().await;
        let before = other.requests();
        while other.requests() == before && !load.iter().any(tokio::task::JoinHandle::is_finished) {
            tokio::task::yield_now().await;
        }
    }
    stop.store(true, SeqCst);
    for client in load {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_does_not_look_complete() {
    let (asked, mut arrivals) = mpsc::unbounded_channel();
    let mut world = World::new(Router::new().route(
        "/items",
        routing::get(move || {
            asked.send(()).unwrap();
            async {
                let first = futures_util::stream::once(async { Ok::<_, std::io::Error>(Bytes::from_static(b"first")) });
                Body::from_stream(futures_util::StreamExt::chain(first, futures_util::stream::pending()))
            }
        }),
    ));
    let gateway = world.start().await;
    let mut connection = gateway.connect().await;
    let head = format!("GET /items HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n", bearer(&world.alice()));
    connection.write_all(head.as_bytes()).await.unwrap();
    arrivals.recv().await.unwrap();
    let mut text = String::new();
    while !text.contains("first") {
        use tokio::io::AsyncReadExt as _;
        text.push(char::from(connection.read_u8().await.unwrap()));
    }
    world.items.kill().await;
    let rest = read_all(&mut connection).await;
    assert!(!rest.contains("0\r\n\r\n"), "the last chunk says that it was all: {rest:?}");
}

#[tokio::test]
async fn nonsense_from_a_foreign_program_is_its_failure() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut world = World::echoing();
    world.place("legacy", &[listener.local_addr().unwrap()]);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                use tokio::io::AsyncReadExt as _;
                let _ = stream.read_u8().await;
                let _ = stream.write_all(b"SSH-2.0-OpenSSH\r\n\r\n").await;
            });
        }
    });
    let gateway = world.start().await;
    let answer = gateway.ask("POST", "/legacy", &[&bearer(&world.alice())], "x").await;
    answer.problem(502, "upstream-failed");
    assert!(answer.header("retry-after").is_some());
    assert!(!answer.body.contains("SSH"), "what is inside stays inside");
}

#[tokio::test]
async fn a_client_that_goes_away_stops_the_work() {
    struct Told(mpsc::UnboundedSender<()>);
    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let (asked, mut arrivals) = mpsc::unbounded_channel();
    let (stopped, mut stops) = mpsc::unbounded_channel();
    let world = World::new(Router::new().fallback(move || {
        asked.send(()).unwrap();
        let told = Told(stopped.clone());
        async move {
            std::future::pending::<()>().await;
            drop(told);
            StatusCode::OK
        }
    }));
    let gateway = world.start().await;
    let mut connection = gateway.connect().await;
    let head = format!("GET /items HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n", bearer(&world.alice()));
    connection.write_all(head.as_bytes()).await.unwrap();
    arrivals.recv().await.unwrap();
    drop(connection);
    tokio::time::timeout(Duration::from_secs(30), stops.recv()).await.unwrap().unwrap();
}

#[tokio::test]
async fn while_the_issuer_is_away_known_tokens_pass_and_others_are_told_to_try_again() {
    let mut world = World::echoing();
    world.kill_identity().await;
    let gateway = world.start().await;
    let answer = gateway.get("/items", &world.alice()).await;
    answer.problem(503, "unavailable");
    assert!(answer.header("retry-after").is_some());
    world.restart_identity().await;
    until_status(&gateway, &world.alice(), 200).await;
    let known = world.alice();
    assert_eq!(gateway.get("/items", &known).await.status, 200);
    world.kill_identity().await;
    assert_eq!(gateway.get("/items", &known).await.status, 200);
    assert_eq!(gateway.get("/items", &world.alice()).await.status, 200, "the keys are still known");
}
