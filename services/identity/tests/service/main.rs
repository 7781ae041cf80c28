//! The service against a real PostgreSQL: each SQL statement, and every flow over HTTP as the router sees it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]
#![allow(unreachable_pub, reason = "`pub` is for the other modules of the test")]

mod authorization;
mod authorize;
mod availability;
mod bad_input;
mod bootstrap;
mod clients;
mod code_flow;
mod keys;
mod lockout;
mod refresh;
mod store;
mod world;
