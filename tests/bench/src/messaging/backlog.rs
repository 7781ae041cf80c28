//! A backlog that has grown while the event server was away: how fast it goes, and what it costs.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use procfs::process::Process;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    Goal, Servers, raw,
    relay::{Running, drained},
    report::Bound,
};

const EVENTS: u64 = 100_000;
/// What this process may grow by while it drains, beyond what the first batches took.
const GROWTH: f64 = 16.0;

pub(super) async fn measure(servers: &Servers) -> Result<[Goal; 2]> {
    servers.clear().await?;
    let relay = Running::start(servers).await?;
    raw::owe(&servers.documents, EVENTS).await?;
    let stop = CancellationToken::new();
    let watching = tokio::spawn(watch_memory(stop.clone()));
    let began = Instant::now();
    relay.outbox.wake();
    drained(&servers.documents).await?;
    let took = began.elapsed().as_secs_f64();
    stop.cancel();
    let samples = watching.await??;
    relay.stop().await?;
    // The first tenth fills buffers that are kept.
    let settled = samples.get(samples.len() / 10..).unwrap_or_default();
    let (least, most) = (settled.iter().copied().fold(f64::MAX, f64::min), settled.iter().copied().fold(0.0, f64::max));
    let speed = Goal {
        what: "a backlog of 100,000 messages drained",
        goal: "< 10 s",
        figures: vec![("ours", took, "s")],
        result: took,
        bound: Bound::Below(10.0),
    };
    let memory = Goal {
        what: "memory while draining",
        goal: "flat: grows by < 16 MiB",
        figures: vec![("least", least, "MiB"), ("most", most, "MiB")],
        result: most - least,
        bound: Bound::Below(GROWTH),
    };
    Ok([speed, memory])
}

/// What this process has resident, in MiB, ten times a second.
async fn watch_memory(stop: CancellationToken) -> Result<Vec<f64>> {
    let mut samples = Vec::new();
    while !stop.is_cancelled() {
        let resident = Process::myself()?.statm()?.resident * procfs::page_size();
        samples.push(resident as f64 / f64::from(1 << 20));
        sleep(Duration::from_millis(100)).await;
    }
    samples.first().context("drained too soon to be watched")?;
    Ok(samples)
}
