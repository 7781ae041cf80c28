//! Requests that wait for the outcome of an order (`Prefer: wait`).
//!
//! The answer of item management may arrive at any instance, so the outcome is read from the database: by one query for
//! all waiting requests of this process together, however many they are, and by none when nobody waits.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::store::Store;

/// How often the database is asked while somebody waits.
const POLL: Duration = Duration::from_millis(20);

/// Tells requests when the order they wait for is pending no more. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Outcomes(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    orders: HashMap<Uuid, watch::Sender<bool>>,
    closed: bool,
}

impl Outcomes {
    /// Waits until `order` is pending no more, but not longer than `limit` and not into a drain.
    pub async fn wait(&self, order: Uuid, limit: Duration) {
        let decided =
            self.with(|waiting| (!waiting.closed).then(|| waiting.orders.entry(order).or_default().subscribe()));
        if let Some(mut decided) = decided {
            self.0.arrived.notify_one();
            // Whatever ends the waiting, the order is read again afterwards.
            let _ = timeout(limit, decided.wait_for(|decided| *decided)).await;
        }
    }

    /// Looks for outcomes until `stop`, then sends everybody home.
    pub async fn run(self, store: Store, stop: CancellationToken) {
        stop.run_until_cancelled(self.look_out(&store)).await;
        self.with(|waiting| *waiting = Waiting { orders: HashMap::new(), closed: true });
    }

    async fn look_out(&self, store: &Store) {
        let mut failing = false;
        loop {
            let orders = self.awaited();
            if orders.is_empty() {
                self.0.arrived.notified().await;
                continue;
            }
            match store.decided(&orders).await {
                Ok(decided) => {
                    failing = false;
                    self.announce(&decided);
                }
                Err(error) if !failing => {
                    failing = true;
                    tracing::warn!(%error, "cannot look for the outcome of orders");
                }
                Err(_) => {}
            }
            sleep(POLL).await;
        }
    }

    /// The orders that somebody still waits for.
    fn awaited(&self) -> Vec<Uuid> {
        self.with(|waiting| {
            waiting.orders.retain(|_, decided| decided.receiver_count() > 0);
            waiting.orders.keys().copied().collect()
        })
    }

    fn announce(&self, orders: &[Uuid]) {
        self.with(|waiting| {
            for order in orders {
                if let Some(decided) = waiting.orders.remove(order) {
                    decided.send_replace(true);
                }
            }
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut Waiting) -> T) -> T {
        work(&mut self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
