//! The shop's commercial documents: orders, invoices, credit notes.
//!
//! The service answers for what was ordered at which price, and for what became of it. It drives the order transaction:
//! `item-management` reserves, takes, releases and returns stock because this service asks it to by message. How much stock
//! there is, is not known here.
//!
//! [`domain`] holds the rules, [`saga`] the order transaction as a table, [`store`] every SQL statement, [`api`] HTTP,
//! [`messages`] what is consumed and emitted, [`quotes`] the one call to another service; [`outcomes`] and [`sweeper`] run
//! beside the requests.

pub mod api;
pub mod domain;
pub mod failpoints;
pub mod messages;
pub mod outcomes;
pub mod quotes;
pub mod saga;
pub mod store;
pub mod sweeper;
