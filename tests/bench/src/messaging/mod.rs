//! The goals of the messaging, each with its measurement.

mod backlog;
mod latency;
mod machine;
mod raw;
mod relay;
mod report;
mod sagas;
mod writes;

use std::time::Duration;

use anyhow::{Context as _, Result};
use async_nats::jetstream;
use database::{Database, Statements as _};
use futures_util::TryStreamExt as _;
use outbox::Outbox;
use testkit::{Nats, Postgres};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

pub use report::{Goal, Report};

/// How many callers write at once: as many as the pool has connections.
const WRITERS: usize = 16;
/// Longest time for a relay or a consumer to begin.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// Servers as a mesh has them, but for TLS.
struct Servers {
    /// That of the producer, eshop-documents.
    documents: Database,
    /// That of the consumer, item-management.
    items: Database,
    nats: Nats,
    client: async_nats::Client,
    _postgres: [Postgres; 2],
}

impl Servers {
    async fn start() -> Result<Self> {
        let (nats, mut one, mut two) =
            tokio::join!(Nats::start(), Postgres::start_durable(), Postgres::start_durable());
        for postgres in [&mut one, &mut two] {
            // Read only when the server starts.
            let client = postgres.first().client().await;
            client.batch_execute("ALTER SYSTEM SET track_commit_timestamp = on").await?;
            postgres.restart().await;
        }
        let open = |postgres: &Postgres| {
            let first = postgres.first();
            Database::at(&first.url, &first.password)
        };
        let (documents, items) = (open(&one)?, open(&two)?);
        let stop = CancellationToken::new();
        Outbox::migrate(&documents, &stop).await?;
        Outbox::migrate(&items, &stop).await?;
        let things = "CREATE TABLE things (id uuid PRIMARY KEY, name text NOT NULL, amount bigint NOT NULL)";
        documents.get().await?.batch_execute(things).await?;
        items.get().await?.batch_execute(things).await?;
        let client = async_nats::connect(nats.url()).await?;
        Ok(Self { documents, items, nats, client, _postgres: [one, two] })
    }

    /// Empties every table of the messaging and removes every stream: each measurement begins with nothing. A relay would read
    /// back from its stream what its outbox does not know, and a consumer would hear of it.
    async fn clear(&self) -> Result<()> {
        let jetstream = jetstream::new(self.client.clone());
        for stream in jetstream.stream_names().try_collect::<Vec<_>>().await? {
            jetstream.delete_stream(stream).await?;
        }
        for database in [&self.documents, &self.items] {
            let sql = "TRUNCATE outbox, outbox_aggregates, outbox_batches, outbox_stream, inbox, inbox_aggregates, inbox_parked,
                inbox_attempts, inbox_progress, dead_letters, things";
            database.get().await?.batch_execute(sql).await?;
        }
        Ok(())
    }

    /// Waits until the relay of this database leads and has agreed with its stream: what that costs is no throughput.
    async fn led(&self, database: &Database) -> Result<()> {
        let client = database.get().await?;
        let led = async {
            while !client.one("SELECT EXISTS (SELECT FROM outbox_stream)", &[]).await?.get::<_, bool>(0) {
                sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        };
        timeout(STARTS_WITHIN, led).await.context("no relay leads")?
    }

    /// Waits until this consumer of this stream is there.
    async fn subscribed(&self, stream: &str, consumer: &str) -> Result<()> {
        let stream = jetstream::new(self.client.clone()).get_stream_no_info(stream).await?;
        let subscribed = async {
            while stream.consumer_info(consumer).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(STARTS_WITHIN, subscribed).await.context("the consumer does not subscribe")
    }
}

/// What can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// A domain write with its outbox row
    Writes,
    /// The relay's throughput
    Relay,
    /// Commit to handler done, at half load
    Latency,
    /// A backlog of 100,000 events, and the memory it takes to drain it
    Backlog,
    /// Complete order sagas
    Sagas,
}

/// Measures these parts, all if there are none; `tell` hears what is being done.
///
/// # Errors
/// A server does not start, does not wait for the disk, or refuses something.
pub async fn run(rounds: u32, parts: &[Part], tell: impl Fn(&str)) -> Result<Report> {
    let servers = Servers::start().await?;
    let settings = machine::settings(&servers).await?;
    for (name, value) in &settings {
        tell(&format!("{name} = {value}"));
    }
    let wanted = |part| parts.is_empty() || parts.contains(&part);
    let mut goals = Vec::new();
    if wanted(Part::Writes) {
        tell("domain writes with an outbox row");
        goals.push(writes::measure(&servers, rounds).await?);
    }
    if wanted(Part::Relay) {
        tell("relay");
        goals.push(relay::measure(&servers, rounds).await?);
    }
    if wanted(Part::Latency) {
        tell("commit to handler done");
        goals.push(latency::measure(&servers, rounds).await?);
    }
    if wanted(Part::Backlog) {
        tell("a backlog of 100,000");
        goals.extend(backlog::measure(&servers).await?);
    }
    // Its tables are those of the services, and not all of them can live beside the tables above.
    drop(servers);
    if wanted(Part::Sagas) {
        tell("order sagas");
        goals.push(sagas::measure(&Servers::start().await?, rounds).await?);
    }
    Ok(Report::new(settings, rounds, goals))
}

/// The middle one.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64().max(1e-9)
}
