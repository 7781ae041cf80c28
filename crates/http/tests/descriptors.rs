//! What a server does when the process has no file descriptor left. Alone in its file: the limit is the whole process's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod mesh;

use axum::{Router, routing::get};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpSocket, TcpStream},
};

use crate::mesh::{limits, start};

#[tokio::test]
async fn without_descriptors_connections_wait_and_are_served_when_there_are_some_again() {
    let server = start(Router::new().route("/", get(async || "ok")), limits());
    assert_eq!(server.get("/").await.status(), 200);
    // What the request leaves behind would free descriptors at a moment nobody chose.
    server.until(|server| server.metric("http_connections") == Some(0.0)).await;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 256, hard).unwrap();

    let client = TcpSocket::new_v4().unwrap();
    let mut hoard = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        hoard.push(file);
    }
    // The handshake of TCP is the kernel's: the connection stands, and nobody can accept it.
    let mut waiting: TcpStream = client.connect(server.address).await.unwrap();
    assert!(std::fs::File::open("/dev/null").is_err());
    let accepted = tokio::time::timeout(std::time::Duration::from_millis(300), waiting.read_u8()).await;
    assert!(accepted.is_err(), "it is neither refused nor served");

    drop(hoard);
    assert_eq!(server.get("/").await.status(), 200);
}
