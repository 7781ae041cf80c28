//! The order transaction and the return of credited goods, as one table: [`Process::decide`].
//!
//! Every order has one saga, and so has every credit note; its id is the document's. A saga's state says what this side
//! last asked item management for, and what it answered. The document's own state ([`crate::domain::State`]) is what
//! customers see; commands keep the two in step within one transaction.
//!
//! ```text
//!             ┌─ Refused ──────────────▶ Rejected
//! Reserving ──┼─ Reserved ═ pivot ═════▶ Taking ── Taken ──▶ Taken
//!             └─ Overdue, Cancelled ───▶ Releasing ── Released, Refused ──▶ Released
//!
//! Returning ── Returned ──▶ Returned
//! ```
//!
//! Before the pivot an order can be called off; after it the saga only goes forward: what is unanswered is asked again.
//! Every command is idempotent at item management, so repeating one is always safe. An answer that says stock is held
//! for an order that is dead is answered with a release, and one for an order that has taken its stock with a take:
//! so the two sides find together again even after one of them lost its memory.

use std::time::Duration;

use outbox::saga::{Illegal, Saga};
use postgres_types::{FromSql, ToSql};

use crate::domain::{Cancellation, Refusal};

/// Where a saga stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, FromSql, ToSql)]
#[postgres(name = "saga_state", rename_all = "lowercase")]
pub enum State {
    /// Order: item management was asked to reserve the stock.
    Reserving,
    /// Order: the stock is reserved and item management was asked to take it. Past the pivot.
    Taking,
    /// Order: the stock is taken. The end.
    Taken,
    /// Order: item management was asked to release whatever it holds, now or later.
    Releasing,
    /// Order: nothing is held. The end.
    Released,
    /// Order: item management refused, and holds nothing. The end.
    Rejected,
    /// Credit note: item management was asked to put the goods back. It waits there until it has taken them.
    Returning,
    /// Credit note: the goods are back in stock. The end.
    Returned,
}

/// What happens to a saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Item management holds all lines of the order.
    Reserved,
    /// Item management holds nothing, and will not.
    Refused(Refusal),
    /// Item management took the stock it held.
    Taken,
    /// Item management holds nothing any more, and will not.
    Released,
    /// Item management put the goods of a credit note back in stock.
    Returned,
    /// The customer, or a clerk for the customer, calls the order off.
    Cancelled,
    /// The answer has not come in time: an order's deadline, or the time to ask again.
    Overdue,
}

/// What is done, in the transaction that changes the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The order becomes CONFIRMED.
    Confirm,
    /// The order becomes REJECTED.
    Reject(Refusal),
    /// The order becomes CANCELLED.
    Cancel(Cancellation),
    /// The credit note becomes RETURNED.
    Close,
    /// Ask item management to take the reserved stock.
    Take,
    /// Ask item management to release the order's stock, now or whenever it is asked to reserve it.
    Release,
    /// Ask item management to put the credited goods back.
    Return,
}

/// The table.
#[derive(Debug)]
pub struct Process;

impl Saga for Process {
    type State = State;
    type Event = Event;
    type Command = Command;

    fn decide(state: &State, event: &Event) -> Result<(State, Vec<Command>), Illegal> {
        use {Command as Do, Event as On, State as In};
        Ok(match (state, event) {
            (In::Reserving, On::Reserved) => (In::Taking, vec![Do::Confirm, Do::Take]),
            (In::Reserving, On::Refused(refusal)) => (In::Rejected, vec![Do::Reject(refusal.clone())]),
            (In::Reserving, On::Overdue) => (In::Releasing, vec![Do::Cancel(Cancellation::Deadline), Do::Release]),
            (In::Reserving, On::Cancelled) => (In::Releasing, vec![Do::Cancel(Cancellation::Customer), Do::Release]),

            (In::Taking | In::Taken, On::Taken) | (In::Taken, On::Overdue) => (In::Taken, vec![]),
            (In::Taking | In::Taken, On::Reserved) | (In::Taking, On::Overdue) => (In::Taking, vec![Do::Take]),

            (In::Releasing, On::Released | On::Refused(_)) => (In::Released, vec![]),
            (In::Releasing, On::Overdue) => (In::Releasing, vec![Do::Release]),
            (In::Releasing, On::Reserved) => (In::Releasing, vec![]), // the release that is under way covers it
            (In::Released | In::Rejected, On::Reserved) => (In::Releasing, vec![Do::Release]),
            (In::Released | In::Rejected, On::Released | On::Refused(_) | On::Overdue) => (*state, vec![]),

            (In::Returning, On::Returned) => (In::Returned, vec![Do::Close]),
            (In::Returning, On::Overdue) => (In::Returning, vec![Do::Return]),
            (In::Returned, On::Returned | On::Overdue) => (In::Returned, vec![]),

            _ => return Err(Illegal::new(state, event)),
        })
    }
}

impl State {
    /// How long an answer to what was asked in this state may take before it is asked again, when it has been asked
    /// again `repeats` times already: doubling from half a minute to an hour. None where nothing is asked, or where a
    /// deadline was set when the order was placed.
    pub fn patience(self, repeats: u32) -> Option<Duration> {
        const FIRST: Duration = Duration::from_secs(30);
        const LONGEST: Duration = Duration::from_secs(3600);
        match self {
            Self::Taking | Self::Releasing | Self::Returning => Some(
                2_u32.checked_pow(repeats).and_then(|factor| FIRST.checked_mul(factor)).unwrap_or(LONGEST).min(LONGEST),
            ),
            Self::Reserving | Self::Taken | Self::Released | Self::Rejected | Self::Returned => None,
        }
    }
}

#[cfg(test)]
mod tests;
