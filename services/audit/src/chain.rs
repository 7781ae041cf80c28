//! The one writer of the chain: moves records from the intake into it, a batch a transaction.
//!
//! Every instance runs it; the row lock on the chain's end lets one append at a time. The consumers need not wait for each
//! other therefore, and a batch costs one commit, not one for each entry.

use std::{collections::HashSet, time::Duration};

use database::{Database, ScopedFutureExt as _, Transaction};
use outbox::Outbox;
use runtime::retry::Backoff;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{Entry, Record},
    store::{self, Error},
};

/// How often the intake is looked at when nobody says that something was put there.
const POLL: Duration = Duration::from_millis(250);

/// Appends until `stop`, and then what is left.
pub async fn run(database: Database, outbox: Outbox, stop: CancellationToken) {
    let mut pauses = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    let mut failing = false;
    loop {
        let stopping = stop.is_cancelled();
        match drain(&database).await {
            Ok(()) => {
                failing = false;
                pauses.reset();
                if stopping {
                    return;
                }
                tokio::select! {
                    () = outbox.woken() => {}
                    () = sleep(POLL) => {}
                    () = stop.cancelled() => {}
                }
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "cannot append to the chain now");
                }
                failing = true;
                if stopping || stop.run_until_cancelled(sleep(pauses.delay())).await.is_none() {
                    return;
                }
            }
        }
    }
}

/// Appends all there is.
///
/// # Errors
/// That of the database.
pub async fn drain(database: &Database) -> Result<(), Error> {
    while database.transaction(|tx| append_batch(tx).scope_boxed()).await? {}
    Ok(())
}

/// Appends a batch; whether there was any.
async fn append_batch(tx: &Transaction<'_>) -> Result<bool, Error> {
    let (mut head, now) = store::lock_head(tx).await?;
    let records = store::take_out(tx).await?;
    if records.is_empty() {
        return Ok(false);
    }
    let ids: Vec<_> = records.iter().map(|record| record.id).collect();
    // A report that came again while the first was on its way into the chain.
    let known: HashSet<_> = store::known(tx, &ids).await?.into_iter().collect();
    let link = |record: Record| {
        let entry = Entry::append(head, now, record);
        head = entry.as_head();
        entry
    };
    let entries: Vec<Entry> = records.into_iter().filter(|record| !known.contains(&record.id)).map(link).collect();
    if let Some(last) = entries.last() {
        store::append(tx, &entries).await?;
        store::move_head(tx, last).await?;
    }
    Ok(true)
}
