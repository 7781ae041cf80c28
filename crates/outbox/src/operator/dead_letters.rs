//! Messages that could not be handled.

use axum::extract::State;
use berth_http::{
    extract::{Json, Path, Query},
    problem::{self, Problem},
};
use database::Transaction;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{App, Operator};
use crate::dead_letters::{self, DeadLetter, Status};

/// Which dead letters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Also those that were replayed or discarded.
    #[serde(default)]
    resolved: bool,
    #[serde(default)]
    after: i64,
    #[serde(default = "super::some")]
    limit: u16,
}

/// A dead letter without its message.
#[derive(Debug, Serialize)]
pub(super) struct LetterView {
    id: i64,
    consumer: String,
    subject: String,
    stream_sequence: i64,
    message_id: Option<Uuid>,
    reason: String,
    died_at: Timestamp,
    status: &'static str,
}

/// A dead letter with its message.
#[derive(Debug, Serialize)]
pub(super) struct FullLetter {
    #[serde(flatten)]
    letter: LetterView,
    /// The message, if it is JSON.
    message: Option<Value>,
    /// The message as text, if it is none.
    text: Option<String>,
}

fn view(letter: DeadLetter) -> LetterView {
    let DeadLetter { id, consumer, subject, stream_sequence, message_id, reason, died_at, status, .. } = letter;
    let status = match status {
        Status::Open => "open",
        Status::ReplayRequested => "replay-requested",
        Status::Replayed => "replayed",
        Status::Discarded => "discarded",
    };
    LetterView { id, consumer, subject, stream_sequence, message_id, reason, died_at, status }
}

pub(super) async fn list(State(app): State<App>, Query(which): Query<Which>) -> Result<Json<Vec<LetterView>>, Problem> {
    let client = app.database.get().await?;
    let letters = dead_letters::list(&client, !which.resolved, which.after, which.limit.min(1000)).await?;
    Ok(Json(letters.into_iter().map(view).collect()))
}

pub(super) async fn show(State(app): State<App>, Path(id): Path<i64>) -> Result<Json<FullLetter>, Problem> {
    let letter = dead_letters::get(&*app.database.get().await?, id).await?.ok_or_else(|| no_such(id))?;
    let message = serde_json::from_slice(&letter.payload).ok();
    let text = message.is_none().then(|| String::from_utf8_lossy(&letter.payload).into_owned());
    Ok(Json(FullLetter { message, text, letter: view(letter) }))
}

/// Has a dead letter handled, or published, again.
pub(super) async fn replay(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<i64>,
) -> Result<Json<Value>, Problem> {
    let mut client = app.database.get().await?;
    let transaction = client.transaction().await.map_err(database::Error::from)?;
    if !dead_letters::replay(&transaction, id).await? {
        return Err(not_open(&transaction, id).await?);
    }
    resolved(transaction, &operator, "replay", id).await?;
    app.outbox.wake();
    Ok(Json(json!({ "replay_requested": id })))
}

/// Gives a dead letter up.
pub(super) async fn discard(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<i64>,
) -> Result<Json<Value>, Problem> {
    let mut client = app.database.get().await?;
    let transaction = client.transaction().await.map_err(database::Error::from)?;
    if !dead_letters::discard(&transaction, id).await? {
        return Err(not_open(&transaction, id).await?);
    }
    resolved(transaction, &operator, "discard", id).await?;
    Ok(Json(json!({ "discarded": id })))
}

async fn resolved(tx: Transaction<'_>, operator: &Operator, action: &str, id: i64) -> Result<(), database::Error> {
    operator.changed(&tx, action, &format!("dead letter {id}"), None).await?;
    Ok(tx.commit().await?)
}

async fn not_open(tx: &Transaction<'_>, id: i64) -> Result<Problem, database::Error> {
    Ok(dead_letters::get(tx, id).await?.map_or_else(
        || no_such(id),
        |letter| problem::CONFLICT.detail(format!("The dead letter {id} is {}.", view(letter).status)),
    ))
}

fn no_such(id: i64) -> Problem {
    problem::NOT_FOUND.detail(format!("There is no dead letter {id}."))
}
