//! Writing events into the outbox, in the transaction of the change they tell about.

use std::sync::Arc;

use berth_http::problem::Problem;
use database::{Database, MigrateError, ScopedFutureExt as _, Statements as _, Transaction, types::Json};
use refinery::Runner;
use runtime::{telemetry::Metrics, trace::TraceContext};
use serde::Serialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{event::kind, failpoint, failpoints, metrics::MessageMetrics, partitions};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Most bytes an event's data may have: the event server takes messages of up to 1 MiB, with envelope and headers.
const MAX_DATA: usize = 960 * 1024;

/// The version of the data's shape that [`Outbox::put`] writes.
const DATA_VERSION: i32 = 1;

/// An event to be emitted.
#[derive(Debug, Clone, Copy)]
pub struct NewEvent<'a, T> {
    /// `<domain>.<aggregate type>.<event>`, such as `documents.order.placed`.
    pub subject: &'a str,
    /// Which aggregate of the type that the subject names.
    pub aggregate_id: Uuid,
    /// The saga it belongs to.
    pub saga: Option<Uuid>,
    /// The subject of the principal who started what leads to it.
    pub initiator: Option<&'a str>,
    /// The trace it belongs to.
    pub trace: Option<TraceContext>,
    /// Its data, as JSON.
    pub data: T,
}

/// Why an event could not be put into the outbox.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database refused it, or is away.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// Not a subject of an event.
    #[error("{0:?} is not the subject of an event: it must read <domain>.<aggregate type>.<event>")]
    Subject(String),
    /// The data does not become JSON.
    #[error("the data of an event is not JSON: {0}")]
    Data(#[from] serde_json::Error),
    /// More data than the event server takes.
    #[error("the data of the event {subject} has {bytes} bytes, at most {MAX_DATA} can be published")]
    TooLarge {
        /// The event's subject.
        subject: String,
        /// How many bytes it has.
        bytes: usize,
    },
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Database(error) => error.into(),
            error => Self::internal(error),
        }
    }
}

/// What relay, consumers and stores of one process share: the signal that wakes the relay, and the metrics. Clones share
/// the same.
///
/// The default has metrics that nobody sees, which is enough for a test of a store.
#[derive(Debug, Clone, Default)]
pub struct Outbox {
    signal: Arc<Notify>,
    pub(crate) metrics: Arc<MessageMetrics>,
}

impl Outbox {
    /// The one of this process; registers the metrics of outbox and inbox.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let outbox = Self::default();
        metrics.register(|registry| outbox.metrics.register(registry));
        outbox
    }

    /// Records that this event is owed, if the transaction commits, and gives its id. It gets the aggregate's next version, for
    /// which the aggregate's row stays locked until the transaction ends.
    ///
    /// After the commit call [`wake`](Self::wake); otherwise the relay finds the event at its next poll.
    ///
    /// # Errors
    /// [`Error`] says what cannot be published, or what the database answered.
    pub async fn put<T: Serialize + Sync>(tx: &Transaction<'_>, event: NewEvent<'_, T>) -> Result<Uuid, Error> {
        let NewEvent { subject, aggregate_id, saga, initiator, trace, data } = event;
        let aggregate_type = kind(subject).ok_or_else(|| Error::Subject(subject.to_owned()))?;
        let data = serde_json::value::to_raw_value(&data)?;
        if data.get().len() > MAX_DATA {
            return Err(Error::TooLarge { subject: subject.to_owned(), bytes: data.get().len() });
        }
        let id = Uuid::now_v7();
        let traceparent = trace.map(|trace| trace.to_string());
        let sql = "WITH next AS (
                INSERT INTO outbox_aggregates AS a (aggregate_type, aggregate_id, version) VALUES ($3, $4, 1)
                ON CONFLICT (aggregate_type, aggregate_id) DO UPDATE SET version = a.version + 1
                RETURNING version)
            INSERT INTO outbox
                (id, subject, aggregate_type, aggregate_id, version, data_version, saga, initiator, traceparent, data)
            SELECT $1, $2, $3, $4, next.version, $5, $6, $7, $8, $9 FROM next";
        tx.run(
            sql,
            &[
                &id,
                &subject,
                &aggregate_type,
                &aggregate_id,
                &DATA_VERSION,
                &saga,
                &initiator,
                &traceparent,
                &Json(data),
            ],
        )
        .await?;
        Ok(id)
    }

    /// The version of the last event of an aggregate of the type that the subject names; 0 if it has none.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn version(tx: &Transaction<'_>, subject: &str, aggregate_id: Uuid) -> Result<i64, Error> {
        let aggregate_type = kind(subject).ok_or_else(|| Error::Subject(subject.to_owned()))?;
        let sql = "SELECT version FROM outbox_aggregates WHERE aggregate_type = $1 AND aggregate_id = $2";
        Ok(tx.optional(sql, &[&aggregate_type, &aggregate_id]).await?.map_or(0, |row| row.get(0)))
    }

    /// Records events that tell of no other change, in a transaction of their own, and wakes the relay.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn emit<T: Serialize + Sync>(
        &self,
        database: &Database,
        events: &[NewEvent<'_, &T>],
    ) -> Result<(), Error> {
        database.transaction(|tx| put_all(tx, events).scope_boxed()).await?;
        self.wake();
        Ok(())
    }

    /// Tells the relay of this process that there is something to publish. Cheap; never blocks.
    pub fn wake(&self) {
        failpoint!(blocking failpoints::OUTBOX_COMMITTED);
        self.signal.notify_one();
    }

    /// Waits for [`wake`](Self::wake), which a consumer calls as well when it has handled an event: for what else is done about
    /// committed events. One waiter a wake-up; a service with a relay leaves that to it.
    pub async fn woken(&self) {
        self.signal.notified().await;
    }

    /// The tables that outbox and inbox live in.
    #[must_use]
    pub fn migrations() -> Runner {
        embedded::migrations::runner()
    }

    /// Brings the tables of outbox and inbox up to date, see [`Database::migrate`].
    ///
    /// # Errors
    /// As [`Database::migrate`].
    pub async fn migrate(database: &Database, stop: &CancellationToken) -> Result<(), MigrateError> {
        database.migrate(Self::migrations(), "outbox_migrations", stop).await?;
        // Before the first event is written. Where it fails now, the relay does it soon.
        if let Ok(mut client) = database.get().await {
            for table in [partitions::OUTBOX, partitions::INBOX] {
                let _ = partitions::maintain(&mut client, table).await;
            }
        }
        Ok(())
    }
}

async fn put_all<T: Serialize + Sync>(tx: &Transaction<'_>, events: &[NewEvent<'_, &T>]) -> Result<(), Error> {
    for event in events {
        Outbox::put(tx, *event).await?;
    }
    Ok(())
}
