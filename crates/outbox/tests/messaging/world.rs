//! A producer and a consumer with a database each, and the event server between them.

use std::{collections::HashMap, time::Duration};

use async_nats::{HeaderMap, jetstream};
use database::{Database, ScopedFutureExt as _, Statements as _, Transaction};
use outbox::{Consumer, ConsumerOptions, Event, Events, Handler, HandlerError, NewEvent, Outbox, Relay, RelayOptions};
use runtime::{telemetry::Metrics, trace::TraceContext};
use serde_json::{Value, json};
use testkit::{Nats, Postgres, eventually};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub const STREAM: &str = "documents";
pub const CONSUMER: &str = "items";

pub struct World {
    pub postgres: Postgres,
    pub nats: Nats,
    /// The producer's database.
    pub documents: Database,
    /// The consumer's database, with a table of effects.
    pub items: Database,
}

/// The databases by the names they have in the server.
pub const DOCUMENTS: &str = "documents-0";
pub const ITEMS: &str = "items-1";

/// Something that runs until it is told to stop.
pub struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
    pub outbox: Outbox,
    pub metrics: Metrics,
}

impl Running {
    /// Stops it as a drain would, and waits for it.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// Waits until its metrics have this line.
    pub async fn tells(&self, line: &str) {
        eventually(line, async || self.metrics.encode().lines().any(|told| told == line).then_some(())).await;
    }

    /// Ends it in the middle of whatever it does.
    pub async fn abort(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

impl World {
    pub async fn new() -> Self {
        let _ = tracing_subscriber::fmt().with_test_writer().with_env_filter("info").try_init();
        let (postgres, nats) = tokio::join!(Postgres::start(), Nats::start());
        let mut databases = Vec::new();
        for name in ["documents", "items"] {
            let at = postgres.database(name).await;
            let database = Database::at(&at.url, &at.password).unwrap();
            Outbox::migrate(&database, &CancellationToken::new()).await.unwrap();
            databases.push(database);
        }
        let (items, documents) = (databases.pop().unwrap(), databases.pop().unwrap());
        let effects = "CREATE TABLE effects (
            place bigserial, id uuid, subject text, aggregate uuid, version bigint, initiator text, trace text)";
        items.get().await.unwrap().batch_execute(effects).await.unwrap();
        Self { postgres, nats, documents, items }
    }

    /// Copies a database as it is now. Nobody else may be writing to it.
    pub async fn back_up(&self, database: &str) {
        let server = self.postgres.first().client().await;
        let others = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1";
        server.execute(others, &[&database]).await.unwrap();
        server.batch_execute(&format!("DROP DATABASE IF EXISTS \"{database}-copy\"")).await.unwrap();
        let copy = format!("CREATE DATABASE \"{database}-copy\" TEMPLATE \"{database}\"");
        eventually("the copy", async || server.batch_execute(&copy).await.ok()).await;
    }

    /// Puts a database back to what it was at the backup, whoever uses it.
    pub async fn restore(&self, database: &str) {
        let server = self.postgres.first().client().await;
        server.batch_execute(&format!("DROP DATABASE \"{database}\" WITH (FORCE)")).await.unwrap();
        let copy = format!("CREATE DATABASE \"{database}\" TEMPLATE \"{database}-copy\"");
        server.batch_execute(&copy).await.unwrap();
    }

    pub async fn events(&self, service: &str) -> Events {
        Events::at(&self.nats.url(), service).await.unwrap()
    }

    pub async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(async_nats::connect(self.nats.url()).await.unwrap())
    }

    pub async fn relay(&self) -> Running {
        self.relay_with(|_| {}).await
    }

    pub async fn relay_with(&self, adjust: impl FnOnce(&mut RelayOptions)) -> Running {
        let mut options = RelayOptions::emitting(["documents.>"]);
        options.poll = Duration::from_millis(50);
        options.check = Duration::from_millis(200);
        adjust(&mut options);
        let metrics = Metrics::new();
        let outbox = Outbox::new(&metrics);
        let relay = Relay::new(self.documents.clone(), self.events(STREAM).await, outbox.clone(), options);
        let stop = CancellationToken::new();
        let until = stop.clone();
        Running { stop, outbox, metrics, task: tokio::spawn(async move { relay.run(until).await }) }
    }

    pub async fn consumer(
        &self,
        behaviour: impl Fn(&Event) -> Result<(), HandlerError> + Send + Sync + 'static,
    ) -> Running {
        self.consumer_with(behaviour, |_| {}).await
    }

    pub async fn consumer_with(
        &self,
        behaviour: impl Fn(&Event) -> Result<(), HandlerError> + Send + Sync + 'static,
        adjust: impl FnOnce(&mut ConsumerOptions),
    ) -> Running {
        let mut options = ConsumerOptions {
            sweep: Duration::from_millis(50),
            ack_wait: Duration::from_secs(1),
            retry: (Duration::from_millis(10), Duration::from_millis(100)),
            ..ConsumerOptions::default()
        };
        adjust(&mut options);
        let metrics = Metrics::new();
        let outbox = Outbox::new(&metrics);
        let handler = Recorder(behaviour);
        let consumer = Consumer::with_options(
            self.items.clone(),
            self.events(CONSUMER).await,
            outbox.clone(),
            STREAM,
            ["documents.order.*"],
            handler,
            options,
        );
        let stop = CancellationToken::new();
        Running { task: tokio::spawn(consumer.run(stop.clone())), stop, outbox, metrics }
    }

    /// Puts events of one aggregate into the outbox, each in a transaction of its own.
    pub async fn emit(&self, aggregate: Uuid, count: u32) {
        for n in 0..count {
            emit(&self.documents, new_event(aggregate, json!({ "n": n }))).await;
        }
    }

    /// Makes the stream, as a relay would.
    pub async fn make_stream(&self) -> jetstream::stream::Stream {
        let relay = self.relay().await;
        let stream = self.stream_made().await;
        relay.stop().await;
        stream
    }

    /// Waits until a relay has made the stream.
    pub async fn stream_made(&self) -> jetstream::stream::Stream {
        let jetstream = self.jetstream().await;
        eventually("the stream", async || jetstream.get_stream(STREAM).await.ok()).await
    }

    /// Publishes an event past outbox and relay.
    pub async fn inject(&self, event: &Event) {
        self.inject_raw(&event.subject, &event.to_json().unwrap()).await;
    }

    pub async fn inject_raw(&self, subject: &str, payload: &[u8]) {
        let jetstream = self.jetstream().await;
        let published =
            jetstream.publish_with_headers(subject.to_owned(), HeaderMap::new(), payload.to_vec().into()).await;
        published.unwrap().await.unwrap();
    }

    /// Everything in the stream, in order.
    pub async fn stream(&self) -> Vec<Stored> {
        let Ok(stream) = self.jetstream().await.get_stream(STREAM).await else { return Vec::new() };
        let state = stream.get_info().await.unwrap().state;
        let mut stored = Vec::new();
        for sequence in state.first_sequence.max(1)..=state.last_sequence {
            let message = stream.get_raw_message(sequence).await.unwrap();
            let batch = message.headers.get("Nats-Batch-Id").map(ToString::to_string);
            stored.push(Stored { sequence, batch, event: Event::from_json(&message.payload).unwrap() });
        }
        stored
    }

    /// How many events are owed.
    pub async fn owed(&self) -> i64 {
        owed(&self.documents).await
    }

    pub async fn count(&self, database: &Database, what: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {what}");
        database.get().await.unwrap().one(&sql, &[]).await.unwrap().get(0)
    }

    /// Waits until nothing is owed any more.
    pub async fn settled(&self) {
        eventually("the outbox to be empty", async || (self.owed().await == 0).then_some(())).await;
    }

    /// Aggregate and version of each effect, in order.
    pub async fn effects(&self) -> Vec<(Uuid, i64)> {
        let rows = self
            .items
            .get()
            .await
            .unwrap()
            .all("SELECT aggregate, version FROM effects ORDER BY place", &[])
            .await
            .unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Waits for this many effects.
    pub async fn effects_of(&self, count: usize) -> Vec<(Uuid, i64)> {
        eventually("the effects", async || {
            let effects = self.effects().await;
            (effects.len() >= count).then_some(effects)
        })
        .await
    }

    /// Waits until the server has nothing left for the consumer, acknowledgements included.
    pub async fn consumed(&self) {
        let stream = self.jetstream().await.get_stream(STREAM).await.unwrap();
        eventually("everything to be acknowledged", async || {
            let info = stream.consumer_info(CONSUMER).await.ok()?;
            (info.num_pending == 0 && info.num_ack_pending == 0).then_some(())
        })
        .await;
    }
}

pub async fn owed(database: &Database) -> i64 {
    let sql = "SELECT count(*) FROM outbox WHERE published_at IS NULL";
    database.get().await.unwrap().one(sql, &[]).await.unwrap().get(0)
}

pub struct Stored {
    pub sequence: u64,
    pub batch: Option<String>,
    pub event: Event,
}

/// Every version of every aggregate once, and in order.
pub fn assert_each_once_in_order(versions: impl IntoIterator<Item = (Uuid, i64)>, total: usize) {
    let (mut last, mut count) = (HashMap::<Uuid, i64>::new(), 0);
    for (aggregate, version) in versions {
        let before = last.insert(aggregate, version).unwrap_or_default();
        assert_eq!(version, before + 1, "aggregate {aggregate}");
        count += 1;
    }
    assert_eq!(count, total);
}

pub fn new_event(aggregate: Uuid, data: Value) -> NewEvent<'static, Value> {
    NewEvent {
        subject: "documents.order.placed",
        aggregate_id: aggregate,
        saga: Some(aggregate),
        initiator: Some("alice"),
        trace: TraceContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        data,
    }
}

pub async fn emit(database: &Database, event: NewEvent<'_, Value>) -> Uuid {
    let event = &event;
    let put: Result<Uuid, outbox::Error> =
        database.transaction(|tx| async move { Outbox::put(tx, event.clone()).await }.scope_boxed()).await;
    put.unwrap()
}

/// An event as a relay would publish it.
pub fn event(aggregate: Uuid, version: i64) -> Event {
    Event {
        id: Uuid::now_v7(),
        subject: "documents.order.placed".into(),
        source: "spiffe://test/documents".into(),
        aggregate: outbox::Aggregate { kind: "order".into(), id: aggregate },
        version,
        data_version: 1,
        saga: None,
        initiator: None,
        trace: None,
        time: jiff::Timestamp::now(),
        data: Value::Null,
    }
}

/// Writes each event into the table of effects, unless the behaviour says otherwise.
struct Recorder<F>(F);

impl<F: Fn(&Event) -> Result<(), HandlerError> + Send + Sync + 'static> Handler for Recorder<F> {
    async fn handle(&self, tx: &Transaction<'_>, event: &Event) -> Result<(), HandlerError> {
        let sql =
            "INSERT INTO effects (id, subject, aggregate, version, initiator, trace) VALUES ($1, $2, $3, $4, $5, $6)";
        let trace = TraceContext::current().map(|trace| trace.trace_id());
        tx.run(sql, &[&event.id, &event.subject, &event.aggregate.id, &event.version, &event.initiator, &trace])
            .await?;
        (self.0)(event)
    }
}
