//! The messages this service emits and the answers it consumes: their subjects and their data.
//!
//! `documents.stock.*` are commands to item management; `items.reservation.*` are its answers. `documents.order.*`,
//! `documents.invoice.*` and `documents.credit-note.*` are facts for whoever wants to know.

use database::Transaction;
use jiff::Timestamp;
use outbox::{Event, Handler, HandlerError, asyncapi::Description};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    domain::{Cancellation, Document, Head, Line, Money, Refusal, RefusalReason, Shortage},
    saga,
    store::{self, Cause},
};

/// The domain of its events.
pub const DOMAIN: &str = "documents";

/// The subjects of everything this service emits.
pub const EMITTED: [&str; 1] = ["documents.>"];

/// What this service emits, for others to read.
#[must_use]
pub fn described() -> Description {
    let text = "The shop's commercial documents: commands to item management, and facts for whoever wants to know.";
    let mut description = Description::new("eshop-documents", text).refusals(DOMAIN);
    macro_rules! messages {
        ($($message:ty),+) => {
            $(description = description.event::<$message>(<$message as Message>::SUBJECT);)+
        };
    }
    messages!(Reserve, Take, Release, Return);
    messages!(OrderPlaced, OrderConfirmed, OrderRejected, OrderCancelled, OrderInvoiced);
    messages!(InvoiceIssued, CreditNoteIssued);
    description
}

/// The stream the answers come from: item management's.
pub const STREAM: &str = "item-management";

/// The subjects of the answers: all events of the aggregate type `reservation`.
pub const SUBJECTS: [&str; 1] = ["items.reservation.*"];

/// Data of a message that is emitted under one subject.
pub trait Message: Serialize + Sync {
    /// Its subject.
    const SUBJECT: &'static str;

    /// The id of the aggregate it is an event of.
    fn aggregate(&self) -> Uuid;
}

macro_rules! message {
    ($subject:literal, $aggregate:ident, $(#[$doc:meta])* struct $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl Message for $name {
            const SUBJECT: &'static str = $subject;

            fn aggregate(&self) -> Uuid {
                self.$aggregate
            }
        }
    };
}

/// How many of an item are reserved or returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StockLine {
    /// The item.
    pub item_id: Uuid,
    /// How many.
    pub quantity: i64,
}

impl From<&Line> for StockLine {
    fn from(line: &Line) -> Self {
        Self { item_id: line.item_id, quantity: line.quantity }
    }
}

/// A line of a document, as others are told about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DocumentLine {
    /// The item.
    pub item_id: Uuid,
    /// Its stock keeping unit when it was ordered.
    pub sku: String,
    /// Its name when it was ordered.
    pub name: String,
    /// How many.
    pub quantity: i64,
    /// The price of one, in minor units of the document's currency.
    pub unit_price: i64,
}

impl From<&Line> for DocumentLine {
    fn from(line: &Line) -> Self {
        Self {
            item_id: line.item_id,
            sku: line.sku.clone(),
            name: line.name.clone(),
            quantity: line.quantity,
            unit_price: line.unit_price,
        }
    }
}

message! { "documents.stock.reserve", order_id,
    /// Hold all lines of an order, or none.
    struct Reserve {
        /// The order.
        order_id: Uuid,
        /// When the order is called off unless the answer has come.
        deadline: Timestamp,
        /// What to hold.
        lines: Vec<StockLine>,
    }
}

message! { "documents.stock.take", order_id,
    /// Take what is held for an order off the stock.
    struct Take {
        /// The order.
        order_id: Uuid,
    }
}

message! { "documents.stock.release", order_id,
    /// Hold nothing for an order, now or later.
    struct Release {
        /// The order.
        order_id: Uuid,
        /// Why.
        reason: ReleaseReason,
    }
}

message! { "documents.stock.return", credit_note_id,
    /// Put goods that were credited back in stock.
    struct Return {
        /// The credit note.
        credit_note_id: Uuid,
        /// The order the goods had been sold with.
        order_id: Uuid,
        /// What comes back.
        lines: Vec<StockLine>,
    }
}

message! { "documents.order.placed", order_id,
    /// A customer placed an order; its stock is being reserved.
    struct OrderPlaced {
        /// The order.
        order_id: Uuid,
        /// Its number.
        number: String,
        /// The subject of its customer.
        customer: String,
        /// Its total.
        total: Money,
        /// When it is called off unless it is confirmed.
        deadline: Timestamp,
        /// Its lines.
        lines: Vec<DocumentLine>,
    }
}

message! { "documents.order.confirmed", order_id,
    /// The stock of an order is reserved: it stands.
    struct OrderConfirmed {
        /// The order.
        order_id: Uuid,
        /// Its number.
        number: String,
        /// The subject of its customer.
        customer: String,
        /// Its total.
        total: Money,
    }
}

message! { "documents.order.rejected", order_id,
    /// Item management refused an order.
    struct OrderRejected {
        /// The order.
        order_id: Uuid,
        /// Its number.
        number: String,
        /// The subject of its customer.
        customer: String,
        /// Why.
        reason: RefusalReason,
        /// The items there was too little of.
        shortages: Vec<Shortage>,
    }
}

message! { "documents.order.cancelled", order_id,
    /// An order was called off before it was confirmed, or given up.
    struct OrderCancelled {
        /// The order.
        order_id: Uuid,
        /// Its number.
        number: String,
        /// The subject of its customer.
        customer: String,
        /// Why.
        reason: Cancellation,
    }
}

message! { "documents.order.invoiced", order_id,
    /// An order has its invoice.
    struct OrderInvoiced {
        /// The order.
        order_id: Uuid,
        /// Its number.
        number: String,
        /// The subject of its customer.
        customer: String,
        /// The invoice.
        invoice_id: Uuid,
    }
}

message! { "documents.invoice.issued", invoice_id,
    /// An invoice was issued.
    struct InvoiceIssued {
        /// The invoice.
        invoice_id: Uuid,
        /// The order it is for.
        order_id: Uuid,
        /// Its number.
        number: String,
        /// The subject of its customer.
        customer: String,
        /// Its total.
        total: Money,
        /// Its lines.
        lines: Vec<DocumentLine>,
    }
}

message! { "documents.credit-note.issued", credit_note_id,
    /// A credit note was issued; its goods are being put back in stock.
    struct CreditNoteIssued {
        /// The credit note.
        credit_note_id: Uuid,
        /// The invoice it is on.
        invoice_id: Uuid,
        /// The order the invoice is for.
        order_id: Uuid,
        /// Its number.
        number: String,
        /// The subject of its customer.
        customer: String,
        /// Its total.
        total: Money,
        /// Its lines.
        lines: Vec<DocumentLine>,
    }
}

/// Why an order's stock is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReleaseReason {
    /// Item management had not answered in time.
    Deadline,
    /// The customer, or a clerk for the customer, called the order off.
    Customer,
    /// The order had been refused, and yet its stock is held.
    Rejected,
    /// The order was confirmed, there was nothing for it, and it was given up.
    Unfulfilled,
    /// No such order is known: the database of documents was put back to an older state. What was taken comes back.
    Unknown,
    /// The order was called off by a database that had been put back to an older state, and did not know that the stock was taken. It
    /// comes back.
    Forgotten,
}

impl From<Option<Cancellation>> for ReleaseReason {
    /// The reason for an order that was called off so, or was not called off.
    fn from(cancellation: Option<Cancellation>) -> Self {
        match cancellation {
            Some(Cancellation::Deadline) => Self::Deadline,
            Some(Cancellation::Customer) => Self::Customer,
            Some(Cancellation::Unfulfilled) => Self::Unfulfilled,
            None => Self::Rejected,
        }
    }
}

fn lines(document: &Document) -> Vec<DocumentLine> {
    document.lines.iter().map(Into::into).collect()
}

impl OrderPlaced {
    /// This order was placed.
    pub fn new(order: &Document, deadline: Timestamp) -> Self {
        let Head { id, number, customer, total, .. } = order.head.clone();
        Self { order_id: id, number, customer, total, deadline, lines: lines(order) }
    }
}

impl OrderConfirmed {
    /// This order was confirmed.
    pub fn new(order: &Head) -> Self {
        let Head { id, number, customer, total, .. } = order.clone();
        Self { order_id: id, number, customer, total }
    }
}

impl OrderRejected {
    /// This order was refused so.
    pub fn new(order: &Head, refusal: Refusal) -> Self {
        let Head { id, number, customer, .. } = order.clone();
        Self { order_id: id, number, customer, reason: refusal.reason, shortages: refusal.shortages }
    }
}

impl OrderCancelled {
    /// This order was called off for this reason.
    pub fn new(order: &Head, reason: Cancellation) -> Self {
        let Head { id, number, customer, .. } = order.clone();
        Self { order_id: id, number, customer, reason }
    }
}

impl OrderInvoiced {
    /// This order has this invoice.
    pub fn new(order: &Head, invoice_id: Uuid) -> Self {
        let Head { id, number, customer, .. } = order.clone();
        Self { order_id: id, number, customer, invoice_id }
    }
}

impl InvoiceIssued {
    /// This invoice was issued for that order.
    pub fn new(invoice: &Document, order_id: Uuid) -> Self {
        let Head { id, number, customer, total, .. } = invoice.head.clone();
        Self { invoice_id: id, order_id, number, customer, total, lines: lines(invoice) }
    }
}

impl CreditNoteIssued {
    /// This credit note was issued on that invoice of that order.
    pub fn new(note: &Document, invoice_id: Uuid, order_id: Uuid) -> Self {
        let Head { id, number, customer, total, .. } = note.head.clone();
        Self { credit_note_id: id, invoice_id, order_id, number, customer, total, lines: lines(note) }
    }
}

/// Data of `items.reservation.refused`.
#[derive(Debug, Deserialize)]
struct Refused {
    reason: RefusalReason,
    #[serde(default)]
    lines: Vec<Shortage>,
}

/// What an answer of item management means to the saga it is about.
///
/// # Errors
/// Says what is wrong with a message that item management never sends.
fn meaning(event: &Event) -> Result<saga::Event, String> {
    match event.subject.strip_prefix("items.reservation.") {
        Some("reserved") => Ok(saga::Event::Reserved),
        Some("taken") => Ok(saga::Event::Taken),
        Some("released") => Ok(saga::Event::Released),
        Some("returned") => Ok(saga::Event::Returned),
        Some("return-refused") => Ok(saga::Event::ReturnRefused),
        Some("refused") => {
            let Refused { reason, lines } =
                Refused::deserialize(&event.data).map_err(|error| format!("its data does not fit: {error}"))?;
            Ok(saga::Event::Refused(Refusal { reason, shortages: lines }))
        }
        _ => Err(format!("`{}` is no answer of item management", event.subject)),
    }
}

/// Applies the answers of item management to the sagas they are about.
#[derive(Debug, Clone, Copy)]
pub struct Answers;

impl Handler for Answers {
    async fn handle(&self, tx: &Transaction<'_>, event: &Event) -> Result<(), HandlerError> {
        let meaning = meaning(event).map_err(HandlerError::Permanent)?;
        let cause = Cause { initiator: event.initiator.clone(), trace: event.trace };
        store::answer(tx, event.aggregate.id, &meaning, &cause).await.map_err(|error| match error {
            store::Error::Database(error) => error.into(),
            error => HandlerError::Permanent(error.to_string()),
        })
    }
}
