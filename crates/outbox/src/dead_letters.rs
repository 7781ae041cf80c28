//! Messages that could not be handled, for a person to look at: list, replay, discard.
//!
//! Replaying is a wish written into the row: the consumer of the service that owns the database sees it within a second,
//! and hands the event to its handler again, past the version gate.

use database::{Connection, Error, Row, Statements};
use jiff::Timestamp;
use uuid::Uuid;

/// The name in [`DeadLetter::consumer`] for events of this service that no stream takes.
pub const OUTBOX: &str = "outbox";

/// A message that could not be handled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its number in this database.
    pub id: i64,
    /// Who could not handle it, `<stream>/<service>`; or [`OUTBOX`].
    pub consumer: String,
    /// The subject it came under.
    pub subject: String,
    /// Where it stood in the stream.
    pub stream_sequence: i64,
    /// The event's id, if it is an event at all.
    pub message_id: Option<Uuid>,
    /// The message as it came.
    pub payload: Vec<u8>,
    /// Why it could not be handled, or not be replayed.
    pub reason: String,
    /// When it was put aside.
    pub died_at: Timestamp,
    /// What became of it.
    pub status: Status,
}

/// What became of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Nobody has decided yet.
    Open,
    /// It will be handled again soon.
    ReplayRequested,
    /// It was handled after all.
    Replayed,
    /// It was given up.
    Discarded,
}

/// The dead letters after the one numbered `after` (0 for the first), oldest first, at most `limit`; only those that nobody
/// has replayed or discarded when `open`.
///
/// # Errors
/// Those of the database.
pub async fn list(connection: &Connection, open: bool, after: i64, limit: u16) -> Result<Vec<DeadLetter>, Error> {
    let sql = "SELECT * FROM dead_letters WHERE id > $1 AND (resolved_at IS NULL OR NOT $2) ORDER BY id LIMIT $3";
    Ok(connection.all(sql, &[&after, &open, &i64::from(limit)]).await?.iter().map(letter).collect())
}

/// One dead letter.
///
/// # Errors
/// Those of the database.
pub async fn get(connection: &impl Statements, id: i64) -> Result<Option<DeadLetter>, Error> {
    let row = connection.optional("SELECT * FROM dead_letters WHERE id = $1", &[&id]).await?;
    Ok(row.as_ref().map(letter))
}

/// Asks for a dead letter to be handled again; an event that no stream took is owed again. Gives whether there was anything
/// to ask for: false when it is unknown, replayed or discarded.
///
/// # Errors
/// Those of the database.
pub async fn replay(connection: &impl Statements, id: i64) -> Result<bool, Error> {
    let sql = "WITH letter AS (
            UPDATE dead_letters SET replay_requested_at = now(),
                resolved_at = CASE WHEN consumer = 'outbox' THEN now() END,
                resolution = CASE WHEN consumer = 'outbox' THEN 'replayed' END
            WHERE id = $1 AND resolved_at IS NULL RETURNING consumer, message_id),
        owed AS (
            UPDATE outbox o SET published_at = NULL FROM letter
            WHERE letter.consumer = 'outbox' AND o.id = letter.message_id AND o.stream_sequence IS NULL)
        SELECT FROM letter";
    Ok(connection.optional(sql, &[&id]).await?.is_some())
}

/// Gives a dead letter up. It stays in the list of all. Gives whether it was open.
///
/// # Errors
/// Those of the database.
pub async fn discard(connection: &impl Statements, id: i64) -> Result<bool, Error> {
    let sql =
        "UPDATE dead_letters SET resolved_at = now(), resolution = 'discarded' WHERE id = $1 AND resolved_at IS NULL";
    Ok(connection.run(sql, &[&id]).await? > 0)
}

fn letter(row: &Row) -> DeadLetter {
    let requested = row.get::<_, Option<Timestamp>>("replay_requested_at").is_some();
    DeadLetter {
        id: row.get("id"),
        consumer: row.get("consumer"),
        subject: row.get("subject"),
        stream_sequence: row.get("stream_sequence"),
        message_id: row.get("message_id"),
        payload: row.get("payload"),
        reason: row.get("reason"),
        died_at: row.get("died_at"),
        status: match row.get::<_, Option<&str>>("resolution") {
            Some("replayed") => Status::Replayed,
            Some(_) => Status::Discarded,
            None if requested => Status::ReplayRequested,
            None => Status::Open,
        },
    }
}
