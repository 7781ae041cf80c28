//! The service's stream: creating it, publishing to it atomically, looking up what it has.
//!
//! Atomic batches are those of NATS' ADR-50: every message carries the batch's id and its place, the last one commits, and all
//! are stored in a row or none is (nats-server 2.12 or newer).

use std::{collections::HashMap, time::Duration};

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
use futures_util::{StreamExt as _, TryStreamExt as _, stream::iter};
use uuid::Uuid;

use super::{Interrupted, RelayOptions, ledger::Batch};
use crate::{Events, connection::ANSWER, event::CONTENT_TYPE, failpoint, failpoints};

/// How long the server itself knows a message id again. The inbox knows it far longer.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(300);

/// Where in the stream's metadata the name of its incarnation stands: made when the stream is, gone when it is deleted.
const INCARNATION: &str = "berth-incarnation";

/// Longest time to hand a whole batch to the connection and get its answer.
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
    pub(super) last_sequence: u64,
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
        Ok(State { incarnation, last_sequence: info.state.last_sequence })
    }

    /// Publishes all events of the batch right after its expected sequence, or none; gives the last one's sequence.
    ///
    /// # Errors
    /// After any error it is unknown whether the batch was stored.
    pub(super) async fn publish(&self, batch: &Batch) -> Result<u64, Interrupted> {
        let lost = self.events.lost();
        tokio::select! {
            outcome = self.send(batch) => outcome,
            () = lost => Err(events("the connection was lost")),
            () = tokio::time::sleep(BATCH) => Err(events("no answer to a batch")),
        }
    }

    async fn send(&self, batch: &Batch) -> Result<u64, Interrupted> {
        let client = self.events.client();
        let count = batch.events.len();
        for (place, owed) in (1..).zip(&batch.events) {
            let mut headers = HeaderMap::new();
            headers.insert(NATS_MESSAGE_ID, owed.event.id.to_string());
            headers.insert("Content-Type", CONTENT_TYPE);
            if place == 1 {
                headers.insert(NATS_EXPECTED_LAST_SEQUENCE, batch.last_sequence.to_string());
            }
            if count > 1 {
                headers.insert(NATS_BATCH_ID, batch.id.to_string());
                headers.insert(NATS_BATCH_SEQUENCE, place.to_string());
            }
            let subject = owed.event.subject.clone();
            let payload = owed.event.to_json()?.into();
            if place < count {
                client.publish_with_headers(subject, headers, payload).await.map_err(events)?;
                continue;
            }
            if count > 1 {
                headers.insert(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
            }
            failpoint!(failpoints::RELAY_PUBLISH_LAST);
            let request = Request::new().payload(payload).headers(headers).timeout(Some(ANSWER));
            let asked = client.send_request(subject, request);
            let answer = failpoint!(during asked, failpoints::RELAY_PUBLISHED).map_err(events)?;
            return acknowledged(&answer.payload, batch);
        }
        Err(events("an empty batch"))
    }

    /// Which of the messages (position and id, in order) stand behind `last_sequence`, with their sequences. A batch is stored right
    /// there or not at all.
    pub(super) async fn find(
        &self,
        last_sequence: u64,
        messages: &[(i64, Uuid)],
    ) -> Result<Vec<(i64, u64)>, Interrupted> {
        let wanted: HashMap<String, i64> = messages.iter().map(|(position, id)| (id.to_string(), *position)).collect();
        let sequences = (last_sequence + 1..).take(messages.len());
        let found: Vec<Option<(i64, u64)>> = iter(sequences.map(|sequence| self.look_up(sequence)))
            .buffered(16)
            .map_ok(|message| message.and_then(|(id, sequence)| Some((*wanted.get(&id)?, sequence))))
            .try_collect()
            .await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The id of the message with this sequence.
    async fn look_up(&self, sequence: u64) -> Result<Option<(String, u64)>, Interrupted> {
        match self.stream.get_raw_message(sequence).await {
            Ok(message) => Ok(message.headers.get(NATS_MESSAGE_ID).map(|id| (id.to_string(), sequence))),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(events(error)),
        }
    }
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
