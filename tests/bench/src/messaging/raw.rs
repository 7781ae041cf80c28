//! What the machine can do with nothing of ours in between: plain SQL over the same pool, and JetStream's own batches.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use async_nats::{
    Client, HeaderMap, Request,
    header::{NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE, NATS_MESSAGE_ID},
    jetstream::{
        self,
        stream::{Config, StorageType},
    },
};
use database::{Database, Statements as _, types::Json};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{WRITERS, rate};

/// Events in a batch: as many as the event server allows, and the relay takes.
const BATCH: u64 = 1000;

/// The data of an event of the usual size: an order of two lines.
pub(super) fn data() -> Value {
    let line = json!({ "item_id": Uuid::nil(), "quantity": 2 });
    json!({ "order_id": Uuid::nil(), "deadline": "2026-11-23T10:00:00.123456Z", "lines": [line, line] })
}

/// Runs `work` so often in all, by all writers at once; gives how often a second.
pub(super) async fn by_all_writers<F: Future<Output = Result<()>>>(count: u64, work: impl Fn() -> F) -> Result<f64> {
    let left = AtomicU64::new(count);
    let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
    let began = Instant::now();
    try_join_all((0..WRITERS).map(|_| async {
        while take() {
            work().await?;
        }
        anyhow::Ok(())
    }))
    .await?;
    Ok(rate(count, began.elapsed()))
}

/// A domain row and an outbox row in one transaction, as somebody would write it who has no library.
pub(super) async fn write(database: &Database, data: &Value) -> Result<()> {
    let (thing, id) = (Uuid::now_v7(), Uuid::now_v7());
    let mut client = database.get().await?;
    let tx = client.transaction().await?;
    tx.run(THING, &[&thing, &"thing", &1_i64]).await?;
    tx.run(EVENT, &[&id, &SUBJECT, &"order", &thing, &Json(data)]).await?;
    tx.commit().await?;
    Ok(())
}

/// What is written there.
pub(super) const THING: &str = "INSERT INTO things (id, name, amount) VALUES ($1, $2, $3)";
/// An event that somebody hears of.
pub(super) const SUBJECT: &str = "documents.order.placed";
const EVENT: &str = "WITH next AS (
        INSERT INTO outbox_aggregates AS a (aggregate_type, aggregate_id, version) VALUES ($3, $4, 1)
        ON CONFLICT (aggregate_type, aggregate_id) DO UPDATE SET version = a.version + 1 RETURNING version)
    INSERT INTO outbox (id, subject, aggregate_type, aggregate_id, version, data_version, data)
    SELECT $1, $2, $3, $4, next.version, 1, $5 FROM next";

/// The transaction of whoever receives a message: note it, change something, owe an answer.
pub(super) async fn receive(database: &Database, data: &Value) -> Result<()> {
    let (message, thing, answer) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    let mut client = database.get().await?;
    let tx = client.transaction().await?;
    let sql = "INSERT INTO inbox (consumer, message_id, occurred_at, stream_sequence) VALUES ('raw', $1, now(), 1)
        ON CONFLICT DO NOTHING";
    tx.run(sql, &[&message]).await?;
    tx.run(THING, &[&thing, &"thing", &1_i64]).await?;
    tx.run("UPDATE things SET amount = amount + 1 WHERE id = $1", &[&thing]).await?;
    tx.run(EVENT, &[&answer, &SUBJECT, &"order", &thing, &Json(data)]).await?;
    tx.commit().await?;
    Ok(())
}

/// Owes so many events, each of an aggregate of its own, all from one moment on.
pub(super) async fn owe(database: &Database, count: u64) -> Result<()> {
    let sql = "INSERT INTO outbox (id, subject, aggregate_type, aggregate_id, version, data_version, data)
        SELECT gen_random_uuid(), $1, 'order', gen_random_uuid(), 1, 1, $2 FROM generate_series(1, $3)";
    let mut client = database.get().await?;
    let tx = client.transaction().await?;
    tx.batch_execute("SET LOCAL statement_timeout = 0").await?;
    tx.run(sql, &[&SUBJECT, &Json(data()), &i32::try_from(count)?]).await?;
    tx.batch_execute("ANALYZE outbox").await?;
    tx.commit().await?;
    Ok(())
}

/// Empties the outbox by nothing but reading and marking; gives events a second.
pub(super) async fn drain(database: &Database, count: u64) -> Result<f64> {
    let client = database.get().await?;
    let sql = "WITH head AS (SELECT position FROM outbox WHERE published_at IS NULL ORDER BY position LIMIT $1)
        UPDATE outbox o SET published_at = now(), stream_sequence = o.position FROM head WHERE o.position = head.position
        RETURNING o.position, id, created_at, subject, o.aggregate_type, o.aggregate_id, version, data_version, saga, initiator,
            traceparent, data";
    let began = Instant::now();
    let mut drained = 0;
    while drained < count {
        let rows = client.all(sql, &[&(BATCH as i64)]).await?;
        ensure!(!rows.is_empty(), "the outbox is empty too early");
        drained += rows.len() as u64;
    }
    Ok(rate(drained, began.elapsed()))
}

/// Makes a stream as the relay makes its own.
async fn make_stream(client: &Client) -> Result<()> {
    let config = Config {
        name: "raw".into(),
        subjects: vec!["documents.>".into()],
        storage: StorageType::File,
        duplicate_window: Duration::from_secs(300),
        allow_atomic_publish: true,
        ..Config::default()
    };
    jetstream::new(client.clone()).create_stream(config).await?;
    Ok(())
}

/// Publishes so many messages in atomic batches, one after the other is acknowledged; gives messages a second.
pub(super) async fn publish(client: &Client, count: u64) -> Result<f64> {
    make_stream(client).await?;
    let payload = envelope()?;
    let began = Instant::now();
    for _ in 0..count / BATCH {
        let batch = Uuid::now_v7().to_string();
        for place in 1..=BATCH {
            let mut headers = HeaderMap::new();
            headers.insert(NATS_MESSAGE_ID, Uuid::now_v7().to_string());
            headers.insert("Content-Type", outbox::CONTENT_TYPE);
            headers.insert(NATS_BATCH_ID, batch.as_str());
            headers.insert(NATS_BATCH_SEQUENCE, place.to_string());
            if place < BATCH {
                client.publish_with_headers(SUBJECT, headers, payload.clone().into()).await?;
                continue;
            }
            headers.insert(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
            let request = Request::new().payload(payload.clone().into()).headers(headers);
            let answer = client.send_request(SUBJECT, request).await?;
            let answer: Value = serde_json::from_slice(&answer.payload)?;
            ensure!(answer.get("error").is_none(), "a raw batch was refused: {answer}");
        }
    }
    Ok(rate(count, began.elapsed()))
}

/// As long as what the relay publishes.
fn envelope() -> Result<Vec<u8>> {
    let event = json!({
        "specversion": "1.0", "id": Uuid::now_v7(), "source": "spiffe://test/documents", "type": SUBJECT,
        "time": "2026-11-23T10:00:00.123456Z", "datacontenttype": "application/json", "aggregatetype": "order",
        "aggregateid": Uuid::now_v7(), "aggregateversion": 1, "dataversion": 1, "data": data(),
    });
    Ok(serde_json::to_vec(&event)?)
}
