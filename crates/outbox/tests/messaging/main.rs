//! Outbox, relay and inbox against a real PostgreSQL and a real nats-server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, unreachable_pub)]

mod consumer;
mod dead_letters;
mod metrics;
mod operator;
mod outbox;
mod partitions;
mod relay;
mod secured;
mod world;
