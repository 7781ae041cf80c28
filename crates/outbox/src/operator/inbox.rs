//! Events that were handled, and those that wait.

use std::collections::BTreeMap;

use axum::extract::State;
use berth_http::{
    extract::{Json, Path},
    problem::{self, Problem},
};
use database::{Row, Statements as _, types::Json as Stored};
use futures_util::future::join_all;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{App, Operator, consumers};

/// How far a consumer is.
#[derive(Debug, Serialize)]
pub(super) struct ConsumerState {
    consumer: String,
    /// Up to where everything in the stream is in this database for certain.
    floor: i64,
    parked: i64,
    oldest_parked_at: Option<Timestamp>,
    /// Events that failed and will be tried again.
    failing: i64,
    dead_letters: i64,
    /// As the event server has it; none while that is away.
    server: Option<Lag>,
}

#[derive(Debug, Serialize)]
struct Lag {
    /// Messages that were not delivered yet.
    undelivered: u64,
    /// Messages that were delivered and are not acknowledged.
    unacknowledged: usize,
    acknowledged_to: u64,
    delivered_to: u64,
}

pub(super) async fn state(State(app): State<App>) -> Result<Json<Vec<ConsumerState>>, Problem> {
    let client = app.database.get().await?;
    let names = consumers(&client).await?;
    let sql = "SELECT c.consumer, coalesce(p.floor, 0),
            (SELECT count(*) FROM inbox_parked WHERE consumer = c.consumer),
            (SELECT min(parked_at) FROM inbox_parked WHERE consumer = c.consumer),
            (SELECT count(*) FROM inbox_attempts WHERE consumer = c.consumer AND last_error IS NOT NULL),
            (SELECT count(*) FROM dead_letters WHERE consumer = c.consumer AND resolved_at IS NULL)
        FROM unnest($1::text[]) AS c(consumer) LEFT JOIN inbox_progress p USING (consumer)";
    let rows = client.all(sql, &[&names]).await?;
    let states = rows.iter().map(async |row| ConsumerState {
        consumer: row.get(0),
        floor: row.get(1),
        parked: row.get(2),
        oldest_parked_at: row.get(3),
        failing: row.get(4),
        dead_letters: row.get(5),
        server: app.of_server(lag(&app, row.get(0))).await,
    });
    Ok(Json(join_all(states).await))
}

async fn lag(app: &App, consumer: &str) -> Option<Lag> {
    let (stream, durable) = consumer.split_once('/')?;
    let stream = app.events.jetstream().get_stream_no_info(stream).await.ok()?;
    let info = stream.consumer_info(durable).await.ok()?;
    Some(Lag {
        undelivered: info.num_pending,
        unacknowledged: info.num_ack_pending,
        acknowledged_to: info.ack_floor.stream_sequence,
        delivered_to: info.delivered.stream_sequence,
    })
}

/// An event that is parked, or fails.
#[derive(Debug, Serialize)]
pub(super) struct Waiting {
    consumer: String,
    id: Option<Uuid>,
    subject: Option<String>,
    aggregate: Option<String>,
    version: Option<i64>,
    /// What it waits for, in words.
    waits_for: String,
    since: Timestamp,
    attempts: i32,
    last_error: Option<String>,
}

pub(super) async fn waiting(State(app): State<App>) -> Result<Json<Vec<Waiting>>, Problem> {
    let client = app.database.get().await?;
    let sql = "SELECT p.consumer, (p.event ->> 'id')::uuid AS id, p.event ->> 'type' AS subject,
            aggregate_type || '/' || aggregate_id AS aggregate, p.version, a.version AS handled,
            lag(p.version) OVER (PARTITION BY p.consumer, aggregate_type, aggregate_id ORDER BY p.version) AS before,
            parked_at, coalesce(attempts, 0) AS attempts, last_error
        FROM inbox_parked p JOIN inbox_aggregates a USING (consumer, aggregate_type, aggregate_id)
            LEFT JOIN inbox_attempts t ON t.consumer = p.consumer AND t.message_id = (p.event ->> 'id')::uuid
        ORDER BY parked_at, p.version LIMIT 1000";
    let mut waiting: Vec<Waiting> = client.all(sql, &[]).await?.iter().map(parked).collect();
    let sql = "SELECT consumer, message_id, tried_at, attempts, last_error FROM inbox_attempts t
        WHERE NOT EXISTS (SELECT FROM inbox_parked p
            WHERE p.consumer = t.consumer AND (p.event ->> 'id')::uuid = t.message_id)
        ORDER BY tried_at LIMIT 1000";
    waiting.extend(client.all(sql, &[]).await?.iter().map(|row| Waiting {
        consumer: row.get("consumer"),
        id: Some(row.get("message_id")),
        subject: None,
        aggregate: None,
        version: None,
        waits_for: "another try".to_owned(),
        since: row.get("tried_at"),
        attempts: row.get("attempts"),
        last_error: row.get("last_error"),
    }));
    Ok(Json(waiting))
}

fn parked(row: &Row) -> Waiting {
    let (version, handled): (i64, i64) = (row.get("version"), row.get("handled"));
    let before = row.get::<_, Option<i64>>("before").unwrap_or_default().max(handled);
    let waits_for = match version - before {
        1 if before == handled => "its next try".to_owned(),
        1 => format!("version {before}"),
        2 => format!("version {}, which has not come", before + 1),
        _ => format!("versions {} to {}, which have not come", before + 1, version - 1),
    };
    Waiting {
        consumer: row.get("consumer"),
        id: row.get("id"),
        subject: row.get("subject"),
        aggregate: row.get("aggregate"),
        version: Some(version),
        waits_for,
        since: row.get("parked_at"),
        attempts: row.get("attempts"),
        last_error: row.get("last_error"),
    }
}

/// What each consumer knows of one event.
pub(super) async fn show(State(app): State<App>, Path(id): Path<Uuid>) -> Result<Json<Value>, Problem> {
    let client = app.database.get().await?;
    let names = consumers(&client).await?;
    let mut known: BTreeMap<String, Value> = BTreeMap::new();
    let mut add = |consumer: String, key: &str, value: Value| {
        if let Value::Object(object) = known.entry(consumer).or_insert_with(|| json!({})) {
            object.insert(key.to_owned(), value);
        }
    };
    let sql = "SELECT consumer, handled_at, stream_sequence FROM inbox WHERE consumer = ANY ($1) AND message_id = $2";
    for row in client.all(sql, &[&names, &id]).await? {
        let (at, sequence): (Timestamp, i64) = (row.get(1), row.get(2));
        add(row.get(0), "handled", json!({ "at": at, "stream_sequence": sequence }));
    }
    let sql = "SELECT consumer, parked_at, stream_sequence, event FROM inbox_parked WHERE (event ->> 'id')::uuid = $1";
    for row in client.all(sql, &[&id]).await? {
        let (at, sequence): (Timestamp, i64) = (row.get(1), row.get(2));
        let Stored(event): Stored<Value> = row.get(3);
        add(row.get(0), "parked", json!({ "at": at, "stream_sequence": sequence, "event": event }));
    }
    let sql = "SELECT consumer, attempts, last_error FROM inbox_attempts WHERE message_id = $1";
    for row in client.all(sql, &[&id]).await? {
        let (attempts, error): (i32, Option<&str>) = (row.get(1), row.get(2));
        add(row.get(0), "attempts", json!({ "count": attempts, "last_error": error }));
    }
    let sql = "SELECT consumer, id, reason FROM dead_letters WHERE message_id = $1 AND consumer <> 'outbox'";
    for row in client.all(sql, &[&id]).await? {
        let (letter, reason): (i64, &str) = (row.get(1), row.get(2));
        add(row.get(0), "dead_letter", json!({ "id": letter, "reason": reason }));
    }
    if known.is_empty() {
        return Err(problem::NOT_FOUND.detail(format!("No consumer of this service knows the event {id}.")));
    }
    Ok(Json(json!(known)))
}

/// Which history has a gap.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Gap {
    /// `<stream>/<service>`.
    consumer: String,
    /// `order/0198…`.
    aggregate: String,
    /// That the events which have not come are given up.
    accept_loss: bool,
}

/// What was given up.
#[derive(Debug, Serialize)]
pub(super) struct GivenUp {
    from: i64,
    to: i64,
}

/// Goes on behind a gap. What was skipped becomes a dead letter should it come after all.
pub(super) async fn skip(
    State(app): State<App>,
    operator: Operator,
    Json(gap): Json<Gap>,
) -> Result<Json<GivenUp>, Problem> {
    go_on(&app, &operator, &gap, "skip").await
}

/// Goes on behind a gap. What was before it counts as handled should it come after all.
pub(super) async fn adopt(
    State(app): State<App>,
    operator: Operator,
    Json(gap): Json<Gap>,
) -> Result<Json<GivenUp>, Problem> {
    go_on(&app, &operator, &gap, "adopt").await
}

async fn go_on(app: &App, operator: &Operator, gap: &Gap, action: &str) -> Result<Json<GivenUp>, Problem> {
    if !gap.accept_loss {
        let message = "must be true: the effects of events that have not come are given up";
        return Err(problem::INVALID_FIELD.detail("The request has an invalid field.").field("/accept_loss", message));
    }
    let aggregate = gap.aggregate.split_once('/').and_then(|(kind, id)| Some((kind, id.parse::<Uuid>().ok()?)));
    let Some((kind, id)) = aggregate else {
        let message = "must be <type>/<id>";
        return Err(problem::INVALID_FIELD.detail("The request has an invalid field.").field("/aggregate", message));
    };
    let mut client = app.database.get().await?;
    let transaction = client.transaction().await.map_err(database::Error::from)?;
    let sql = "SELECT version FROM inbox_aggregates
        WHERE consumer = $1 AND aggregate_type = $2 AND aggregate_id = $3 FOR UPDATE";
    let handled = transaction.optional(sql, &[&gap.consumer, &kind, &id]).await?.map(|row| row.get::<_, i64>(0));
    let sql = "SELECT min(version) FROM inbox_parked WHERE consumer = $1 AND aggregate_type = $2 AND aggregate_id = $3";
    let parked: Option<i64> = transaction.one(sql, &[&gap.consumer, &kind, &id]).await?.get(0);
    let (Some(handled), Some(parked)) = (handled, parked) else {
        let detail = format!("Nothing of {} is parked for {}.", gap.aggregate, gap.consumer);
        return Err(problem::NOT_FOUND.detail(detail));
    };
    let (from, to) = (handled + 1, parked - 1);
    if to < from {
        let detail =
            format!("Nothing is missing before version {parked} of {}: it is about to be tried.", gap.aggregate);
        return Err(problem::CONFLICT.detail(detail));
    }
    let sql = "UPDATE inbox_aggregates SET version = $4, adopted = CASE WHEN $5 THEN $4 ELSE adopted END
        WHERE consumer = $1 AND aggregate_type = $2 AND aggregate_id = $3";
    transaction.run(sql, &[&gap.consumer, &kind, &id, &to, &(action == "adopt")]).await?;
    let subject = format!("versions {from} to {to} of {} for {}", gap.aggregate, gap.consumer);
    operator.changed(&transaction, action, &subject, None).await?;
    transaction.commit().await.map_err(database::Error::from)?;
    Ok(Json(GivenUp { from, to }))
}
