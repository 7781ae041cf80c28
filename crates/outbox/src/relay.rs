//! Publishing what is owed.
//!
//! Every process of a service runs a relay; the one that holds a session's advisory lock leads and publishes, the others
//! pass wake-ups on to it and wait to take over. The leader does all its SQL on the very connection that holds the lock:
//! losing one is losing the other. A leader that was stopped long enough to be replaced finds its session ended by
//! PostgreSQL (`idle_session_timeout`), and whatever it still sends to the stream is refused there, because each batch names the
//! sequence it must follow.
//!
//! Any doubt ends a term: the answer to a batch is lost, the stream is not where it was left. The next term begins with
//! agreement: the stream is asked what it has, and the outbox is corrected accordingly.

mod ledger;
mod stream;

use std::{collections::VecDeque, mem, sync::Arc, time::Duration};

use database::Database;
use ledger::{Batch, HEARTBEAT, Known, Learned, Ledger};
use runtime::retry::Backoff;
use stream::{State, Stream};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Events, Outbox, failpoint, failpoints,
    metrics::seconds_since,
    partitions::{self, Kept, days},
};

/// How a service's events are published.
#[derive(Debug, Clone)]
pub struct RelayOptions {
    /// The subjects of the service's stream: what it `emits`.
    pub subjects: Vec<String>,
    /// How long the stream keeps messages.
    pub stream_age: Duration,
    /// How long published events stay in the outbox, whole days: what can be published again after the event server lost
    /// its store.
    pub retention: Duration,
    /// Most events in a batch; the event server allows 1000.
    pub batch: u16,
    /// Most bytes of event data in a batch; a single event may have more.
    pub batch_bytes: u32,
    /// How often the outbox is looked at when nobody says that something was put into it.
    pub poll: Duration,
    /// How often an idle leader looks whether the stream is still as it left it.
    pub check: Duration,
}

impl RelayOptions {
    /// The usual options for a service that emits events on these subjects (NATS wildcards allowed).
    pub fn emitting<S: Into<String>>(subjects: impl IntoIterator<Item = S>) -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self {
            subjects: subjects.into_iter().map(Into::into).collect(),
            stream_age: 7 * day,
            retention: 7 * day,
            batch: 1000,
            batch_bytes: 4 << 20,
            poll: Duration::from_millis(500),
            check: Duration::from_secs(5),
        }
    }
}

/// Publishes the events of one database to the service's stream.
#[derive(Debug)]
pub struct Relay {
    database: Database,
    events: Events,
    outbox: Outbox,
    options: RelayOptions,
}

/// Why a term ended early.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error(transparent)]
    Database(#[from] database::Error),
    #[error("event server: {0}")]
    Events(String),
    #[error("not the JSON it should be: {0}")]
    Json(#[from] serde_json::Error),
}

impl From<tokio_postgres::Error> for Interrupted {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error.into())
    }
}

/// How many messages of the stream are looked at in one go.
const PORTION: u64 = 500;

/// Most batches that wait for the one before them to be stored. With one the database would wait whenever the event server does.
const AHEAD: usize = 2;

/// What wakes an idle leader.
enum Wake {
    Work,
    Check,
    Stop,
}

impl Relay {
    /// The relay of this process. `outbox` is the one whose [`Outbox::wake`] is called after commits.
    #[must_use]
    pub fn new(database: Database, events: Events, outbox: Outbox, options: RelayOptions) -> Self {
        Self { database, events, outbox, options }
    }

    /// Publishes until `stop`; then finishes the batches that are under way. Outlives every failure of the database and
    /// of the event server.
    pub async fn run(&self, stop: CancellationToken) {
        tokio::join!(self.publish(&stop), self.maintain(&stop));
    }

    async fn publish(&self, stop: &CancellationToken) {
        let mut pauses = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        while !stop.is_cancelled() {
            let began = Instant::now();
            let term = self.term(stop).await;
            self.outbox.metrics.leader.set(0);
            if let Err(error) = term {
                tracing::warn!(%error, "the relay begins anew");
            }
            if began.elapsed() > Duration::from_secs(5) {
                pauses.reset();
            }
            tokio::select! {
                () = sleep(pauses.delay()) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Waits to become the leader, then publishes until `stop` or until something is in doubt.
    async fn term(&self, stop: &CancellationToken) -> Result<(), Interrupted> {
        tokio::select! {
            () = self.events.connected() => {}
            () = stop.cancelled() => return Ok(()),
        }
        let limits = (self.options.batch, self.options.batch_bytes);
        let (name, source) = (self.events.service(), self.events.source());
        let mut ledger = Ledger::open(&self.database, name, source, limits).await?;
        while !ledger.lead().await? {
            tokio::select! {
                () = self.outbox.woken() => ledger.pass_on_wake_up().await?,
                () = sleep(self.options.poll.min(HEARTBEAT)) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
        failpoint!(failpoints::RELAY_LEAD);
        let stream = Stream::open(&self.events, &self.options).await?;
        let last_sequence = self.agree(&mut ledger, &stream).await?;
        self.outbox.metrics.leader.set(1);
        tracing::info!(stream = stream.name(), last_sequence, "leading the relay");
        self.lead(&mut ledger, &stream, last_sequence, stop).await
    }

    /// Publishes until `stop` or until something is in doubt. The next batches are claimed and staged while those before them are
    /// committed one after the other: where a batch belongs in the stream is known beforehand.
    async fn lead(
        &self,
        ledger: &mut Ledger,
        stream: &Stream,
        last_sequence: u64,
        stop: &CancellationToken,
    ) -> Result<(), Interrupted> {
        // There are never more at once, so nobody waits for room.
        let (to_stage, claimed) = mpsc::channel(AHEAD + 1);
        let (to_commit, staged) = mpsc::channel(AHEAD + 1);
        let (stored, seen) = watch::channel(last_sequence);
        // The database is asked first: it works while this process stages.
        tokio::try_join!(
            biased;
            self.claim_ahead(ledger, stream, to_stage, seen, stop),
            stage_in_turn(stream, claimed, to_commit),
            self.commit_in_turn(stream, staged, stored),
        )?;
        Ok(())
    }

    /// Claims what is owed, and marks what is stored according to `seen`, the stream's last sequence.
    async fn claim_ahead(
        &self,
        ledger: &mut Ledger,
        stream: &Stream,
        to_stage: mpsc::Sender<Arc<Batch>>,
        mut seen: watch::Receiver<u64>,
        stop: &CancellationToken,
    ) -> Result<(), Interrupted> {
        let (mut end, mut checked) = (*seen.borrow(), Instant::now());
        let (mut in_flight, mut published, mut ahead) = (VecDeque::<Arc<Batch>>::new(), Vec::new(), 1);
        while !stop.is_cancelled() && self.events.is_connected() {
            published.extend(stored(&mut in_flight, *seen.borrow_and_update()));
            if in_flight.len() > ahead {
                further(ledger, &mut seen).await?;
                continue;
            }
            failpoint!(failpoints::RELAY_CLAIM);
            let claimed = self.claim(ledger, stream, &published, &in_flight, end).await?;
            if !mem::take(&mut published).is_empty() {
                failpoint!(failpoints::RELAY_MARKED);
            }
            if let Some(batch) = claimed.map(Arc::new) {
                // Batches of few events that wait for each other would be slower than one that grows meanwhile; those of few large
                // ones would take much memory.
                ahead = if batch.events.len() < usize::from(self.options.batch) { 1 } else { AHEAD };
                end = batch.end();
                in_flight.push_back(Arc::clone(&batch));
                if to_stage.send(batch).await.is_err() {
                    break;
                }
                continue;
            }
            if !in_flight.is_empty() {
                tokio::select! {
                    further = further(ledger, &mut seen) => further?,
                    () = self.outbox.woken() => {}
                    () = ledger.woken() => {}
                }
                continue;
            }
            match self.idle(ledger, checked, stop).await? {
                Wake::Work => {}
                Wake::Check => {
                    checked = Instant::now();
                    let found = stream.state().await?;
                    if found.incarnation != stream.incarnation() || found.last_sequence != end {
                        return Err(Interrupted::Events("the stream is not where it was left".into()));
                    }
                }
                Wake::Stop => break,
            }
        }
        // What is claimed is still published.
        drop(to_stage);
        while *seen.borrow_and_update() < end {
            further(ledger, &mut seen).await?;
        }
        published.extend(stored(&mut in_flight, end));
        ledger.turn(&published, &in_flight, None).await?;
        Ok(())
    }

    /// Marks batches published, and claims the one that is to follow `follows`. See [`Ledger::turn`].
    async fn claim(
        &self,
        ledger: &mut Ledger,
        stream: &Stream,
        mut published: &[Arc<Batch>],
        in_flight: &VecDeque<Arc<Batch>>,
        follows: u64,
    ) -> Result<Option<Batch>, Interrupted> {
        loop {
            let claimed = ledger.turn(published, in_flight, Some(follows)).await?;
            let Some(batch) = claimed else { return Ok(None) };
            if !self.bury_refused(ledger, stream, &batch).await? {
                return Ok(Some(batch));
            }
            published = &[];
        }
    }

    /// Commits what is staged, each batch when the one before it is known to be stored, and says up to where the stream is.
    async fn commit_in_turn(
        &self,
        stream: &Stream,
        mut staged: mpsc::Receiver<Arc<Batch>>,
        stored: watch::Sender<u64>,
    ) -> Result<(), Interrupted> {
        while let Some(batch) = staged.recv().await {
            let last_sequence = self.commit(stream, &batch).await?;
            failpoint!(failpoints::RELAY_MARK);
            stored.send_replace(last_sequence);
        }
        Ok(())
    }

    /// Waits for work, keeping the session alive meanwhile.
    async fn idle(&self, ledger: &Ledger, checked: Instant, stop: &CancellationToken) -> Result<Wake, Interrupted> {
        let poll = Instant::now() + self.options.poll;
        let lost = self.events.lost();
        tokio::pin!(lost);
        loop {
            let next = poll.min(checked + self.options.check).min(Instant::now() + HEARTBEAT);
            tokio::select! {
                () = self.outbox.woken() => return Ok(Wake::Work),
                () = ledger.woken() => return Ok(Wake::Work),
                () = &mut lost => return Err(Interrupted::Events("the connection was lost".into())),
                () = stop.cancelled() => return Ok(Wake::Stop),
                () = sleep_until(next) => {}
            }
            if checked.elapsed() >= self.options.check {
                return Ok(Wake::Check);
            }
            if poll <= Instant::now() {
                return Ok(Wake::Work);
            }
            ledger.beat().await?;
        }
    }

    /// Makes the outbox agree with what the stream has, and gives the stream's last sequence.
    ///
    /// The stream is the judge of what was published, and each of its messages says which event it is. So one rule covers batches
    /// whose outcome is unknown, a stream that was lost or put back to an older state, and a database that was.
    async fn agree(&self, ledger: &mut Ledger, stream: &Stream) -> Result<u64, Interrupted> {
        let found = stream.state().await?;
        let known = ledger.known().await?;
        let kept = common(ledger, stream, known.as_ref(), &found).await?;
        let unchanged =
            known.is_some_and(|known| known.incarnation == found.incarnation && known.last_sequence == kept);
        let mut missing = if unchanged { 0 } else { ledger.take_back(kept).await? };
        let (mut next, mut last_message) = ((kept + 1).max(found.first_sequence), None);
        if next > found.last_sequence && found.last_sequence > 0 {
            last_message = stream.message(found.last_sequence).await?.and_then(|message| message.id);
        }
        while next <= found.last_sequence {
            let end = found.last_sequence.min(next + PORTION - 1);
            let messages = stream.messages(next..=end).await?;
            failpoint!(failpoints::RELAY_RESOLVE);
            let Learned { recognized, lost } = ledger.learn(&messages).await?;
            tracing::warn!(
                stream = stream.name(),
                from = next,
                to = end,
                recognized,
                "found what had an unknown outcome"
            );
            if lost > 0 {
                tracing::error!(
                    stream = stream.name(),
                    events = lost,
                    "the database lost events that were published: they were taken back from the stream"
                );
                self.outbox.metrics.remembered.inc_by(lost);
            }
            missing = missing.saturating_sub(recognized);
            last_message = messages.last().and_then(|message| message.id);
            next = end + 1;
        }
        if missing > 0 {
            tracing::error!(
                stream = stream.name(),
                events = missing,
                "the event server lost messages: publishing them again"
            );
            self.outbox.metrics.refilled.inc_by(missing);
        }
        let State { incarnation, last_sequence, .. } = found;
        ledger.agree(&Known { incarnation, last_sequence, last_message }).await?;
        Ok(last_sequence)
    }

    /// Makes dead letters of the events of a claimed batch that the stream can never take, and gives the others back. Whether there
    /// were any.
    async fn bury_refused(&self, ledger: &mut Ledger, stream: &Stream, batch: &Batch) -> Result<bool, Interrupted> {
        let refused: Vec<_> = batch
            .events
            .iter()
            .filter_map(|owed| Some((owed, stream.refuses(owed, &self.options.subjects)?)))
            .collect();
        if refused.is_empty() {
            return Ok(false);
        }
        for (owed, reason) in &refused {
            tracing::error!(subject = owed.subject, id = %owed.id, reason, "an event cannot be published: it is a dead letter now");
        }
        ledger.bury(batch.id, &refused).await?;
        self.outbox.metrics.unpublishable.inc_by(refused.len() as u64);
        Ok(true)
    }

    /// Commits a staged batch; gives the stream's last sequence.
    async fn commit(&self, stream: &Stream, batch: &Batch) -> Result<u64, Interrupted> {
        let began = Instant::now();
        let last_sequence = stream.commit(batch).await?;
        self.outbox.metrics.publish_seconds.observe(began.elapsed().as_secs_f64());
        self.outbox.metrics.published.inc_by(batch.events.len() as u64);
        for owed in &batch.events {
            self.outbox.metrics.publish_delay_seconds.observe(seconds_since(owed.time));
        }
        Ok(last_sequence)
    }

    /// Measures what is owed and keeps the days of the table, in every process.
    async fn maintain(&self, stop: &CancellationToken) {
        let mut partitions_due = Instant::now();
        while !stop.is_cancelled() {
            if let Err(error) = self.measure().await {
                tracing::debug!(%error, "cannot measure the outbox");
            }
            if partitions_due <= Instant::now() {
                match self.keep_days().await {
                    Ok(()) => partitions_due = Instant::now() + Duration::from_secs(3600),
                    Err(error) => tracing::warn!(%error, "cannot maintain the outbox's partitions now"),
                }
            }
            tokio::select! {
                () = sleep(Duration::from_secs(5)) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    async fn measure(&self) -> Result<(), database::Error> {
        let depth = ledger::depth(&*self.database.get().await?).await?;
        self.outbox.metrics.unpublished.set(depth.events);
        self.outbox.metrics.oldest_age.set(depth.oldest_age);
        Ok(())
    }

    async fn keep_days(&self) -> Result<(), database::Error> {
        let kept = Kept { days: days(self.options.retention), ..partitions::OUTBOX };
        partitions::maintain(&mut *self.database.get().await?, kept).await
    }
}

/// Stages what is claimed.
async fn stage_in_turn(
    stream: &Stream,
    mut claimed: mpsc::Receiver<Arc<Batch>>,
    to_commit: mpsc::Sender<Arc<Batch>>,
) -> Result<(), Interrupted> {
    while let Some(batch) = claimed.recv().await {
        failpoint!(failpoints::RELAY_PUBLISH);
        stream.stage(&batch).await?;
        if to_commit.send(batch).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Waits until the stream is further, keeping the session alive meanwhile.
async fn further(ledger: &Ledger, seen: &mut watch::Receiver<u64>) -> Result<(), Interrupted> {
    loop {
        tokio::select! {
            changed = seen.changed() => return changed.map_err(|_| Interrupted::Events("nobody commits any more".into())),
            () = sleep(HEARTBEAT) => ledger.beat().await?,
        }
    }
}

/// Takes those batches out that are stored when the stream is up to here.
fn stored(in_flight: &mut VecDeque<Arc<Batch>>, last_sequence: u64) -> Vec<Arc<Batch>> {
    let count = in_flight.iter().take_while(|batch| batch.end() <= last_sequence).count();
    in_flight.drain(..count).collect()
}

/// Up to where the stream is the one that is known: the place of the last message that both sides name alike. The beginning, when the
/// stream was made anew, or has another history.
async fn common(
    ledger: &mut Ledger,
    stream: &Stream,
    known: Option<&Known>,
    found: &State,
) -> Result<u64, Interrupted> {
    let Some(known) = known.filter(|known| known.incarnation == found.incarnation) else { return Ok(0) };
    let rolled_back = found.last_sequence < known.last_sequence;
    let place = if rolled_back { found.last_sequence } else { known.last_sequence };
    if place == 0 {
        return Ok(0);
    }
    let ours = if rolled_back { ledger.marked_at(place).await? } else { known.last_message };
    // What one of them does not have any more does not contradict the other.
    let differ = ours.is_some() && stream.message(place).await?.is_some_and(|theirs| theirs.id != ours);
    Ok(if differ { 0 } else { place })
}
