//! Items, money, stock and reservations: types that cannot hold a wrong value, and the decisions taken on them. No I/O.

use std::collections::BTreeMap;

use jiff::Timestamp;
use postgres_types::{FromSql, ToSql};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The largest integer that every JSON reader holds exactly (RFC 8259 §6), and so the largest amount of money.
pub const MAX_AMOUNT: i64 = 9_007_199_254_740_991;
/// The most units of one item that people may put on hand.
pub const MAX_STOCK: i64 = 1_000_000_000;
/// The most lines of one order or one quote.
pub const MAX_LINES: usize = 100;

/// A value from outside that breaks a rule; the text names the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

fn invalid<T>(rule: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(rule.into()))
}

/// Declares a text that is checked when it comes in and trusted when it comes from the database.
macro_rules! text {
    ($(#[$attribute:meta])* $name:ident, $check:expr) => {
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema, ToSql, FromSql)]
        #[serde(try_from = "String")]
        #[postgres(transparent)]
        $(#[$attribute])*
        pub struct $name(String);

        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;
            fn try_from(text: String) -> Result<Self, Invalid> {
                let check: fn(&str) -> Result<(), Invalid> = $check;
                check(&text).map(|()| Self(text))
            }
        }
    };
}

text! {
    /// The shop's own code of an item; unique among the items that are not deleted.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$", example = "MUG-RED-01")]
    Sku, |text| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if text.len() <= 64 && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(allowed) {
            Ok(())
        } else {
            invalid("must be 1 to 64 letters, digits, `.`, `_` or `-`, and begin with a letter or digit")
        }
    }
}

text! {
    /// What people call an item; one line.
    #[schema(min_length = 1, max_length = 200, example = "Red mug")]
    Name, |text| bounded(text, 200, false)
}

text! {
    /// What people should know of an item; may have several lines.
    #[schema(min_length = 1, max_length = 4000, example = "Holds a third of a litre.")]
    Description, |text| bounded(text, 4000, true)
}

text! {
    /// Why stock was adjusted.
    #[schema(min_length = 1, max_length = 500, example = "delivery 4711")]
    Reason, |text| bounded(text, 500, false)
}

text! {
    /// A currency of ISO 4217, three capital letters.
    #[schema(min_length = 3, max_length = 3, pattern = "^[A-Z]{3}$", example = "EUR")]
    Currency, |text| match iso_currency::Currency::from_code(text) {
        Some(_) => Ok(()),
        None => invalid("must be a currency code of ISO 4217 such as `EUR`"),
    }
}

text! {
    /// Words to look for in sku, name and description; each may be the beginning of a word, all must be found.
    #[schema(min_length = 1, max_length = 200, example = "red mug")]
    Search, |text| {
        bounded(text, 200, false)?;
        if text.chars().any(char::is_alphanumeric) { Ok(()) } else { invalid("must have a letter or a digit") }
    }
}

impl Search {
    /// The words, parted as the database parts them: at white space and ASCII punctuation.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.0.split(|c: char| c.is_whitespace() || c.is_ascii_punctuation()).filter(|word| !word.is_empty())
    }
}

/// Checks that `text` is not blank, has at most `longest` characters, and no control characters (line breaks and tabs are
/// allowed where there may be several lines).
fn bounded(text: &str, longest: usize, lines: bool) -> Result<(), Invalid> {
    if text.trim().is_empty() {
        return invalid("must not be blank");
    }
    if text.chars().count() > longest {
        return invalid(format!("must have at most {longest} characters"));
    }
    let allowed = |c: char| !c.is_control() || (lines && matches!(c, '\n' | '\r' | '\t'));
    if text.chars().all(allowed) { Ok(()) } else { invalid("must not contain control characters") }
}

/// Declares a whole number that is checked when it comes in and trusted when it comes from the database.
macro_rules! number {
    ($(#[$attribute:meta])* $name:ident, $range:expr) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema, ToSql, FromSql)]
        #[serde(try_from = "i64")]
        #[postgres(transparent)]
        $(#[$attribute])*
        pub struct $name(i64);

        impl $name {
            /// The number itself.
            pub fn get(self) -> i64 {
                self.0
            }
        }

        impl TryFrom<i64> for $name {
            type Error = Invalid;
            fn try_from(number: i64) -> Result<Self, Invalid> {
                let range = $range;
                if range.contains(&number) {
                    Ok(Self(number))
                } else {
                    invalid(format!("must be a whole number from {} to {}", range.start(), range.end()))
                }
            }
        }
    };
}

number! {
    /// An amount of money in the minor units of its currency: 1299 is EUR 12.99, JPY 1299, and KWD 1.299.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64, example = 1299)]
    Amount, 0..=MAX_AMOUNT
}

number! {
    /// How many units of an item; at least one.
    #[schema(minimum = 1, maximum = 1_000_000_000, example = 2)]
    Quantity, 1..=MAX_STOCK
}

number! {
    /// How many units a new item starts with.
    #[schema(minimum = 0, maximum = 1_000_000_000, example = 100)]
    OpeningStock, 0..=MAX_STOCK
}

/// A change of stock on hand: units that came in, or (negative) went out; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, ToSql, FromSql)]
#[serde(try_from = "i64")]
#[postgres(transparent)]
#[schema(minimum = -1_000_000_000, maximum = 1_000_000_000, example = 25)]
pub struct Change(i64);

impl TryFrom<i64> for Change {
    type Error = Invalid;
    fn try_from(number: i64) -> Result<Self, Invalid> {
        if number != 0 && (-MAX_STOCK..=MAX_STOCK).contains(&number) {
            Ok(Self(number))
        } else {
            invalid(format!("must be a whole number from -{MAX_STOCK} to {MAX_STOCK}, and not 0"))
        }
    }
}

impl Change {
    /// Units that come in, or (negative) go out.
    pub fn get(self) -> i64 {
        self.0
    }
}

/// An amount in a currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Money {
    /// In minor units of the currency.
    pub amount: Amount,
    /// Of ISO 4217.
    pub currency: Currency,
}

/// An item as its readers see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Item {
    /// Never changes.
    pub id: Uuid,
    /// Never changes.
    pub sku: Sku,
    /// What people call it.
    pub name: Name,
    /// What people should know of it.
    pub description: Option<Description>,
    /// Of one unit.
    pub price: Money,
    /// Units in the house.
    pub stock_on_hand: i64,
    /// Those of them that are promised to orders.
    pub stock_reserved: i64,
    /// Those of them that can still be promised.
    pub stock_available: i64,
    /// Grows by one with every change, of stock too; the entity tag.
    pub version: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed, its stock included.
    pub updated_at: Timestamp,
}

/// What a new item is made of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewItem {
    /// Unique among the items that are not deleted; cannot be changed later.
    pub sku: Sku,
    /// What people call it.
    pub name: Name,
    /// What people should know of it.
    #[serde(default)]
    pub description: Option<Description>,
    /// Of one unit.
    pub price: Money,
    /// Units in the house from the start; none if left out.
    #[serde(default)]
    pub stock_on_hand: Option<OpeningStock>,
}

/// A change of an item as a JSON merge patch (RFC 7396): what is left out stays, `null` removes, the rest replaces. Only a
/// description can be removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ItemPatch {
    /// A new name.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub name: Option<Name>,
    /// A new description, or `null` for none.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Description>)]
    pub description: Option<Option<Description>>,
    /// A new price, or a part of one.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub price: Option<PricePatch>,
}

/// The part of an item's patch that changes the price; what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PricePatch {
    /// A new amount, in minor units of the currency.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub amount: Option<Amount>,
    /// A new currency; the amount stays the same number unless it is given too.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub currency: Option<Currency>,
}

/// Reads a member that is there, so that `null` reaches the type instead of looking like a member left out.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl ItemPatch {
    /// The item's fields after the patch.
    pub fn applied(&self, item: &Item) -> (Name, Option<Description>, Money) {
        let Self { name, description, price } = self;
        let PricePatch { amount, currency } = price.clone().unwrap_or_default();
        (
            name.as_ref().unwrap_or(&item.name).clone(),
            description.as_ref().unwrap_or(&item.description).clone(),
            Money {
                amount: amount.unwrap_or(item.price.amount),
                currency: currency.unwrap_or_else(|| item.price.currency.clone()),
            },
        )
    }
}

/// A change of an item's stock on hand by a person: goods that came in, broke, or were miscounted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Adjustment {
    /// Units that came in, or (negative) went out.
    pub change: Change,
    /// Why; kept in the ledger.
    pub reason: Reason,
}

/// The stock of one item. Reserved units are on hand too: `0 <= reserved <= on_hand`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stock {
    on_hand: i64,
    reserved: i64,
}

/// Why a change of stock was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StockError {
    /// Fewer would be on hand than are promised to orders.
    #[error("the change would leave {left} on hand, but {reserved} are reserved by orders")]
    BelowReserved {
        /// What would be left.
        left: i64,
        /// What is promised.
        reserved: i64,
    },
    /// More would be on hand than an item may have.
    #[error("the change would leave more than {MAX_STOCK} on hand")]
    AboveMaximum,
    /// More would be reserved than is available.
    #[error("{available} are available")]
    Insufficient {
        /// What can still be promised.
        available: i64,
    },
    /// The numbers would leave the range of the type, or reserved stock is not there: the books are wrong.
    #[error("the stock of the item does not add up")]
    Inconsistent,
}

impl Stock {
    /// `on_hand` units, `reserved` of them promised; `None` unless `0 <= reserved <= on_hand`.
    pub fn new(on_hand: i64, reserved: i64) -> Option<Self> {
        (0 <= reserved && reserved <= on_hand).then_some(Self { on_hand, reserved })
    }

    /// Units in the house.
    pub fn on_hand(self) -> i64 {
        self.on_hand
    }

    /// Units promised to orders.
    pub fn reserved(self) -> i64 {
        self.reserved
    }

    /// Units that can still be promised.
    pub fn available(self) -> i64 {
        self.on_hand - self.reserved
    }

    /// Units came in or went out.
    pub fn adjusted(self, change: Change) -> Result<Self, StockError> {
        let on_hand = self.on_hand.checked_add(change.0).ok_or(StockError::AboveMaximum)?;
        if change.0 > 0 && on_hand > MAX_STOCK {
            return Err(StockError::AboveMaximum);
        }
        Self::new(on_hand, self.reserved).ok_or(StockError::BelowReserved { left: on_hand, reserved: self.reserved })
    }

    /// Units are promised to an order.
    pub fn reserve(self, quantity: i64) -> Result<Self, StockError> {
        let short = StockError::Insufficient { available: self.available() };
        let reserved = self.reserved.checked_add(quantity).ok_or(short)?;
        Self::new(self.on_hand, reserved).ok_or(short)
    }

    /// Promised units can be promised to others again.
    pub fn release(self, quantity: i64) -> Result<Self, StockError> {
        Self::new(self.on_hand, self.reserved - quantity).ok_or(StockError::Inconsistent)
    }

    /// Promised units leave the house.
    pub fn take(self, quantity: i64) -> Result<Self, StockError> {
        Self::new(self.on_hand - quantity, self.reserved - quantity).ok_or(StockError::Inconsistent)
    }

    /// Units come back from a customer. They are in the house whatever the maximum says.
    pub fn put_back(self, quantity: i64) -> Result<Self, StockError> {
        let on_hand = self.on_hand.checked_add(quantity).ok_or(StockError::Inconsistent)?;
        Self::new(on_hand, self.reserved).ok_or(StockError::Inconsistent)
    }
}

/// Why the stock on hand of an item changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema, ToSql, FromSql)]
#[serde(rename_all = "snake_case")]
#[postgres(name = "entry_kind", rename_all = "snake_case")]
pub enum EntryKind {
    /// The item was made with it.
    Opening,
    /// A person changed it.
    Adjustment,
    /// An order took it.
    Taken,
    /// A credit note returned it; or it was given back, because the order that took it is not known any more.
    Returned,
}

/// One line of an item's stock ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct StockEntry {
    /// Of this line.
    pub id: Uuid,
    /// Whose stock changed.
    pub item_id: Uuid,
    /// What kind of change it was.
    pub kind: EntryKind,
    /// Units that came in, or (negative) went out.
    pub change: i64,
    /// Units on hand after it.
    pub stock_on_hand: i64,
    /// Units reserved at that moment.
    pub stock_reserved: i64,
    /// What the person who adjusted it gave as the reason.
    pub reason: Option<String>,
    /// The order that took it, or the credit note that returned it. Stock that was given back names the order, too.
    pub reference: Option<Uuid>,
    /// Who caused it: the subject of the caller.
    pub actor: String,
    /// When.
    pub created_at: Timestamp,
}

/// What became of an order's wish for stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, ToSql, FromSql)]
#[serde(rename_all = "snake_case")]
#[postgres(name = "reservation_state", rename_all = "snake_case")]
pub enum ReservationState {
    /// The stock is promised to the order.
    Held,
    /// The stock left the house.
    Taken,
    /// The stock was given free again, or the order gave up before its wish arrived.
    Released,
    /// The stock could not be promised.
    Refused,
}

/// The part of an order's reservation that concerns one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ItemReservation {
    /// Whose reservation.
    pub order_id: Uuid,
    /// What became of it.
    pub state: ReservationState,
    /// Units of the item.
    pub quantity: i64,
    /// Those of them that credit notes returned.
    pub returned: i64,
    /// Until when the order meant to be confirmed.
    pub deadline: Option<Timestamp>,
    /// When the stock was reserved.
    pub created_at: Timestamp,
    /// When its state last changed.
    pub updated_at: Timestamp,
}

/// What `eshop-documents` may ask to be done with the stock of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Promise it.
    Reserve,
    /// Let it leave the house; the order is confirmed.
    Take,
    /// Give it free; the order is not going to be confirmed.
    Release,
    /// Undo whatever was done for it; the order is not known, or does not stand.
    Disown,
    /// Put it back on the shelf; a credit note was issued.
    Return,
}

/// What has to be done for a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Reserve all lines, or refuse.
    Hold,
    /// Take what is held.
    Take,
    /// Release what is held.
    Release,
    /// Put back on the shelf what was taken and has not come back yet.
    GiveBack,
    /// Remember that the order was released, so that its late wish is refused.
    Bury,
    /// Put units back on the shelf.
    PutBack,
    /// It was done before: give the same answer again.
    Repeat,
    /// Nothing: it cannot be done, and never will be. Answer what became of the reservation instead.
    Decline,
    /// Not yet possible: what must happen before it is still on its way.
    Wait,
}

/// Decides what a command means in a state; `None` is an order never heard of.
///
/// A credit note is a message stream of its own, so its return may overtake the take it belongs to; the commands of one order
/// come in order. What was taken for an order that stands is never undone but by a credit note.
///
/// Every command in every state leads to an answer. What is declined, or taken for an order never heard of, comes only after one of
/// the two databases was put back to an older state; whoever asked is told what is the case, and knows what follows.
pub fn decide(command: Command, state: Option<ReservationState>) -> Step {
    use ReservationState::{Held, Refused, Released, Taken};
    match (command, state) {
        (Command::Reserve, None) => Step::Hold,
        (Command::Reserve, Some(_)) | (Command::Take, Some(Taken)) => Step::Repeat,
        (Command::Take, Some(Held)) => Step::Take,
        (Command::Take | Command::Release | Command::Disown, None) => Step::Bury,
        (Command::Release | Command::Disown, Some(Held)) => Step::Release,
        (Command::Release | Command::Disown, Some(Released | Refused)) => Step::Repeat,
        (Command::Disown, Some(Taken)) => Step::GiveBack,
        (Command::Return, None | Some(Held)) => Step::Wait,
        (Command::Return, Some(Taken)) => Step::PutBack,
        (Command::Take | Command::Return, Some(Released | Refused)) | (Command::Release, Some(Taken)) => Step::Decline,
    }
}

/// A line as it comes in a message or a request, not yet checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Of which item.
    pub item_id: Uuid,
    /// How many units.
    pub quantity: i64,
}

/// The lines of an order, added up by item and in the order of item ids, which is the order in which rows are locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderLines(BTreeMap<Uuid, i64>);

impl TryFrom<Vec<Line>> for OrderLines {
    type Error = Invalid;

    /// Refuses no lines, too many, and quantities that are not positive or do not fit.
    fn try_from(lines: Vec<Line>) -> Result<Self, Invalid> {
        if lines.is_empty() || lines.len() > MAX_LINES {
            return invalid(format!("lines: must be 1 to {MAX_LINES}, not {}", lines.len()));
        }
        let mut sums = BTreeMap::new();
        for (index, line) in lines.into_iter().enumerate() {
            let quantity = Quantity::try_from(line.quantity)
                .map_err(|rule| Invalid(format!("lines[{index}].quantity: {rule}")))?;
            // At most MAX_LINES * MAX_STOCK: far from the limits of the type.
            *sums.entry(line.item_id).or_insert(0) += quantity.get();
        }
        Ok(Self(sums))
    }
}

impl OrderLines {
    /// The lines of a reservation as the database holds them.
    pub fn stored(lines: impl IntoIterator<Item = (Uuid, i64)>) -> Self {
        Self(lines.into_iter().collect())
    }

    /// Item and quantity, in the order of item ids.
    pub fn iter(&self) -> impl Iterator<Item = (Uuid, i64)> + '_ {
        self.0.iter().map(|(&id, &quantity)| (id, quantity))
    }

    /// The items, in the order of their ids.
    pub fn items(&self) -> Vec<Uuid> {
        self.0.keys().copied().collect()
    }

    /// Whether these are among them: of every item at most as many.
    pub fn contain(&self, lines: &Self) -> bool {
        lines.iter().all(|(item, quantity)| self.0.get(&item).is_some_and(|kept| quantity <= *kept))
    }

    /// The quantities, in the order of the items' ids.
    pub fn quantities(&self) -> Vec<i64> {
        self.0.values().copied().collect()
    }
}

/// The stock of the items of an order, by item.
pub type Shelf = BTreeMap<Uuid, Stock>;

/// Why stock could not be promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalReason {
    /// An item has fewer available than asked for.
    InsufficientStock,
    /// An item does not exist, or was deleted.
    UnknownItem,
    /// The order was released before.
    Released,
}

/// Why goods of a credit note are not taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReturnRefusal {
    /// The order has taken nothing, or it was undone.
    OrderNotTaken,
    /// The order took fewer of an item than would have come back with this credit note.
    MoreThanTaken,
}

/// A line that could not be promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Shortage {
    /// Of which item.
    pub item_id: Uuid,
    /// Units asked for, all lines of the order added up.
    pub requested: i64,
    /// Units that could have been promised; none of an unknown item.
    pub available: i64,
}

/// The answer to an order that gets nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The graver reason, if there are several.
    pub reason: RefusalReason,
    /// Every line that could not be promised, in the order of item ids.
    pub lines: Vec<Shortage>,
}

impl Refusal {
    /// The answer to an order that was released before its wish arrived.
    pub fn released() -> Self {
        Self { reason: RefusalReason::Released, lines: Vec::new() }
    }
}

/// Promises all lines or none. `shelf` holds the items that exist; answers the stock after it, or what is missing.
pub fn reserve(lines: &OrderLines, shelf: &Shelf) -> Result<Shelf, Refusal> {
    let mut after = Shelf::new();
    let mut short = Vec::new();
    let mut reason = RefusalReason::InsufficientStock;
    for (item_id, requested) in lines.iter() {
        let Some(stock) = shelf.get(&item_id) else {
            reason = RefusalReason::UnknownItem;
            short.push(Shortage { item_id, requested, available: 0 });
            continue;
        };
        match stock.reserve(requested) {
            Ok(stock) => {
                after.insert(item_id, stock);
            }
            Err(_) => short.push(Shortage { item_id, requested, available: stock.available() }),
        }
    }
    if short.is_empty() { Ok(after) } else { Err(Refusal { reason, lines: short }) }
}

/// Applies one change to the stock of each line: [`Stock::take`], [`Stock::release`] or [`Stock::put_back`].
pub fn change_each(
    lines: &OrderLines,
    shelf: &Shelf,
    change: fn(Stock, i64) -> Result<Stock, StockError>,
) -> Result<Shelf, StockError> {
    lines
        .iter()
        .map(|(item_id, quantity)| {
            let stock = shelf.get(&item_id).ok_or(StockError::Inconsistent)?;
            change(*stock, quantity).map(|stock| (item_id, stock))
        })
        .collect()
}

/// Which items a reader of the list wants. What is left out does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ItemFilter {
    /// Words to find.
    pub search: Option<Search>,
    /// Price in this currency.
    pub currency: Option<Currency>,
    /// With units that can still be promised, or without any.
    pub in_stock: Option<bool>,
    /// Price at least this.
    pub min_price: Option<Amount>,
    /// Price at most this.
    pub max_price: Option<Amount>,
}

/// What `eshop-documents` asks before it takes an order.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QuoteRequest {
    /// One to a hundred lines.
    #[schema(min_items = 1, max_items = 100)]
    pub lines: Vec<QuoteRequestLine>,
}

/// An item that a quote is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QuoteRequestLine {
    /// The item.
    pub item_id: Uuid,
    /// How many units of it.
    pub quantity: Quantity,
}

/// Prices and availability of items at one moment. It promises nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Quote {
    /// The moment.
    pub quoted_at: Timestamp,
    /// The lines whose item exists, in the order of the request.
    pub lines: Vec<QuoteLine>,
    /// The items of the other lines: they do not exist, or were deleted.
    pub unknown: Vec<Uuid>,
}

/// What an item is and costs at the moment of the quote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct QuoteLine {
    /// The item.
    pub item_id: Uuid,
    /// Its sku.
    pub sku: Sku,
    /// Its name.
    pub name: Name,
    /// Of one unit.
    pub price: Money,
    /// As asked for.
    pub quantity: Quantity,
    /// Units that could still be promised.
    pub stock_available: i64,
}

#[cfg(test)]
mod tests;
