//! The service against a real PostgreSQL: each SQL statement, the order transaction, and every operation over HTTP as the
//! router sees it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod api;
mod authorization;
mod availability;
mod bad_input;
mod messages;
mod openapi;
mod order_transaction;
mod startup;
mod steps;
mod store;
mod world;
