//! The days of the partitioned tables: made ahead, and dropped when their time is over.

use std::time::Duration;

use database::{Connection, Error, Statements as _, Transaction};

/// A partitioned table and how long its days are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    pub(crate) table: &'static str,
    /// The column it is partitioned by.
    pub(crate) column: &'static str,
    /// Rows for which this holds keep their day alive; SQL.
    pub(crate) needed: &'static str,
    pub(crate) days: i32,
}

/// A hundred years, in days: what nobody has configured is not dropped.
const FOREVER: i32 = 36_500;

/// The outbox: a day with an event that is owed is needed.
pub(crate) const OUTBOX: Kept =
    Kept { table: "outbox", column: "created_at", needed: "published_at IS NULL", days: FOREVER };

/// The inbox: nothing in it is needed for longer than it is kept.
pub(crate) const INBOX: Kept = Kept { table: "inbox", column: "occurred_at", needed: "false", days: FOREVER };

/// How many days ahead partitions are made. Rows beyond them are not refused: they go to the default partition.
const AHEAD: i32 = 3;

pub(crate) fn days(keep: Duration) -> i32 {
    i32::try_from(keep.as_secs().div_ceil(24 * 3600)).unwrap_or(FOREVER).min(FOREVER)
}

/// Makes the days ahead and drops those whose time is over. Several processes may do so at once. What another session's lock
/// prevents is left for the next time.
pub(crate) async fn maintain(connection: &mut Connection, kept: Kept) -> Result<(), Error> {
    make_ahead(connection, kept).await?;
    for name in over(connection, kept).await? {
        drop_day(connection, kept, &name).await?;
    }
    let Kept { table, column, needed, days } = kept;
    let stragglers = format!(
        "DELETE FROM {table}_default WHERE {column} < (now() AT TIME ZONE 'UTC')::date - $1::int AND NOT ({needed})"
    );
    connection.run(&stragglers, &[&days]).await?;
    Ok(())
}

async fn make_ahead(connection: &mut Connection, Kept { table, column, .. }: Kept) -> Result<(), Error> {
    let transaction = begin(connection).await?;
    let lock = "SELECT pg_try_advisory_xact_lock(hashtext('berth partitions'), hashtext($1))";
    if !transaction.one(lock, &[&table]).await?.get::<_, bool>(0) {
        return Ok(());
    }
    // A day whose rows already went to the default partition stays there.
    let missing = format!(
        "SELECT to_char(day, 'YYYYMMDD'), day::date::text, (day::date + 1)::text
         FROM generate_series(current_date, current_date + {AHEAD}, interval '1 day') AS day
         WHERE to_regclass('{table}_' || to_char(day, 'YYYYMMDD')) IS NULL
           AND NOT EXISTS (SELECT FROM {table}_default WHERE {column} >= day AND {column} < day + interval '1 day')"
    );
    for row in transaction.all(&missing, &[]).await? {
        let (name, from, to): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        // Attaching takes a weaker lock than creating in place: writers go on.
        let create = format!(
            "CREATE TABLE {table}_{name} (LIKE {table} INCLUDING ALL);
             ALTER TABLE {table} ATTACH PARTITION {table}_{name} FOR VALUES FROM ('{from}') TO ('{to}')"
        );
        transaction.batch_execute(&create).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// The days whose time is over.
async fn over(connection: &mut Connection, Kept { table, days, .. }: Kept) -> Result<Vec<String>, Error> {
    let over = format!(
        "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = to_regclass('{table}') AND c.relname ~ '_[0-9]{{8}}$'
           AND right(c.relname, 8) < to_char((now() AT TIME ZONE 'UTC')::date - $1::int, 'YYYYMMDD')"
    );
    Ok(connection.all(&over, &[&days]).await?.iter().map(|row| row.get(0)).collect())
}

/// Drops a day, unless a row in it is needed. Looked at under the lock that dropping takes: nothing can become needed in between.
async fn drop_day(connection: &mut Connection, Kept { needed, .. }: Kept, name: &str) -> Result<(), Error> {
    let alive = format!("SELECT EXISTS (SELECT FROM {name} WHERE {needed})");
    if connection.query_one(&alive, &[]).await?.get(0) {
        return Ok(());
    }
    let transaction = begin(connection).await?;
    let locked = transaction.batch_execute(&format!("LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")).await;
    if let Err(error) = locked {
        tracing::debug!(table = name, error = %Error::from(error), "a day whose retention is over is in use: later");
        return Ok(());
    }
    if !transaction.query_one(&alive, &[]).await?.get::<_, bool>(0) {
        transaction.batch_execute(&format!("DROP TABLE {name}")).await?;
        transaction.commit().await?;
        tracing::info!(table = name, "dropped a day whose retention is over");
    }
    Ok(())
}

async fn begin(connection: &mut Connection) -> Result<Transaction<'_>, Error> {
    let transaction = connection.transaction().await?;
    transaction.batch_execute("SET LOCAL lock_timeout = '1s'; SET LOCAL TimeZone = 'UTC'").await?;
    Ok(transaction)
}
