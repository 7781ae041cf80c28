//! What happens because time passes: sagas whose answer is overdue move on, and idempotency keys are forgotten.
//!
//! Every instance sweeps; what one has locked the others skip. All times are those of the database's clock.

use std::{future::Future, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::store::{Error, Store};

/// How long an idempotency key is remembered at least.
pub const KEY_RETENTION: Duration = Duration::from_secs(24 * 3600);

const SWEEP_EVERY: Duration = Duration::from_millis(500);
const PURGE_EVERY: Duration = Duration::from_secs(600);

/// The most rows one transaction touches.
const BATCH: u16 = 100;

/// Sweeps until `stop`.
pub async fn run(store: Store, stop: CancellationToken) {
    let sweeping = every(SWEEP_EVERY, "cannot sweep overdue sagas", async || {
        store.sweep(BATCH.into()).await.map(|swept| swept == usize::from(BATCH))
    });
    let purging = every(PURGE_EVERY, "cannot forget old idempotency keys", async || {
        store.purge_keys(KEY_RETENTION, BATCH.into()).await.map(|purged| purged == u64::from(BATCH))
    });
    stop.run_until_cancelled(async { tokio::join!(sweeping, purging) }).await;
}

/// Does a chore once a period, and again at once while it says that there is more to do. A failure is logged when it
/// begins, not each time.
async fn every<F: Future<Output = Result<bool, Error>>>(
    period: Duration,
    complaint: &'static str,
    chore: impl Fn() -> F,
) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        ticks.tick().await;
        let failure = loop {
            match chore().await {
                Ok(true) => {}
                Ok(false) => break None,
                Err(error) => break Some(error),
            }
        };
        if let Some(error) = &failure
            && !failing
        {
            tracing::warn!(%error, "{complaint}");
        }
        failing = failure.is_some();
    }
}
