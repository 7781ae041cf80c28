//! The gateway in this process, with real sockets and real TLS on both sides.
#![allow(clippy::unwrap_used)]

mod failures;
mod limits;
mod operation;
mod requests;
mod world;
