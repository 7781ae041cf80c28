//! How much there is of an item, why, and who holds it.

use auth::web::Caller;
use axum::extract::State;
use berth_http::{
    extract::{IDEMPOTENCY_KEY, IdempotencyKey, Json, Path, Query},
    page::{Cursor, Limit, Page},
    problem::{self, Problem, ProblemType},
};
use database::{ScopedFutureExt, Transaction};
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use uuid::Uuid;

use super::{App, Failure, no_such_item, page};
use crate::{
    domain::{Adjustment, EntryKind, ItemReservation, ReservationState, Stock, StockEntry, StockError},
    messages::Fact,
    store::{self, Entry, Reach},
};

static STOCK_RESERVED: ProblemType = ProblemType::new("stock-reserved", 409, "Orders hold the stock");

/// Where the ledger of an item goes on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AfterEntry {
    entry: Uuid,
}

/// What of the ledger is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LedgerQuery {
    /// `next` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<AfterEntry>>,
    /// How many lines at most.
    #[serde(default)]
    #[param(inline)]
    limit: Limit,
}

/// List the changes of an item's stock
///
/// The ledger, oldest line first: what people adjusted, orders took and credit notes returned.
#[utoipa::path(get, path = "/items/{id}/stock-adjustments", tag = "stock", params(("id" = Uuid, Path), LedgerQuery), responses(
    (status = 200, description = "A page of the ledger.", body = Page<StockEntry>),
    (status = 404, description = "There is no such item.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list_stock_adjustments(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    query: Result<Query<LedgerQuery>, Problem>,
) -> Result<Json<Page<StockEntry>>, Failure> {
    app.authorize_view(&caller, "view-ledger", id)?;
    let Query(LedgerQuery { cursor, limit }) = query?;
    let database = app.database.get().await?;
    store::find_item(&*database, id).await?.ok_or_else(no_such_item)?;
    let after = cursor.map(|Cursor(AfterEntry { entry })| entry);
    let entries = store::list_entries(&*database, id, after, limit.rows()).await?;
    page(Page::of(entries, limit, |entry| AfterEntry { entry: entry.id }))
}

/// Adjust an item's stock
///
/// With an `Idempotency-Key` a repeated request has no second effect and gets the first answer again.
#[utoipa::path(post, path = "/items/{id}/stock-adjustments", tag = "stock",
    params(
        ("id" = Uuid, Path),
        ("idempotency-key" = Option<String>, Header, description = "Chosen by the caller for this adjustment."),
    ),
    request_body = Adjustment,
    responses(
        (status = 201, description = "The new line of the ledger.", body = StockEntry),
        (status = 404, description = "There is no such item.", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Less would be left than orders hold; `stock_on_hand` and `stock_reserved` say what there is.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn adjust_stock(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    key: Result<Option<IdempotencyKey>, Problem>,
    adjustment: Result<Json<Adjustment>, Problem>,
) -> Result<(StatusCode, Json<StockEntry>), Failure> {
    app.authorize_change(&caller, "adjust-stock", id)?;
    let (key, Json(adjustment)) = (key?, adjustment?);
    let key = key.as_ref().map(IdempotencyKey::as_str);
    let (actor, now) = (&caller.subject, app.clock.now());
    let entry = app.database.transaction(|tx| adjust(tx, id, &adjustment, actor, key, now).scope_boxed()).await?;
    app.outbox.wake();
    Ok((StatusCode::CREATED, Json(entry)))
}

/// Requests with the same key wait for each other at the item's lock, so that the second one finds the entry of the first.
async fn adjust(
    tx: &Transaction<'_>,
    id: Uuid,
    adjustment: &Adjustment,
    actor: &str,
    key: Option<&str>,
    now: Timestamp,
) -> Result<StockEntry, Failure> {
    let shelf = store::lock_shelf(tx, &[id], Reach::Existing).await?;
    let stock = *shelf.get(&id).ok_or_else(no_such_item)?;
    if let Some(key) = key
        && let Some(entry) = store::find_entry(tx, id, actor, key).await?
    {
        return repeated(entry, adjustment);
    }
    let adjusted = stock.adjusted(adjustment.change).map_err(|error| not_adjustable(error, stock))?;
    store::write_shelf(tx, &[(id, adjusted)].into(), now).await?;
    let reason = Some(adjustment.reason.as_str());
    let entry = Entry { kind: EntryKind::Adjustment, reason, reference: None, actor, idempotency_key: key };
    let entries = store::insert_entries(tx, entry, &[(id, adjustment.change.get())], now).await?;
    let entry = entries.into_iter().next().ok_or_else(no_such_item)?;
    Fact::StockAdjusted(&entry).emit(tx, actor).await?;
    Ok(entry)
}

/// The first answer again, if it is the same request.
fn repeated(entry: StockEntry, adjustment: &Adjustment) -> Result<StockEntry, Failure> {
    let same = entry.change == adjustment.change.get() && entry.reason.as_deref() == Some(adjustment.reason.as_str());
    if same {
        return Ok(entry);
    }
    let detail = "The Idempotency-Key belongs to another adjustment of this item.";
    let message = "belongs to another request: choose a new one for each";
    Err(problem::IDEMPOTENCY_KEY_REUSED.detail(detail).request_header(&IDEMPOTENCY_KEY, message).into())
}

fn not_adjustable(error: StockError, stock: Stock) -> Problem {
    let kind = match error {
        StockError::AboveMaximum => &problem::INVALID_FIELD,
        _ => &STOCK_RESERVED,
    };
    kind.detail(format!("The stock cannot be adjusted: {error}."))
        .field("/change", error.to_string())
        .with("stock_on_hand", stock.on_hand())
        .with("stock_reserved", stock.reserved())
}

/// Where the reservations of an item go on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AfterOrder {
    order: Uuid,
}

/// What of the reservations is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ReservationQuery {
    /// `next` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<AfterOrder>>,
    /// How many reservations at most.
    #[serde(default)]
    #[param(inline)]
    limit: Limit,
    /// Only those in this state.
    #[param(inline)]
    state: Option<ReservationState>,
}

/// List the reservations of an item
///
/// In the order of order ids, which is the order in which orders were placed.
#[utoipa::path(get, path = "/items/{id}/reservations", tag = "stock", params(("id" = Uuid, Path), ReservationQuery), responses(
    (status = 200, description = "A page of reservations.", body = Page<ItemReservation>),
    (status = 404, description = "There is no such item.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list_reservations(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    query: Result<Query<ReservationQuery>, Problem>,
) -> Result<Json<Page<ItemReservation>>, Failure> {
    app.authorize_view(&caller, "view-reservations", id)?;
    let Query(ReservationQuery { cursor, limit, state }) = query?;
    let database = app.database.get().await?;
    store::find_item(&*database, id).await?.ok_or_else(no_such_item)?;
    let after = cursor.map(|Cursor(AfterOrder { order })| order);
    let reservations = store::list_reservations(&*database, id, state, after, limit.rows()).await?;
    page(Page::of(reservations, limit, |reservation| AfterOrder { order: reservation.order_id }))
}
