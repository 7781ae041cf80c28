//! Messages this process holds: the server is told that they are worked on until each is acknowledged or given back.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::jetstream::{AckKind, Message};
use tokio::{sync::OwnedSemaphorePermit, task::AbortHandle, time::interval};

use crate::{Event, Malformed};

type Registry = Arc<Mutex<HashMap<u64, Arc<Message>>>>;

/// All messages of one consumer that this process holds.
#[derive(Debug)]
pub(super) struct Held {
    registry: Registry,
    next_key: AtomicU64,
    heart: AbortHandle,
}

impl Held {
    /// Tells the server every `beat` about each message.
    pub(super) fn new(beat: Duration) -> Self {
        let registry = Registry::default();
        let heart = tokio::spawn(keep_alive(Arc::clone(&registry), beat)).abort_handle();
        Self { registry, next_key: AtomicU64::new(0), heart }
    }

    /// Begins to hold a message, whose deliveries count from `first`. `room` is given free with it.
    pub(super) fn take(
        &self,
        message: Message,
        first: u32,
        room: OwnedSemaphorePermit,
    ) -> Result<Delivery, async_nats::Error> {
        let info = message.info()?;
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let stream_sequence = i64::try_from(info.stream_sequence)?;
        let number = u32::try_from(info.delivered).unwrap_or(u32::MAX).saturating_add(first - 1);
        let event = Event::from_json(&message.payload);
        let message = Arc::new(message);
        locked(&self.registry).insert(key, Arc::clone(&message));
        Ok(Delivery { message, event, stream_sequence, number, key, registry: Arc::clone(&self.registry), _room: room })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.heart.abort();
    }
}

async fn keep_alive(registry: Registry, beat: Duration) {
    let mut beats = interval(beat);
    loop {
        beats.tick().await;
        let messages: Vec<_> = locked(&registry).values().cloned().collect();
        for message in messages {
            let _ = message.ack_with(AckKind::Progress).await;
        }
    }
}

fn locked(registry: &Registry) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Message>>> {
    registry.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One delivery of a message.
#[derive(Debug)]
pub(super) struct Delivery {
    message: Arc<Message>,
    event: Result<Event, Malformed>,
    pub(super) stream_sequence: i64,
    /// Which delivery this is, from 1.
    pub(super) number: u32,
    key: u64,
    registry: Registry,
    _room: OwnedSemaphorePermit,
}

impl Delivery {
    pub(super) fn event(&self) -> Result<&Event, &Malformed> {
        self.event.as_ref()
    }

    pub(super) fn subject(&self) -> &str {
        &self.message.subject
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.message.payload
    }

    /// Its effect is committed. Lost, the message comes again and is recognized.
    pub(super) async fn acknowledge(&self) {
        self.release();
        if let Err(error) = self.message.ack().await {
            tracing::debug!(%error, "an acknowledgement was lost");
        }
    }

    /// Has it delivered again after this time, here or elsewhere.
    pub(super) async fn give_back(&self, delay: Duration) {
        self.release();
        if let Err(error) = self.message.ack_with(AckKind::Nak(Some(delay))).await {
            tracing::debug!(%error, "a message could not be given back: it comes again by itself");
        }
    }

    fn release(&self) {
        locked(&self.registry).remove(&self.key);
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.release();
    }
}
