//! Real servers for tests: a PostgreSQL and a NATS of the test's own, on an address of its own.
//!
//! Every test starts what it needs and owns it alone, so tests run in parallel, kill their servers as they like, and
//! leave nothing behind; a whole mesh that a test starts has a [`Warden`]. No fixed port: each server gets a random address of the loopback network 127.0.0.0/8.
//! Only tests depend on this crate.
#![allow(clippy::expect_used, reason = "a test that cannot have its servers is to fail at once, loudly")]

mod nats;
mod postgres;
mod process;
mod warden;
mod webhooks;

pub use nats::Nats;
pub use postgres::{Postgres, TestDatabase};
pub use warden::Warden;
pub use webhooks::{Received, Receiver, verify};

use std::{net::Ipv4Addr, time::Duration};

use tokio::time::{Instant, sleep, timeout};

/// A random loopback address. Two servers that draw the same one notice when they bind.
fn random_loopback() -> Ipv4Addr {
    Ipv4Addr::new(127, rand::random_range(1..=254), rand::random_range(0..=255), rand::random_range(1..=254))
}

/// Waits until `probe` gives a value, asking again every 20 ms, and returns it.
///
/// # Panics
/// After a minute; the message names `what` was awaited.
pub async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(Duration::from_mins(1), what, probe).await
}

/// Like [`eventually`], with another limit.
///
/// # Panics
/// After `limit`; the message names `what` was awaited.
pub async fn eventually_within<T>(limit: Duration, what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if let Ok(Some(value)) = timeout(left, probe()).await {
            return value;
        }
        assert!(Instant::now() < end, "waited {limit:?} in vain for: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
