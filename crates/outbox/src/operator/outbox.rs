//! Events that are owed, and those that were published.

use axum::extract::State;
use berth_http::{
    extract::{Json, Path, Query},
    problem::{self, Problem},
};
use database::{Connection, Row, Statements as _, types::Json as Stored};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use uuid::Uuid;

use super::{App, Operator};

/// What is owed, what is on its way, and how far the stream is.
#[derive(Debug, Serialize)]
pub(super) struct OutboxState {
    unpublished: i64,
    oldest_age_seconds: f64,
    batches: Vec<BatchView>,
    /// What is written down of it; none before the first event was published.
    stream: Option<StreamView>,
    dead_letters: i64,
}

/// Events on their way.
#[derive(Debug, Serialize)]
struct BatchView {
    id: Uuid,
    events: i32,
    follows: i64,
    created_at: Timestamp,
}

#[derive(Debug, Serialize)]
struct StreamView {
    name: String,
    incarnation: String,
    /// As this database has it.
    last_sequence: i64,
    /// As the event server has it; none while that is away.
    server: Option<ServerView>,
}

#[derive(Debug, Serialize)]
struct ServerView {
    first_sequence: u64,
    last_sequence: u64,
    messages: u64,
    bytes: u64,
}

pub(super) async fn state(State(app): State<App>) -> Result<Json<OutboxState>, Problem> {
    let client = app.database.get().await?;
    let sql = "SELECT count(*), coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8,
            (SELECT count(*) FROM dead_letters WHERE consumer = 'outbox' AND resolved_at IS NULL)
        FROM outbox WHERE published_at IS NULL";
    let owed = client.one(sql, &[]).await?;
    let sql = "SELECT id, cardinality(positions), last_sequence, created_at FROM outbox_batches ORDER BY created_at";
    let batch =
        |row: &Row| BatchView { id: row.get(0), events: row.get(1), follows: row.get(2), created_at: row.get(3) };
    let batches = client.all(sql, &[]).await?.iter().map(batch).collect();
    let sql = "SELECT name, incarnation, last_sequence FROM outbox_stream WHERE name = $1";
    let stream = client.optional(sql, &[&app.events.service()]).await?;
    let stream = match stream {
        Some(row) => Some(StreamView {
            name: row.get(0),
            incarnation: row.get(1),
            last_sequence: row.get(2),
            server: app.of_server(server(&app)).await,
        }),
        None => None,
    };
    Ok(Json(OutboxState {
        unpublished: owed.get(0),
        oldest_age_seconds: owed.get(1),
        batches,
        stream,
        dead_letters: owed.get(2),
    }))
}

async fn server(app: &App) -> Option<ServerView> {
    let stream = app.events.jetstream().get_stream(app.events.service()).await.ok()?;
    let state = &stream.cached_info().state;
    Some(ServerView {
        first_sequence: state.first_sequence,
        last_sequence: state.last_sequence,
        messages: state.messages,
        bytes: state.bytes,
    })
}

/// Which events.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Those that are owed alone, the oldest first; otherwise the latest first.
    #[serde(default)]
    unpublished: bool,
    #[serde(default = "super::some")]
    limit: u16,
}

/// An event of the outbox.
#[derive(Debug, Serialize)]
pub(super) struct EventView {
    id: Uuid,
    subject: String,
    aggregate: String,
    version: i64,
    saga: Option<Uuid>,
    initiator: Option<String>,
    created_at: Timestamp,
    published_at: Option<Timestamp>,
    stream_sequence: Option<i64>,
}

macro_rules! columns {
    () => {
        "id, subject, aggregate_type, aggregate_id, version, saga, initiator, created_at, published_at, stream_sequence"
    };
}

fn view(row: &Row) -> EventView {
    EventView {
        id: row.get("id"),
        subject: row.get("subject"),
        aggregate: format!("{}/{}", row.get::<_, &str>("aggregate_type"), row.get::<_, Uuid>("aggregate_id")),
        version: row.get("version"),
        saga: row.get("saga"),
        initiator: row.get("initiator"),
        created_at: row.get("created_at"),
        published_at: row.get("published_at"),
        stream_sequence: row.get("stream_sequence"),
    }
}

pub(super) async fn list(State(app): State<App>, Query(which): Query<Which>) -> Result<Json<Vec<EventView>>, Problem> {
    let sql = if which.unpublished {
        concat!("SELECT ", columns!(), " FROM outbox WHERE published_at IS NULL ORDER BY position LIMIT $1")
    } else {
        concat!("SELECT ", columns!(), " FROM outbox ORDER BY position DESC LIMIT $1")
    };
    let rows = app.database.get().await?.all(sql, &[&i64::from(which.limit.min(1000))]).await?;
    Ok(Json(rows.iter().map(view).collect()))
}

/// The events that a saga has led to, in order.
pub(super) async fn of_saga(connection: &Connection, saga: Uuid) -> Result<Vec<EventView>, database::Error> {
    let sql = concat!("SELECT ", columns!(), " FROM outbox WHERE saga = $1 ORDER BY position LIMIT 1000");
    Ok(connection.all(sql, &[&saga]).await?.iter().map(view).collect())
}

/// An event with all there is of it.
#[derive(Debug, Serialize)]
pub(super) struct FullEvent {
    #[serde(flatten)]
    event: EventView,
    data_version: i32,
    traceparent: Option<String>,
    data: Box<RawValue>,
}

pub(super) async fn show(State(app): State<App>, Path(id): Path<Uuid>) -> Result<Json<FullEvent>, Problem> {
    let sql = concat!("SELECT ", columns!(), ", data_version, traceparent, data FROM outbox WHERE id = $1");
    let row = app.database.get().await?.optional(sql, &[&id]).await?.ok_or_else(|| no_such(id))?;
    Ok(Json(FullEvent {
        event: view(&row),
        data_version: row.get("data_version"),
        traceparent: row.get("traceparent"),
        data: row.get::<_, Stored<_>>("data").0,
    }))
}

/// Has an event published once more. Consumers that know it recognize it.
pub(super) async fn republish(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<Uuid>,
) -> Result<Json<Value>, Problem> {
    let mut client = app.database.get().await?;
    let transaction = client.transaction().await.map_err(database::Error::from)?;
    let sql = "UPDATE outbox SET published_at = NULL, stream_sequence = NULL, edition = edition + 1
        WHERE id = $1 AND stream_sequence IS NOT NULL";
    if transaction.run(sql, &[&id]).await? == 0 {
        let known = transaction.optional("SELECT FROM outbox WHERE id = $1", &[&id]).await?;
        return Err(match known {
            None => no_such(id),
            Some(_) => problem::CONFLICT.detail("It is not published: it is owed, or a dead letter."),
        });
    }
    operator.changed(&transaction, "republish", &format!("event {id}"), None).await?;
    transaction.commit().await.map_err(database::Error::from)?;
    app.outbox.wake();
    Ok(Json(serde_json::json!({ "republished": id })))
}

fn no_such(id: Uuid) -> Problem {
    problem::NOT_FOUND.detail(format!("The outbox has no event {id}; published ones are kept for a time."))
}
