//! The service against real servers: its statements, its operations, and the order transaction.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "in tests")]

mod bad_input;
mod description;
mod operators;
mod permissions;
mod requests;
mod statements;
mod steps;
mod transaction;
mod world;
