//! The bodies of requests and answers.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::{
    Cancellation, Document, Head, Invalid, Kind, Line, MAX_LINES, MAX_QUANTITY, Money, Operation, OrderState,
    RefusalReason, SelectedLine, Selection, Shortage, Standing, State,
};

/// A document to be made by request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDocument {
    /// What sort of document.
    pub kind: NewKind,
    /// What is ordered; every item once.
    #[schema(min_items = 1, max_items = 100)]
    pub lines: Vec<NewLine>,
}

/// What sort of document can be made so. Invoices and credit notes are issued on another document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NewKind {
    /// An order.
    Order,
}

/// A credit note to be issued on an invoice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCreditNote {
    /// What is taken back; every item once.
    #[schema(min_items = 1, max_items = 100)]
    pub lines: Vec<NewLine>,
}

/// How many of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewLine {
    /// The item.
    pub item_id: Uuid,
    /// How many of it.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub quantity: i64,
}

const _: () = assert!(MAX_LINES == 100 && MAX_QUANTITY == 1_000_000, "the schemas above say the limits as numbers");

/// Checks the lines of a request.
pub(super) fn selection(lines: &[NewLine]) -> Result<Selection, Vec<Invalid>> {
    Selection::new(lines.iter().map(|&NewLine { item_id, quantity }| SelectedLine { item_id, quantity }).collect())
}

/// A document as its readers see it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Document)]
pub struct DocumentView {
    #[serde(flatten)]
    head: HeadView,
    /// In the order they were asked for.
    lines: Vec<LineView>,
}

/// A document without its lines.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = DocumentSummary)]
pub struct HeadView {
    /// Never changes.
    id: Uuid,
    /// What sort of document it is.
    kind: Kind,
    /// The number people know it by. Those of invoices and of credit notes have no gaps within a year.
    #[schema(example = "INV-2026-000001")]
    number: String,
    /// The subject of the customer whose document it is.
    customer: String,
    /// Where it stands.
    state: State,
    /// Why an order was rejected or cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    /// The items there was too little of, when an order was rejected for that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shortages: Vec<Shortage>,
    /// When an order is called off unless it is confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<Timestamp>,
    /// The document it rests on: of an invoice its order, of a credit note its invoice.
    #[serde(skip_serializing_if = "Option::is_none")]
    based_on: Option<Uuid>,
    /// The sum of the lines.
    total: Money,
    /// What can be done to it now, by those who may.
    allowed: Vec<Operation>,
    /// Grows by one with every change; the entity tag.
    version: i64,
    /// When it was made.
    created_at: Timestamp,
    /// When it last changed.
    updated_at: Timestamp,
}

/// Why an order was rejected or cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Reason {
    /// Item management refused it.
    Refusal(RefusalReason),
    /// It was called off.
    Cancellation(Cancellation),
}

/// A line of a document.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = DocumentLine)]
pub struct LineView {
    /// The item.
    item_id: Uuid,
    /// Its sku when it was ordered.
    sku: String,
    /// Its name when it was ordered.
    name: String,
    /// How many.
    quantity: i64,
    /// Of one, as quoted when it was ordered.
    unit_price: Money,
    /// Of all of them.
    total: Money,
    /// On an invoice: how many of them credit notes have taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    credited: Option<i64>,
}

impl HeadView {
    /// Which document it is.
    pub(super) fn id(&self) -> Uuid {
        self.id
    }
}

impl From<Head> for HeadView {
    fn from(head: Head) -> Self {
        let Head { id, number, customer, standing, total, version, created_at, updated_at } = head;
        let (kind, state, allowed) = (standing.kind(), standing.state(), standing.allowed().to_vec());
        let (deadline, based_on) = match &standing {
            Standing::Order { deadline, .. } => (Some(*deadline), None),
            Standing::Invoice { order: basis } | Standing::CreditNote { invoice: basis, .. } => (None, Some(*basis)),
        };
        let (reason, shortages) = match standing {
            Standing::Order { state: OrderState::Rejected(refusal), .. } => {
                (Some(Reason::Refusal(refusal.reason)), refusal.shortages)
            }
            Standing::Order { state: OrderState::Cancelled(reason), .. } => {
                (Some(Reason::Cancellation(reason)), vec![])
            }
            _ => (None, vec![]),
        };
        Self {
            id,
            kind,
            number,
            customer,
            state,
            reason,
            shortages,
            deadline,
            based_on,
            total,
            allowed,
            version,
            created_at,
            updated_at,
        }
    }
}

impl From<Document> for DocumentView {
    fn from(document: Document) -> Self {
        let Document { head, lines } = document;
        let currency = head.total.currency;
        let invoice = head.standing.kind() == Kind::Invoice;
        let view = |line: Line| LineView {
            item_id: line.item_id,
            unit_price: Money { amount: line.unit_price, currency },
            total: Money { amount: line.total().unwrap_or(i64::MAX), currency },
            quantity: line.quantity,
            sku: line.sku,
            name: line.name,
            credited: invoice.then_some(line.credited),
        };
        Self { lines: lines.into_iter().map(view).collect(), head: head.into() }
    }
}
