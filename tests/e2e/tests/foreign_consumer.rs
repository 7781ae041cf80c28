//! A consumer that is not ours: a Python program with `nats-py`, fed by the shop's events.
//!
//! Where there is no Python, or PyPI cannot be reached, it says so and does nothing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "in a test")]

use std::process::Command;

use e2e::{Caller, Mesh, Shop};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use testkit::eventually_within;

#[tokio::test]
async fn a_python_program_consumes_every_event_once() {
    let mesh = Mesh::example("python-consumer", |_| {});
    let built = Command::new(mesh.folder().join("build.sh")).output().unwrap();
    if !built.status.success() {
        eprintln!("skipped: python-consumer: {}", String::from_utf8_lossy(&built.stderr).trim());
        return;
    }
    mesh.start();
    let shop = Shop::open(&mesh);
    let item = shop.item(100).await;
    for _ in 0..5 {
        shop.order(&item, 1, 20).await.expect(201);
    }
    counts(&shop.carol, 5).await;

    // Killed in the middle of its work, it goes on where it was: what was not acknowledged comes again, and counts once.
    let old = mesh.signal("counter-1", Signal::SIGKILL);
    for _ in 0..5 {
        shop.order(&item, 1, 20).await.expect(201);
    }
    mesh.healed("counter-1", old).await;
    counts(&shop.carol, 10).await;
}

/// Waits until it has seen exactly so many confirmed orders of one customer's, two events each, and the item that was made.
async fn counts(caller: &Caller, orders: u64) {
    eventually_within(std::time::Duration::from_secs(60), &format!("{orders} orders to be counted"), async || {
        let answer = caller.try_get("/counter/orders").await.ok()?;
        let counted: &Vec<Value> = answer.body["orders"].as_array()?;
        let done = counted.len() == 1 && counted[0]["state"] == "confirmed" && counted[0]["orders"] == orders;
        (done && answer.body["events"] == json!(2 * orders + 1)).then_some(())
    })
    .await;
}
