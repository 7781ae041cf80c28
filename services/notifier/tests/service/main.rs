//! The service against a real PostgreSQL and subscribers that listen on real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod api;
mod authorization;
mod availability;
mod delivering;
mod description;
mod fanout;
mod reach;
mod statements;
mod world;
