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
//! for an order that is dead is answered with a release, one that says it was taken for such an order with undoing that, and one
//! for an order that has taken its stock with a take: so the two sides find together again even after one of them lost its memory.
//!
//! Only after that can item management have nothing for an order that is past its pivot, or refuse the goods of a credit note. Then
//! there is no way forward, and which way back is right no table knows: a person decides.
//!
//! ```text
//! Taking, Taken ── Released, Refused ──▶ Unfulfilled ── Abandoned ──▶ Released
//! Returning, Returned ── ReturnRefused ──▶ Unreturned ── Abandoned ──▶ Abandoned
//! ```

use std::{fmt, time::Duration};

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
    /// Order: past the pivot, and yet item management has nothing for it and never will. It waits for an operator.
    Unfulfilled,
    /// Credit note: item management was asked to put the goods back. It waits there until it has taken them.
    Returning,
    /// Credit note: the goods are back in stock. The end.
    Returned,
    /// Credit note: item management does not take the goods. It waits for an operator.
    Unreturned,
    /// Credit note: given up, its goods are not back in stock. The end.
    Abandoned,
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
    /// Item management does not take the goods of a credit note: the order has taken nothing, or less.
    ReturnRefused,
    /// The customer, or a clerk for the customer, calls the order off.
    Cancelled,
    /// The answer has not come in time: an order's deadline, or the time to ask again.
    Overdue,
    /// An operator gives up what has no way forward.
    Abandoned,
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
    /// The credit note becomes ISSUED again.
    Reopen,
    /// Ask item management to take the reserved stock.
    Take,
    /// Ask item management to release the order's stock, now or whenever it is asked to reserve it.
    Release,
    /// Tell item management to undo whatever it did for the order, also that it took the stock.
    Undo,
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

            (In::Taking | In::Taken | In::Unfulfilled, On::Taken) | (In::Taken, On::Overdue) => (In::Taken, vec![]),
            (In::Taking | In::Taken | In::Unfulfilled, On::Reserved) | (In::Taking | In::Unfulfilled, On::Overdue) => {
                (In::Taking, vec![Do::Take])
            }
            (In::Taking | In::Taken | In::Unfulfilled, On::Released | On::Refused(_)) => (In::Unfulfilled, vec![]),
            (In::Unfulfilled, On::Abandoned) => (In::Released, vec![Do::Cancel(Cancellation::Unfulfilled)]),

            (In::Releasing, On::Released | On::Refused(_)) => (In::Released, vec![]),
            (In::Releasing, On::Overdue) => (In::Releasing, vec![Do::Release]),
            (In::Releasing, On::Reserved) => (In::Releasing, vec![]), // the release that is under way covers it
            (In::Released | In::Rejected, On::Reserved) => (In::Releasing, vec![Do::Release]),
            (In::Releasing | In::Released | In::Rejected, On::Taken) => (In::Releasing, vec![Do::Undo]),
            (In::Released | In::Rejected, On::Released | On::Refused(_) | On::Overdue) => (*state, vec![]),

            (In::Returning | In::Unreturned | In::Abandoned, On::Returned) => (In::Returned, vec![Do::Close]),
            (In::Returning | In::Unreturned, On::Overdue) => (In::Returning, vec![Do::Return]),
            (In::Returning | In::Unreturned, On::ReturnRefused) => (In::Unreturned, vec![]),
            (In::Returning | In::Unreturned, On::Abandoned) => (In::Abandoned, vec![]),
            (In::Returned, On::Returned | On::Overdue) => (In::Returned, vec![]),
            (In::Returned, On::ReturnRefused) => (In::Unreturned, vec![Do::Reopen]),
            (In::Abandoned, On::ReturnRefused | On::Overdue) => (In::Abandoned, vec![]),

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
            Self::Reserving
            | Self::Taken
            | Self::Released
            | Self::Rejected
            | Self::Unfulfilled
            | Self::Returned
            | Self::Unreturned
            | Self::Abandoned => None,
        }
    }

    /// What an operator may do to a saga in this state.
    pub fn allows(self) -> &'static [Intervention] {
        match self {
            Self::Reserving => &[Intervention::Cancel],
            Self::Taking | Self::Releasing => &[Intervention::Retry],
            Self::Unfulfilled | Self::Returning | Self::Unreturned => &[Intervention::Retry, Intervention::Abandon],
            Self::Taken | Self::Released | Self::Rejected | Self::Returned | Self::Abandoned => &[],
        }
    }

    /// Checks that an operator may do this to a saga in this state.
    ///
    /// # Errors
    /// [`Forbidden`] says what may be done instead.
    pub fn permit(self, intervention: Intervention) -> Result<(), Forbidden> {
        if self.allows().contains(&intervention) { Ok(()) } else { Err(Forbidden(self)) }
    }
}

/// What an operator may do to a saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intervention {
    /// Ask at once for what it waits for, or once more.
    Retry,
    /// Call it off before its pivot.
    Cancel,
    /// Give up what has no way forward.
    Abandon,
}

impl Intervention {
    /// The command of `berth sagas` that does it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Cancel => "cancel",
            Self::Abandon => "abandon",
        }
    }
}

/// The state of a saga does not allow what an operator wanted to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct Forbidden(pub State);

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = format!("{:?}", self.0).to_lowercase();
        let allowed: Vec<&str> = self.0.allows().iter().map(|intervention| intervention.name()).collect();
        match allowed.as_slice() {
            [] => write!(f, "The saga is {state}: it has come to its end."),
            allowed => write!(f, "The saga is {state}, which allows: {}.", allowed.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests;
