//! What clients asked for and were told: the other side of the books, kept by those whom the shop owes.

use std::collections::BTreeMap;

use uuid::Uuid;

/// So many of an item.
pub type Line = (Uuid, i64);

/// What clients remember.
#[derive(Debug, Default)]
pub struct History {
    /// What each item began with.
    pub openings: BTreeMap<Uuid, i64>,
    /// Orders, by the key they were placed under.
    pub orders: Vec<Order>,
    /// Changes of stock.
    pub adjustments: Vec<Adjustment>,
    /// Invoices.
    pub invoices: Vec<Invoice>,
    /// Credit notes.
    pub credit_notes: Vec<CreditNote>,
    /// Answers that must never be given, in words.
    pub outrages: Vec<String>,
    /// Requests that were sent, repetitions included.
    pub requests: u64,
}

/// One wish to buy something, however often it was sent.
#[derive(Debug)]
pub struct Order {
    /// Its `Idempotency-Key`.
    pub key: String,
    /// What was wanted.
    pub lines: Vec<Line>,
    /// What the client was told last.
    pub told: Told,
}

/// What a client was told of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Nothing, or that it may have been done: an answer that was lost, an error that says nothing.
    Nothing,
    /// That nothing was done, and why not (the HTTP status).
    Refused(u16),
    /// That it is placed, as this document.
    Placed(Uuid),
    /// How it ended.
    Ended(Uuid, End),
}

/// How an order ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It stands.
    Confirmed,
    /// The stock did not suffice.
    Rejected,
    /// Called off, by its customer or by its deadline.
    Cancelled,
}

impl Told {
    /// The document that was named.
    pub fn document(self) -> Option<Uuid> {
        match self {
            Self::Placed(document) | Self::Ended(document, _) => Some(document),
            Self::Nothing | Self::Refused(_) => None,
        }
    }
}

impl End {
    /// The end that a document's state tells, if it is one.
    pub fn of_state(state: &str) -> Option<Self> {
        match state {
            "CONFIRMED" | "INVOICED" => Some(Self::Confirmed),
            "REJECTED" => Some(Self::Rejected),
            "CANCELLED" => Some(Self::Cancelled),
            _ => None,
        }
    }
}

/// A change of stock.
#[derive(Debug)]
pub struct Adjustment {
    /// Its `Idempotency-Key`.
    pub key: String,
    /// Of which item.
    pub item: Uuid,
    /// By how much.
    pub change: i64,
    /// Whether it was done; none if nobody said.
    pub done: Option<bool>,
}

/// An invoice that was asked for.
#[derive(Debug)]
pub struct Invoice {
    /// For which order.
    pub order: Uuid,
    /// Its id, if it was acknowledged.
    pub document: Option<Uuid>,
}

/// A credit note that was asked for.
#[derive(Debug)]
pub struct CreditNote {
    /// Its `Idempotency-Key`.
    pub key: String,
    /// On which invoice.
    pub invoice: Uuid,
    /// Its id, if it was acknowledged.
    pub document: Option<Uuid>,
}

impl History {
    /// Adds what somebody else remembers.
    pub fn merge(&mut self, other: Self) {
        self.openings.extend(other.openings);
        self.orders.extend(other.orders);
        self.adjustments.extend(other.adjustments);
        self.invoices.extend(other.invoices);
        self.credit_notes.extend(other.credit_notes);
        self.outrages.extend(other.outrages);
        self.requests += other.requests;
    }

    /// Orders that were acknowledged, and those of which nobody knows.
    pub fn tally(&self) -> (usize, usize) {
        let acknowledged = self.orders.iter().filter(|order| order.told.document().is_some()).count();
        let unknown = self.orders.iter().filter(|order| order.told == Told::Nothing).count();
        (acknowledged, unknown)
    }
}
