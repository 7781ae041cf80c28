//! What the service consumes and emits.
//!
//! It consumes the commands `documents.stock.*` of the order transaction and answers each with `items.reservation.*`; effect and
//! answer commit together. It emits the facts `items.item.*` about what people did through the API.

use database::Transaction;
use jiff::Timestamp;
use outbox::{Event, Handler, HandlerError, NewEvent, Outbox, asyncapi::Description, failpoint};
use runtime::{clock::Clock, trace::TraceContext};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    domain::{
        self, Command, EntryKind, Item, Line, OrderLines, Refusal, RefusalReason, ReservationState, ReturnRefusal,
        Shortage, Step, Stock, StockEntry, StockError,
    },
    failpoints,
    store::{self, Entry, Reach, Reservation},
};

/// The stream the commands come from: that of the service which gives them.
pub const STREAM: &str = "eshop-documents";
/// The domain of its events.
pub const DOMAIN: &str = "items";
/// What the service's own stream holds.
pub const EMITTED: [&str; 1] = ["items.>"];
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

/// `documents.stock.take`: the order was confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Take {
    /// The order.
    pub order_id: Uuid,
}

/// `documents.stock.release`: the order was given up, or is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The order.
    pub order_id: Uuid,
    /// Why.
    #[serde(default)]
    pub reason: ReleaseReason,
}

/// Why stock is released, as far as it decides what is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReleaseReason {
    /// There is no such order: the database of documents was put back to an older state.
    Unknown,
    /// The order was called off by a database that had been put back to an older state, and did not know that the stock was taken.
    Forgotten,
    /// Whatever else; the order is known and does not stand.
    #[default]
    #[serde(other)]
    GivenUp,
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

/// What is told of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct OfOrder {
    /// The order.
    pub order_id: Uuid,
}

/// What is told of a credit note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct OfCreditNote {
    /// The credit note.
    pub credit_note_id: Uuid,
}

/// Why the goods of a credit note are not taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ReturnRefused {
    /// The credit note.
    pub credit_note_id: Uuid,
    /// Why.
    pub reason: ReturnRefusal,
}

/// Why nothing is promised to an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Refused {
    /// The order.
    pub order_id: Uuid,
    /// Why.
    pub reason: RefusalReason,
    /// What was missing.
    pub lines: Vec<Shortage>,
}

/// What the service answers to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// All lines are promised to the order.
    Reserved(OfOrder),
    /// Nothing is promised to the order.
    Refused(Refused),
    /// The order's stock left the house.
    Taken(OfOrder),
    /// Nothing is promised to the order any more.
    Released(OfOrder),
    /// The goods are on hand again.
    Returned(OfCreditNote),
    /// The goods are not taken back.
    ReturnRefused(ReturnRefused),
}

const RESERVED: &str = "items.reservation.reserved";
const REFUSED: &str = "items.reservation.refused";
const TAKEN: &str = "items.reservation.taken";
const RELEASED: &str = "items.reservation.released";
const RETURNED: &str = "items.reservation.returned";
const RETURN_REFUSED: &str = "items.reservation.return-refused";
const CREATED: &str = "items.item.created";
const UPDATED: &str = "items.item.updated";
const DELETED: &str = "items.item.deleted";
const STOCK_ADJUSTED: &str = "items.item.stock-adjusted";

/// What this service emits, for others to read.
#[must_use]
pub fn described() -> Description {
    Description::new("item-management", "The shop's items, and answers to the commands of the order transaction.")
        .refusals(DOMAIN)
        .event::<OfOrder>(RESERVED)
        .event::<Refused>(REFUSED)
        .event::<OfOrder>(TAKEN)
        .event::<OfOrder>(RELEASED)
        .event::<OfCreditNote>(RETURNED)
        .event::<ReturnRefused>(RETURN_REFUSED)
        .event::<Item>(CREATED)
        .event::<Item>(UPDATED)
        .event::<Item>(DELETED)
        .event::<StockEntry>(STOCK_ADJUSTED)
}

impl Answer {
    fn refused(order_id: Uuid, refusal: Refusal) -> Self {
        Self::Refused(Refused { order_id, reason: refusal.reason, lines: refusal.lines })
    }

    /// What became of a reservation.
    fn of(order_id: Uuid, reservation: Reservation) -> Self {
        match (reservation.state, reservation.refusal) {
            (_, Some(refusal)) => Self::refused(order_id, refusal),
            (ReservationState::Taken, None) => Self::Taken(OfOrder { order_id }),
            (ReservationState::Held, None) => Self::Reserved(OfOrder { order_id }),
            (ReservationState::Released | ReservationState::Refused, None) => Self::Released(OfOrder { order_id }),
        }
    }

    /// Subject, and the aggregate it is about.
    fn address(&self) -> (&'static str, Uuid) {
        match self {
            Self::Reserved(order) => (RESERVED, order.order_id),
            Self::Refused(refused) => (REFUSED, refused.order_id),
            Self::Taken(order) => (TAKEN, order.order_id),
            Self::Released(order) => (RELEASED, order.order_id),
            Self::Returned(note) => (RETURNED, note.credit_note_id),
            Self::ReturnRefused(note) => (RETURN_REFUSED, note.credit_note_id),
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
            Self::Created(item) => (CREATED, item.id),
            Self::Updated(item) => (UPDATED, item.id),
            Self::Deleted(item) => (DELETED, item.id),
            Self::StockAdjusted(entry) => (STOCK_ADJUSTED, entry.item_id),
        }
    }

    /// Owes the world this fact, if the transaction commits; `initiator` is the subject of who did it.
    pub async fn emit(&self, tx: &Transaction<'_>, initiator: &str) -> Result<(), outbox::Error> {
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
        failpoint!(failpoints::ANSWER);
        Ok(())
    }
}

/// Promises all lines to the order, or none.
async fn reserve(tx: &Transaction<'_>, command: Reserve, now: Timestamp) -> Result<Answer, HandlerError> {
    let Reserve { order_id, deadline, lines } = command;
    let lines = OrderLines::try_from(lines).map_err(permanent)?;
    let known = store::lock_reservation(tx, order_id).await?;
    if domain::decide(Command::Reserve, state(&known)) == Step::Repeat {
        return Ok(match known {
            Some(Reservation { refusal: Some(refusal), .. }) => Answer::refused(order_id, refusal),
            Some(Reservation { state: ReservationState::Released, .. }) => {
                Answer::refused(order_id, Refusal::released())
            }
            _ => Answer::Reserved(OfOrder { order_id }),
        });
    }
    let shelf = store::lock_shelf(tx, &lines.items(), Reach::Existing).await?;
    match domain::reserve(&lines, &shelf) {
        Ok(shelf) => {
            let held = Reservation { state: ReservationState::Held, refusal: None };
            store::insert_reservation(tx, order_id, &held, deadline, now).await?;
            store::insert_lines(tx, order_id, &lines).await?;
            store::write_shelf(tx, &shelf, now).await?;
            failpoint!(failpoints::RESERVE);
            Ok(Answer::Reserved(OfOrder { order_id }))
        }
        Err(refusal) => {
            let refused = Reservation { state: ReservationState::Refused, refusal: Some(refusal.clone()) };
            store::insert_reservation(tx, order_id, &refused, deadline, now).await?;
            failpoint!(failpoints::REFUSE);
            Ok(Answer::refused(order_id, refusal))
        }
    }
}

/// Lets what the order holds leave the house.
async fn take(tx: &Transaction<'_>, command: Take, actor: &str, now: Timestamp) -> Result<Answer, HandlerError> {
    let order_id = command.order_id;
    let known = store::lock_reservation(tx, order_id).await?;
    match (domain::decide(Command::Take, state(&known)), known) {
        (Step::Take, _) => {
            let lines = change_stock(tx, order_id, Stock::take, now).await?;
            store::update_reservation(tx, order_id, ReservationState::Taken, now).await?;
            let taken: Vec<_> = lines.iter().map(|(item, quantity)| (item, -quantity)).collect();
            store::insert_entries(tx, entry(EntryKind::Taken, order_id, actor), &taken, now).await?;
            failpoint!(failpoints::TAKE);
            Ok(Answer::Taken(OfOrder { order_id }))
        }
        (_, Some(reservation)) => Ok(Answer::of(order_id, reservation)),
        (_, None) => bury(tx, order_id, now).await,
    }
}

/// Gives what the order holds free, or makes sure that it will never hold anything. What it took comes back if there is no such
/// order.
async fn release(tx: &Transaction<'_>, command: Release, now: Timestamp) -> Result<Answer, HandlerError> {
    let Release { order_id, reason } = command;
    let command = match reason {
        ReleaseReason::Unknown | ReleaseReason::Forgotten => Command::Disown,
        ReleaseReason::GivenUp => Command::Release,
    };
    let known = store::lock_reservation(tx, order_id).await?;
    match domain::decide(command, state(&known)) {
        Step::Release => {
            change_stock(tx, order_id, Stock::release, now).await?;
            store::update_reservation(tx, order_id, ReservationState::Released, now).await?;
            failpoint!(failpoints::RELEASE);
        }
        Step::GiveBack => {
            let lines = store::list_kept_lines(tx, order_id).await?;
            // No person asked for it, whoever had placed the order.
            put_on_shelf(tx, &lines, entry(EntryKind::Returned, order_id, STREAM), now).await?;
            store::update_reservation(tx, order_id, ReservationState::Released, now).await?;
            failpoint!(failpoints::GIVE_BACK);
        }
        Step::Bury => return bury(tx, order_id, now).await,
        Step::Decline => return Ok(Answer::Taken(OfOrder { order_id })),
        _ => {}
    }
    Ok(Answer::Released(OfOrder { order_id }))
}

/// Makes sure that an order nobody has heard of will never hold anything.
async fn bury(tx: &Transaction<'_>, order_id: Uuid, now: Timestamp) -> Result<Answer, HandlerError> {
    let tombstone = Reservation { state: ReservationState::Released, refusal: None };
    store::insert_reservation(tx, order_id, &tombstone, None, now).await?;
    failpoint!(failpoints::TOMBSTONE);
    Ok(Answer::Released(OfOrder { order_id }))
}

/// Puts what a credit note returns back on the shelf.
async fn put_back(tx: &Transaction<'_>, command: Return, actor: &str, now: Timestamp) -> Result<Answer, HandlerError> {
    let Return { credit_note_id, order_id, lines } = command;
    let lines = OrderLines::try_from(lines).map_err(permanent)?;
    let known = store::lock_reservation(tx, order_id).await?;
    let refused = |reason| Ok(Answer::ReturnRefused(ReturnRefused { credit_note_id, reason }));
    if store::is_returned(tx, credit_note_id).await? {
        return Ok(Answer::Returned(OfCreditNote { credit_note_id }));
    }
    match domain::decide(Command::Return, state(&known)) {
        Step::Wait => {
            return Err(HandlerError::Retry(format!("the stock of order {order_id} is not taken yet").into()));
        }
        Step::Decline => return refused(ReturnRefusal::OrderNotTaken),
        _ => {}
    }
    if !store::list_kept_lines(tx, order_id).await?.contain(&lines) {
        return refused(ReturnRefusal::MoreThanTaken);
    }
    store::insert_return(tx, credit_note_id, order_id, now).await?;
    store::add_returned(tx, order_id, &lines).await?;
    put_on_shelf(tx, &lines, entry(EntryKind::Returned, credit_note_id, actor), now).await?;
    failpoint!(failpoints::PUT_BACK);
    Ok(Answer::Returned(OfCreditNote { credit_note_id }))
}

/// Puts goods on the shelf again, of deleted items too.
async fn put_on_shelf(
    tx: &Transaction<'_>,
    lines: &OrderLines,
    entry: Entry<'_>,
    now: Timestamp,
) -> Result<(), HandlerError> {
    let shelf = store::lock_shelf(tx, &lines.items(), Reach::Deleted).await?;
    let shelf = domain::change_each(lines, &shelf, Stock::put_back).map_err(permanent)?;
    store::write_shelf(tx, &shelf, now).await?;
    let changes: Vec<_> = lines.iter().collect();
    store::insert_entries(tx, entry, &changes, now).await?;
    Ok(())
}

/// Applies `change` to the stock of everything the order holds, and tells what that is.
async fn change_stock(
    tx: &Transaction<'_>,
    order_id: Uuid,
    change: fn(Stock, i64) -> Result<Stock, StockError>,
    now: Timestamp,
) -> Result<OrderLines, HandlerError> {
    let lines = store::list_lines(tx, order_id).await?;
    let shelf = store::lock_shelf(tx, &lines.items(), Reach::Existing).await?;
    let shelf = domain::change_each(&lines, &shelf, change).map_err(permanent)?;
    store::write_shelf(tx, &shelf, now).await?;
    Ok(lines)
}

fn entry(kind: EntryKind, reference: Uuid, actor: &str) -> Entry<'_> {
    Entry { kind, reason: None, reference: Some(reference), actor, idempotency_key: None }
}

fn state(known: &Option<Reservation>) -> Option<ReservationState> {
    known.as_ref().map(|reservation| reservation.state)
}

/// Who caused the command: the person behind the document, else the service that gave it.
fn actor(event: &Event) -> &str {
    event.initiator.as_deref().unwrap_or(STREAM)
}

/// Reads a command, which must be about the aggregate it is addressed to.
fn read<T: DeserializeOwned + About>(event: &Event) -> Result<T, HandlerError> {
    let command = T::deserialize(&event.data).map_err(permanent)?;
    if command.about() == event.aggregate.id {
        Ok(command)
    } else {
        Err(permanent(format!(
            "the command is about {}, but stands in the history of {}",
            command.about(),
            event.aggregate
        )))
    }
}

/// What a command is about.
trait About {
    /// The aggregate in whose history it must stand.
    fn about(&self) -> Uuid;
}

impl About for Reserve {
    fn about(&self) -> Uuid {
        self.order_id
    }
}

impl About for Take {
    fn about(&self) -> Uuid {
        self.order_id
    }
}

impl About for Release {
    fn about(&self) -> Uuid {
        self.order_id
    }
}

impl About for Return {
    fn about(&self) -> Uuid {
        self.credit_note_id
    }
}

fn permanent(reason: impl ToString) -> HandlerError {
    HandlerError::Permanent(reason.to_string())
}
