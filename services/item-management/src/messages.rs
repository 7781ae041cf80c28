//! What the service consumes and emits.
//!
//! It consumes the commands `documents.stock.*` of the order transaction and answers each with `items.reservation.*`; effect and
//! answer commit together. It emits the facts `items.item.*` about what people did through the API.

use std::collections::BTreeMap;

use database::Transaction;
use jiff::Timestamp;
use outbox::{Event, Handler, HandlerError, NewEvent, Outbox};
use runtime::{clock::Clock, trace::TraceContext};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{
    domain::{
        self, Command, EntryKind, Item, Line, OrderLines, Refusal, RefusalReason, ReservationState, Shortage, Step, Stock, StockEntry,
        StockError,
    },
    store::{self, Entry, Reservation},
};

/// The stream the commands come from: that of the service which gives them.
pub const STREAM: &str = "eshop-documents";
/// The commands.
pub const SUBJECTS: [&str; 1] = ["documents.stock.*"];

/// `documents.stock.reserve`: promise all lines to the order, or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserve {
    /// The order.
    pub order_id: Uuid,
    /// Until when the order means to be confirmed. It is kept for people to see: the documents service watches it.
    #[serde(default)]
    pub deadline: Option<Timestamp>,
    /// What it wants; an item may stand in several lines.
    pub lines: Vec<Line>,
}

/// `documents.stock.take` and `documents.stock.release`: the order was confirmed, or given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settle {
    /// The order.
    pub order_id: Uuid,
}

/// `documents.stock.return`: goods came back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Return {
    /// The credit note.
    pub credit_note_id: Uuid,
    /// The order that took the goods.
    pub order_id: Uuid,
    /// The goods.
    pub lines: Vec<Line>,
}

/// What the service answers to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// `items.reservation.reserved`: all lines are promised to the order.
    Reserved {
        /// The order.
        order_id: Uuid,
    },
    /// `items.reservation.refused`: nothing is promised to the order.
    Refused {
        /// The order.
        order_id: Uuid,
        /// Why.
        reason: RefusalReason,
        /// What was missing.
        lines: Vec<Shortage>,
    },
    /// `items.reservation.taken`: the order's stock left the house.
    Taken {
        /// The order.
        order_id: Uuid,
    },
    /// `items.reservation.released`: nothing is promised to the order any more.
    Released {
        /// The order.
        order_id: Uuid,
    },
    /// `items.reservation.returned`: the goods are on hand again.
    Returned {
        /// The credit note.
        credit_note_id: Uuid,
    },
}

impl Answer {
    fn refused(order_id: Uuid, refusal: Refusal) -> Self {
        Self::Refused { order_id, reason: refusal.reason, lines: refusal.lines }
    }

    /// Subject, and the aggregate it is about.
    fn address(&self) -> (&'static str, Uuid) {
        match *self {
            Self::Reserved { order_id } => ("items.reservation.reserved", order_id),
            Self::Refused { order_id, .. } => ("items.reservation.refused", order_id),
            Self::Taken { order_id } => ("items.reservation.taken", order_id),
            Self::Released { order_id } => ("items.reservation.released", order_id),
            Self::Returned { credit_note_id } => ("items.reservation.returned", credit_note_id),
        }
    }
}

/// What somebody did to an item through the API.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Fact<'a> {
    /// `items.item.created`.
    Created(&'a Item),
    /// `items.item.updated`.
    Updated(&'a Item),
    /// `items.item.deleted`; the item as it was.
    Deleted(&'a Item),
    /// `items.item.stock-adjusted`.
    StockAdjusted(&'a StockEntry),
}

impl Fact<'_> {
    fn address(&self) -> (&'static str, Uuid) {
        match self {
            Self::Created(item) => ("items.item.created", item.id),
            Self::Updated(item) => ("items.item.updated", item.id),
            Self::Deleted(item) => ("items.item.deleted", item.id),
            Self::StockAdjusted(entry) => ("items.item.stock-adjusted", entry.item_id),
        }
    }

    /// Owes the world this fact, if the transaction commits; `initiator` is the subject of who did it.
    pub async fn emit(&self, tx: &Transaction<'_>, initiator: &str) -> Result<(), database::Error> {
        let (subject, aggregate_id) = self.address();
        let event = NewEvent {
            subject,
            aggregate_id,
            saga: None,
            initiator: Some(initiator),
            trace: TraceContext::current(),
            data: self,
        };
        Outbox::put(tx, event).await?;
        Ok(())
    }
}

/// Does what `eshop-documents` asks for.
#[derive(Debug, Clone)]
pub struct StockKeeper {
    /// For the times in the books.
    pub clock: Clock,
}

impl Handler for StockKeeper {
    async fn handle(&self, tx: &Transaction<'_>, event: &Event) -> Result<(), HandlerError> {
        let now = self.clock.now();
        let answer = match event.subject.as_str() {
            "documents.stock.reserve" => reserve(tx, read(event)?, now).await,
            "documents.stock.take" => take(tx, read(event)?, actor(event), now).await,
            "documents.stock.release" => release(tx, read(event)?, now).await,
            "documents.stock.return" => put_back(tx, read(event)?, actor(event), now).await,
            other => Err(HandlerError::Permanent(format!("no such command: {other}"))),
        }?;
        let (subject, aggregate_id) = answer.address();
        let reply = NewEvent {
            subject,
            aggregate_id,
            saga: event.saga,
            initiator: event.initiator.as_deref(),
            trace: event.trace,
            data: &answer,
        };
        Outbox::put(tx, reply).await?;
        Ok(())
    }
}
