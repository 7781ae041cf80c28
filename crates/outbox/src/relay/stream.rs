//! The service's stream: creating it, publishing to it atomically, looking up what it has.
//!
//! Atomic batches are those of NATS' ADR-50: every message carries the batch's id and its place, the last one commits, and all
//! are stored in a row or none is (nats-server 2.12 or newer).

use std::{ops::RangeInclusive, time::Duration};

use async_nats::{
    HeaderMap, Request,
    header::{
        NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE, NATS_EXPECTED_LAST_SEQUENCE,
        NATS_MESSAGE_ID,
    },
    jetstream::{
        context::GetStreamErrorKind,
        publish::PublishAck,
        response::Response,
        stream::{self, Config, DiscardPolicy, RawMessageErrorKind, StorageType},
    },
};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream::iter};
use uuid::Uuid;

use super::{
    Interrupted, RelayOptions,
    ledger::{Batch, Owed, event_id},
};
use crate::{
    Events,
    connection::ANSWER,
    event::{self, CONTENT_TYPE},
    failpoint, failpoints,
};

/// How long the server itself knows a message id again. The inbox knows it far longer.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(300);

/// Where in the stream's metadata the name of its incarnation stands: made when the stream is, gone when it is deleted.
const INCARNATION: &str = "berth-incarnation";

/// Room for the headers of a message, of which the server counts every byte.
const HEADERS: usize = 512;

/// Longest time to hand a batch to the connection, and longest time to get its answer.
const BATCH: Duration = Duration::from_secs(8);

/// The stream of the service.
pub(super) struct Stream {
    events: Events,
    stream: stream::Stream,
    incarnation: String,
}

/// What a stream is at the moment.
pub(super) struct State {
    pub(super) incarnation: String,
    pub(super) first_sequence: u64,
    pub(super) last_sequence: u64,
}

/// A message of the stream.
pub(super) struct Found {
    pub(super) sequence: u64,
    /// The event it says it is.
    pub(super) id: Option<Uuid>,
    pub(super) payload: Bytes,
}

fn events(error: impl std::fmt::Display) -> Interrupted {
    Interrupted::Events(error.to_string())
}

impl Stream {
    /// Opens the stream; makes it where it is missing, and brings its configuration up to date.
    pub(super) async fn open(connection: &Events, options: &RelayOptions) -> Result<Self, Interrupted> {
        let jetstream = connection.jetstream();
        let name = connection.service();
        let stream = match jetstream.get_stream(name).await {
            Ok(stream) => stream,
            Err(error) if missing(&error) => {
                tracing::info!(stream = name, "making the stream");
                let config = configured(Config { name: name.to_owned(), ..Config::default() }, options);
                // Another relay may make it at the same time; whose it becomes does not matter.
                let _ = jetstream.create_stream(config).await;
                jetstream.get_stream(name).await.map_err(events)?
            }
            Err(error) => return Err(events(error)),
        };
        let found = &stream.cached_info().config;
        let wanted = configured(found.clone(), options);
        let incarnation = wanted.metadata.get(INCARNATION).cloned().unwrap_or_default();
        if *found != wanted {
            tracing::info!(stream = name, "bringing the stream's configuration up to date");
            jetstream.update_stream(&wanted).await.map_err(events)?;
        }
        Ok(Self { events: connection.clone(), stream, incarnation })
    }

    pub(super) fn name(&self) -> &str {
        self.events.service()
    }

    pub(super) fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// Asks what the stream is now.
    pub(super) async fn state(&self) -> Result<State, Interrupted> {
        let info = self.stream.get_info().await.map_err(events)?;
        let incarnation = info.config.metadata.get(INCARNATION).cloned().unwrap_or_default();
        let (first_sequence, last_sequence) = (info.state.first_sequence, info.state.last_sequence);
        Ok(State { incarnation, first_sequence, last_sequence })
    }

    /// Hands the event server all messages of a batch but the last, which commits it: nothing is stored until then, and what is not
    /// committed within ten seconds is dropped there, so that its commit is refused.
    ///
    /// # Errors
    /// The batch was not stored.
    pub(super) async fn stage(&self, batch: &Batch) -> Result<(), Interrupted> {
        let staged = async {
            for (place, owed) in (1..batch.events.len()).zip(&batch.events) {
                let (subject, payload) = (owed.subject.clone(), owed.payload.clone());
                let headers = headers(batch, place, owed);
                self.events.client().publish_with_headers(subject, headers, payload).await.map_err(events)?;
            }
            Ok(())
        };
        self.bounded(staged).await
    }

    /// Commits a staged batch: all its events are stored right after its expected sequence, or none. Gives the last one's sequence.
    ///
    /// # Errors
    /// After any error it is unknown whether the batch was stored.
    pub(super) async fn commit(&self, batch: &Batch) -> Result<u64, Interrupted> {
        let committed = async {
            let owed = batch.events.last().ok_or_else(|| events("an empty batch"))?;
            failpoint!(failpoints::RELAY_PUBLISH_LAST);
            let headers = headers(batch, batch.events.len(), owed);
            let request = Request::new().payload(owed.payload.clone()).headers(headers).timeout(Some(ANSWER));
            let asked = self.events.client().send_request(owed.subject.clone(), request);
            let answer = failpoint!(during asked, failpoints::RELAY_PUBLISHED).map_err(events)?;
            acknowledged(&answer.payload, batch)
        };
        self.bounded(committed).await
    }

    async fn bounded<T>(&self, sent: impl Future<Output = Result<T, Interrupted>>) -> Result<T, Interrupted> {
        tokio::select! {
            outcome = sent => outcome,
            () = self.events.lost() => Err(events("the connection was lost")),
            () = tokio::time::sleep(BATCH) => Err(events("no answer to a batch")),
        }
    }

    /// Why the stream can never take this event, if so.
    pub(super) fn refuses(&self, owed: &Owed, subjects: &[String]) -> Option<String> {
        if !subjects.iter().any(|pattern| event::matches(pattern, &owed.subject)) {
            return Some(format!("the stream {} does not take its subject", self.name()));
        }
        let (bytes, most) = (owed.payload.len() + HEADERS, self.events.client().server_info().max_payload);
        (bytes > most).then(|| format!("it has {bytes} bytes, the event server takes {most}"))
    }

    /// The messages with these sequences, in order, as far as they are there.
    pub(super) async fn messages(&self, sequences: RangeInclusive<u64>) -> Result<Vec<Found>, Interrupted> {
        let found: Vec<Option<Found>> =
            iter(sequences.map(|sequence| self.message(sequence))).buffered(64).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The message with this sequence.
    pub(super) async fn message(&self, sequence: u64) -> Result<Option<Found>, Interrupted> {
        match self.stream.get_raw_message(sequence).await {
            Ok(message) => {
                let id = message.headers.get(NATS_MESSAGE_ID).and_then(|id| event_id(id.as_str()));
                Ok(Some(Found { sequence, id, payload: message.payload }))
            }
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(events(error)),
        }
    }
}

/// The headers of the event in this place of the batch, counted from 1.
fn headers(batch: &Batch, place: usize, owed: &Owed) -> HeaderMap {
    let count = batch.events.len();
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, owed.message_id());
    headers.insert("Content-Type", CONTENT_TYPE);
    if place == 1 {
        headers.insert(NATS_EXPECTED_LAST_SEQUENCE, batch.last_sequence.to_string());
    }
    if count > 1 {
        headers.insert(NATS_BATCH_ID, batch.id.to_string());
        headers.insert(NATS_BATCH_SEQUENCE, place.to_string());
        if place == count {
            headers.insert(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
        }
    }
    headers
}

fn acknowledged(answer: &[u8], batch: &Batch) -> Result<u64, Interrupted> {
    let expected = batch.last_sequence + batch.events.len() as u64;
    match serde_json::from_slice(answer)? {
        Response::Err { error } => Err(events(error)),
        Response::Ok(PublishAck { sequence, .. }) if sequence == expected => Ok(sequence),
        Response::Ok(ack) => Err(events(format!("stored at {} instead of {expected}", ack.sequence))),
    }
}

fn missing(error: &async_nats::jetstream::context::GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(error) if error.error_code() == async_nats::jetstream::ErrorCode::STREAM_NOT_FOUND)
}

/// The configuration as it must be; what we have no opinion on stays. A full stream refuses new messages, so that they wait in
/// the outbox, instead of forgetting old ones that a consumer may not have seen.
fn configured(config: Config, options: &RelayOptions) -> Config {
    let mut metadata = config.metadata.clone();
    metadata.entry(INCARNATION.into()).or_insert_with(|| Uuid::now_v7().to_string());
    Config {
        subjects: options.subjects.clone(),
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        max_age: options.stream_age,
        duplicate_window: DUPLICATE_WINDOW.min(options.stream_age),
        allow_atomic_publish: true,
        metadata,
        ..config
    }
}
