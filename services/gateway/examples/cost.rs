//! What one request costs the gateway, in microseconds of processor time.
//!
//! Clients, gateway and service run in this process, each on a thread of its own, over real sockets with TLS on both
//! sides; only the gateway's thread is counted, by the kernel's own clock. The access log goes to stdout, so:
//!
//! ```text
//! cargo run --release --package gateway --example cost > /dev/null
//! ```
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "../tests/gateway/world.rs"]
#[allow(dead_code, unreachable_pub)]
mod world;

use std::{
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use axum::{Router, routing};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::version::TLS13;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::{Builder, Runtime},
    sync::oneshot,
};
use world::{Connection, Running, World};

const CONNECTIONS: usize = 32;
const WARM_UP: usize = 5_000;
const REQUESTS: usize = 50_000;

fn main() {
    let (service, load) = (runtime(), runtime());
    let world =
        service.block_on(async { World::new(Router::new().route("/items", routing::get(async || "thirteen char"))) });
    let world = Arc::new(world);
    let (stop, stopped) = oneshot::channel::<()>();
    let backend = thread::spawn(move || service.block_on(async { stopped.await.unwrap_or_default() }));

    let (ready, running) = mpsc::channel();
    let (ask, asked) = mpsc::channel::<mpsc::Sender<Duration>>();
    let serving = thread::spawn({
        let world = Arc::clone(&world);
        move || {
            let runtime = runtime();
            runtime.block_on(async {
                let gateway = world.start_logging().await;
                ready.send(gateway).unwrap();
                // The thread tells its own processor time whenever it is asked.
                loop {
                    match asked.try_recv() {
                        Ok(answer) => answer.send(processor_time()).unwrap(),
                        Err(mpsc::TryRecvError::Empty) => tokio::time::sleep(Duration::from_millis(20)).await,
                        Err(mpsc::TryRecvError::Disconnected) => return,
                    }
                }
            });
        }
    });
    let gateway = running.recv().unwrap();
    let spent = || {
        let (answer, told) = mpsc::channel();
        ask.send(answer).unwrap();
        told.recv().unwrap()
    };
    let token = world.alice();
    load.block_on(async {
        gateway.until_counted("upstream_links{service=\"items\",state=\"up\"} 2").await;
        assert_eq!(gateway.get("/items", &token).await.status, 200);
    });
    for (name, http2) in [("HTTP/1.1 keep-alive", false), ("HTTP/2", true)] {
        let run = |requests| {
            load.block_on(async {
                if http2 {
                    many_streams(&gateway, &token, requests).await
                } else {
                    many_connections(&gateway, &token, requests).await
                }
            });
        };
        run(WARM_UP);
        let (before, started) = (spent(), Instant::now());
        run(REQUESTS);
        let (took, spent) = (started.elapsed(), spent() - before);
        let requests = u32::try_from(REQUESTS).unwrap();
        eprintln!(
            "{name}: {:.1} µs of processor time a request, at {:.0} requests a second",
            (spent / requests).as_secs_f64() * 1e6,
            f64::from(requests) / took.as_secs_f64()
        );
    }
    drop(ask);
    serving.join().unwrap();
    stop.send(()).unwrap_or_default();
    backend.join().unwrap();
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Of this thread (proc_pid_schedstat(5)).
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap())
}

async fn many_connections(gateway: &Running, token: &str, requests: usize) {
    let request = format!("GET /items HTTP/1.1\r\nHost: localhost\r\n{}\r\n\r\n", world::bearer(token));
    let clients = (0..CONNECTIONS).map(|_| async {
        let mut connection = gateway.connect().await;
        for _ in 0..requests / CONNECTIONS {
            connection.write_all(request.as_bytes()).await.unwrap();
            answer(&mut connection).await;
        }
    });
    futures_util::future::join_all(clients).await;
}

/// Reads one answer, which ends with the one body there is.
async fn answer(connection: &mut Connection) {
    let mut answer = Vec::with_capacity(1024);
    while !answer.ends_with(b"thirteen char") {
        assert!(connection.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

async fn many_streams(gateway: &Running, token: &str, requests: usize) {
    let stream = gateway.connect_as(b"h2", &[&TLS13]).await;
    let (sender, connection) =
        http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let authorization = format!("Bearer {token}");
    let clients = (0..CONNECTIONS).map(|_| {
        let (mut sender, authorization) = (sender.clone(), authorization.clone());
        async move {
            for _ in 0..requests / CONNECTIONS {
                let request = Request::get("https://localhost/items").header("authorization", &authorization);
                let response = sender.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
                assert_eq!(response.status(), 200);
                assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "thirteen char");
            }
        }
    });
    futures_util::future::join_all(clients).await;
    drop(sender);
    connection.abort();
}
