//! The mesh's memory: every event, and every refusal, once, for ever, in an order that cannot be changed unnoticed.
//!
//! What is consumed from the event bus, and what services without an outbox report, is appended to a chain in which each entry's hash
//! covers the entry before it. Auditors read it, and have it verified. Signed heads of it go to the event bus, so that even cutting off
//! its end is found. `docs/audit.md` tells what all that proves and what it does not.
//!
//! [`domain`] holds entries, hashes and the walk along the chain, [`store`] every SQL statement, [`api`] HTTP, [`messages`] what is consumed
//! and emitted, [`chain`] the one writer, [`checkpoint`] signed heads. What an event means is not known here.

pub mod api;
pub mod chain;
pub mod checkpoint;
pub mod domain;
pub mod messages;
pub mod store;
