//! Transactional messaging over PostgreSQL and JetStream: what keeps state in two databases together.
//!
//! A service changes its own database and records the events it owes in one transaction ([`Outbox::put`]); a [`Relay`]
//! publishes them to the service's stream. Another service's [`Consumer`] applies each event and records that it did in one
//! transaction of its own ([`Handler`]). Between the two an event may be delivered twice, late or out of order;
//! its effect happens once and in order. Work that spans databases is a [saga] built of such steps.
//!
//! | promise | kept by |
//! |---|---|
//! | an event exists if and only if its change was committed | same transaction; the relay claims what is not marked published, never what is beyond the last one |
//! | events of an aggregate are published in order | versions assigned under the aggregate's row lock; one relay at a time, by advisory lock, and each batch fenced by `Nats-Expected-Last-Sequence` |
//! | a lost answer neither loses nor doubles | after any doubt the stream is asked what it has, message by message |
//! | an event's effect happens once | primary key (consumer, message) and a version gate, in the transaction of the effect |
//! | nothing stands in the way for ever | what can never be handled becomes a [dead letter](dead_letters), to be listed, replayed or discarded |
//! | a lost or rolled back event server heals | the outbox keeps published events for a time and publishes again what the stream does not have |
//! | a producer's database put back to an older state gives no version away twice | what the stream has and the outbox does not is written into it again |
//! | a consumer's database put back to an older state gets its effects back | it notes up to where it has everything, and everything behind that is delivered again |
//! | a person can see and mend all of it | [`operator`]'s routes, which the CLI calls |
//!
//! Aggregates are the unit of order: their versions count from 1 without gaps over all their events, so a consumer subscribes
//! to whole aggregate types (`documents.stock.*`), and a gap is a real gap.
//!
//! Not here: what events mean. Each service says that in its `messages.rs`.

pub mod asyncapi;
mod connection;
mod consumer;
pub mod dead_letters;
mod event;
pub mod failpoints;
mod inbox;
mod metrics;
pub mod operator;
mod outbox;
mod partitions;
pub mod refusals;
mod relay;
pub mod saga;

pub use connection::{Events, EventsError};
pub use consumer::{Consumer, ConsumerOptions, Handler, HandlerError};
pub use event::{Aggregate, CONTENT_TYPE, Event, Malformed, matches};
pub use outbox::{Error, NewEvent, Outbox};
pub use relay::{Relay, RelayOptions};
