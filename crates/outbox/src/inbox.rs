//! What a consumer reads and writes in the database, in the transaction of the effect.

use std::time::Duration;

use database::{Connection, Error, Row, Statements as _, Transaction, types::Json};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::event::{Aggregate, Event};

/// SQL for what changes when the database server was started again, put back to an older state, or replaced by another one.
macro_rules! server_run {
    () => {
        "(SELECT concat_ws('/', oid, pg_postmaster_start_time()) FROM pg_database WHERE datname = current_database())"
    };
}
/// Up to where a database has everything from a stream that concerns a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The last sequence that is here for certain, with all before it.
    pub(crate) floor: i64,
    /// Tells one run of a database server from any other. While it stays the same, nothing that was committed is gone.
    pub(crate) server_run: String,
}

/// The inbox of one consumer.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// `<stream>/<durable>`.
    pub(crate) consumer: String,
    /// How long handled messages are known.
    pub(crate) retention: Duration,
}

/// What is to be done with an event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is the next one, and recorded as handled if the transaction commits. `successor`: the one after it is parked.
    Now { successor: bool },
    /// It was handled before, or is older than what anybody remembers.
    Seen,
    /// It came too early, and is parked if the transaction commits. `anew`: it was not before.
    Parked { anew: bool },
    /// Its version was handled before, as another event: the producer's history is not the one we know.
    Conflict,
}

/// An event that waits for the one before it.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(crate) stream_sequence: i64,
    pub(crate) event: Box<RawValue>,
}

/// What waits for attention.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    pub(crate) parked: i64,
    pub(crate) dead_letters: i64,
    pub(crate) replays: i64,
}

/// An aggregate whose earliest known event is not its first.
#[derive(Debug)]
pub(crate) struct Headless {
    pub(crate) aggregate: Aggregate,
    pub(crate) version: i64,
    pub(crate) stream_sequence: i64,
}

impl Inbox {
    /// Decides about an event, under a lock on its aggregate that is held until the transaction ends: events of one aggregate
    /// are handled one after the other, whichever instance they are delivered to.
    pub(crate) async fn admit(
        &self,
        tx: &Transaction<'_>,
        event: &Event,
        stream_sequence: i64,
    ) -> Result<Admission, Error> {
        loop {
            if let Some(successor) = self.advance(tx, event, stream_sequence).await? {
                return Ok(Admission::Now { successor });
            }
            let (version, adopted) = self.lock(tx, &event.aggregate).await?;
            if version + 1 == event.version {
                continue;
            }
            if version < event.version {
                return Ok(Admission::Parked { anew: self.park(tx, event, stream_sequence).await? });
            }
            let seen = event.version <= adopted || self.knows(tx, event).await?;
            return Ok(if seen { Admission::Seen } else { Admission::Conflict });
        }
    }

    /// Moves the aggregate on to this event's version if that is the next one, and records the message.
    async fn advance(&self, tx: &Transaction<'_>, event: &Event, stream_sequence: i64) -> Result<Option<bool>, Error> {
        let sql = "WITH admitted AS (
                INSERT INTO inbox_aggregates AS a (consumer, aggregate_type, aggregate_id, version)
                SELECT $1, $2, $3, $4::bigint
                WHERE $4 = 1 OR EXISTS (
                    SELECT FROM inbox_aggregates WHERE consumer = $1 AND aggregate_type = $2 AND aggregate_id = $3)
                ON CONFLICT (consumer, aggregate_type, aggregate_id)
                    DO UPDATE SET version = excluded.version WHERE a.version = excluded.version - 1
                RETURNING 1),
            recorded AS (
                INSERT INTO inbox (consumer, message_id, occurred_at, stream_sequence) SELECT $1, $5, $6, $7 FROM admitted)
            SELECT EXISTS (
                SELECT FROM inbox_parked
                WHERE consumer = $1 AND aggregate_type = $2 AND aggregate_id = $3 AND version = $4 + 1)
            FROM admitted";
        let Aggregate { kind, id } = &event.aggregate;
        let params: [&(dyn database::types::ToSql + Sync); 7] =
            [&self.consumer, kind, id, &event.version, &event.id, &event.time, &stream_sequence];
        Ok(tx.optional(sql, &params).await?.map(|row| row.get(0)))
    }

    /// Version and adopted version of an aggregate, 0 for one that was never seen.
    async fn lock(&self, tx: &Transaction<'_>, Aggregate { kind, id }: &Aggregate) -> Result<(i64, i64), Error> {
        let sql =
            "INSERT INTO inbox_aggregates (consumer, aggregate_type, aggregate_id, version) VALUES ($1, $2, $3, 0)
            ON CONFLICT DO NOTHING";
        tx.run(sql, &[&self.consumer, kind, id]).await?;
        let sql = "SELECT version, adopted FROM inbox_aggregates
            WHERE consumer = $1 AND aggregate_type = $2 AND aggregate_id = $3 FOR UPDATE";
        let row = tx.one(sql, &[&self.consumer, kind, id]).await?;
        Ok((row.get(0), row.get(1)))
    }

    /// Parks the event. False if it was parked already.
    async fn park(&self, tx: &Transaction<'_>, event: &Event, stream_sequence: i64) -> Result<bool, Error> {
        let sql = "INSERT INTO inbox_parked (consumer, aggregate_type, aggregate_id, version, stream_sequence, event)
            VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
        let Aggregate { kind, id } = &event.aggregate;
        let envelope = Json(event.envelope());
        let parked = tx.run(sql, &[&self.consumer, kind, id, &event.version, &stream_sequence, &envelope]).await?;
        Ok(parked > 0)
    }

    /// Whether this very message was handled, or might have been before the inbox's memory begins.
    async fn knows(&self, tx: &Transaction<'_>, event: &Event) -> Result<bool, Error> {
        let sql = "SELECT $3::timestamptz < now() - make_interval(secs => $4) OR EXISTS (
            SELECT FROM inbox WHERE consumer = $1 AND message_id = $2 AND occurred_at = $3)";
        let row = tx.one(sql, &[&self.consumer, &event.id, &event.time, &self.retention.as_secs_f64()]).await?;
        Ok(row.get(0))
    }

    /// The event that waits directly behind this one.
    pub(crate) async fn successor(&self, connection: &Connection, event: &Event) -> Result<Option<Parked>, Error> {
        let sql = "SELECT stream_sequence, event FROM inbox_parked
            WHERE consumer = $1 AND aggregate_type = $2 AND aggregate_id = $3 AND version = $4";
        let Aggregate { kind, id } = &event.aggregate;
        let row = connection.optional(sql, &[&self.consumer, kind, id, &(event.version + 1)]).await?;
        Ok(row.as_ref().map(parked))
    }

    /// Parked events whose turn has come.
    pub(crate) async fn due(&self, connection: &Connection) -> Result<Vec<Parked>, Error> {
        let sql = "SELECT p.stream_sequence, p.event
            FROM inbox_parked p JOIN inbox_aggregates a USING (consumer, aggregate_type, aggregate_id)
            WHERE consumer = $1 AND p.version = a.version + 1 AND p.retry_at <= now() ORDER BY p.parked_at LIMIT 100";
        Ok(connection.all(sql, &[&self.consumer]).await?.iter().map(parked).collect())
    }

    /// Forgets a parked event that was handled now, or before.
    pub(crate) async fn unpark(&self, tx: &Transaction<'_>, event: &Event) -> Result<(), Error> {
        let sql = "DELETE FROM inbox_parked
            WHERE consumer = $1 AND aggregate_type = $2 AND aggregate_id = $3 AND version <= $4";
        let Aggregate { kind, id } = &event.aggregate;
        tx.run(sql, &[&self.consumer, kind, id, &event.version]).await?;
        Ok(())
    }

    /// Forgets parked events that were delivered once more and handled then.
    pub(crate) async fn forget_handled(&self, connection: &Connection) -> Result<(), Error> {
        let sql = "DELETE FROM inbox_parked p USING inbox_aggregates a
            WHERE p.consumer = $1 AND a.consumer = $1 AND a.aggregate_type = p.aggregate_type
              AND a.aggregate_id = p.aggregate_id AND p.version <= a.version";
        connection.run(sql, &[&self.consumer]).await?;
        Ok(())
    }

    /// Has a parked event tried again after a while.
    pub(crate) async fn postpone(&self, connection: &Connection, event: &Event, delay: Duration) -> Result<(), Error> {
        let sql = "UPDATE inbox_parked SET retry_at = now() + make_interval(secs => $5)
            WHERE consumer = $1 AND aggregate_type = $2 AND aggregate_id = $3 AND version = $4";
        let Aggregate { kind, id } = &event.aggregate;
        connection.run(sql, &[&self.consumer, kind, id, &event.version, &delay.as_secs_f64()]).await?;
        Ok(())
    }

    /// Counts one more try of an event, unless it is `excused`; gives which one this is, and why the one before failed if
    /// that is known.
    pub(crate) async fn attempt(
        &self,
        connection: &Connection,
        event: Uuid,
        excused: bool,
    ) -> Result<(u32, Option<String>), Error> {
        let sql = "INSERT INTO inbox_attempts AS a (consumer, message_id, attempts) VALUES ($1, $2, 1)
            ON CONFLICT (consumer, message_id) DO UPDATE SET attempts = a.attempts + $3, tried_at = now()
            RETURNING attempts, last_error";
        let row = connection.one(sql, &[&self.consumer, &event, &i32::from(!excused)]).await?;
        Ok((row.get::<_, i32>(0).unsigned_abs(), row.get(1)))
    }

    /// Writes down why a try of an event failed; `uncounted`: and that it was tried.
    pub(crate) async fn failed(
        &self,
        connection: &Connection,
        event: Uuid,
        uncounted: bool,
        why: &str,
    ) -> Result<(), Error> {
        let sql = "INSERT INTO inbox_attempts AS a (consumer, message_id, attempts, last_error) VALUES ($1, $2, 1, $4)
            ON CONFLICT (consumer, message_id)
                DO UPDATE SET attempts = a.attempts + $3, last_error = excluded.last_error, tried_at = now()";
        connection.run(sql, &[&self.consumer, &event, &i32::from(uncounted), &why]).await?;
        Ok(())
    }

    /// Forgets how often an event was tried: it will not be tried again.
    pub(crate) async fn settled(&self, tx: &Transaction<'_>, event: Uuid) -> Result<(), Error> {
        tx.run("DELETE FROM inbox_attempts WHERE consumer = $1 AND message_id = $2", &[&self.consumer, &event]).await?;
        Ok(())
    }

    /// Forgets the tries of events that never came again.
    pub(crate) async fn forget_attempts(&self, connection: &Connection) -> Result<(), Error> {
        let sql = "DELETE FROM inbox_attempts WHERE consumer = $1 AND tried_at < now() - make_interval(secs => $2)";
        connection.run(sql, &[&self.consumer, &self.retention.as_secs_f64()]).await?;
        Ok(())
    }

    /// Up to where this database has everything for certain, and which server run that was asked of. See [`Progress`].
    pub(crate) async fn progress(&self, connection: &Connection) -> Result<Progress, Error> {
        let sql =
            concat!("SELECT coalesce((SELECT floor FROM inbox_progress WHERE consumer = $1), 0), ", server_run!());
        let row = connection.one(sql, &[&self.consumer]).await?;
        Ok(Progress { floor: row.get(0), server_run: row.get(1) })
    }

    /// Writes down up to where this database has everything, if it still is the one that said so.
    pub(crate) async fn note_progress(&self, connection: &Connection, progress: &Progress) -> Result<(), Error> {
        let sql = concat!(
            "INSERT INTO inbox_progress (consumer, floor) SELECT $1, $2 WHERE $3 = ",
            server_run!(),
            " ON CONFLICT (consumer) DO UPDATE SET floor = excluded.floor"
        );
        connection.run(sql, &[&self.consumer, &progress.floor, &progress.server_run]).await?;
        Ok(())
    }

    /// Whether this session is the one that looks back, until its connection ends.
    pub(crate) async fn look_back_alone(&self, connection: &Connection) -> Result<bool, Error> {
        let sql = "SELECT pg_try_advisory_lock(hashtext('berth look back'), hashtext($1))";
        Ok(connection.one(sql, &[&self.consumer]).await?.get(0))
    }

    /// Aggregates of which no event was ever handled and whose earliest parked one has waited for a while.
    pub(crate) async fn headless(&self, connection: &Connection, waited: Duration) -> Result<Vec<Headless>, Error> {
        let sql = "SELECT DISTINCT ON (p.aggregate_type, p.aggregate_id)
                p.aggregate_type, p.aggregate_id, p.version, p.stream_sequence
            FROM inbox_parked p JOIN inbox_aggregates a USING (consumer, aggregate_type, aggregate_id)
            WHERE consumer = $1 AND a.version = 0 AND p.parked_at < now() - make_interval(secs => $2)
            ORDER BY p.aggregate_type, p.aggregate_id, p.version LIMIT 1000";
        let rows = connection.all(sql, &[&self.consumer, &waited.as_secs_f64()]).await?;
        Ok(rows
            .iter()
            .map(|row| Headless {
                aggregate: Aggregate { kind: row.get(0), id: row.get(1) },
                version: row.get(2),
                stream_sequence: row.get(3),
            })
            .collect())
    }

    /// Begins with this event: those before it are not in the stream any more.
    pub(crate) async fn adopt(&self, connection: &Connection, found: &Headless) -> Result<(), Error> {
        let sql = "UPDATE inbox_aggregates SET version = $4::bigint - 1, adopted = $4 - 1
            WHERE consumer = $1 AND aggregate_type = $2 AND aggregate_id = $3 AND version = 0";
        let Aggregate { kind, id } = &found.aggregate;
        connection.run(sql, &[&self.consumer, kind, id, &found.version]).await?;
        Ok(())
    }

    /// Puts a message aside for a person to look at.
    pub(crate) async fn bury(
        &self,
        tx: &Transaction<'_>,
        subject: &str,
        stream_sequence: i64,
        message_id: Option<Uuid>,
        payload: &[u8],
        reason: &str,
    ) -> Result<(), Error> {
        let sql = "INSERT INTO dead_letters (consumer, subject, stream_sequence, message_id, payload, reason)
            VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
        tx.run(sql, &[&self.consumer, &subject, &stream_sequence, &message_id, &payload, &reason]).await?;
        Ok(())
    }

    /// The next dead letter that somebody wants replayed, locked: its id and payload.
    pub(crate) async fn replay(&self, tx: &Transaction<'_>) -> Result<Option<(i64, Vec<u8>)>, Error> {
        let sql = "SELECT id, payload FROM dead_letters
            WHERE consumer = $1 AND resolved_at IS NULL AND replay_requested_at IS NOT NULL
            ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED";
        Ok(tx.optional(sql, &[&self.consumer]).await?.map(|row| (row.get(0), row.get(1))))
    }

    pub(crate) async fn replayed(&self, tx: &Transaction<'_>, letter: i64) -> Result<(), Error> {
        let sql = "UPDATE dead_letters SET resolved_at = now(), resolution = 'replayed' WHERE id = $1";
        tx.run(sql, &[&letter]).await?;
        Ok(())
    }

    pub(crate) async fn replay_failed(&self, connection: &Connection, letter: i64, reason: &str) -> Result<(), Error> {
        let sql =
            "UPDATE dead_letters SET replay_requested_at = NULL, reason = $2 WHERE id = $1 AND resolved_at IS NULL";
        connection.run(sql, &[&letter, &reason]).await?;
        Ok(())
    }

    pub(crate) async fn backlog(&self, connection: &Connection) -> Result<Backlog, Error> {
        let sql = "SELECT (SELECT count(*) FROM inbox_parked WHERE consumer = $1), count(*), count(replay_requested_at)
            FROM dead_letters WHERE consumer = $1 AND resolved_at IS NULL";
        let row = connection.one(sql, &[&self.consumer]).await?;
        Ok(Backlog { parked: row.get(0), dead_letters: row.get(1), replays: row.get(2) })
    }
}

fn parked(row: &Row) -> Parked {
    Parked { stream_sequence: row.get("stream_sequence"), event: row.get::<_, Json<_>>("event").0 }
}
