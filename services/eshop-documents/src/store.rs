//! All SQL of this service, typed in and out. Transactions begin and end here, so that a change and the messages it owes
//! are always one.
//!
//! **Locks** are taken in one order, so that they cannot deadlock: an idempotency key, then a saga, then a document, then
//! the counter of numbers.

use std::time::Duration;

use berth_http::problem::Problem;
use database::{Database, MigrateError, Row, ScopedFutureExt as _, Statements, Transaction, types::Json};
use jiff::Timestamp;
use outbox::{
    NewEvent, Outbox, failpoint,
    operator::{Operator, SagaView, Sagas},
    saga::{Illegal, Saga},
};
use runtime::trace::TraceContext;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    domain::{
        self, Cancellation, Contents, Document, Head, Invalid, Kind, Line, Money, NotAllowed, Operation, OrderState,
        Patience, Refusal, RefusalReason, Selection, Shortage, Standing, State,
    },
    failpoints,
    messages::{
        CreditNoteIssued, InvoiceIssued, Message, OrderCancelled, OrderConfirmed, OrderInvoiced, OrderPlaced,
        OrderRejected, Release, ReleaseReason, Reserve, Return, StockLine, Take,
    },
    saga::{self, Command, Forbidden, Intervention, Process},
};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Why the store did not do what was asked. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// PostgreSQL failed or cannot be reached.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// A message is none that can be published.
    #[error(transparent)]
    Message(outbox::Error),
    /// There is no such document, or none with a saga.
    #[error("there is no such document")]
    NotFound,
    /// The document's state does not allow it.
    #[error("the document is {:?} and allows {:?}", .0.state, .0.allowed)]
    NotAllowed(NotAllowed),
    /// The request breaks a rule that depends on what is stored.
    #[error("the request breaks a rule: {0:?}")]
    Invalid(Vec<Invalid>),
    /// The saga's table has no such step.
    #[error(transparent)]
    Illegal(#[from] Illegal),
    /// The saga's state does not allow what an operator wanted.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// The order cannot be given up while its customer owes money for it.
    #[error("the order has an invoice, {0}, that is not credited in full")]
    Invoiced(String),
    /// The order is confirmed, and item management holds nothing for it.
    #[error("there is nothing in stock for the order")]
    Unfulfilled,
    /// A row holds what this program never writes.
    #[error("document {id} is stored wrongly: {what}")]
    Corrupt {
        /// The document.
        id: Uuid,
        /// What does not fit.
        what: &'static str,
    },
}

impl From<outbox::Error> for Error {
    fn from(error: outbox::Error) -> Self {
        match error {
            outbox::Error::Database(error) => Self::Database(error),
            defect => Self::Message(defect),
        }
    }
}

impl From<NotAllowed> for Error {
    fn from(refused: NotAllowed) -> Self {
        Self::NotAllowed(refused)
    }
}

/// Who and what a change comes from; every message it owes carries it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cause {
    /// The subject of whoever started it.
    pub initiator: Option<String>,
    /// The trace it belongs to.
    pub trace: Option<TraceContext>,
}

/// What makes a request the same as an earlier one: an `Idempotency-Key`, in one principal's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// The subject of the caller.
    pub principal: String,
    /// The key the caller chose.
    pub key: String,
    /// SHA-256 of what was asked for.
    pub fingerprint: [u8; 32],
}

/// What an earlier request under the same key did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Earlier {
    /// It asked for the same, and made this document.
    Same(Box<Document>),
    /// It asked for something else.
    Different,
}

/// An order to be placed.
#[derive(Debug, Clone)]
pub struct NewOrder {
    /// The subject of the customer.
    pub customer: String,
    /// Its lines, with the prices quoted.
    pub contents: Contents,
    /// How long item management has to answer.
    pub patience: Patience,
}

/// Which documents a list holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// This customer's alone.
    pub customer: Option<String>,
    /// Of this kind alone.
    pub kind: Option<Kind>,
    /// In this state alone.
    pub state: Option<State>,
}

/// The service's database.
#[derive(Debug, Clone)]
pub struct Store {
    database: Database,
    outbox: Outbox,
}

macro_rules! head {
    () => {
        "id, kind, number, customer, state, based_on, currency, total, deadline, refusal, shortages, cancellation, version, \
         created_at, updated_at"
    };
}

/// A document with its lines, one row a line; one statement, so that both are of the same moment.
const DOCUMENT: &str = concat!(
    "SELECT ",
    head!(),
    ", item_id, sku, name, quantity, unit_price, credited \
     FROM documents JOIN document_lines ON document_id = id WHERE id = $1 ORDER BY position",
);

const LIST_OF_CUSTOMER: &str = concat!(
    "SELECT ",
    head!(),
    " FROM documents WHERE customer = $1 \
     AND ($2::document_kind IS NULL OR kind = $2) AND ($3::document_state IS NULL OR state = $3) \
     AND ($4::uuid IS NULL OR id < $4) ORDER BY id DESC LIMIT $5",
);

const LIST_OF_ALL: &str = concat!(
    "SELECT ",
    head!(),
    " FROM documents WHERE ($1::document_kind IS NULL OR kind = $1) \
     AND ($2::document_state IS NULL OR state = $2) AND ($3::uuid IS NULL OR id < $3) ORDER BY id DESC LIMIT $4",
);

const DECIDED: &str = "SELECT id FROM documents WHERE id = ANY ($1) AND state <> 'PENDING'";

const LOCK_DOCUMENT: &str = "SELECT FROM documents WHERE id = $1 FOR UPDATE";

/// Waits for a transaction that is claiming the same key, and finds the key taken if that one commits.
const CLAIM_KEY: &str = "INSERT INTO idempotency_keys (principal, key, fingerprint, document_id) VALUES ($1, $2, $3, $4) \
     ON CONFLICT DO NOTHING";

const FIND_KEY: &str = "SELECT fingerprint, document_id FROM idempotency_keys WHERE principal = $1 AND key = $2";

const PURGE_KEYS: &str = "DELETE FROM idempotency_keys WHERE (principal, key) IN (\
     SELECT principal, key FROM idempotency_keys WHERE created_at < now() - make_interval(secs => $1) \
     ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)";

const INSERT_ORDER: &str = concat!(
    "INSERT INTO documents (id, kind, number, customer, state, currency, total, deadline) VALUES ($1, 'order', \
     document_number('order', extract(year FROM now() AT TIME ZONE 'UTC')::integer, nextval('order_numbers')), \
     $2, 'PENDING', $3, $4, now() + make_interval(secs => $5)) RETURNING ",
    head!(),
);

/// An invoice or a credit note, with the next number of its kind and year. Dates never run backwards along the numbers,
/// whatever order the transactions had begun in.
const ISSUE: &str = concat!(
    "WITH next AS (\
     INSERT INTO document_numbers AS numbers (kind, year, last, issued_at) \
     VALUES ($2, extract(year FROM now() AT TIME ZONE 'UTC')::integer, 1, now()) \
     ON CONFLICT (kind, year) DO UPDATE SET last = numbers.last + 1, issued_at = greatest(numbers.issued_at, excluded.issued_at) \
     RETURNING year, last, issued_at) \
     INSERT INTO documents (id, kind, number, customer, state, based_on, currency, total, created_at, updated_at) \
     SELECT $1, $2, document_number($2, year, last), $3, 'ISSUED', $4, $5, $6, issued_at, issued_at FROM next RETURNING ",
    head!(),
);

const INSERT_LINES: &str = "INSERT INTO document_lines (document_id, position, item_id, sku, name, quantity, unit_price) \
     SELECT $1, position, item_id, sku, name, quantity, unit_price \
     FROM unnest($2::uuid[], $3::text[], $4::text[], $5::bigint[], $6::bigint[]) \
     WITH ORDINALITY AS line (item_id, sku, name, quantity, unit_price, position)";

const CREDIT_LINES: &str = "UPDATE document_lines AS line SET credited = credited + credit.quantity \
     FROM unnest($2::uuid[], $3::bigint[]) AS credit (item_id, quantity) \
     WHERE line.document_id = $1 AND line.item_id = credit.item_id";

const TOUCH: &str = "UPDATE documents SET version = version + 1, updated_at = now() WHERE id = $1";

const ADVANCE_DOCUMENT: &str = concat!(
    "UPDATE documents SET state = $2, refusal = $3, shortages = $4, cancellation = $5, version = version + 1, \
     updated_at = now() WHERE id = $1 RETURNING ",
    head!(),
);

const START_SAGA: &str = "INSERT INTO sagas (id, state, due_at, initiator, trace) \
     VALUES ($1, $2, now() + make_interval(secs => $3), $4, $5)";

const LOCK_SAGA: &str = "SELECT id, state, repeats FROM sagas WHERE id = $1 FOR UPDATE";

const LOCK_OVERDUE: &str = "SELECT id, state, repeats, initiator, trace FROM sagas WHERE due_at <= now() \
     ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED";

const ADVANCE_SAGA: &str = "UPDATE sagas SET state = $2, repeats = $3, due_at = now() + make_interval(secs => $4), \
     updated_at = now() WHERE id = $1";

macro_rules! saga_view {
    () => {
        "SELECT saga.id, saga.state::text AS state, due_at, repeats, initiator, saga.created_at, saga.updated_at, number, \
         document.state::text AS document_state, \
         due_at IS NULL AND saga.state NOT IN ('unfulfilled', 'unreturned') AS ended \
         FROM sagas AS saga JOIN documents AS document USING (id)"
    };
}

/// Those first that wait for an operator.
const LIST_OPEN_SAGAS: &str = concat!(
    saga_view!(),
    " WHERE due_at IS NOT NULL OR saga.state IN ('unfulfilled', 'unreturned') ORDER BY due_at NULLS FIRST LIMIT $1"
);

const LIST_SAGAS: &str = concat!(saga_view!(), " ORDER BY id DESC LIMIT $1");

const FIND_SAGA: &str = concat!(saga_view!(), " WHERE id = $1");

const ASK_AGAIN: &str = "UPDATE sagas SET due_at = now(), updated_at = now() WHERE id = $1";

const IS_UNFULFILLED: &str = "SELECT EXISTS (SELECT FROM sagas WHERE id = $1 AND state = 'unfulfilled')";

/// The invoice of an order of which something is left to be credited.
const OUTSTANDING: &str = "SELECT number FROM documents AS invoice WHERE kind = 'invoice' AND based_on = $1 \
     AND EXISTS (SELECT FROM document_lines WHERE document_id = invoice.id AND credited < quantity)";

const CANCELLATION: &str = "SELECT cancellation FROM documents WHERE id = $1";

const GOODS_TO_RETURN: &str = "SELECT invoice.based_on, line.item_id, line.quantity FROM documents AS note \
     JOIN documents AS invoice ON invoice.id = note.based_on \
     JOIN document_lines AS line ON line.document_id = note.id WHERE note.id = $1 ORDER BY line.position";

impl Store {
    /// The store in this database, with this outbox of the same database.
    pub fn new(database: Database, outbox: Outbox) -> Self {
        Self { database, outbox }
    }

    /// Brings the tables of documents, and of outbox and inbox, up to date, see [`Database::migrate`].
    ///
    /// # Errors
    /// As [`Database::migrate`].
    pub async fn migrate(&self, stop: &CancellationToken) -> Result<(), MigrateError> {
        self.database.migrate(embedded::migrations::runner(), "migrations", stop).await?;
        Outbox::migrate(&self.database, stop).await
    }

    /// A document with its lines.
    ///
    /// # Errors
    /// [`Error::NotFound`], or that of the database.
    pub async fn document(&self, id: Uuid) -> Result<Document, Error> {
        load(&*self.database.get().await?, id).await
    }

    /// At most `limit` documents without their lines, the newest first, beginning after `after`.
    ///
    /// # Errors
    /// That of the database.
    pub async fn list(&self, filter: &Filter, after: Option<Uuid>, limit: i64) -> Result<Vec<Head>, Error> {
        let client = self.database.get().await?;
        let Filter { customer, kind, state } = filter;
        let rows = match customer {
            Some(customer) => client.all(LIST_OF_CUSTOMER, &[customer, kind, state, &after, &limit]).await?,
            None => client.all(LIST_OF_ALL, &[kind, state, &after, &limit]).await?,
        };
        rows.iter().map(head).collect()
    }

    /// Those of these orders that are pending no more.
    ///
    /// # Errors
    /// That of the database.
    pub async fn decided(&self, orders: &[Uuid]) -> Result<Vec<Uuid>, Error> {
        let rows = self.database.get().await?.all(DECIDED, &[&orders]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// What an earlier request under this key did, if there was one.
    ///
    /// # Errors
    /// That of the database.
    pub async fn earlier(&self, request: &RequestKey) -> Result<Option<Earlier>, Error> {
        let client = self.database.get().await?;
        let Some(row) = client.optional(FIND_KEY, &[&request.principal, &request.key]).await? else {
            return Ok(None);
        };
        if row.get::<_, &[u8]>(0) != request.fingerprint {
            return Ok(Some(Earlier::Different));
        }
        Ok(Some(Earlier::Same(Box::new(load(&*client, row.get(1)).await?))))
    }

    /// Forgets at most `batch` idempotency keys older than `retention`; gives how many.
    ///
    /// # Errors
    /// That of the database.
    pub async fn purge_keys(&self, retention: Duration, batch: i64) -> Result<u64, Error> {
        Ok(self.database.get().await?.run(PURGE_KEYS, &[&retention.as_secs_f64(), &batch]).await?)
    }

    /// Places an order: the document, its saga, and the messages that begin it. `None` when the key was used before;
    /// [`Store::earlier`] then tells for what.
    ///
    /// # Errors
    /// That of the database.
    pub async fn place(
        &self,
        order: &NewOrder,
        request: &RequestKey,
        cause: &Cause,
    ) -> Result<Option<Document>, Error> {
        let placed = self.database.transaction(|tx| place(tx, order, request, cause).scope_boxed()).await?;
        self.outbox.wake();
        failpoint!(failpoints::PLACED);
        Ok(placed)
    }

    /// Calls a pending order off.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] when it is no pending order.
    pub async fn cancel(&self, order: Uuid, cause: &Cause) -> Result<Document, Error> {
        let cancelled = self.database.transaction(|tx| cancel(tx, order, cause).scope_boxed()).await?;
        self.outbox.wake();
        failpoint!(failpoints::CANCELLED);
        Ok(cancelled)
    }

    /// Issues the invoice of a confirmed order.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] when it is no confirmed order without an invoice; [`Error::Unfulfilled`] when nothing is held for it.
    pub async fn invoice(&self, order: Uuid, cause: &Cause) -> Result<Document, Error> {
        let issued = self.database.transaction(|tx| invoice(tx, order, cause).scope_boxed()).await?;
        self.outbox.wake();
        Ok(issued)
    }

    /// Issues a credit note over a part of an invoice, and begins to return the goods. `None` when the key was used
    /// before; [`Store::earlier`] then tells for what.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] when it is no invoice; [`Error::Invalid`] when more is credited than is left.
    pub async fn credit(
        &self,
        invoice: Uuid,
        selection: &Selection,
        request: &RequestKey,
        cause: &Cause,
    ) -> Result<Option<Document>, Error> {
        let issued =
            self.database.transaction(|tx| credit(tx, invoice, selection, request, cause).scope_boxed()).await?;
        self.outbox.wake();
        failpoint!(failpoints::CREDITED);
        Ok(issued)
    }

    /// Moves at most `batch` sagas on whose answer is overdue, by the database's clock; gives how many. Several
    /// instances may do so at once: each takes what no other has taken.
    ///
    /// # Errors
    /// That of the database.
    pub async fn sweep(&self, batch: i64) -> Result<usize, Error> {
        let swept = self.database.transaction(|tx| sweep(tx, batch).scope_boxed()).await?;
        if swept > 0 {
            self.outbox.wake();
            failpoint!(failpoints::SWEPT);
        }
        Ok(swept)
    }
}

impl Sagas for Store {
    async fn list(&self, open: bool, limit: u16) -> Result<Vec<SagaView>, Problem> {
        let sql = if open { LIST_OPEN_SAGAS } else { LIST_SAGAS };
        Ok(self.database.get().await?.all(sql, &[&i64::from(limit)]).await?.iter().map(saga_view).collect())
    }

    async fn find(&self, id: Uuid) -> Result<Option<SagaView>, Problem> {
        Ok(self.database.get().await?.optional(FIND_SAGA, &[&id]).await?.as_ref().map(saga_view))
    }

    async fn retry(&self, id: Uuid, operator: &Operator) -> Result<(), Problem> {
        Ok(self.intervene(id, operator, Intervention::Retry, None).await?)
    }

    async fn cancel(&self, id: Uuid, operator: &Operator) -> Result<(), Problem> {
        Ok(self.intervene(id, operator, Intervention::Cancel, None).await?)
    }

    async fn abandon(&self, id: Uuid, operator: &Operator, reason: &str) -> Result<(), Problem> {
        Ok(self.intervene(id, operator, Intervention::Abandon, Some(reason)).await?)
    }
}

impl Store {
    async fn intervene(
        &self,
        id: Uuid,
        operator: &Operator,
        intervention: Intervention,
        reason: Option<&str>,
    ) -> Result<(), Error> {
        self.database.transaction(|tx| intervene(tx, id, operator, intervention, reason).scope_boxed()).await?;
        self.outbox.wake();
        Ok(())
    }
}

fn saga_view(row: &Row) -> SagaView {
    let (number, document_state): (&str, &str) = (row.get("number"), row.get("document_state"));
    SagaView {
        id: row.get("id"),
        about: format!("{number}, {document_state}"),
        state: row.get("state"),
        ended: row.get("ended"),
        due_at: row.get("due_at"),
        repeats: row.get("repeats"),
        initiator: row.get("initiator"),
        created_at: row.get("created_at"),
        updated_at: row.get("updated_at"),
    }
}

async fn place(
    tx: &Transaction<'_>,
    order: &NewOrder,
    request: &RequestKey,
    cause: &Cause,
) -> Result<Option<Document>, Error> {
    let id = Uuid::now_v7();
    if !claim(tx, request, id).await? {
        return Ok(None);
    }
    let Contents { lines, total } = &order.contents;
    let seconds = order.patience.get().as_secs_f64();
    let row = tx.one(INSERT_ORDER, &[&id, &order.customer, &total.currency.as_str(), &total.amount, &seconds]).await?;
    let placed = Document { head: head(&row)?, lines: lines.clone() };
    insert_lines(tx, id, lines).await?;
    start_saga(tx, id, saga::State::Reserving, Some(order.patience.get()), cause).await?;
    let deadline = row.get("deadline");
    emit(tx, id, cause, &OrderPlaced::new(&placed, deadline)).await?;
    emit(tx, id, cause, &Reserve { order_id: id, deadline, lines: lines.iter().map(Into::into).collect() }).await?;
    failpoint!(failpoints::PLACE);
    Ok(Some(placed))
}

async fn cancel(tx: &Transaction<'_>, order: Uuid, cause: &Cause) -> Result<Document, Error> {
    let saga = lock_saga(tx, order).await?;
    load(tx, order).await?.head.standing.permit(Operation::Cancel)?;
    advance(tx, &saga.ok_or(Error::NotFound)?, &saga::Event::Cancelled, cause).await?;
    failpoint!(failpoints::CANCEL);
    load(tx, order).await
}

/// What an operator does to a saga.
async fn intervene(
    tx: &Transaction<'_>,
    id: Uuid,
    operator: &Operator,
    intervention: Intervention,
    reason: Option<&str>,
) -> Result<(), Error> {
    let saga = lock_saga(tx, id).await?.ok_or(Error::NotFound)?;
    if intervention == Intervention::Abandon && is_abandoned(tx, &saga).await? {
        return Ok(());
    }
    saga.state.permit(intervention)?;
    let cause = Cause { initiator: Some(operator.name().to_owned()), trace: TraceContext::current() };
    match intervention {
        Intervention::Retry => {
            tx.run(ASK_AGAIN, &[&id]).await?;
        }
        Intervention::Cancel => advance(tx, &saga, &saga::Event::Cancelled, &cause).await?,
        Intervention::Abandon => {
            if let Some(invoice) = tx.optional(OUTSTANDING, &[&id]).await? {
                return Err(Error::Invoiced(invoice.get(0)));
            }
            advance(tx, &saga, &saga::Event::Abandoned, &cause).await?;
        }
    }
    operator.changed(tx, intervention.name(), &format!("saga {id}"), reason).await?;
    Ok(())
}

/// Whether an operator has given it up before.
async fn is_abandoned(tx: &Transaction<'_>, saga: &LockedSaga) -> Result<bool, Error> {
    let cancellation: Option<Cancellation> = tx.one(CANCELLATION, &[&saga.id]).await?.get(0);
    Ok(saga.state == saga::State::Abandoned || cancellation == Some(Cancellation::Unfulfilled))
}

async fn invoice(tx: &Transaction<'_>, order: Uuid, cause: &Cause) -> Result<Document, Error> {
    tx.run(LOCK_DOCUMENT, &[&order]).await?;
    let ordered = load(tx, order).await?;
    ordered.head.standing.permit(Operation::Invoice)?;
    if tx.one(IS_UNFULFILLED, &[&order]).await?.get(0) {
        return Err(Error::Unfulfilled);
    }
    let invoice = issue(tx, Uuid::now_v7(), Kind::Invoice, &ordered.head, ordered.contents()).await?;
    let ordered = advance_document(tx, order, &Change::to(State::Invoiced)).await?;
    emit(tx, order, cause, &OrderInvoiced::new(&ordered, invoice.head.id)).await?;
    emit(tx, order, cause, &InvoiceIssued::new(&invoice, order)).await?;
    Ok(invoice)
}

async fn credit(
    tx: &Transaction<'_>,
    invoice: Uuid,
    selection: &Selection,
    request: &RequestKey,
    cause: &Cause,
) -> Result<Option<Document>, Error> {
    let id = Uuid::now_v7();
    if !claim(tx, request, id).await? {
        return Ok(None);
    }
    tx.run(LOCK_DOCUMENT, &[&invoice]).await?;
    let invoiced = load(tx, invoice).await?;
    invoiced.head.standing.permit(Operation::CreditNotes)?;
    let contents = domain::credit(&invoiced.contents(), selection).map_err(Error::Invalid)?;
    let items: Vec<Uuid> = contents.lines.iter().map(|line| line.item_id).collect();
    let quantities: Vec<i64> = contents.lines.iter().map(|line| line.quantity).collect();
    tx.run(CREDIT_LINES, &[&invoice, &items, &quantities]).await?;
    tx.run(TOUCH, &[&invoice]).await?;
    let note = issue(tx, id, Kind::CreditNote, &invoiced.head, contents).await?;
    start_saga(tx, id, saga::State::Returning, saga::State::Returning.patience(0), cause).await?;
    let goods = goods_to_return(tx, id).await?;
    emit(tx, id, cause, &CreditNoteIssued::new(&note, invoice, goods.order_id)).await?;
    emit(tx, id, cause, &goods).await?;
    failpoint!(failpoints::CREDIT);
    Ok(Some(note))
}

async fn sweep(tx: &Transaction<'_>, batch: i64) -> Result<usize, Error> {
    let overdue = tx.all(LOCK_OVERDUE, &[&batch]).await?;
    for row in &overdue {
        failpoint!(failpoints::OVERDUE);
        let trace: Option<&str> = row.get("trace");
        let cause = Cause { initiator: row.get("initiator"), trace: trace.and_then(TraceContext::parse) };
        advance(tx, &locked_saga(row), &saga::Event::Overdue, &cause).await?;
    }
    if !overdue.is_empty() {
        failpoint!(failpoints::SWEEP);
    }
    Ok(overdue.len())
}

/// What an answer of item management does, in the transaction that records its arrival.
///
/// # Errors
/// [`Error::NotFound`] when no saga has this id and what was done cannot be undone; [`Error::Illegal`] when its table has no such
/// step.
pub async fn answer(tx: &Transaction<'_>, id: Uuid, event: &saga::Event, cause: &Cause) -> Result<(), Error> {
    let Some(saga) = lock_saga(tx, id).await? else { return disown(tx, id, event, cause).await };
    advance(tx, &saga, event, cause).await?;
    failpoint!(failpoints::DECIDE);
    Ok(())
}

/// Answers for a saga that is not known. It was lost when this database was put back to an older state, because nobody is asked
/// for anything before the saga is committed: item management is told so, and undoes what it did for it.
async fn disown(tx: &Transaction<'_>, id: Uuid, event: &saga::Event, cause: &Cause) -> Result<(), Error> {
    match event {
        saga::Event::Reserved => emit(tx, id, cause, &Release { order_id: id, reason: ReleaseReason::Unknown }).await,
        // A command about it exists, so `Reserved` is or will be answered, and that release covers it. What nobody was ever asked for
        // is no answer to anything.
        saga::Event::Taken if Outbox::version(tx, Release::SUBJECT, id).await? > 0 => Ok(()),
        saga::Event::Refused(_) | saga::Event::Released | saga::Event::ReturnRefused => Ok(()),
        _ => Err(Error::NotFound),
    }
}

/// A saga whose row is locked.
struct LockedSaga {
    id: Uuid,
    state: saga::State,
    repeats: i32,
}

fn locked_saga(row: &Row) -> LockedSaga {
    LockedSaga { id: row.get("id"), state: row.get("state"), repeats: row.get("repeats") }
}

async fn lock_saga(tx: &Transaction<'_>, id: Uuid) -> Result<Option<LockedSaga>, Error> {
    Ok(tx.optional(LOCK_SAGA, &[&id]).await?.as_ref().map(locked_saga))
}

async fn start_saga(
    tx: &Transaction<'_>,
    id: Uuid,
    state: saga::State,
    patience: Option<Duration>,
    cause: &Cause,
) -> Result<(), Error> {
    let seconds = patience.map(|patience| patience.as_secs_f64());
    let trace = cause.trace.map(|trace| trace.to_string());
    tx.run(START_SAGA, &[&id, &state, &seconds, &cause.initiator, &trace]).await?;
    Ok(())
}

async fn advance(tx: &Transaction<'_>, saga: &LockedSaga, event: &saga::Event, cause: &Cause) -> Result<(), Error> {
    let &LockedSaga { id, state, repeats } = saga;
    let (next, commands) = Process::decide(&state, event)?;
    if next == state && commands.is_empty() {
        return Ok(());
    }
    let repeats = if next == state { repeats.saturating_add(1) } else { 0 };
    let patience = next.patience(repeats.unsigned_abs()).map(|patience| patience.as_secs_f64());
    tx.run(ADVANCE_SAGA, &[&id, &next, &repeats, &patience]).await?;
    for command in commands {
        execute(tx, id, command, cause).await?;
    }
    Ok(())
}

async fn execute(tx: &Transaction<'_>, id: Uuid, command: Command, cause: &Cause) -> Result<(), Error> {
    match command {
        Command::Confirm => {
            let order = advance_document(tx, id, &Change::to(State::Confirmed)).await?;
            emit(tx, id, cause, &OrderConfirmed::new(&order)).await
        }
        Command::Reject(refusal) => {
            let order = advance_document(tx, id, &Change::rejected(&refusal)).await?;
            emit(tx, id, cause, &OrderRejected::new(&order, refusal)).await
        }
        Command::Cancel(reason) => {
            let order = advance_document(tx, id, &Change::cancelled(reason)).await?;
            emit(tx, id, cause, &OrderCancelled::new(&order, reason)).await
        }
        Command::Close => advance_document(tx, id, &Change::to(State::Returned)).await.map(drop),
        Command::Reopen => advance_document(tx, id, &Change::to(State::Issued)).await.map(drop),
        Command::Take => emit(tx, id, cause, &Take { order_id: id }).await,
        Command::Release => {
            let cancellation: Option<Cancellation> = tx.one(CANCELLATION, &[&id]).await?.get(0);
            emit(tx, id, cause, &Release { order_id: id, reason: cancellation.into() }).await
        }
        Command::Undo => emit(tx, id, cause, &Release { order_id: id, reason: ReleaseReason::Forgotten }).await,
        Command::Return => {
            let goods = goods_to_return(tx, id).await?;
            emit(tx, id, cause, &goods).await
        }
    }
}

/// Records a message that is owed. The id of the saga is the id of the document it settles.
async fn emit<M: Message>(tx: &Transaction<'_>, saga: Uuid, cause: &Cause, message: &M) -> Result<(), Error> {
    let event = NewEvent {
        subject: M::SUBJECT,
        aggregate_id: message.aggregate(),
        saga: Some(saga),
        initiator: cause.initiator.as_deref(),
        trace: cause.trace,
        data: message,
    };
    Outbox::put(tx, event).await?;
    Ok(())
}

/// Whether the key was free and is now taken for this document.
async fn claim(tx: &Transaction<'_>, request: &RequestKey, document: Uuid) -> Result<bool, Error> {
    let RequestKey { principal, key, fingerprint } = request;
    Ok(tx.run(CLAIM_KEY, &[principal, key, &fingerprint.as_slice(), &document]).await? == 1)
}

async fn load(client: &impl Statements, id: Uuid) -> Result<Document, Error> {
    let rows = client.all(DOCUMENT, &[&id]).await?;
    let first = rows.first().ok_or(Error::NotFound)?;
    Ok(Document { head: head(first)?, lines: rows.iter().map(line).collect() })
}

async fn insert_lines(tx: &Transaction<'_>, document: Uuid, lines: &[Line]) -> Result<(), Error> {
    let items: Vec<Uuid> = lines.iter().map(|line| line.item_id).collect();
    let skus: Vec<&str> = lines.iter().map(|line| line.sku.as_str()).collect();
    let names: Vec<&str> = lines.iter().map(|line| line.name.as_str()).collect();
    let quantities: Vec<i64> = lines.iter().map(|line| line.quantity).collect();
    let prices: Vec<i64> = lines.iter().map(|line| line.unit_price).collect();
    tx.run(INSERT_LINES, &[&document, &items, &skus, &names, &quantities, &prices]).await?;
    Ok(())
}

/// Issues an invoice or a credit note on `basis`.
async fn issue(
    tx: &Transaction<'_>,
    id: Uuid,
    kind: Kind,
    basis: &Head,
    contents: Contents,
) -> Result<Document, Error> {
    let Contents { lines, total } = contents;
    let currency = total.currency.as_str();
    let row = tx.one(ISSUE, &[&id, &kind, &basis.customer, &basis.id, &currency, &total.amount]).await?;
    insert_lines(tx, id, &lines).await?;
    Ok(Document { head: head(&row)?, lines })
}

/// A document's new state, with what goes with it.
struct Change<'a> {
    state: State,
    refusal: Option<RefusalReason>,
    shortages: &'a [Shortage],
    cancellation: Option<Cancellation>,
}

impl<'a> Change<'a> {
    fn to(state: State) -> Self {
        Self { state, refusal: None, shortages: &[], cancellation: None }
    }

    fn rejected(refusal: &'a Refusal) -> Self {
        Self { refusal: Some(refusal.reason), shortages: &refusal.shortages, ..Self::to(State::Rejected) }
    }

    fn cancelled(reason: Cancellation) -> Self {
        Self { cancellation: Some(reason), ..Self::to(State::Cancelled) }
    }
}

async fn advance_document(tx: &Transaction<'_>, id: Uuid, change: &Change<'_>) -> Result<Head, Error> {
    let Change { state, refusal, shortages, cancellation } = change;
    head(&tx.one(ADVANCE_DOCUMENT, &[&id, state, refusal, &Json(shortages), cancellation]).await?)
}

async fn goods_to_return(tx: &Transaction<'_>, credit_note: Uuid) -> Result<Return, Error> {
    let rows = tx.all(GOODS_TO_RETURN, &[&credit_note]).await?;
    let order_id = rows.first().ok_or(Error::NotFound)?.get(0);
    let lines = rows.iter().map(|row| StockLine { item_id: row.get(1), quantity: row.get(2) }).collect();
    Ok(Return { credit_note_id: credit_note, order_id, lines })
}

fn head(row: &Row) -> Result<Head, Error> {
    let id = row.get("id");
    let corrupt = |what| Error::Corrupt { id, what };
    let currency: &str = row.get("currency");
    Ok(Head {
        id,
        number: row.get("number"),
        customer: row.get("customer"),
        standing: standing(row).ok_or(corrupt("its state does not fit its kind"))?,
        total: Money {
            amount: row.get("total"),
            currency: currency.parse().map_err(|_| corrupt("its currency is none"))?,
        },
        version: row.get("version"),
        created_at: row.get("created_at"),
        updated_at: row.get("updated_at"),
    })
}

fn standing(row: &Row) -> Option<Standing> {
    let basis: Option<Uuid> = row.get("based_on");
    let state: State = row.get("state");
    Some(match row.get("kind") {
        Kind::Invoice => Standing::Invoice { order: basis? },
        Kind::CreditNote => Standing::CreditNote { invoice: basis?, returned: state == State::Returned },
        Kind::Order => {
            Standing::Order { state: order_state(row, state)?, deadline: row.get::<_, Option<Timestamp>>("deadline")? }
        }
    })
}

fn order_state(row: &Row, state: State) -> Option<OrderState> {
    match state {
        State::Pending => Some(OrderState::Pending),
        State::Confirmed => Some(OrderState::Confirmed),
        State::Invoiced => Some(OrderState::Invoiced),
        State::Cancelled => row.get::<_, Option<_>>("cancellation").map(OrderState::Cancelled),
        State::Rejected => {
            let Json(shortages) = row.get("shortages");
            let reason = row.get::<_, Option<RefusalReason>>("refusal")?;
            Some(OrderState::Rejected(Refusal { reason, shortages }))
        }
        State::Issued | State::Returned => None,
    }
}

fn line(row: &Row) -> Line {
    let (quantity, unit_price): (i64, i64) = (row.get("quantity"), row.get("unit_price"));
    Line {
        item_id: row.get("item_id"),
        sku: row.get("sku"),
        name: row.get("name"),
        quantity,
        unit_price,
        credited: row.get("credited"),
    }
}
