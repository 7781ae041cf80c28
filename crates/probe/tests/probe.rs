//! What the probe says of servers of all sorts.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    process::{Command, Output},
    thread,
};

fn probe(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_probe")).args(arguments).output().unwrap()
}

/// Probes a server that answers so, and gives what it was asked.
fn answered(answer: &'static str) -> (Output, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let request = lines.next().unwrap().unwrap();
        while !lines.next().unwrap().unwrap().is_empty() {}
        stream.write_all(answer.as_bytes()).unwrap();
        request
    });
    let output = probe(&[&address, "/readyz"]);
    (output, server.join().unwrap())
}

#[test]
fn only_2xx_is_healthy() {
    for (answer, healthy) in [
        ("HTTP/1.1 200 OK\r\n\r\n", true),
        ("HTTP/1.0 204\r\n\r\n", true),
        ("HTTP/1.1 503 Service Unavailable\r\n\r\n", false),
        ("HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", false),
        ("HTTP/1.1 2000 OK\r\n\r\n", false),
        ("SSH-2.0-OpenSSH_9.2\r\n", false),
        ("", false),
    ] {
        let (output, request) = answered(answer);
        assert_eq!(request, "GET /readyz HTTP/1.1");
        assert_eq!(output.status.success(), healthy, "{answer}");
        assert_eq!(output.stderr.is_empty(), healthy, "{answer}");
    }
}

#[test]
fn without_a_path_a_connection_is_enough() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    assert!(probe(&[&address]).status.success());
    drop(listener);
    assert!(!probe(&[&address]).status.success());
}

#[test]
fn what_it_cannot_do_it_says() {
    for (arguments, said) in
        [(vec![], "usage"), (vec!["localhost"], "is not an address"), (vec!["127.0.0.1:80", "/", "x"], "usage")]
    {
        let output = probe(&arguments);
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains(said), "{output:?}");
    }
}
