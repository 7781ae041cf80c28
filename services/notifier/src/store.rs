//! Every SQL statement of the service, typed in and out.

use std::time::Duration;

use database::{Database, Error, MigrateError, Row, Statements, Transaction};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::domain::{DeliveryState, Endpoint, Owner, Patience, State, Subscription};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Brings the tables up to date, see [`Database::migrate`].
///
/// # Errors
/// As [`Database::migrate`].
pub async fn migrate(database: &Database, stop: &CancellationToken) -> Result<(), MigrateError> {
    database.migrate(embedded::migrations::runner(), "migrations", stop).await
}

/// A delivery, as its subscriber sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Which one.
    pub id: Uuid,
    /// The event that is told of.
    pub event_id: Uuid,
    /// The event's type.
    pub event_type: String,
    /// Where it stands.
    pub state: DeliveryState,
    /// How often it was tried.
    pub attempts: i32,
    /// When it is tried next, if it is pending.
    pub next_at: Timestamp,
    /// What the subscriber answered last.
    pub last_status: Option<i32>,
    /// Why it failed last.
    pub last_error: Option<String>,
    /// When the event came.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A delivery that is to be tried now.
#[derive(Debug, Clone)]
pub struct Due {
    /// Which one.
    pub id: Uuid,
    /// Whose.
    pub subscription_id: Uuid,
    /// Where to.
    pub url: String,
    /// Scheme, host and port of it.
    pub target: String,
    /// The encrypted secret.
    pub sealed: Vec<u8>,
    /// The event.
    pub event_id: Uuid,
    /// What to tell.
    pub body: String,
    /// How often it was tried before.
    pub attempts: i32,
}

macro_rules! subscription {
    () => {
        "id, owner, roles, scopes, everybodys, url, event_types, state, failing_since, disabled_for, version, created_at, updated_at"
    };
}

macro_rules! delivery {
    () => {
        "deliveries.id, event_id, type, state, attempts, next_at, last_status, last_error, created_at, updated_at"
    };
}

const INSERT: &str = concat!(
    "INSERT INTO subscriptions (id, owner, roles, scopes, everybodys, url, target, event_types, secret) \
     SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9 WHERE (SELECT count(*) FROM subscriptions WHERE owner = $2) < $10 RETURNING ",
    subscription!()
);

const FIND: &str = concat!("SELECT ", subscription!(), " FROM subscriptions WHERE id = $1");

const LOCK: &str = concat!("SELECT ", subscription!(), " FROM subscriptions WHERE id = $1 FOR UPDATE");

const LIST: &str = concat!(
    "SELECT ",
    subscription!(),
    " FROM subscriptions WHERE ($1::text IS NULL OR owner = $1) AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3"
);

const UPDATE: &str = concat!(
    "UPDATE subscriptions SET roles = $2, scopes = $3, everybodys = $4, url = $5, target = $6, event_types = $7, \
     state = $8, disabled_for = NULL, failures = 0, failing_since = NULL, version = version + 1, updated_at = now() \
     WHERE id = $1 RETURNING ",
    subscription!()
);

const DELETE: &str = "DELETE FROM subscriptions WHERE id = $1";

const CANDIDATES: &str =
    concat!("SELECT ", subscription!(), " FROM subscriptions WHERE state = 'active' AND (everybodys OR owner = $1)");

const INSERT_EVENT: &str = "INSERT INTO events (id, type, body) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING";

const INSERT_DELIVERIES: &str = "INSERT INTO deliveries (id, subscription_id, event_id) \
     SELECT id, subscription, $3 FROM unnest($1::uuid[], $2::uuid[]) AS new (id, subscription) ON CONFLICT DO NOTHING";

const LIST_DELIVERIES: &str = concat!(
    "SELECT ",
    delivery!(),
    " FROM deliveries JOIN events ON events.id = event_id WHERE subscription_id = $1 \
     AND ($2::delivery_state IS NULL OR state = $2) AND ($3::uuid IS NULL OR deliveries.id < $3) ORDER BY deliveries.id DESC LIMIT $4"
);

const FIND_DELIVERY: &str = concat!(
    "SELECT ",
    delivery!(),
    " FROM deliveries JOIN events ON events.id = event_id WHERE subscription_id = $1 AND deliveries.id = $2"
);

const REPLAY: &str = "UPDATE deliveries SET state = 'pending', attempts = 0, next_at = now(), updated_at = now() WHERE id IN (\
     SELECT id FROM deliveries WHERE subscription_id = $1 AND ($2::uuid IS NULL OR id = $2) \
     AND ($3::timestamptz IS NULL OR created_at >= $3) AND ($4::timestamptz IS NULL OR created_at < $4) \
     AND ($5::delivery_state IS NULL OR state = $5) ORDER BY id LIMIT $6 FOR UPDATE)";

/// Takes what is due, a few of each subscription, so that none stands in the others' way. Should whoever takes it not come back,
/// it is due again when its lease is over.
const CLAIM: &str = "WITH due AS (\
     SELECT pick.id, url, target, secret FROM subscriptions CROSS JOIN LATERAL (\
     SELECT id, next_at FROM deliveries \
     WHERE subscription_id = subscriptions.id AND deliveries.state = 'pending' AND next_at <= now() \
     ORDER BY next_at, id LIMIT $2 FOR UPDATE SKIP LOCKED) AS pick \
     WHERE state = 'active' AND target <> ALL ($1) ORDER BY pick.next_at LIMIT $3) \
     UPDATE deliveries SET next_at = now() + make_interval(secs => $4) FROM due, events \
     WHERE deliveries.id = due.id AND events.id = event_id \
     RETURNING deliveries.id, subscription_id, url, target, secret, event_id, body, attempts";

const GIVE_BACK: &str = "UPDATE deliveries SET next_at = now() WHERE id = $1 AND state = 'pending'";

const DELIVERED: &str = "UPDATE deliveries SET state = 'delivered', attempts = attempts + 1, last_status = $2, last_error = NULL, \
     updated_at = now() WHERE id = $1";

const RECOVERED: &str = "UPDATE subscriptions SET failures = 0, failing_since = NULL WHERE id = $1 AND failures > 0";

const FAILED: &str = "UPDATE deliveries SET attempts = attempts + 1, last_status = $2, last_error = $3, \
     state = CASE WHEN attempts + 1 >= $5 THEN 'failed'::delivery_state ELSE state END, \
     next_at = now() + make_interval(secs => $4), updated_at = now() WHERE id = $1 AND state = 'pending'";

const COUNT_FAILURE: &str =
    "UPDATE subscriptions SET failures = failures + 1, failing_since = coalesce(failing_since, now()) WHERE id = $1";

const DISABLE: &str = concat!(
    "UPDATE subscriptions SET state = 'disabled', disabled_for = $2, version = version + 1, updated_at = now() \
     WHERE id = $1 AND state = 'active' AND ($3 OR (failures >= $4 AND failing_since <= now() - make_interval(secs => $5))) RETURNING ",
    subscription!()
);

const PURGE_DELIVERIES: &str = "DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries \
     WHERE updated_at < now() - make_interval(secs => $1) ORDER BY updated_at LIMIT $2 FOR UPDATE SKIP LOCKED)";

const PURGE_EVENTS: &str = "DELETE FROM events WHERE id IN (SELECT id FROM events \
     WHERE received_at < now() - make_interval(secs => $1) AND NOT EXISTS (SELECT FROM deliveries WHERE event_id = events.id) \
     LIMIT $2 FOR UPDATE SKIP LOCKED)";

/// What a subscription is to be.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// Whose.
    pub owner: &'a Owner,
    /// Whether it may be about others' things than the owner's.
    pub everybodys: bool,
    /// Where to.
    pub endpoint: &'a Endpoint,
    /// Of what.
    pub event_types: &'a [String],
}

/// Makes a subscription, unless its owner has `most` already.
///
/// # Errors
/// That of the database.
pub async fn insert(
    tx: &Transaction<'_>,
    id: Uuid,
    wanted: &Wanted<'_>,
    sealed: &[u8],
    most: i64,
) -> Result<Option<Subscription>, Error> {
    let Wanted { owner: Owner { subject, roles, scopes }, everybodys, endpoint, event_types } = wanted;
    let (url, target) = (endpoint.url().as_str(), endpoint.target());
    let row = tx
        .optional(INSERT, &[&id, subject, roles, scopes, everybodys, &url, &target, event_types, &sealed, &most])
        .await?;
    Ok(row.as_ref().map(subscription))
}

/// A subscription.
///
/// # Errors
/// That of the database.
pub async fn find(db: &impl Statements, id: Uuid) -> Result<Option<Subscription>, Error> {
    Ok(db.optional(FIND, &[&id]).await?.as_ref().map(subscription))
}

/// A subscription that nobody else changes until the transaction ends.
///
/// # Errors
/// That of the database.
pub async fn lock(tx: &Transaction<'_>, id: Uuid) -> Result<Option<Subscription>, Error> {
    Ok(tx.optional(LOCK, &[&id]).await?.as_ref().map(subscription))
}

/// At most `limit` subscriptions with ids above `after`, of one owner or of everybody.
///
/// # Errors
/// That of the database.
pub async fn list(
    db: &impl Statements,
    owner: Option<&str>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Subscription>, Error> {
    Ok(db.all(LIST, &[&owner, &after, &limit]).await?.iter().map(subscription).collect())
}

/// Changes a locked subscription; what failed before is forgotten.
///
/// # Errors
/// That of the database.
pub async fn update(tx: &Transaction<'_>, id: Uuid, wanted: &Wanted<'_>, state: State) -> Result<Subscription, Error> {
    let Wanted { owner: Owner { roles, scopes, .. }, everybodys, endpoint, event_types } = wanted;
    let (url, target) = (endpoint.url().as_str(), endpoint.target());
    let row = tx.one(UPDATE, &[&id, roles, scopes, everybodys, &url, &target, event_types, &state]).await?;
    Ok(subscription(&row))
}

/// Removes a subscription with its deliveries.
///
/// # Errors
/// That of the database.
pub async fn delete(tx: &Transaction<'_>, id: Uuid) -> Result<(), Error> {
    tx.run(DELETE, &[&id]).await?;
    Ok(())
}

/// Active subscriptions that may be about something of this customer's.
///
/// # Errors
/// That of the database.
pub async fn candidates(tx: &Transaction<'_>, customer: Option<&str>) -> Result<Vec<Subscription>, Error> {
    Ok(tx.all(CANDIDATES, &[&customer]).await?.iter().map(subscription).collect())
}

/// Has these subscribers told of an event, each once.
///
/// # Errors
/// That of the database.
pub async fn tell(
    tx: &Transaction<'_>,
    event: Uuid,
    kind: &str,
    body: &str,
    subscriptions: &[Uuid],
) -> Result<Vec<Uuid>, Error> {
    tx.run(INSERT_EVENT, &[&event, &kind, &body]).await?;
    let ids: Vec<Uuid> = subscriptions.iter().map(|_| Uuid::now_v7()).collect();
    tx.run(INSERT_DELIVERIES, &[&ids, &subscriptions, &event]).await?;
    Ok(ids)
}

/// At most `limit` deliveries with ids below `before`, the newest first.
///
/// # Errors
/// That of the database.
pub async fn list_deliveries(
    db: &impl Statements,
    subscription: Uuid,
    state: Option<DeliveryState>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Delivery>, Error> {
    Ok(db.all(LIST_DELIVERIES, &[&subscription, &state, &before, &limit]).await?.iter().map(delivery).collect())
}

/// A delivery of a subscription.
///
/// # Errors
/// That of the database.
pub async fn find_delivery(db: &impl Statements, subscription: Uuid, id: Uuid) -> Result<Option<Delivery>, Error> {
    Ok(db.optional(FIND_DELIVERY, &[&subscription, &id]).await?.as_ref().map(delivery))
}

/// Which deliveries are to be made once more.
#[derive(Debug, Clone, Copy, Default)]
pub struct Replay {
    /// This one alone.
    pub only: Option<Uuid>,
    /// Of events that came at this time or later.
    pub from: Option<Timestamp>,
    /// Of events that came before this time.
    pub until: Option<Timestamp>,
    /// In this state.
    pub state: Option<DeliveryState>,
}

/// Makes deliveries due again, at most `limit`, the oldest first; gives how many.
///
/// # Errors
/// That of the database.
pub async fn replay(db: &impl Statements, subscription: Uuid, which: Replay, limit: i64) -> Result<u64, Error> {
    let Replay { only, from, until, state } = which;
    db.run(REPLAY, &[&subscription, &only, &from, &until, &state, &limit]).await
}

/// Takes at most `limit` deliveries that are due, at most `each` of one subscription, none of a `busy` target.
///
/// # Errors
/// That of the database.
pub async fn claim(
    db: &impl Statements,
    busy: &[String],
    each: i64,
    limit: i64,
    lease: Duration,
) -> Result<Vec<Due>, Error> {
    let rows = db.all(CLAIM, &[&busy, &each, &limit, &lease.as_secs_f64()]).await?;
    let due = |row: &Row| Due {
        id: row.get("id"),
        subscription_id: row.get("subscription_id"),
        url: row.get("url"),
        target: row.get("target"),
        sealed: row.get("secret"),
        event_id: row.get("event_id"),
        body: row.get("body"),
        attempts: row.get("attempts"),
    };
    Ok(rows.iter().map(due).collect())
}

/// A delivery that was taken and not tried is due again.
///
/// # Errors
/// That of the database.
pub async fn give_back(db: &impl Statements, id: Uuid) -> Result<(), Error> {
    db.run(GIVE_BACK, &[&id]).await?;
    Ok(())
}

/// A delivery was made.
///
/// # Errors
/// That of the database.
pub async fn delivered(tx: &Transaction<'_>, due: &Due, status: i32) -> Result<(), Error> {
    tx.run(DELIVERED, &[&due.id, &status]).await?;
    tx.run(RECOVERED, &[&due.subscription_id]).await?;
    Ok(())
}

/// What became of an attempt that failed.
#[derive(Debug, Clone)]
pub struct Failed<'a> {
    /// What the subscriber answered.
    pub status: Option<i32>,
    /// Why.
    pub error: &'a str,
    /// When it is tried again.
    pub delay: Duration,
    /// Whether the subscriber wants nothing any more.
    pub farewell: bool,
}

/// A delivery failed. Gives the subscription if it was disabled for that.
///
/// # Errors
/// That of the database.
pub async fn failed(
    tx: &Transaction<'_>,
    due: &Due,
    failed: &Failed<'_>,
    patience: &Patience,
) -> Result<Option<Subscription>, Error> {
    let Failed { status, error, delay, farewell } = failed;
    let attempts = i32::try_from(patience.attempts).unwrap_or(i32::MAX);
    tx.run(FAILED, &[&due.id, status, error, &delay.as_secs_f64(), &attempts]).await?;
    tx.run(COUNT_FAILURE, &[&due.subscription_id]).await?;
    let reason = if *farewell {
        "the subscriber answered 410 Gone".to_owned()
    } else {
        format!("nothing could be delivered for {} hours; at last: {error}", patience.failing.as_secs() / 3600)
    };
    let row = tx
        .optional(
            DISABLE,
            &[&due.subscription_id, &reason, farewell, &patience.failures, &patience.failing.as_secs_f64()],
        )
        .await?;
    Ok(row.as_ref().map(subscription))
}

/// Forgets at most `batch` deliveries that have not changed for `retention`, and events that nobody is told of any more; gives
/// how many rows.
///
/// # Errors
/// That of the database.
pub async fn purge(db: &impl Statements, retention: Duration, batch: i64) -> Result<u64, Error> {
    let seconds = retention.as_secs_f64();
    Ok(db.run(PURGE_DELIVERIES, &[&seconds, &batch]).await? + db.run(PURGE_EVENTS, &[&seconds, &batch]).await?)
}

/// The encrypted secret of a subscription is stored under this name.
#[must_use]
pub fn secret_name(subscription: Uuid) -> String {
    format!("subscription {subscription}")
}

fn subscription(row: &Row) -> Subscription {
    Subscription {
        id: row.get("id"),
        owner: Owner { subject: row.get("owner"), roles: row.get("roles"), scopes: row.get("scopes") },
        everybodys: row.get("everybodys"),
        url: row.get("url"),
        event_types: row.get("event_types"),
        state: row.get("state"),
        failing_since: row.get("failing_since"),
        disabled_for: row.get("disabled_for"),
        version: row.get("version"),
        created_at: row.get("created_at"),
        updated_at: row.get("updated_at"),
    }
}

fn delivery(row: &Row) -> Delivery {
    Delivery {
        id: row.get("id"),
        event_id: row.get("event_id"),
        event_type: row.get("type"),
        state: row.get("state"),
        attempts: row.get("attempts"),
        next_at: row.get("next_at"),
        last_status: row.get("last_status"),
        last_error: row.get("last_error"),
        created_at: row.get("created_at"),
        updated_at: row.get("updated_at"),
    }
}
