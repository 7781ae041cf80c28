//! The service against a real PostgreSQL and a real NATS: its statements, its operations, and what it finds when somebody has changed
//! the database.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod api;
mod authorization;
mod availability;
mod checkpoints;
mod description;
mod recording;
mod statements;
mod tampering;
mod world;
