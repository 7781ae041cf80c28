//! How fast the relay publishes what is owed.

use std::time::{Duration, Instant};

use anyhow::Result;
use database::{Database, Statements as _};
use outbox::{Events, Outbox, Relay, RelayOptions};
use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{Goal, Servers, median, rate, raw, report::Bound};

pub(super) const STREAM: &str = "documents";
/// So many that the first and the last batch, which overlap with no other, do not matter.
const EVENTS: u64 = 100_000;

/// A relay that runs, and leads.
pub(super) struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
    pub(super) outbox: Outbox,
}

impl Running {
    pub(super) async fn start(servers: &Servers) -> Result<Self> {
        let (outbox, stop) = (Outbox::default(), CancellationToken::new());
        let events = Events::at(&servers.nats.url(), STREAM).await?;
        let options = RelayOptions::emitting(["documents.>"]);
        let relay = Relay::new(servers.documents.clone(), events, outbox.clone(), options);
        let until = stop.clone();
        let task = tokio::spawn(async move { relay.run(until).await });
        servers.led(&servers.documents).await?;
        Ok(Self { stop, task, outbox })
    }

    pub(super) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        Ok(self.task.await?)
    }
}

/// Waits until nothing is owed any more.
pub(super) async fn drained(database: &Database) -> Result<()> {
    let client = database.get().await?;
    let sql = "SELECT EXISTS (SELECT FROM outbox WHERE published_at IS NULL)";
    while client.one(sql, &[]).await?.get::<_, bool>(0) {
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

pub(super) async fn measure(servers: &Servers, rounds: u32) -> Result<Goal> {
    let database = &servers.documents;
    let (mut drains, mut publishes, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        servers.clear().await?;
        raw::owe(database, EVENTS).await?;
        let drain = raw::drain(database, EVENTS).await?;
        servers.clear().await?;
        let publish = raw::publish(&servers.client, EVENTS).await?;
        servers.clear().await?;
        let relay = Running::start(servers).await?;
        raw::owe(database, EVENTS).await?;
        let began = Instant::now();
        relay.outbox.wake();
        drained(database).await?;
        let our = rate(EVENTS, began.elapsed());
        relay.stop().await?;
        if round > 0 {
            drains.push(drain);
            publishes.push(publish);
            ours.push(our);
        }
    }
    let (drain, publish, ours) = (median(drains), median(publishes), median(ours));
    Ok(Goal {
        what: "relay throughput",
        goal: ">= 0.8 of the smaller raw one",
        figures: vec![("ours", ours, "msg/s"), ("raw drain", drain, "msg/s"), ("raw atomic batches", publish, "msg/s")],
        result: ours / drain.min(publish),
        bound: Bound::AtLeast(0.8),
    })
}
