//! How long it takes from the commit of a change until another service has handled the event of it and committed, at half the load
//! that it can bear. Both moments are those that PostgreSQL notes of the commits themselves (`track_commit_timestamp`).

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use database::{Database, Statements as _, Transaction};
use outbox::{Consumer, Event, Events, Handler, HandlerError, Outbox};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Goal, Servers, median, rate, raw,
    relay::{Running, STREAM},
    report::Bound,
    writes,
};

const CONSUMER: &str = "items";
/// Events by which the load that can be borne is found.
const PROBE: u64 = 4000;
/// How long half of it is borne.
const SPAN: Duration = Duration::from_secs(10);
/// How long it is borne before that counts.
const SETTLES: Duration = Duration::from_secs(2);

/// Changes something, as a handler does.
struct Keeper;

impl Handler for Keeper {
    async fn handle(&self, tx: &Transaction<'_>, event: &Event) -> Result<(), HandlerError> {
        tx.run(raw::THING, &[&event.aggregate.id, &"thing", &1_i64]).await?;
        Ok(())
    }
}

pub(super) async fn measure(servers: &Servers, rounds: u32) -> Result<Goal> {
    let mut measured = Vec::new();
    for _ in 0..rounds.max(1) {
        measured.push(round(servers).await?);
    }
    let middle = |figure: fn(&Round) -> f64| median(measured.iter().map(figure).collect());
    let p99 = middle(|round| round.p99);
    Ok(Goal {
        what: "commit to handler done, at half load",
        goal: "p99 < 50 ms",
        figures: vec![
            ("median", middle(|round| round.median), "ms"),
            ("p99", p99, "ms"),
            ("load", middle(|round| round.load), "msg/s"),
            ("of", middle(|round| round.most), "msg/s"),
        ],
        result: p99,
        bound: Bound::Below(50.0),
    })
}

struct Round {
    /// Of the delays, in milliseconds.
    median: f64,
    p99: f64,
    /// Events a second: as many as there were, of so many that can be borne.
    load: f64,
    most: f64,
}

async fn round(servers: &Servers) -> Result<Round> {
    servers.clear().await?;
    let relay = Running::start(servers).await?;
    let events = Events::at(&servers.nats.url(), CONSUMER).await?;
    let (stop, items) = (CancellationToken::new(), servers.items.clone());
    let consumer = Consumer::new(items, events, Outbox::default(), STREAM, ["documents.order.*"], Keeper);
    let consuming = tokio::spawn(consumer.run(stop.clone()));
    servers.subscribed(STREAM, CONSUMER).await?;
    let began = Instant::now();
    let data = raw::data();
    raw::by_all_writers(PROBE, || write_and_wake(servers, &relay, &data)).await?;
    handled(servers, PROBE).await?;
    let most = rate(PROBE, began.elapsed());
    // What was written at once is still on its way to the disk, and the load begins.
    let before = PROBE + bear(servers, &relay, most / 2.0, SETTLES).await?;
    handled(servers, before).await?;
    let borne = bear(servers, &relay, most / 2.0, SPAN).await?;
    handled(servers, before + borne).await?;
    stop.cancel();
    consuming.await?;
    relay.stop().await?;
    let delays = delays(servers, usize::try_from(before)?).await?;
    let at = |share: f64| delays.get((delays.len() as f64 * share) as usize).copied().unwrap_or(f64::MAX);
    Ok(Round { median: at(0.5), p99: at(0.99), load: rate(borne, SPAN), most })
}

async fn write_and_wake(servers: &Servers, relay: &Running, data: &serde_json::Value) -> Result<()> {
    writes::write(&servers.documents, data).await?;
    relay.outbox.wake();
    Ok(())
}

/// Writes at this rate for so long, whether or not what was written before is done; gives how much was written.
async fn bear(servers: &Servers, relay: &Running, per_second: f64, span: Duration) -> Result<u64> {
    let mut ticks = interval(Duration::from_secs_f64(1.0 / per_second.max(1.0)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (began, mut written, mut writing) = (Instant::now(), 0, JoinSet::new());
    while began.elapsed() < span {
        ticks.tick().await;
        let (database, outbox) = (servers.documents.clone(), relay.outbox.clone());
        writing.spawn(async move {
            writes::write(&database, &raw::data()).await?;
            outbox.wake();
            anyhow::Ok(())
        });
        written += 1;
        while let Some(done) = writing.try_join_next() {
            done??;
        }
    }
    while let Some(done) = writing.join_next().await {
        done??;
    }
    Ok(written)
}

/// Waits until so many events are handled.
async fn handled(servers: &Servers, count: u64) -> Result<()> {
    let client = servers.items.get().await?;
    while client.one("SELECT count(*) FROM things", &[]).await?.get::<_, i64>(0) < i64::try_from(count)? {
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// When each change was committed, in milliseconds, in the order of the commits.
async fn commits(database: &Database) -> Result<Vec<(Uuid, f64)>> {
    let sql = "SELECT id, (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000)::float8 FROM things ORDER BY 2";
    let rows = database.get().await?.all(sql, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// From commit to commit, in milliseconds, ascending; without the first `skipped` changes.
async fn delays(servers: &Servers, skipped: usize) -> Result<Vec<f64>> {
    let done: HashMap<Uuid, f64> = commits(&servers.items).await?.into_iter().collect();
    let written = commits(&servers.documents).await?;
    let delay = |(id, at): &(Uuid, f64)| Some(done.get(id)? - at);
    let mut delays: Vec<f64> = written.iter().skip(skipped).filter_map(delay).collect();
    delays.sort_by(f64::total_cmp);
    Ok(delays)
}
