//! What the relay reads and writes in the database.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use database::{
    Connection, Database, Dedicated, Error, Row, Statements as _, Transaction,
    types::{Json, ToSql},
};
use jiff::Timestamp;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Interrupted, stream::Found};
use crate::{
    Event,
    event::{Aggregate, Envelope},
    failpoint, failpoints,
};

/// A leader that has not spoken for so long is considered gone: PostgreSQL ends its session, which frees the lock.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a relay with nothing to do shows that it is alive.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(3);

/// An event that is owed.
#[derive(Debug)]
pub(super) struct Owed {
    position: i64,
    pub(super) id: Uuid,
    edition: i32,
    pub(super) subject: String,
    pub(super) time: Timestamp,
    /// The envelope.
    pub(super) payload: Bytes,
}

impl Owed {
    /// By what the event server knows it again. See [`event_id`].
    pub(super) fn message_id(&self) -> String {
        match self.edition {
            0 => self.id.to_string(),
            edition => format!("{}.{edition}", self.id),
        }
    }
}

/// The event in a message id.
pub(super) fn event_id(message_id: &str) -> Option<Uuid> {
    message_id.split('.').next().unwrap_or_default().parse().ok()
}

/// Events on their way to the stream, written down as such.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) id: Uuid,
    /// The sequence the batch must follow in the stream.
    pub(super) last_sequence: u64,
    pub(super) events: Vec<Owed>,
}

impl Batch {
    /// The sequence of its last event, once it is stored.
    pub(super) fn end(&self) -> u64 {
        self.last_sequence + self.events.len() as u64
    }

    fn positions(&self) -> impl Iterator<Item = i64> + '_ {
        self.events.iter().map(|owed| owed.position)
    }
}

/// What was known of the stream when somebody last had to do with it.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) incarnation: String,
    pub(super) last_sequence: u64,
    /// The event that stands there, if it was one of ours.
    pub(super) last_message: Option<Uuid>,
}

/// What was learnt from messages of the stream.
#[derive(Debug)]
pub(super) struct Learned {
    /// So many events were owed and are published.
    pub(super) recognized: u64,
    /// So many the database had lost.
    pub(super) lost: u64,
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
    /// The name of the stream.
    stream: String,
    /// The source of the events.
    source: String,
    /// Most events in a batch, and most bytes unless the first event alone has more.
    limits: (i64, i64),
}

impl Ledger {
    pub(super) async fn open(
        database: &Database,
        stream: &str,
        source: &str,
        (events, bytes): (u16, u32),
    ) -> Result<Self, Error> {
        let connection = database.dedicated().await?;
        let patience = PATIENCE.as_millis();
        // Planning takes as long as a small turn. A plan made once is right for every size, whatever the tables had in them when it was
        // made, if it goes by the indexes.
        let settings = format!(
            "SET idle_session_timeout = {patience}; SET application_name = 'relay';
             SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_nestloop = off; SET jit = off"
        );
        connection.batch_execute(&settings).await?;
        let limits = (events.into(), bytes.into());
        Ok(Self { connection, stream: stream.to_owned(), source: source.to_owned(), limits })
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

    /// What is written down of the stream.
    pub(super) async fn known(&self) -> Result<Option<Known>, Error> {
        let sql = "SELECT incarnation, last_sequence, last_message FROM outbox_stream WHERE name = $1";
        let row = self.connection.optional(sql, &[&self.stream]).await?;
        Ok(row.map(|row| Known {
            incarnation: row.get(0),
            last_sequence: sequence(row.get(1)),
            last_message: row.get(2),
        }))
    }

    /// The event that is marked as standing there.
    pub(super) async fn marked_at(&mut self, place: u64) -> Result<Option<Uuid>, Error> {
        let transaction = patient(&mut self.connection).await?;
        let sql = "SELECT id FROM outbox WHERE stream_sequence = $1 LIMIT 1";
        Ok(transaction.optional(sql, &[&signed(place)]).await?.map(|row| row.get(0)))
    }

    /// Takes back the marks of events behind this place of the stream: they are owed again. Gives how many.
    pub(super) async fn take_back(&mut self, kept: u64) -> Result<u64, Error> {
        let transaction = patient(&mut self.connection).await?;
        let sql = "UPDATE outbox SET published_at = NULL, stream_sequence = NULL WHERE stream_sequence > $1";
        let taken_back = transaction.run(sql, &[&signed(kept)]).await?;
        transaction.commit().await?;
        Ok(taken_back)
    }

    /// Takes over what these messages of the stream say: those events are published, under the versions that they have there. Events of
    /// this service that the outbox does not know at all are written down as published, and those that are owed get the versions
    /// behind them.
    pub(super) async fn learn(&mut self, found: &[Found]) -> Result<Learned, Interrupted> {
        let events = found.iter().map(|found| (found, Event::from_json(&found.payload).ok())).collect::<Vec<_>>();
        let transaction = patient(&mut self.connection).await?;
        let recognized = recognize(&transaction, &events).await?;
        let events = events.iter().filter_map(|(found, event)| Some((found.sequence, event.as_ref()?)));
        let ours: Vec<(u64, &Event)> = events.filter(|(_, event)| event.source == self.source).collect();
        let strange = ours.iter().filter(|(_, event)| !recognized.contains_key(&event.id)).copied();
        let lost = unknown(&transaction, strange.collect()).await?;
        remember(&transaction, &lost).await?;
        // Whose history is another one than this database had.
        let renumbered = ours.iter().filter(|(_, event)| recognized.get(&event.id) == Some(&Version::Changed));
        let aggregates: HashSet<&Aggregate> = renumbered.chain(&lost).map(|(_, event)| &event.aggregate).collect();
        if !aggregates.is_empty() {
            let published = ours.iter().map(|(_, event)| *event);
            number_behind(&transaction, published.filter(|event| aggregates.contains(&event.aggregate))).await?;
        }
        transaction.commit().await?;
        Ok(Learned { recognized: recognized.len() as u64, lost: lost.len() as u64 })
    }

    /// Writes down that outbox and stream agree up to here. Whatever was on its way has arrived, or is owed as before.
    pub(super) async fn agree(&self, known: &Known) -> Result<(), Error> {
        let sql = "WITH resolved AS (DELETE FROM outbox_batches)
            INSERT INTO outbox_stream (name, incarnation, last_sequence, last_message) VALUES ($1, $2, $3, $4)
            ON CONFLICT (name) DO UPDATE SET incarnation = $2, last_sequence = $3, last_message = $4";
        let Known { incarnation, last_sequence, last_message } = known;
        self.connection.run(sql, &[&self.stream, incarnation, &signed(*last_sequence), last_message]).await?;
        Ok(())
    }

    /// Marks batches published, each of which follows the one before it, and claims the next events that are owed: they are written
    /// down as a batch that is to follow `follows`; without it nothing is claimed. Those `in_flight` are neither. All in one statement,
    /// and so in one transaction.
    ///
    /// Their order is that of their positions, so events of one aggregate keep theirs; and one that was committed late is
    /// found because nothing marks it published.
    // NOT IN (SELECT ...) is looked up in a hash table; <> ALL would compare each row with up to some thousand positions. The bounds
    // of what is published, which its events imply, name the days in which it is: the others are not looked into.
    pub(super) async fn turn(
        &self,
        published: &[Arc<Batch>],
        in_flight: &VecDeque<Arc<Batch>>,
        follows: Option<u64>,
    ) -> Result<Option<Batch>, Interrupted> {
        let sql = "WITH done AS (
                DELETE FROM outbox_batches WHERE id = ANY ($1)),
            noted AS (
                UPDATE outbox_stream SET last_sequence = $4, last_message = $5 WHERE name = $6 AND cardinality($1::uuid[]) > 0),
            marked AS (
                UPDATE outbox o SET published_at = now(), stream_sequence = $4 - cardinality($2::bigint[]) + p.place
                FROM unnest($2::bigint[], $3::timestamptz[]) WITH ORDINALITY AS p(position, created_at, place)
                WHERE o.position = p.position AND o.created_at = p.created_at AND o.published_at IS NULL
                  AND o.position BETWEEN $12 AND $13 AND o.created_at BETWEEN $14 AND $15),
            head AS (
                SELECT * FROM outbox WHERE published_at IS NULL AND position NOT IN (SELECT unnest($7::bigint[]))
                ORDER BY position LIMIT $8),
            measured AS (
                SELECT *, row_number() OVER w AS place, sum(octet_length(data::text)) OVER w AS bytes
                FROM head WINDOW w AS (ORDER BY position)),
            taken AS MATERIALIZED (
                SELECT * FROM measured WHERE bytes <= $9 OR place = 1),
            batch AS (
                INSERT INTO outbox_batches (id, positions, last_sequence)
                SELECT $10, array_agg(position ORDER BY position), $11 FROM taken HAVING count(*) > 0)
            SELECT position, id, edition, created_at, subject, aggregate_type, aggregate_id, version, data_version, saga,
                initiator, traceparent, data
            FROM taken ORDER BY position";
        let (positions, times): (Vec<i64>, Vec<Timestamp>) =
            published.iter().flat_map(|batch| &batch.events).map(|owed| (owed.position, owed.time)).unzip();
        let (first, last) = (positions.iter().min(), positions.iter().max());
        let (oldest, newest) = (times.iter().min(), times.iter().max());
        let taken: Vec<i64> = published.iter().chain(in_flight).flat_map(|batch| batch.positions()).collect();
        let done: Vec<Uuid> = published.iter().map(|batch| batch.id).collect();
        let end = signed(published.last().map(|batch| batch.end()).unwrap_or_default());
        let last_message = published.last().and_then(|batch| batch.events.last()).map(|owed| owed.id);
        let (id, (events, bytes)) = (Uuid::now_v7(), self.limits);
        let (events, last_sequence) = (if follows.is_some() { events } else { 0 }, follows.unwrap_or_default());
        let expected = signed(last_sequence);
        let params: [&(dyn ToSql + Sync); 15] = [
            &done,
            &positions,
            &times,
            &end,
            &last_message,
            &self.stream,
            &taken,
            &events,
            &bytes,
            &id,
            &expected,
            &first,
            &last,
            &oldest,
            &newest,
        ];
        let rows = failpoint!(during self.connection.all(sql, &params), failpoints::RELAY_CLAIMING)?;
        let events = rows.iter().map(|row| owed(row, &self.source)).collect::<Result<Vec<Owed>, _>>()?;
        Ok((!events.is_empty()).then_some(Batch { id, last_sequence, events }))
    }

    /// Makes dead letters of events that no stream takes, with the reasons, and gives the rest of the batch back.
    pub(super) async fn bury(&mut self, batch: Uuid, refused: &[(&Owed, String)]) -> Result<(), Error> {
        let transaction = self.connection.transaction().await?;
        for (owed, reason) in refused {
            let sql = "INSERT INTO dead_letters (consumer, subject, stream_sequence, message_id, payload, reason)
                VALUES ('outbox', $1, 0, $2, $3, $4)
                ON CONFLICT (consumer, stream_sequence, sha256(payload)) DO UPDATE
                SET died_at = now(), reason = excluded.reason, resolved_at = NULL, resolution = NULL";
            transaction.run(sql, &[&owed.subject, &owed.id, &&*owed.payload, reason]).await?;
            let sql = "UPDATE outbox SET published_at = now() WHERE position = $1 AND published_at IS NULL";
            transaction.run(sql, &[&owed.position]).await?;
        }
        transaction.run("DELETE FROM outbox_batches WHERE id = $1", &[&batch]).await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// Whether an event has the version in the stream that it had in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Same,
    Changed,
}

/// Marks events published that are found in the stream. An event may have got another version after the database was copied to which
/// it has been put back now; consumers know it by that one.
async fn recognize(
    transaction: &Transaction<'_>,
    found: &[(&Found, Option<Event>)],
) -> Result<HashMap<Uuid, Version>, Error> {
    let named = found.iter().filter_map(|(found, event)| {
        Some((found.id?, signed(found.sequence), event.as_ref().map(|event| event.version)))
    });
    let (ids, sequences, versions): (Vec<_>, Vec<_>, Vec<_>) = named.collect();
    let sql = "UPDATE outbox o SET published_at = now(), stream_sequence = s.sequence, version = coalesce(s.version, o.version)
        FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS s(id, sequence, version), outbox before
        WHERE o.id = s.id AND o.published_at IS NULL
            AND before.position = o.position AND before.created_at = o.created_at
        RETURNING o.id, o.version = before.version";
    let rows = transaction.all(sql, &[&ids, &sequences, &versions]).await?;
    let version = |same| if same { Version::Same } else { Version::Changed };
    Ok(rows.iter().map(|row| (row.get(0), version(row.get(1)))).collect())
}

/// Those of these events that the outbox does not have, each once.
async fn unknown<'a>(
    transaction: &Transaction<'_>,
    mut strange: Vec<(u64, &'a Event)>,
) -> Result<Vec<(u64, &'a Event)>, Error> {
    let times = strange.iter().map(|(_, event)| event.time);
    let Some((first, last)) = times.clone().min().zip(times.max()) else { return Ok(strange) };
    let ids: Vec<Uuid> = strange.iter().map(|(_, event)| event.id).collect();
    // The time of an event is the time of its row, which names the days to be searched.
    let sql = "SELECT id FROM outbox WHERE id = ANY ($1) AND created_at BETWEEN $2 AND $3";
    let known = transaction.all(sql, &[&ids, &first, &last]).await?;
    let mut known: HashSet<Uuid> = known.iter().map(|row| row.get(0)).collect();
    strange.retain(|(_, event)| known.insert(event.id));
    Ok(strange)
}

/// Writes events down as published that this database has lost.
async fn remember(transaction: &Transaction<'_>, lost: &[(u64, &Event)]) -> Result<(), Error> {
    let sql = "INSERT INTO outbox (id, created_at, subject, aggregate_type, aggregate_id, version, data_version, saga,
            initiator, traceparent, data, published_at, stream_sequence)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, now(), $12)";
    for (place, event) in lost {
        let Event { id, subject, aggregate: Aggregate { kind, id: aggregate }, version, .. } = event;
        let trace = event.trace.map(|trace| trace.to_string());
        let (data, place) = (Json(&event.data), signed(*place));
        let params: [&(dyn ToSql + Sync); 12] = [
            id,
            &event.time,
            subject,
            kind,
            aggregate,
            version,
            &event.data_version,
            &event.saga,
            &event.initiator,
            &trace,
            &data,
            &place,
        ];
        transaction.run(sql, &params).await?;
    }
    Ok(())
}

/// Numbers what is owed of the aggregates of these published events anew, behind them: consumers know the published ones by their
/// versions, and so they know what an operator has published once more.
async fn number_behind(transaction: &Transaction<'_>, published: impl Iterator<Item = &Event>) -> Result<(), Error> {
    let mut tops = BTreeMap::new();
    for Event { aggregate, version, .. } in published {
        let top = tops.entry((aggregate.kind.as_str(), aggregate.id)).or_insert(*version);
        *top = (*top).max(*version);
    }
    let (keys, tops): (Vec<(&str, Uuid)>, Vec<i64>) = tops.into_iter().unzip();
    let (kinds, ids): (Vec<&str>, Vec<Uuid>) = keys.into_iter().unzip();
    // Nobody else gives an event of these aggregates a number until the end.
    let sql = "INSERT INTO outbox_aggregates AS a (aggregate_type, aggregate_id, version)
        SELECT * FROM unnest($1::text[], $2::uuid[], $3::bigint[])
        ON CONFLICT (aggregate_type, aggregate_id) DO UPDATE SET version = greatest(a.version, excluded.version)";
    transaction.run(sql, &[&kinds, &ids, &tops]).await?;
    let sql = "WITH owed AS (
            SELECT position, created_at, aggregate_type, aggregate_id, top + row_number() OVER (
                PARTITION BY aggregate_type, aggregate_id ORDER BY position) AS version
            FROM outbox JOIN unnest($1::text[], $2::uuid[], $3::bigint[]) AS t(aggregate_type, aggregate_id, top)
                USING (aggregate_type, aggregate_id)
            WHERE published_at IS NULL AND edition = 0),
        counted AS (
            UPDATE outbox_aggregates a SET version = o.version
            FROM (SELECT aggregate_type, aggregate_id, max(version) AS version FROM owed GROUP BY 1, 2) AS o
            WHERE a.aggregate_type = o.aggregate_type AND a.aggregate_id = o.aggregate_id)
        UPDATE outbox o SET version = owed.version FROM owed
        WHERE o.position = owed.position AND o.created_at = owed.created_at";
    transaction.run(sql, &[&kinds, &ids, &tops]).await?;
    Ok(())
}

/// A transaction for what is done once in a long time, and then takes its time, and is planned for what there is.
async fn patient(connection: &mut Dedicated) -> Result<Transaction<'_>, Error> {
    let transaction = connection.transaction().await?;
    let settings = "SET LOCAL statement_timeout = 0; SET LOCAL plan_cache_mode = force_custom_plan;
        SET LOCAL enable_seqscan = on; SET LOCAL enable_nestloop = on";
    transaction.batch_execute(settings).await?;
    Ok(transaction)
}

/// How much is owed.
pub(super) async fn depth(connection: &Connection) -> Result<Depth, Error> {
    let sql = "SELECT count(*), coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8
        FROM outbox WHERE published_at IS NULL";
    let row = connection.one(sql, &[]).await?;
    Ok(Depth { events: row.get(0), oldest_age: row.get(1) })
}

fn owed(row: &Row, source: &str) -> Result<Owed, serde_json::Error> {
    let Json(data) = row.get::<_, Json<&RawValue>>("data");
    let (id, subject, time): (_, &str, _) = (row.get("id"), row.get("subject"), row.get("created_at"));
    let envelope = Envelope {
        id,
        source: source.into(),
        subject: subject.into(),
        time,
        aggregate_type: row.get::<_, &str>("aggregate_type").into(),
        aggregate_id: row.get("aggregate_id"),
        version: row.get("version"),
        data_version: row.get("data_version"),
        saga: row.get("saga"),
        initiator: row.get::<_, Option<&str>>("initiator").map(Into::into),
        traceparent: row.get::<_, Option<&str>>("traceparent").map(Into::into),
        ..Envelope::around(data)
    };
    let (position, edition, payload) = (row.get("position"), row.get("edition"), serde_json::to_vec(&envelope)?.into());
    Ok(Owed { position, id, edition, subject: subject.to_owned(), time, payload })
}

/// Sequences fit: the event server counts from 1, one a message.
fn signed(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

fn sequence(signed: i64) -> u64 {
    u64::try_from(signed).unwrap_or_default()
}

#[cfg(test)]
mod tests;
