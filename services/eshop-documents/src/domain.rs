//! What the shop's commercial documents are, and the rules between them: prices, totals, what may be credited, what a
//! state allows. Pure: no clock, no database, no messages.
//!
//! Amounts are whole minor units (cents) in an `i64`; every product and sum is checked, and one that grows past
//! [`MAX_AMOUNT`] is an error that names the line.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    str::FromStr,
    time::Duration,
};

use jiff::Timestamp;
use postgres_types::{FromSql, ToSql};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The most lines one document may have.
pub const MAX_LINES: usize = 100;

/// The largest amount of money, in minor units: the largest integer that every JSON reader holds exactly (RFC 8259 §6).
pub const MAX_AMOUNT: i64 = 9_007_199_254_740_991;

/// The largest quantity of one line.
pub const MAX_QUANTITY: i64 = 1_000_000;

/// A field of a request that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Where the field stands in the request's body (RFC 6901).
    pub pointer: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl Invalid {
    fn line(index: usize, field: &str, message: impl Into<String>) -> Self {
        Self { pointer: format!("/lines/{index}/{field}"), message: message.into() }
    }
}

/// An ISO 4217 alphabetic code, such as `EUR`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// The three letters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromStr for Currency {
    type Err = NotACurrency;

    fn from_str(text: &str) -> Result<Self, NotACurrency> {
        match <[u8; 3]>::try_from(text.as_bytes()) {
            Ok(letters) if letters.iter().all(u8::is_ascii_uppercase) => Ok(Self(letters)),
            _ => Err(NotACurrency(text.chars().take(16).collect())),
        }
    }
}

/// A text that is not three capital letters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a currency code of three capital letters")]
pub struct NotACurrency(String);

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<String> for Currency {
    type Error = NotACurrency;

    fn try_from(text: String) -> Result<Self, NotACurrency> {
        text.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.as_str().to_owned()
    }
}

/// An amount of money. Never a floating point number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Money {
    /// Minor units of the currency: 1999 EUR is 19.99 euros.
    #[schema(minimum = 0, example = 1999)]
    pub amount: i64,
    /// ISO 4217 code.
    #[schema(value_type = String, pattern = "^[A-Z]{3}$", example = "EUR")]
    #[serde(with = "currency_text")]
    pub currency: Currency,
}

mod currency_text {
    use super::Currency;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(currency: &Currency, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(currency.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Currency, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Which items, and how many of each: 1 to [`MAX_LINES`] lines, every item once, every quantity from 1 to [`MAX_QUANTITY`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection(Vec<SelectedLine>);

/// One line of a [`Selection`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SelectedLine {
    /// The item.
    pub item_id: Uuid,
    /// How many of it.
    pub quantity: i64,
}

impl Selection {
    /// Checks the lines of a request.
    ///
    /// # Errors
    /// Every field that breaks a rule, not the first one alone.
    pub fn new(lines: Vec<SelectedLine>) -> Result<Self, Vec<Invalid>> {
        if lines.is_empty() || lines.len() > MAX_LINES {
            let message = format!("must have 1 to {MAX_LINES} lines, has {}", lines.len());
            return Err(vec![Invalid { pointer: "/lines".to_owned(), message }]);
        }
        let mut seen = HashSet::new();
        let mut invalid = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            if !(1..=MAX_QUANTITY).contains(&line.quantity) {
                invalid.push(Invalid::line(index, "quantity", format!("must be from 1 to {MAX_QUANTITY}")));
            }
            if !seen.insert(line.item_id) {
                invalid.push(Invalid::line(
                    index,
                    "item_id",
                    "stands in an earlier line already; put the quantities together",
                ));
            }
        }
        if invalid.is_empty() { Ok(Self(lines)) } else { Err(invalid) }
    }

    /// The lines, in the order of the request.
    pub fn lines(&self) -> &[SelectedLine] {
        &self.0
    }
}

/// What item management said an item is and costs at the moment of the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// The item's stock keeping unit, copied to the document.
    pub sku: String,
    /// The item's name, copied to the document.
    pub name: String,
    /// The price of one.
    pub price: Money,
}

/// One line of a document. Its price never changes, whatever becomes of the item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The item.
    pub item_id: Uuid,
    /// Its stock keeping unit when it was ordered.
    pub sku: String,
    /// Its name when it was ordered.
    pub name: String,
    /// How many.
    pub quantity: i64,
    /// The price of one as quoted, in minor units of the document's currency.
    pub unit_price: i64,
    /// How many of them credit notes have taken back; above zero only on an invoice.
    pub credited: i64,
}

impl Line {
    /// `quantity × unit_price`, when that is an amount that can be written down. It always is on a document.
    pub fn total(&self) -> Option<i64> {
        payable(self.quantity.checked_mul(self.unit_price))
    }
}

/// Lines with their prices, all in one currency, and the sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// At least one.
    pub lines: Vec<Line>,
    /// The sum of the lines' totals.
    pub total: Money,
}

impl Contents {
    /// Adds the lines up.
    fn new(lines: Vec<Line>, currency: Currency) -> Result<Self, Vec<Invalid>> {
        let mut amount = 0_i64;
        for (index, line) in lines.iter().enumerate() {
            amount = line.total().and_then(|total| payable(amount.checked_add(total))).ok_or_else(|| {
                vec![Invalid::line(index, "quantity", format!("brings the total above {MAX_AMOUNT}"))]
            })?;
        }
        Ok(Self { lines, total: Money { amount, currency } })
    }
}

/// An amount that came out of checked arithmetic, if it is one that can be written down.
fn payable(amount: Option<i64>) -> Option<i64> {
    amount.filter(|amount| (0..=MAX_AMOUNT).contains(amount))
}

/// Puts prices to what a customer selected.
///
/// # Errors
/// Names each line whose item is unknown, whose currency differs from the first line's, or whose total does not fit.
pub fn price(selection: &Selection, quotes: &HashMap<Uuid, Quote>) -> Result<Contents, Vec<Invalid>> {
    let mut currency = None;
    let mut lines = Vec::new();
    let mut invalid = Vec::new();
    for (index, &SelectedLine { item_id, quantity }) in selection.lines().iter().enumerate() {
        let Some(quote) = quotes.get(&item_id) else {
            invalid.push(Invalid::line(index, "item_id", "no such item"));
            continue;
        };
        let expected = *currency.get_or_insert(quote.price.currency);
        if quote.price.currency != expected {
            let message = format!(
                "is sold in {}, the lines before it in {expected}; place one order per currency",
                quote.price.currency
            );
            invalid.push(Invalid::line(index, "item_id", message));
            continue;
        }
        lines.push(Line {
            item_id,
            sku: quote.sku.clone(),
            name: quote.name.clone(),
            quantity,
            unit_price: quote.price.amount,
            credited: 0,
        });
    }
    match currency {
        Some(currency) if invalid.is_empty() => Contents::new(lines, currency),
        _ => Err(invalid),
    }
}

/// What a credit note over `selection` of an invoice holds.
///
/// # Errors
/// Names each line whose item the invoice does not have, or of which fewer are left than asked for.
pub fn credit(invoice: &Contents, selection: &Selection) -> Result<Contents, Vec<Invalid>> {
    let invoiced: HashMap<Uuid, &Line> = invoice.lines.iter().map(|line| (line.item_id, line)).collect();
    let mut lines = Vec::new();
    let mut invalid = Vec::new();
    for (index, &SelectedLine { item_id, quantity }) in selection.lines().iter().enumerate() {
        let Some(line) = invoiced.get(&item_id) else {
            invalid.push(Invalid::line(index, "item_id", "is not on the invoice"));
            continue;
        };
        let left = line.quantity.saturating_sub(line.credited);
        if quantity > left {
            let message = format!(
                "at most {left} can be credited: {} invoiced, {} credited already",
                line.quantity, line.credited
            );
            invalid.push(Invalid::line(index, "quantity", message));
            continue;
        }
        lines.push(Line { quantity, credited: 0, ..Line::clone(line) });
    }
    if invalid.is_empty() { Contents::new(lines, invoice.total.currency) } else { Err(invalid) }
}

/// How long item management has to answer an order: 1 second to a day, half a minute unless set otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience(Duration);

impl Patience {
    /// The time from placing an order to its deadline.
    pub fn get(self) -> Duration {
        self.0
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self(Duration::from_secs(30))
    }
}

impl FromStr for Patience {
    type Err = NoPatience;

    /// From whole seconds.
    fn from_str(text: &str) -> Result<Self, NoPatience> {
        match text.parse() {
            Ok(seconds @ 1..=86_400) => Ok(Self(Duration::from_secs(seconds))),
            _ => Err(NoPatience),
        }
    }
}

/// A text that is no [`Patience`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be whole seconds from 1 to 86400")]
pub struct NoPatience;

/// What sort of document it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, FromSql, ToSql, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[postgres(name = "document_kind", rename_all = "kebab-case")]
pub enum Kind {
    /// What a customer wants to buy.
    Order,
    /// What a customer owes for a confirmed order.
    Invoice,
    /// What a customer gets back of an invoice.
    CreditNote,
}

/// The one word for where a document stands. [`Standing`] says what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, FromSql, ToSql, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[postgres(name = "document_state", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// An order whose stock is not reserved yet.
    Pending,
    /// An order whose stock is reserved, and will be taken.
    Confirmed,
    /// A confirmed order that has its invoice.
    Invoiced,
    /// An order that item management refused.
    Rejected,
    /// An order that was called off before it was confirmed; or given up, because what it was confirmed for was lost.
    Cancelled,
    /// An invoice; or a credit note whose goods are not back in stock yet.
    Issued,
    /// A credit note whose goods are back in stock.
    Returned,
}

/// Where a document stands, with all that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// An order.
    Order {
        /// Where it stands.
        state: OrderState,
        /// When it is called off unless item management has answered.
        deadline: Timestamp,
    },
    /// An invoice. It is issued and stays so.
    Invoice {
        /// The order it is for.
        order: Uuid,
    },
    /// A credit note.
    CreditNote {
        /// The invoice it is on.
        invoice: Uuid,
        /// Whether item management has put the goods back in stock.
        returned: bool,
    },
}

/// Where an order stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderState {
    /// Its stock is not reserved yet.
    Pending,
    /// Its stock is reserved, and will be taken.
    Confirmed,
    /// It has its invoice.
    Invoiced,
    /// Item management refused it.
    Rejected(Refusal),
    /// It was called off before it was confirmed, or given up.
    Cancelled(Cancellation),
}

/// Why item management refused an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reason in one word.
    pub reason: RefusalReason,
    /// The items there was too little of.
    pub shortages: Vec<Shortage>,
}

/// Why item management refused an order, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, FromSql, ToSql, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[postgres(name = "refusal_reason", rename_all = "kebab-case")]
pub enum RefusalReason {
    /// There is less on hand than was asked for.
    InsufficientStock,
    /// An item was deleted after it was quoted.
    UnknownItem,
    /// The order had been released before item management saw it.
    Released,
}

/// An item there was too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Shortage {
    /// The item.
    pub item_id: Uuid,
    /// How many were asked for.
    pub requested: i64,
    /// How many there were.
    pub available: i64,
}

/// Why an order was called off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, FromSql, ToSql, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[postgres(name = "cancellation", rename_all = "kebab-case")]
pub enum Cancellation {
    /// Item management had not answered in time.
    Deadline,
    /// The customer, or a clerk for the customer, called it off.
    Customer,
    /// It was confirmed, and after a database had been put back to an older state there was no stock for it. An operator gave it up.
    Unfulfilled,
}

/// What can be done to a document by request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Call a pending order off.
    Cancel,
    /// Issue the invoice of a confirmed order.
    Invoice,
    /// Issue a credit note on an invoice.
    CreditNotes,
}

impl Standing {
    /// What sort of document stands so.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Order { .. } => Kind::Order,
            Self::Invoice { .. } => Kind::Invoice,
            Self::CreditNote { .. } => Kind::CreditNote,
        }
    }

    /// The one word for it.
    pub fn state(&self) -> State {
        match self {
            Self::Order { state, .. } => match state {
                OrderState::Pending => State::Pending,
                OrderState::Confirmed => State::Confirmed,
                OrderState::Invoiced => State::Invoiced,
                OrderState::Rejected(_) => State::Rejected,
                OrderState::Cancelled(_) => State::Cancelled,
            },
            Self::Invoice { .. } | Self::CreditNote { returned: false, .. } => State::Issued,
            Self::CreditNote { returned: true, .. } => State::Returned,
        }
    }

    /// What can be done from here by request.
    pub fn allowed(&self) -> &'static [Operation] {
        match self {
            Self::Order { state: OrderState::Pending, .. } => &[Operation::Cancel],
            Self::Order { state: OrderState::Confirmed, .. } => &[Operation::Invoice],
            Self::Invoice { .. } => &[Operation::CreditNotes],
            Self::Order { .. } | Self::CreditNote { .. } => &[],
        }
    }

    /// Checks that `operation` can be done from here.
    ///
    /// # Errors
    /// [`NotAllowed`] says what can be done instead.
    pub fn permit(&self, operation: Operation) -> Result<(), NotAllowed> {
        if self.allowed().contains(&operation) {
            return Ok(());
        }
        Err(NotAllowed { kind: self.kind(), state: self.state(), allowed: self.allowed() })
    }
}

/// A document's state does not allow what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAllowed {
    /// What sort of document it is.
    pub kind: Kind,
    /// Where it stands.
    pub state: State,
    /// What can be done from there.
    pub allowed: &'static [Operation],
}

/// A document without its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Identifies it for ever.
    pub id: Uuid,
    /// The number people know it by.
    pub number: String,
    /// The subject of the customer whose document it is.
    pub customer: String,
    /// Where it stands.
    pub standing: Standing,
    /// The sum of its lines.
    pub total: Money,
    /// Counts its changes from 1.
    pub version: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it changed last.
    pub updated_at: Timestamp,
}

/// A document with its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// All but the lines.
    pub head: Head,
    /// Its lines, in the order they were asked for.
    pub lines: Vec<Line>,
}

impl Document {
    /// Lines and total.
    pub fn contents(&self) -> Contents {
        Contents { lines: self.lines.clone(), total: self.head.total }
    }

    /// The document as it was when it was made: what a repeated request is answered with.
    pub fn as_made(mut self) -> Self {
        self.head.version = 1;
        self.head.updated_at = self.head.created_at;
        match &mut self.head.standing {
            Standing::Order { state, .. } => *state = OrderState::Pending,
            Standing::CreditNote { returned, .. } => *returned = false,
            Standing::Invoice { .. } => {}
        }
        for line in &mut self.lines {
            line.credited = 0;
        }
        self
    }
}

#[cfg(test)]
mod tests;
