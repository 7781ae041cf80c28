//! A service for the supervisor's tests: it does what its arguments say, one after the other.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "part of a test")]

use std::{path::Path, time::Duration};

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    for word in std::env::args().skip(1) {
        let (name, value) = word.split_once('=').unwrap_or((&word, ""));
        match name {
            "ready" => sd_notify::notify(&[NotifyState::Ready]).unwrap(),
            "says" => sd_notify::notify(&[NotifyState::Status(value)]).unwrap(),
            "print" => (0..value.parse().unwrap()).for_each(|line: u32| println!("line {line:06}")),
            "await-file" => {
                while !Path::new(value).exists() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            // So many MiB of memory, written to and never given back.
            "take" => std::mem::forget(vec![1_u8; value.parse::<usize>().unwrap() << 20]),
            "listen" => std::mem::forget(std::net::TcpListener::bind(value).unwrap()),
            // From here on SIGTERM has no effect.
            "deaf" => drop(signal(SignalKind::terminate()).unwrap()),
            "beat" => loop {
                sd_notify::notify(&[NotifyState::Watchdog]).unwrap();
                tokio::time::sleep(Duration::from_millis(value.parse().unwrap())).await;
            },
            "hold" => std::future::pending::<()>().await,
            "exit" => std::process::exit(value.parse().unwrap()),
            other => panic!("what is {other}?"),
        }
    }
}
