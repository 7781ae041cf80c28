//! When what is sent: takes what is due, tries it, and notes what became of it.
//!
//! All that must outlive the process is in the database: what is due when, and how often it was tried. Whoever takes a delivery
//! pushes its next time beyond the end of the attempt, so that an attempt nobody came back from is made again.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use auth::seal::Sealer;
use database::{Database, ScopedFutureExt as _, Transaction};
use http::StatusCode;
use outbox::Outbox;
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{Endpoint, Patience},
    messages::{self, Change},
    sender::{Failure, Message, Sender},
    signature::Secret,
    store::{self, Due, Failed},
};

/// Attempts of one process at the same time.
const IN_FLIGHT: usize = 64;
/// Attempts at one target at the same time.
const PER_TARGET: usize = 4;
/// How long deliveries are kept.
const RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);
const PURGE_EVERY: Duration = Duration::from_secs(600);
const PURGE_BATCH: i64 = 1000;

/// What deliveries are made with. Clones share it.
#[derive(Debug, Clone)]
pub struct Deliverer {
    /// Where they are kept.
    pub database: Database,
    /// Woken when there is something new.
    pub outbox: Outbox,
    /// Opens the subscribers' secrets.
    pub sealer: Arc<Sealer>,
    /// Posts.
    pub sender: Sender,
    /// When to try again, and when to give up.
    pub patience: Patience,
    /// How often the database is asked for what is due.
    pub poll: Duration,
    /// How long an attempt is the one's who took it. Longer than any attempt takes.
    pub lease: Duration,
}

impl Deliverer {
    /// Delivers until `stop`; then waits for what is being tried.
    pub async fn run(self, stop: CancellationToken) {
        let (mut attempts, mut under_way) = (JoinSet::new(), UnderWay::default());
        let mut failing = false;
        while !stop.is_cancelled() {
            match self.take(&under_way).await {
                Ok(due) => {
                    failing = false;
                    for due in due {
                        let (this, target) = (self.clone(), due.target.clone());
                        let attempt = attempts.spawn(async move { this.attempt(&due).await });
                        under_way.0.insert(attempt.id(), target);
                    }
                }
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, "cannot look for what is to be delivered");
                    }
                    failing = true;
                }
            }
            tokio::select! {
                Some(ended) = attempts.join_next_with_id() => under_way.ended(&ended),
                () = self.outbox.woken() => {}
                () = sleep(self.poll) => {}
                () = stop.cancelled() => {}
            }
            while let Some(ended) = attempts.try_join_next_with_id() {
                under_way.ended(&ended);
            }
        }
        attempts.join_all().await;
    }

    /// What is due, as far as there is room for it.
    async fn take(&self, under_way: &UnderWay) -> Result<Vec<Due>, database::Error> {
        let room = IN_FLIGHT.saturating_sub(under_way.0.len());
        if room == 0 {
            return Ok(Vec::new());
        }
        let client = self.database.get().await?;
        let (each, room) = (PER_TARGET as i64, i64::try_from(room).unwrap_or(1));
        let mut taken: Vec<Due> = Vec::new();
        for due in store::claim(&*client, &under_way.busy(), each, room, self.lease).await? {
            // Several subscriptions may have one target.
            let already = taken.iter().filter(|other| other.target == due.target).count() + under_way.at(&due.target);
            if already < PER_TARGET {
                taken.push(due);
            } else {
                store::give_back(&*client, due.id).await?;
            }
        }
        Ok(taken)
    }

    async fn attempt(&self, due: &Due) {
        let outcome = self.post(due).await;
        if let Err(error) = self.note(due, &outcome).await {
            tracing::warn!(%error, delivery = %due.id, "cannot note what became of a delivery: it is made again");
        }
    }

    async fn post(&self, due: &Due) -> Result<StatusCode, Failure> {
        let unusable = || Failure::Http("the subscription is stored wrongly".to_owned());
        let endpoint = Endpoint::stored(&due.url).ok_or_else(unusable)?;
        let secret = self.sealer.open(&store::secret_name(due.subscription_id), &due.sealed).map_err(|error| {
            tracing::error!(%error, subscription = %due.subscription_id, "cannot sign for a subscriber");
            Failure::Http("the service cannot sign for this subscription: make it anew".to_owned())
        })?;
        let secret = Secret::from_bytes(&secret).ok_or_else(unusable)?;
        let id = format!("msg_{}", due.event_id);
        self.sender.post(Message { url: endpoint.url(), id: &id, body: due.body.clone(), secret: &secret }).await
    }

    async fn note(&self, due: &Due, outcome: &Result<StatusCode, Failure>) -> Result<(), outbox::Error> {
        let disabled = match outcome {
            Ok(status) => {
                let status = status.as_u16().into();
                let noted = self.database.transaction(|tx| store::delivered(tx, due, status).scope_boxed()).await;
                noted.map(|()| false)?
            }
            Err(failure) => {
                let attempts = due.attempts.unsigned_abs().saturating_add(1);
                let failed = &Failed {
                    status: failure.status().map(Into::into),
                    error: &failure.to_string(),
                    delay: self.patience.delay(attempts, failure.retry_after(), rand::random()),
                    farewell: failure.is_farewell(),
                };
                self.database.transaction(|tx| note_failure(tx, due, failed, &self.patience).scope_boxed()).await?
            }
        };
        if disabled {
            tracing::warn!(subscription = %due.subscription_id, "a subscription was disabled");
            self.outbox.wake();
        }
        Ok(())
    }

    /// Forgets old deliveries now and then, until `stop`.
    pub async fn purge(self, stop: CancellationToken) {
        let mut ticks = interval(PURGE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            while !stop.is_cancelled() {
                let purged = async { store::purge(&*self.database.get().await?, RETENTION, PURGE_BATCH).await };
                match purged.await {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(%error, "cannot forget old deliveries");
                        break;
                    }
                }
            }
        }
    }
}

/// Whether the subscription was disabled for it.
async fn note_failure(
    tx: &Transaction<'_>,
    due: &Due,
    failed: &Failed<'_>,
    patience: &Patience,
) -> Result<bool, outbox::Error> {
    let disabled = store::failed(tx, due, failed, patience).await?;
    if let Some(subscription) = &disabled {
        messages::tell(tx, Change::Disabled, subscription, None).await?;
    }
    Ok(disabled.is_some())
}

/// The attempts under way, each with its target.
#[derive(Debug, Default)]
struct UnderWay(HashMap<Id, String>);

impl UnderWay {
    fn ended<T>(&mut self, ended: &Result<(Id, T), JoinError>) {
        self.0.remove(&ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id));
    }

    fn at(&self, target: &str) -> usize {
        self.0.values().filter(|other| *other == target).count()
    }

    /// Targets at which there are as many as there may be.
    fn busy(&self) -> Vec<String> {
        let busy: BTreeSet<&String> = self.0.values().filter(|target| self.at(target) >= PER_TARGET).collect();
        busy.into_iter().cloned().collect()
    }
}
