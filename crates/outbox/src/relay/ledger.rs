//! What the relay reads and writes in the database.

use std::time::Duration;

use database::{Connection, Database, Dedicated, Error, Row, Statements as _, types::ToSql};
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::Interrupted;
use crate::{
    event::{Aggregate, Event},
    failpoint, failpoints,
};

/// A leader that has not spoken for so long is considered gone: PostgreSQL ends its session, which frees the lock.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a relay with nothing to do shows that it is alive.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(3);

/// An event that is owed.
#[derive(Debug)]
pub(super) struct Owed {
    pub(super) position: i64,
    pub(super) event: Event,
}

/// Events on their way to the stream, written down as such.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) id: Uuid,
    /// The sequence the batch must follow in the stream.
    pub(super) last_sequence: u64,
    pub(super) events: Vec<Owed>,
}

/// A batch whose outcome nobody wrote down.
#[derive(Debug)]
pub(super) struct OpenBatch {
    pub(super) id: Uuid,
    pub(super) last_sequence: u64,
    /// Position and message id of its events, in order.
    pub(super) messages: Vec<(i64, Uuid)>,
}

/// What is owed at the moment.
#[derive(Debug)]
pub(super) struct Depth {
    pub(super) events: i64,
    /// In seconds.
    pub(super) oldest_age: f64,
}

/// The outbox as the relay sees it, over a connection of its own.
#[derive(Debug)]
pub(super) struct Ledger {
    connection: Dedicated,
}

impl Ledger {
    pub(super) async fn open(database: &Database) -> Result<Self, Error> {
        let connection = database.dedicated().await?;
        let patience = PATIENCE.as_millis();
        let settings = format!("SET idle_session_timeout = {patience}; SET application_name = 'relay'");
        connection.batch_execute(&settings).await?;
        Ok(Self { connection })
    }

    /// Whether this session leads now.
    pub(super) async fn lead(&self) -> Result<bool, Error> {
        let sql = "SELECT pg_try_advisory_lock(hashtext('berth'), hashtext('relay'))";
        let leads = self.connection.one(sql, &[]).await?.get(0);
        if leads {
            self.connection.batch_execute("LISTEN outbox").await?;
        }
        Ok(leads)
    }

    /// Shows that this session is alive.
    pub(super) async fn beat(&self) -> Result<(), Error> {
        self.connection.simple_query("").await?;
        Ok(())
    }

    /// Wakes the leader. In a transaction of its own: NOTIFY in one that writes would make all writers queue.
    pub(super) async fn pass_on_wake_up(&self) -> Result<(), Error> {
        Ok(self.connection.batch_execute("NOTIFY outbox").await?)
    }

    /// Waits until another process passes a wake-up on.
    pub(super) async fn woken(&self) {
        self.connection.notified().await;
    }

    /// Compares what is written down of the stream with what it is, and takes back the marks of events that it does not have
    /// any more: all, when it is another one; those beyond its end, when it was rolled back. Gives how many.
    pub(super) async fn compare(
        &mut self,
        stream: &str,
        incarnation: &str,
        last_sequence: u64,
    ) -> Result<u64, Interrupted> {
        let transaction = self.connection.transaction().await?;
        transaction.batch_execute("SET LOCAL statement_timeout = 0").await?;
        let sql = "SELECT incarnation, last_sequence FROM outbox_stream WHERE name = $1 FOR UPDATE";
        let known = transaction.optional(sql, &[&stream]).await?;
        let kept = match known.map(|row| (row.get::<_, String>(0), sequence(row.get(1)))) {
            Some((known, last)) if known == incarnation && last <= last_sequence => None,
            Some((known, _)) if known == incarnation => Some(last_sequence),
            _ => Some(0),
        };
        let mut refilled = 0;
        if let Some(kept) = kept {
            let sql = "UPDATE outbox SET published_at = NULL, stream_sequence = NULL WHERE stream_sequence > $1";
            refilled = transaction.run(sql, &[&signed(kept)]).await?;
            let sql = "INSERT INTO outbox_stream (name, incarnation, last_sequence) VALUES ($1, $2, $3)
                ON CONFLICT (name) DO UPDATE SET incarnation = $2, last_sequence = $3";
            transaction.run(sql, &[&stream, &incarnation, &signed(last_sequence)]).await?;
        }
        transaction.commit().await?;
        Ok(refilled)
    }

    pub(super) async fn note(&self, stream: &str, last_sequence: u64) -> Result<(), Error> {
        let sql = "UPDATE outbox_stream SET last_sequence = $2 WHERE name = $1";
        self.connection.run(sql, &[&stream, &signed(last_sequence)]).await?;
        Ok(())
    }

    /// The batches that were sent, or were about to be, when their relay ended.
    pub(super) async fn open_batches(&self) -> Result<Vec<OpenBatch>, Error> {
        let sql = "SELECT b.id, b.last_sequence, array_agg(o.position ORDER BY p.place) AS positions,
                array_agg(o.id ORDER BY p.place) AS messages
            FROM outbox_batches b CROSS JOIN unnest(b.positions) WITH ORDINALITY AS p(position, place)
            JOIN outbox o ON o.position = p.position
            GROUP BY b.id ORDER BY b.last_sequence";
        let rows = self.connection.all(sql, &[]).await?;
        Ok(rows
            .iter()
            .map(|row| {
                let (positions, ids): (Vec<i64>, Vec<Uuid>) = (row.get("positions"), row.get("messages"));
                let messages = positions.into_iter().zip(ids).collect();
                OpenBatch { id: row.get("id"), last_sequence: sequence(row.get("last_sequence")), messages }
            })
            .collect())
    }

    /// Writes down what became of a batch: `stored` are the positions that are in the stream, with their sequences. The others are
    /// owed as before.
    pub(super) async fn resolve(&self, batch: Uuid, stored: &[(i64, u64)]) -> Result<(), Error> {
        let (positions, sequences): (Vec<i64>, Vec<i64>) =
            stored.iter().map(|(position, sequence)| (*position, signed(*sequence))).unzip();
        let sql = "WITH done AS (DELETE FROM outbox_batches WHERE id = $1)
            UPDATE outbox o SET published_at = now(), stream_sequence = s.sequence
            FROM unnest($2::bigint[], $3::bigint[]) AS s(position, sequence)
            WHERE o.position = s.position AND o.published_at IS NULL";
        self.connection.run(sql, &[&batch, &positions, &sequences]).await?;
        Ok(())
    }

    /// The next events that are owed, written down as a batch that is to follow `last_sequence`. `limits`: most events, and most
    /// bytes unless the first event alone has more.
    ///
    /// Their order is that of their positions, so events of one aggregate keep theirs; and one that was committed late is
    /// found because nothing marks it published.
    pub(super) async fn claim(
        &self,
        source: &str,
        last_sequence: u64,
        limits: (u16, u32),
    ) -> Result<Option<Batch>, Error> {
        let (id, follows) = (Uuid::now_v7(), signed(last_sequence));
        let (events, bytes) = (i64::from(limits.0), i64::from(limits.1));
        let sql = "WITH head AS (
                SELECT * FROM outbox WHERE published_at IS NULL ORDER BY position LIMIT $3),
            measured AS (
                SELECT *, row_number() OVER w AS place, sum(octet_length(data::text)) OVER w AS bytes
                FROM head WINDOW w AS (ORDER BY position)),
            taken AS MATERIALIZED (
                SELECT * FROM measured WHERE bytes <= $4 OR place = 1),
            batch AS (
                INSERT INTO outbox_batches (id, positions, last_sequence)
                SELECT $1, array_agg(position ORDER BY position), $2 FROM taken HAVING count(*) > 0)
            SELECT position, id, created_at, subject, aggregate_type, aggregate_id, version, data_version, saga, initiator,
                traceparent, data
            FROM taken ORDER BY position";
        let params: [&(dyn ToSql + Sync); 4] = [&id, &follows, &events, &bytes];
        let rows = failpoint!(during self.connection.all(sql, &params), failpoints::RELAY_CLAIMING)?;
        if rows.is_empty() {
            return Ok(None);
        }
        Ok(Some(Batch { id, last_sequence, events: rows.iter().map(|row| owed(row, source)).collect() }))
    }

    /// Marks a batch published, with `last_sequence` the sequence of its last event.
    pub(super) async fn mark(&self, batch: &Batch, stream: &str, last_sequence: u64) -> Result<(), Error> {
        let positions: Vec<i64> = batch.events.iter().map(|owed| owed.position).collect();
        let sql = "WITH done AS (DELETE FROM outbox_batches WHERE id = $1),
            noted AS (UPDATE outbox_stream SET last_sequence = $3 WHERE name = $4)
            UPDATE outbox o SET published_at = now(), stream_sequence = $3 - cardinality($2::bigint[]) + p.place
            FROM unnest($2::bigint[]) WITH ORDINALITY AS p(position, place)
            WHERE o.position = p.position AND o.published_at IS NULL";
        self.connection.run(sql, &[&batch.id, &positions, &signed(last_sequence), &stream]).await?;
        Ok(())
    }

    /// Makes dead letters of events that no stream takes, and gives the rest of the batch back.
    pub(super) async fn bury(&mut self, batch: Uuid, stream: &str, refused: &[&Owed]) -> Result<(), Interrupted> {
        let transaction = self.connection.transaction().await?;
        for Owed { position, event } in refused {
            let sql = "INSERT INTO dead_letters (consumer, subject, stream_sequence, message_id, payload, reason)
                VALUES ('outbox', $1, 0, $2, $3, 'the stream ' || $4::text || ' does not take its subject')
                ON CONFLICT (consumer, stream_sequence, sha256(payload)) DO UPDATE
                SET died_at = now(), reason = excluded.reason, resolved_at = NULL, resolution = NULL";
            transaction.run(sql, &[&event.subject, &event.id, &event.to_json()?, &stream]).await?;
            let sql = "UPDATE outbox SET published_at = now() WHERE position = $1 AND published_at IS NULL";
            transaction.run(sql, &[position]).await?;
        }
        transaction.run("DELETE FROM outbox_batches WHERE id = $1", &[&batch]).await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// How much is owed.
pub(super) async fn depth(connection: &Connection) -> Result<Depth, Error> {
    let sql = "SELECT count(*), coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8
        FROM outbox WHERE published_at IS NULL";
    let row = connection.one(sql, &[]).await?;
    Ok(Depth { events: row.get(0), oldest_age: row.get(1) })
}

fn owed(row: &Row, source: &str) -> Owed {
    Owed {
        position: row.get("position"),
        event: Event {
            id: row.get("id"),
            subject: row.get("subject"),
            source: source.to_owned(),
            aggregate: Aggregate { kind: row.get("aggregate_type"), id: row.get("aggregate_id") },
            version: row.get("version"),
            data_version: row.get("data_version"),
            saga: row.get("saga"),
            initiator: row.get("initiator"),
            trace: row.get::<_, Option<&str>>("traceparent").and_then(runtime::trace::TraceContext::parse),
            time: row.get::<_, Timestamp>("created_at"),
            data: row.get::<_, Value>("data"),
        },
    }
}

/// Sequences fit: the event server counts from 1, one a message.
fn signed(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

fn sequence(signed: i64) -> u64 {
    u64::try_from(signed).unwrap_or_default()
}
