//! What outbox and inbox tell about themselves.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// Which consumer.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct OfConsumer {
    pub(crate) consumer: String,
}

/// Which consumer, and what became of a message.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct OfOutcome {
    pub(crate) consumer: String,
    pub(crate) outcome: &'static str,
}

/// Of the outbox and all consumers of one process.
#[derive(Debug)]
pub(crate) struct MessageMetrics {
    pub(crate) unpublished: Gauge,
    pub(crate) oldest_age: Gauge<f64, AtomicU64>,
    pub(crate) leader: Gauge,
    pub(crate) published: Counter,
    pub(crate) unpublishable: Counter,
    pub(crate) refilled: Counter,
    pub(crate) remembered: Counter,
    pub(crate) publish_seconds: Histogram,
    pub(crate) publish_delay_seconds: Histogram,
    pub(crate) messages: Family<OfOutcome, Counter>,
    pub(crate) handle_seconds: Family<OfConsumer, Histogram>,
    pub(crate) effect_delay_seconds: Family<OfConsumer, Histogram>,
    pub(crate) lag: Family<OfConsumer, Gauge>,
    pub(crate) parked: Family<OfConsumer, Gauge>,
    pub(crate) dead_letters: Family<OfConsumer, Gauge>,
}

/// One millisecond to half a minute.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

impl Default for MessageMetrics {
    fn default() -> Self {
        Self {
            unpublished: Gauge::default(),
            oldest_age: Gauge::default(),
            leader: Gauge::default(),
            published: Counter::default(),
            unpublishable: Counter::default(),
            refilled: Counter::default(),
            remembered: Counter::default(),
            publish_seconds: seconds(),
            publish_delay_seconds: seconds(),
            messages: Family::default(),
            handle_seconds: Family::new_with_constructor(seconds),
            effect_delay_seconds: Family::new_with_constructor(seconds),
            lag: Family::default(),
            parked: Family::default(),
            dead_letters: Family::default(),
        }
    }
}

impl MessageMetrics {
    pub(crate) fn register(&self, to: &mut Registry) {
        to.register("outbox_unpublished", "Events that are owed and not published", self.unpublished.clone());
        to.register("outbox_oldest_age_seconds", "Age of the oldest event that is owed", self.oldest_age.clone());
        to.register("outbox_relay_leader", "1 while this process publishes", self.leader.clone());
        to.register("outbox_published", "Events published", self.published.clone());
        to.register("outbox_unpublishable", "Events that no stream takes", self.unpublishable.clone());
        to.register(
            "outbox_refilled",
            "Events to be published again, after the stream lost them",
            self.refilled.clone(),
        );
        to.register(
            "outbox_remembered",
            "Events taken back from the stream, after the database lost them",
            self.remembered.clone(),
        );
        to.register(
            "outbox_publish_seconds",
            "From committing a staged batch to its acknowledgement",
            self.publish_seconds.clone(),
        );
        to.register(
            "outbox_delay_seconds",
            "From an event's transaction to its publication",
            self.publish_delay_seconds.clone(),
        );
        to.register("inbox_messages", "Messages by what became of them", self.messages.clone());
        to.register(
            "inbox_handle_seconds",
            "From a message's arrival to its acknowledgement",
            self.handle_seconds.clone(),
        );
        to.register(
            "inbox_delay_seconds",
            "From an event's transaction to its effect here",
            self.effect_delay_seconds.clone(),
        );
        to.register("inbox_lag", "Messages in the stream that were not delivered yet", self.lag.clone());
        to.register("inbox_parked", "Events that wait for one before them", self.parked.clone());
        to.register("inbox_dead_letters", "Dead letters that nobody replayed or discarded", self.dead_letters.clone());
    }
}

/// Seconds since then, by the clocks of two machines: never below zero.
pub(crate) fn seconds_since(then: jiff::Timestamp) -> f64 {
    jiff::Timestamp::now().duration_since(then).as_secs_f64().max(0.0)
}
