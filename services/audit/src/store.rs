//! Every SQL statement of the service, typed in and out.

use database::{Database, Error as DatabaseError, MigrateError, Row, Statements, Transaction};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::domain::{Entry, Hash, Head, Record};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Most entries that are read or appended at once.
pub const BATCH: i64 = 500;
/// Most bytes of content among them; a single one may have more.
const BATCH_BYTES: i64 = 4 << 20;

/// Why something was not read. What is written never fails for a reason of its own.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// PostgreSQL failed or cannot be reached.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The row that says where the chain ends holds no hash.
    #[error("the end of the chain is stored wrongly")]
    Corrupt,
}

/// Brings the tables up to date, see [`Database::migrate`].
///
/// # Errors
/// As [`Database::migrate`].
pub async fn migrate(database: &Database, stop: &CancellationToken) -> Result<(), MigrateError> {
    database.migrate(embedded::migrations::runner(), "migrations", stop).await
}

/// Which entries a list holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Recorded at this time or later.
    pub from: Option<Timestamp>,
    /// Recorded before this time.
    pub until: Option<Timestamp>,
    /// About this subject alone.
    pub subject: Option<String>,
    /// Caused by this principal alone.
    pub actor: Option<String>,
    /// Of this type, or, where it ends in a dot, of all that begin so.
    pub kind: Option<String>,
}

macro_rules! record {
    () => {
        "id, type, source, subject, actor, occurred_at, content"
    };
}

macro_rules! entry {
    () => {
        concat!("seq, recorded_at, previous, hash, ", record!())
    };
}

/// Takes a record in that is not known yet.
const TAKE_IN: &str = concat!(
    "INSERT INTO intake (",
    record!(),
    ") SELECT $1, $2, $3, $4, $5, $6, $7 WHERE NOT EXISTS (SELECT FROM entries WHERE id = $1) ON CONFLICT (id) DO NOTHING"
);

const LOCK_HEAD: &str = "SELECT seq, hash, greatest(clock_timestamp(), recorded_at) AS now FROM chain_head FOR UPDATE";

const MOVE_HEAD: &str = "UPDATE chain_head SET seq = $1, hash = $2, recorded_at = $3";

const TAKE_OUT: &str = concat!(
    "DELETE FROM intake WHERE position IN (\
     SELECT position FROM (\
     SELECT position, row_number() OVER w AS place, sum(octet_length(content)) OVER w AS bytes \
     FROM (SELECT position, content FROM intake ORDER BY position LIMIT $1) AS oldest WINDOW w AS (ORDER BY position)) AS batch \
     WHERE place = 1 OR bytes <= $2) RETURNING position, ",
    record!()
);

const KNOWN: &str = "SELECT id FROM entries WHERE id = ANY ($1)";

const APPEND: &str = concat!(
    "INSERT INTO entries (",
    entry!(),
    ") SELECT * FROM unnest($1::bigint[], $2::timestamptz[], $3::bytea[], $4::bytea[], \
     $5::uuid[], $6::text[], $7::text[], $8::text[], $9::text[], $10::timestamptz[], $11::text[])"
);

const ENTRY: &str = concat!("SELECT ", entry!(), " FROM entries WHERE seq = $1");

const LIST: &str = concat!(
    "SELECT ",
    entry!(),
    " FROM entries WHERE ($1::timestamptz IS NULL OR recorded_at >= $1) AND ($2::timestamptz IS NULL OR recorded_at < $2) \
     AND ($3::text IS NULL OR subject = $3) AND ($4::text IS NULL OR actor = $4) \
     AND ($5::text IS NULL OR type = $5) AND ($6::text IS NULL OR type ^@ $6) \
     AND ($7::bigint IS NULL OR seq < $7) ORDER BY seq DESC LIMIT $8"
);

const WALK: &str = concat!(
    "SELECT ",
    entry!(),
    " FROM (SELECT *, row_number() OVER w AS place, sum(octet_length(content)) OVER w AS bytes \
     FROM (SELECT * FROM entries WHERE seq BETWEEN $1 AND $2 ORDER BY seq LIMIT $3) AS next WINDOW w AS (ORDER BY seq)) AS page \
     WHERE place = 1 OR bytes <= $4 ORDER BY seq"
);

/// The end as the head remembers it and as the entries have it, at one moment.
const END: &str = "SELECT seq, hash, (SELECT max(seq) FROM entries) AS last FROM chain_head";

const LAST_CHECKPOINT: &str = "SELECT coalesce(max(seq), 0) AS seq, coalesce(extract(epoch FROM now() - max(signed_at)), 1e9)::float8 AS age FROM checkpoints";

const KEEP_CHECKPOINT: &str = "INSERT INTO checkpoints (seq) VALUES ($1) \
     ON CONFLICT (seq) DO UPDATE SET signed_at = now() WHERE checkpoints.signed_at < now() - make_interval(secs => $2)";

/// Remembers a record if the transaction commits, unless it is known already. It gets its place in the chain soon after.
///
/// # Errors
/// That of the database.
pub async fn take_in(db: &impl Statements, record: &Record) -> Result<(), DatabaseError> {
    let Record { id, kind, source, subject, actor, occurred_at, content } = record;
    db.run(TAKE_IN, &[id, kind, source, subject, actor, occurred_at, content]).await?;
    Ok(())
}

/// The end of the chain and the time; nobody else appends until the transaction ends.
///
/// # Errors
/// That of the database, or [`Error::Corrupt`].
pub async fn lock_head(tx: &Transaction<'_>) -> Result<(Head, Timestamp), Error> {
    let row = tx.one(LOCK_HEAD, &[]).await?;
    Ok((head(&row)?, row.get("now")))
}

/// Moves the end of the chain, which must be locked.
///
/// # Errors
/// That of the database.
pub async fn move_head(tx: &Transaction<'_>, last: &Entry) -> Result<(), DatabaseError> {
    tx.run(MOVE_HEAD, &[&last.seq, &last.hash.0.as_slice(), &last.recorded_at]).await?;
    Ok(())
}

/// Takes the oldest records out of the intake, at most a batch, in their order.
///
/// # Errors
/// That of the database.
pub async fn take_out(tx: &Transaction<'_>) -> Result<Vec<Record>, DatabaseError> {
    let mut rows = tx.all(TAKE_OUT, &[&BATCH, &BATCH_BYTES]).await?;
    rows.sort_by_key(|row| row.get::<_, i64>("position"));
    Ok(rows.iter().map(record).collect())
}

/// Those of these ids that entries have.
///
/// # Errors
/// That of the database.
pub async fn known(tx: &Transaction<'_>, ids: &[Uuid]) -> Result<Vec<Uuid>, DatabaseError> {
    Ok(tx.all(KNOWN, &[&ids]).await?.iter().map(|row| row.get(0)).collect())
}

/// Writes entries.
///
/// # Errors
/// That of the database.
pub async fn append(tx: &Transaction<'_>, entries: &[Entry]) -> Result<(), DatabaseError> {
    macro_rules! column {
        (|$entry:ident| $value:expr) => {
            entries.iter().map(|$entry| $value).collect::<Vec<_>>()
        };
    }
    tx.run(
        APPEND,
        &[
            &column!(|entry| entry.seq),
            &column!(|entry| entry.recorded_at),
            &column!(|entry| entry.previous.0.as_slice()),
            &column!(|entry| entry.hash.0.as_slice()),
            &column!(|entry| entry.record.id),
            &column!(|entry| entry.record.kind.as_str()),
            &column!(|entry| entry.record.source.as_str()),
            &column!(|entry| entry.record.subject.as_str()),
            &column!(|entry| entry.record.actor.as_deref()),
            &column!(|entry| entry.record.occurred_at),
            &column!(|entry| entry.record.content.as_str()),
        ],
    )
    .await?;
    Ok(())
}

/// An entry.
///
/// # Errors
/// That of the database, or [`Error::Corrupt`].
pub async fn find_entry(db: &impl Statements, seq: i64) -> Result<Option<Entry>, Error> {
    db.optional(ENTRY, &[&seq]).await?.as_ref().map(entry).transpose()
}

/// At most `limit` entries with numbers below `before`, the newest first.
///
/// # Errors
/// That of the database, or [`Error::Corrupt`].
pub async fn list(db: &impl Statements, filter: &Filter, before: Option<i64>, limit: i64) -> Result<Vec<Entry>, Error> {
    let Filter { from, until, subject, actor, kind } = filter;
    let (prefix, exact) = match kind {
        Some(kind) if kind.ends_with('.') => (Some(kind), None),
        kind => (None, kind.as_ref()),
    };
    let rows = db.all(LIST, &[from, until, subject, actor, &exact, &prefix, &before, &limit]).await?;
    rows.iter().map(entry).collect()
}

/// The next entries of a walk from `first` to `last`: some if there are any, a bounded number of bytes.
///
/// # Errors
/// That of the database, or [`Error::Corrupt`].
pub async fn walk(db: &impl Statements, first: i64, last: i64) -> Result<Vec<Entry>, Error> {
    let rows = db.all(WALK, &[&first, &last, &BATCH, &BATCH_BYTES]).await?;
    rows.iter().map(entry).collect()
}

/// Where the chain ends, and the largest number that an entry has.
///
/// # Errors
/// That of the database, or [`Error::Corrupt`].
pub async fn end(db: &impl Statements) -> Result<(Head, i64), Error> {
    let row = db.one(END, &[]).await?;
    Ok((head(&row)?, row.get::<_, Option<i64>>("last").unwrap_or_default()))
}

/// The number of the last entry that a checkpoint was signed for, and how many seconds ago that was.
///
/// # Errors
/// That of the database.
pub async fn last_checkpoint(db: &impl Statements) -> Result<(i64, f64), DatabaseError> {
    let row = db.one(LAST_CHECKPOINT, &[]).await?;
    Ok((row.get("seq"), row.get("age")))
}

/// Keeps that a checkpoint is being told; false if one for this entry was told within `within` seconds.
///
/// # Errors
/// That of the database.
pub async fn keep_checkpoint(tx: &Transaction<'_>, seq: i64, within: f64) -> Result<bool, DatabaseError> {
    Ok(tx.run(KEEP_CHECKPOINT, &[&seq, &within]).await? == 1)
}

fn head(row: &Row) -> Result<Head, Error> {
    Ok(Head { seq: row.get("seq"), hash: hash(row, "hash")? })
}

fn hash(row: &Row, column: &str) -> Result<Hash, Error> {
    Hash::from_bytes(row.get(column)).ok_or(Error::Corrupt)
}

fn entry(row: &Row) -> Result<Entry, Error> {
    Ok(Entry {
        seq: row.get("seq"),
        recorded_at: row.get("recorded_at"),
        record: record(row),
        previous: hash(row, "previous")?,
        hash: hash(row, "hash")?,
    })
}

fn record(row: &Row) -> Record {
    Record {
        id: row.get("id"),
        kind: row.get("type"),
        source: row.get("source"),
        subject: row.get("subject"),
        actor: row.get("actor"),
        occurred_at: row.get("occurred_at"),
        content: row.get("content"),
    }
}
