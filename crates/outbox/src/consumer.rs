//! Applying what other services publish: a durable pull consumer whose messages are handled in transactions.
//!
//! Messages come to a fixed number of workers by their aggregate, so that those of one aggregate are handled one after the other and
//! those of different ones at the same time. Each is acknowledged after the commit of its effect; while it waits for its turn the
//! server is told so. Everything else follows from the [inbox](crate::inbox): several instances may share the consumer, and
//! a message may come twice, late, or before the one it must follow.

mod delivery;
mod excused;
mod look_back;

use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use async_nats::jetstream::{
    self, AckKind,
    consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull},
};
use database::{Database, ScopedFutureExt as _, Transaction};
use delivery::{Delivery, Held};
use excused::Excused;
use futures_util::{FutureExt as _, StreamExt as _};
use runtime::{retry::Backoff, trace::TraceContext};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::Instrument as _;

use crate::{
    Event, Events, Malformed, Outbox, failpoint, failpoints,
    inbox::{Admission, Inbox, Parked},
    metrics::{OfConsumer, OfOutcome, seconds_since},
    partitions::{self, Kept, days},
};

/// What a service does with the events it consumes.
pub trait Handler: Send + Sync + 'static {
    /// Applies one event: writes its effect, and the events it leads to, into `tx`, which also records the message and is
    /// committed afterwards. Nothing may happen outside of it, because it may be run again.
    ///
    /// Events of one aggregate come in order and each once; events of different aggregates come at the same time.
    fn handle(&self, tx: &Transaction<'_>, event: &Event) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// Whether the handler knows this version of the event's data. Events it does not know become dead letters, to be replayed after
    /// an update.
    fn understands(&self, event: &Event) -> bool {
        event.data_version == 1
    }
}

/// Why an event was not applied. Either way its transaction is rolled back.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// It may work later: the event is delivered again after a growing delay, up to [`ConsumerOptions::attempts`] times.
    #[error("{0}")]
    Retry(#[source] Box<dyn StdError + Send + Sync>),
    /// It can never work: the event becomes a dead letter, and the events after it are handled.
    #[error("{0}")]
    Permanent(String),
}

impl From<database::Error> for HandlerError {
    fn from(error: database::Error) -> Self {
        Self::Retry(Box::new(error))
    }
}

impl From<crate::Error> for HandlerError {
    fn from(error: crate::Error) -> Self {
        match error {
            crate::Error::Database(error) => error.into(),
            error => Self::Permanent(error.to_string()),
        }
    }
}

/// How messages are consumed.
#[derive(Debug, Clone)]
pub struct ConsumerOptions {
    /// How many messages are handled at the same time.
    pub workers: usize,
    /// How many messages this process holds at most, handled or waiting.
    pub in_flight: usize,
    /// How long after the last sign of life of a process its messages are delivered to another one.
    pub ack_wait: Duration,
    /// How often an event is tried before it becomes a dead letter. What fails because the database is away does not count.
    pub attempts: u32,
    /// Longest first and longest later delay before an event is tried again.
    pub retry: (Duration, Duration),
    /// How long handled messages are known. Longer than any stream and any outbox keeps them.
    pub retention: Duration,
    /// How often parked events and wishes to replay are looked at.
    pub sweep: Duration,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            workers: 8,
            in_flight: 128,
            ack_wait: Duration::from_secs(10),
            attempts: 50,
            retry: (Duration::from_millis(100), Duration::from_secs(60)),
            retention: Duration::from_secs(21 * 24 * 3600),
            sweep: Duration::from_secs(1),
        }
    }
}

/// A service's subscription to the events of another one.
pub struct Consumer<H>(Arc<Inner<H>>);

struct Inner<H> {
    database: Database,
    events: Events,
    outbox: Outbox,
    stream: String,
    subjects: Vec<String>,
    handler: H,
    options: ConsumerOptions,
    inbox: Inbox,
    excused: Excused,
}

impl<H> fmt::Debug for Consumer<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("consumer", &self.0.inbox.consumer).finish_non_exhaustive()
    }
}

/// What became of an event.
#[derive(Debug)]
enum Outcome {
    Handled { successor: bool },
    Seen,
    Parked,
    Dead,
}

/// An event that is to be tried again.
struct Later {
    after: Duration,
}

/// How often an event was here.
#[derive(Debug)]
struct Attempt {
    /// Which of the tries that count this is, from 1.
    number: u32,
    /// Which of all deliveries this is, from 1.
    delivery: u32,
    /// Why one before failed, if that is known: a try that ended the process says nothing.
    last_error: Option<String>,
}

/// How many messages of one consumer may be delivered and not acknowledged, in all instances together.
const UNACKNOWLEDGED: u16 = 4096;

/// What counts as the number of the first delivery of an event that was delivered before, and is taken from where it is parked or looked
/// back at: it may have ended the process then.
const AGAIN: u32 = 2;

/// Longest delay before an event is tried again that failed because the database is away.
const AWAY: Duration = Duration::from_secs(2);

/// The consumer, or the server, is gone; the text says how.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Interrupted(String);

impl Interrupted {
    fn by(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl<H: Handler> Consumer<H> {
    /// The events on `subjects` (whole aggregate types: `documents.stock.*`) of the stream of another service. Its durable consumer is
    /// named like this service, and shared by its instances.
    pub fn new<S: Into<String>>(
        database: Database,
        events: Events,
        outbox: Outbox,
        stream: &str,
        subjects: impl IntoIterator<Item = S>,
        handler: H,
    ) -> Self {
        Self::with_options(database, events, outbox, stream, subjects, handler, ConsumerOptions::default())
    }

    /// Like [`new`](Self::new), with other options.
    pub fn with_options<S: Into<String>>(
        database: Database,
        events: Events,
        outbox: Outbox,
        stream: &str,
        subjects: impl IntoIterator<Item = S>,
        handler: H,
        options: ConsumerOptions,
    ) -> Self {
        let inbox = Inbox { consumer: format!("{stream}/{}", events.service()), retention: options.retention };
        let subjects = subjects.into_iter().map(Into::into).collect();
        let (stream, excused) = (stream.to_owned(), Excused::default());
        Self(Arc::new(Inner { database, events, outbox, stream, subjects, handler, options, inbox, excused }))
    }

    /// Consumes until `stop`; then finishes what has begun and gives the rest back. Outlives every failure of the database and
    /// of the event server, and waits for a stream that does not exist yet. Dropped, it ends in the middle of everything.
    pub async fn run(self, stop: CancellationToken) {
        let work = CancellationToken::new();
        let sweeper = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&self.0).sweep(work.clone())));
        self.0.receive(&stop).await;
        work.cancel();
        let _ = sweeper.await;
    }
}

/// Gives back what the server has sent and nobody has taken, until it sends no more: else it would wait for us in vain.
async fn give_back(mut batch: pull::Batch) -> Result<(), Interrupted> {
    const SILENCE: Duration = Duration::from_millis(50);
    while let Ok(Some(message)) = timeout(SILENCE, batch.next()).await {
        let message = message.map_err(Interrupted::by)?;
        message.ack_with(AckKind::Nak(None)).await.map_err(Interrupted::by)?;
    }
    Ok(())
}

/// The way from a pulled message to the worker who handles it.
struct Line {
    held: Held,
    room: Arc<Semaphore>,
    lanes: Vec<mpsc::Sender<Delivery>>,
}

impl<H: Handler> Inner<H> {
    async fn receive(self: &Arc<Self>, stop: &CancellationToken) {
        let mut workers = JoinSet::new();
        let lanes = (0..self.options.workers.max(1))
            .map(|_| {
                let (lane, deliveries) = mpsc::channel(self.options.in_flight);
                workers.spawn(Arc::clone(self).work(deliveries, stop.clone()));
                lane
            })
            .collect();
        let held = Held::new(self.options.ack_wait / 3);
        let line = Line { held, room: Arc::new(Semaphore::new(self.options.in_flight)), lanes };
        tokio::join!(self.subscribed(&line, stop), self.look_back(&line, stop));
        drop(line);
        while workers.join_next().await.is_some() {}
    }

    /// Pulls messages until `stop`, whatever fails.
    async fn subscribed(&self, line: &Line, stop: &CancellationToken) {
        let mut pauses = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        while !stop.is_cancelled() {
            let began = Instant::now();
            if let Err(error) = self.session(line, stop).await {
                tracing::warn!(consumer = self.inbox.consumer, %error, "subscribing anew");
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

    /// Pulls messages until `stop`, or until something fails.
    async fn session(&self, line: &Line, stop: &CancellationToken) -> Result<(), Interrupted> {
        tokio::select! {
            () = self.events.connected() => {}
            () = stop.cancelled() => return Ok(()),
        }
        let config =
            pull::Config { durable_name: Some(self.events.service().to_owned()), ..self.config(DeliverPolicy::All) };
        let consumer = tokio::select! {
            subscribed = self.subscribe(config) => subscribed?,
            () = stop.cancelled() => return Ok(()),
        };
        tracing::info!(consumer = self.inbox.consumer, "subscribed");
        while !stop.is_cancelled() {
            self.pull(&consumer, 1, Duration::from_secs(20), line, stop).await?;
        }
        Ok(())
    }

    /// Pulls one batch of messages, no more than there is room for. Their deliveries count from `first`.
    async fn pull(
        &self,
        consumer: &PullConsumer,
        first: u32,
        patience: Duration,
        line: &Line,
        stop: &CancellationToken,
    ) -> Result<(), Interrupted> {
        let lost = self.events.lost();
        tokio::pin!(lost);
        let some = Arc::clone(&line.room).acquire_owned().await.map_err(Interrupted::by)?;
        let free = line.room.available_permits() + 1;
        drop(some);
        // Without heartbeats: async-nats 0.51 sleeps on after one, past the message that follows it, until the batch
        // expires. That the server is gone is told by the connection.
        let batch = consumer.batch().max_messages(free).expires(patience);
        let mut batch = batch.messages().await.map_err(Interrupted::by)?;
        while let Some(message) = tokio::select! {
            message = batch.next() => message,
            () = &mut lost => return Err(Interrupted("the connection was lost".into())),
            () = stop.cancelled() => return give_back(batch).await,
        } {
            let permit = Arc::clone(&line.room).acquire_owned().await.map_err(Interrupted::by)?;
            let delivery = line.held.take(message.map_err(Interrupted::by)?, first, permit).map_err(Interrupted::by)?;
            let lane = delivery.event().map_or(0, |event| lane(event, line.lanes.len()));
            if let Some(lane) = line.lanes.get(lane) {
                lane.send(delivery).await.map_err(Interrupted::by)?;
            }
        }
        Ok(())
    }

    fn config(&self, deliver_policy: DeliverPolicy) -> pull::Config {
        // The server lets a client name a single filter in the request's subject, where permissions can see it.
        let (filter_subject, filter_subjects) = match self.subjects.as_slice() {
            [only] => (only.clone(), Vec::new()),
            several => (String::new(), several.to_vec()),
        };
        pull::Config {
            deliver_policy,
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.options.ack_wait,
            max_deliver: -1,
            max_ack_pending: UNACKNOWLEDGED.into(),
            filter_subject,
            filter_subjects,
            ..pull::Config::default()
        }
    }

    async fn subscribe(&self, config: pull::Config) -> Result<PullConsumer, Interrupted> {
        self.events.jetstream().create_consumer_on_stream(config, &self.stream).await.map_err(Interrupted::by)
    }

    async fn work(self: Arc<Self>, mut deliveries: mpsc::Receiver<Delivery>, stop: CancellationToken) {
        while let Some(delivery) = deliveries.recv().await {
            if stop.is_cancelled() {
                delivery.give_back(Duration::ZERO).await;
            } else {
                self.deliver(delivery).await;
            }
        }
    }

    async fn deliver(&self, delivery: Delivery) {
        let began = Instant::now();
        let result = match delivery.event() {
            Ok(event) => self.apply_delivered(event, &delivery).await,
            Err(malformed) => self.bury_malformed(&delivery, malformed).await,
        };
        match result {
            Ok(outcome) => {
                delivery.acknowledge().await;
                failpoint!(failpoints::CONSUMER_ACKNOWLEDGED, drop);
                self.count(outcome.name());
                self.outbox.metrics.handle_seconds.get_or_create(&self.label()).observe(began.elapsed().as_secs_f64());
                if let (Outcome::Handled { successor: true }, Ok(event)) = (outcome, delivery.event()) {
                    self.apply_successors(event).await;
                }
            }
            Err(Later { after }) => {
                self.count("retried");
                delivery.give_back(after).await;
            }
        }
    }

    async fn apply_delivered(&self, event: &Event, delivery: &Delivery) -> Result<Outcome, Later> {
        failpoint!(failpoints::CONSUMER_DELIVERED, |_| Err(self.when_back(delivery.number)));
        let result = match self.attempt(event, delivery.number).await {
            Ok(attempt) => self.apply(event, delivery.stream_sequence, attempt, Origin::Stream).await,
            Err(later) => Err(later),
        };
        failpoint!(failpoints::CONSUMER_ACKNOWLEDGE, |_| Err(self.when_back(delivery.number)));
        result
    }

    /// Counts a try. The first one is written down when it has failed; those after it before they begin, so that an event which
    /// ends the process is given up in the end, too.
    async fn attempt(&self, event: &Event, delivery: u32) -> Result<Attempt, Later> {
        let excused = self.excused.take(event.id);
        if delivery <= 1 {
            return Ok(Attempt { number: 1, delivery, last_error: None });
        }
        let counted = async { self.inbox.attempt(&*self.database.get().await?, event.id, excused).await };
        match counted.await {
            Ok((number, last_error)) => Ok(Attempt { number, delivery, last_error }),
            Err(error) => {
                tracing::warn!(consumer = self.inbox.consumer, id = %event.id, %error, "cannot count a try now");
                if excused {
                    self.excused.add(event.id);
                }
                Err(self.when_back(delivery))
            }
        }
    }

    /// Writes down that a try failed.
    async fn failed(&self, event: &Event, attempt: &Attempt, why: &str) {
        let noted =
            async { self.inbox.failed(&*self.database.get().await?, event.id, attempt.delivery <= 1, why).await };
        if let Err(error) = noted.await {
            tracing::warn!(consumer = self.inbox.consumer, id = %event.id, %error, "cannot write a failed try down");
        }
    }

    /// Applies one event in one transaction, in its trace.
    async fn apply(
        &self,
        event: &Event,
        stream_sequence: i64,
        attempt: Attempt,
        origin: Origin,
    ) -> Result<Outcome, Later> {
        let trace = event.trace.map_or_else(TraceContext::new, TraceContext::child);
        let span = tracing::info_span!(
            "message",
            trace_id = trace.trace_id(),
            consumer = self.inbox.consumer,
            subject = event.subject,
            id = %event.id,
        );
        let applied = if attempt.number > self.options.attempts {
            let why = attempt.last_error.as_ref().map_or(" that had no end".to_owned(), |error| format!(": {error}"));
            Err(HandlerError::Permanent(format!("given up after {} attempts{why}", self.options.attempts)))
        } else {
            trace.scope(self.try_apply(event, stream_sequence, &attempt, origin)).instrument(span.clone()).await
        };
        let reason = match applied {
            Ok(outcome) => {
                tracing::info!(parent: &span, outcome = outcome.name(), "consumed");
                return Ok(self.applied(outcome, event));
            }
            Err(HandlerError::Retry(error)) if is_away(&*error) => {
                tracing::warn!(parent: &span, %error, delivery = attempt.delivery, "the database is away");
                if attempt.delivery > 1 {
                    self.excused.add(event.id);
                }
                return Err(self.when_back(attempt.delivery));
            }
            Err(HandlerError::Retry(error)) if attempt.number < self.options.attempts => {
                let after = self.delay(attempt.number);
                tracing::warn!(parent: &span, %error, attempt = attempt.number, ?after, "an event is to be tried again");
                self.failed(event, &attempt, &error.to_string()).await;
                return Err(Later { after });
            }
            Err(HandlerError::Retry(error)) => format!("given up after {} attempts: {error}", attempt.number),
            Err(HandlerError::Permanent(reason)) => reason,
        };
        match self.bury(event, stream_sequence, &reason).await {
            Ok(()) => {
                tracing::error!(parent: &span, reason, "an event became a dead letter");
                Ok(Outcome::Dead)
            }
            Err(error) => {
                tracing::warn!(parent: &span, %error, "cannot write a dead letter now");
                Err(self.when_back(attempt.delivery))
            }
        }
    }

    async fn try_apply(
        &self,
        event: &Event,
        stream_sequence: i64,
        attempt: &Attempt,
        origin: Origin,
    ) -> Result<Outcome, HandlerError> {
        self.database
            .transaction(|tx| {
                async move {
                    let outcome = match self.inbox.admit(tx, event, stream_sequence).await? {
                        Admission::Now { successor } => {
                            self.handle(tx, event).await?;
                            failpoint!(failpoints::CONSUMER_COMMIT);
                            Outcome::Handled { successor }
                        }
                        // One that waits already and is delivered once more is a duplicate like any other.
                        Admission::Parked { anew: false } if origin == Origin::Stream => Outcome::Seen,
                        Admission::Seen => Outcome::Seen,
                        Admission::Parked { .. } => Outcome::Parked,
                        Admission::Conflict => {
                            let reason = format!(
                                "version {} of the {} was handled as another event, or skipped",
                                event.version, event.aggregate
                            );
                            self.write_dead_letter(tx, event, stream_sequence, &reason).await?;
                            Outcome::Dead
                        }
                    };
                    if origin == Origin::Parked && !matches!(outcome, Outcome::Parked) {
                        self.inbox.unpark(tx, event).await?;
                    }
                    if attempt.delivery > 1 {
                        self.inbox.settled(tx, event.id).await?;
                    }
                    Ok(outcome)
                }
                .scope_boxed()
            })
            .await
    }

    /// Has the handler handle an event. One that panics has failed like any other, and takes nobody along.
    async fn handle(&self, tx: &Transaction<'_>, event: &Event) -> Result<(), HandlerError> {
        if !self.handler.understands(event) {
            let version = event.data_version;
            return Err(HandlerError::Permanent(format!("version {version} of its data is not known here")));
        }
        let handled = AssertUnwindSafe(self.handler.handle(tx, event)).catch_unwind().await;
        handled.unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
            Err(HandlerError::Retry(format!("the handler panicked: {}", words.unwrap_or("it did not say why")).into()))
        })
    }

    fn applied(&self, outcome: Outcome, event: &Event) -> Outcome {
        if let Outcome::Handled { .. } = outcome {
            self.outbox.wake();
            self.outbox.metrics.effect_delay_seconds.get_or_create(&self.label()).observe(seconds_since(event.time));
        }
        outcome
    }

    /// Puts an event aside and moves its aggregate on.
    async fn bury(&self, event: &Event, stream_sequence: i64, reason: &str) -> Result<(), HandlerError> {
        self.database
            .transaction(|tx| {
                async move {
                    if let Admission::Now { .. } = self.inbox.admit(tx, event, stream_sequence).await? {
                        self.write_dead_letter(tx, event, stream_sequence, reason).await?;
                        self.inbox.unpark(tx, event).await?;
                    }
                    self.inbox.settled(tx, event.id).await?;
                    Ok(())
                }
                .scope_boxed()
            })
            .await
    }

    async fn write_dead_letter(
        &self,
        tx: &Transaction<'_>,
        event: &Event,
        stream_sequence: i64,
        reason: &str,
    ) -> Result<(), HandlerError> {
        let payload = event.to_json().map_err(|error| HandlerError::Permanent(error.to_string()))?;
        self.inbox.bury(tx, &event.subject, stream_sequence, Some(event.id), &payload, reason).await?;
        Ok(())
    }

    async fn bury_malformed(&self, delivery: &Delivery, malformed: &Malformed) -> Result<Outcome, Later> {
        let reason = &malformed.to_string();
        let (subject, sequence, payload) = (delivery.subject(), delivery.stream_sequence, delivery.payload());
        let buried: Result<(), HandlerError> = self
            .database
            .transaction(|tx| {
                async move { Ok(self.inbox.bury(tx, subject, sequence, None, payload, reason).await?) }.scope_boxed()
            })
            .await;
        match buried {
            Ok(()) => {
                tracing::error!(
                    consumer = self.inbox.consumer,
                    subject,
                    sequence,
                    reason,
                    "a message became a dead letter"
                );
                Ok(Outcome::Dead)
            }
            Err(_) => Err(self.when_back(delivery.number)),
        }
    }

    /// Applies the events that were parked behind this one, as far as they follow on each other.
    async fn apply_successors(&self, event: &Event) {
        let mut last = event.clone();
        while let Ok(Some(parked)) = self.successor(&last).await {
            match self.apply_parked(&parked).await {
                Some((event, Outcome::Handled { successor: true })) => last = event,
                _ => return,
            }
        }
    }

    async fn successor(&self, event: &Event) -> Result<Option<Parked>, database::Error> {
        self.inbox.successor(&*self.database.get().await?, event).await
    }

    async fn apply_parked(&self, parked: &Parked) -> Option<(Event, Outcome)> {
        // It was an event when it was parked.
        let event = Event::from_json(parked.event.get().as_bytes()).ok()?;
        let result = match self.attempt(&event, AGAIN).await {
            Ok(attempt) => self.apply(&event, parked.stream_sequence, attempt, Origin::Parked).await,
            Err(later) => Err(later),
        };
        match result {
            Ok(outcome) => {
                self.count(outcome.name());
                Some((event, outcome))
            }
            Err(later) => {
                self.count("retried");
                if let Ok(client) = self.database.get().await {
                    let _ = self.inbox.postpone(&client, &event, later.after).await;
                }
                None
            }
        }
    }

    /// Looks after what no delivery looks after, until `stop`.
    async fn sweep(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = interval(self.options.sweep);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut hourly = Instant::now();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            if let Err(error) = self.sweep_once().await {
                tracing::warn!(consumer = self.inbox.consumer, %error, "cannot sweep the inbox now");
            }
            if hourly <= Instant::now() && self.keep_days().await.is_ok() {
                hourly = Instant::now() + Duration::from_secs(3600);
            }
        }
    }

    async fn sweep_once(&self) -> Result<(), SweepError> {
        let backlog = self.inbox.backlog(&*self.database.get().await?).await?;
        let metrics = &self.outbox.metrics;
        metrics.parked.get_or_create(&self.label()).set(backlog.parked);
        metrics.dead_letters.get_or_create(&self.label()).set(backlog.dead_letters);
        if backlog.parked > 0 {
            self.sweep_parked().await?;
        }
        for _ in 0..backlog.replays {
            self.replay_one().await?;
        }
        if self.events.is_connected() {
            let info = self.info().await?;
            metrics.lag.get_or_create(&self.label()).set(i64::try_from(info.num_pending).unwrap_or(i64::MAX));
        }
        Ok(())
    }

    async fn info(&self) -> Result<jetstream::consumer::Info, Interrupted> {
        let jetstream = self.events.jetstream();
        let stream = jetstream.get_stream_no_info(&self.stream).await.map_err(Interrupted::by)?;
        stream.consumer_info(self.events.service()).await.map_err(Interrupted::by)
    }

    async fn sweep_parked(&self) -> Result<(), SweepError> {
        let due = {
            let client = self.database.get().await?;
            self.inbox.forget_handled(&client).await?;
            self.inbox.due(&client).await?
        };
        for parked in due {
            if let Some((event, Outcome::Handled { successor: true })) = self.apply_parked(&parked).await {
                self.apply_successors(&event).await;
            }
        }
        self.adopt_headless().await
    }

    /// Begins in the middle with aggregates whose first events the stream does not have any more: everything before the parked
    /// event is here for certain, so nothing that could still come precedes it. What is acknowledged may yet be delivered again, to a
    /// database that was put back. A gap in the middle of a known history is never skipped: it waits for a person.
    async fn adopt_headless(&self) -> Result<(), SweepError> {
        let client = self.database.get().await?;
        let headless = self.inbox.headless(&client, 2 * self.options.sweep).await?;
        if headless.is_empty() {
            return Ok(());
        }
        let floor = self.inbox.progress(&client).await?.floor;
        for found in headless.iter().filter(|found| found.stream_sequence <= floor) {
            tracing::warn!(consumer = self.inbox.consumer, aggregate = %found.aggregate, version = found.version, "earlier events are not in the stream any more: beginning here");
            self.inbox.adopt(&client, found).await?;
        }
        Ok(())
    }

    /// Handles one dead letter again that somebody wants replayed.
    async fn replay_one(&self) -> Result<(), SweepError> {
        let chosen = &std::sync::Mutex::new(None);
        let replayed: Result<bool, HandlerError> = self
            .database
            .transaction(|tx| {
                async move {
                    let Some((letter, payload)) = self.inbox.replay(tx).await? else { return Ok(false) };
                    *chosen.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(letter);
                    let event =
                        Event::from_json(&payload).map_err(|error| HandlerError::Permanent(error.to_string()))?;
                    let trace = event.trace.map_or_else(TraceContext::new, TraceContext::child);
                    trace.scope(self.handle(tx, &event)).await?;
                    self.inbox.replayed(tx, letter).await?;
                    Ok(true)
                }
                .scope_boxed()
            })
            .await;
        let letter = *chosen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match (replayed, letter) {
            (Ok(true), _) => self.outbox.wake(),
            (Err(error), Some(letter)) => {
                tracing::warn!(consumer = self.inbox.consumer, letter, %error, "a dead letter could not be replayed");
                let client = self.database.get().await?;
                self.inbox.replay_failed(&client, letter, &error.to_string()).await?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn keep_days(&self) -> Result<(), database::Error> {
        let kept = Kept { days: days(self.options.retention), ..partitions::INBOX };
        let mut client = self.database.get().await?;
        self.inbox.forget_attempts(&client).await?;
        partitions::maintain(&mut client, kept).await
    }

    /// What failed because the database is away is tried again soon, and the failure does not count.
    fn when_back(&self, delivery: u32) -> Later {
        Later { after: self.delay(delivery).min(AWAY) }
    }

    fn delay(&self, attempt: u32) -> Duration {
        let (base, max) = self.options.retry;
        let attempt = usize::try_from(attempt.min(32)).unwrap_or_default();
        Backoff::new(base, max).nth(attempt.saturating_sub(1)).unwrap_or(max)
    }

    fn label(&self) -> OfConsumer {
        OfConsumer { consumer: self.inbox.consumer.clone() }
    }

    fn count(&self, outcome: &'static str) {
        let label = OfOutcome { consumer: self.inbox.consumer.clone(), outcome };
        self.outbox.metrics.messages.get_or_create(&label).inc();
    }
}

/// Where an event comes from at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Stream,
    Parked,
}

impl Outcome {
    fn name(&self) -> &'static str {
        match self {
            Self::Handled { .. } => "handled",
            Self::Seen => "duplicate",
            Self::Parked => "parked",
            Self::Dead => "dead",
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Database(#[from] database::Error),
    #[error(transparent)]
    Events(#[from] Interrupted),
}

fn lane(event: &Event, lanes: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    event.aggregate.hash(&mut hasher);
    usize::try_from(hasher.finish() % lanes as u64).unwrap_or_default()
}

/// Whether the reason is the database being away, which says nothing about the event.
fn is_away(error: &(dyn StdError + 'static)) -> bool {
    std::iter::successors(Some(error), |error: &&(dyn StdError + 'static)| (*error).source())
        .any(|error| matches!(error.downcast_ref(), Some(database::Error::Unavailable(_))))
}
