//! What the shop sells: list, create, view, change, delete.

use auth::web::Caller;
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use berth_http::{
    etag::{Etag, IfMatch, IfNoneMatch},
    extract::{Json, Path, Query},
    page::{Cursor, Limit, Page},
    problem::{self, Problem, ProblemType},
};
use database::{ScopedFutureExt, Transaction};
use http::{StatusCode, header};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use uuid::Uuid;

use super::{App, Failure, no_such_item, page};
use crate::{
    domain::{Amount, Currency, EntryKind, Item, ItemFilter, ItemPatch, NewItem, Search},
    messages::Fact,
    store::{self, Entry},
};

static SKU_TAKEN: ProblemType = ProblemType::new("sku-taken", 409, "Another item has the sku");
static ITEM_RESERVED: ProblemType = ProblemType::new("item-reserved", 409, "Orders hold stock of the item");

/// Where a list of items goes on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AfterItem {
    item: Uuid,
}

/// What of the list of items is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ItemQuery {
    /// `next` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<AfterItem>>,
    /// How many items at most.
    #[serde(default)]
    #[param(inline)]
    limit: Limit,
    /// Words to find in sku, name and description; each may be the beginning of a word.
    #[param(inline)]
    search: Option<Search>,
    /// Only items with a price in this currency.
    #[param(inline)]
    currency: Option<Currency>,
    /// Only items of which some (`true`) or none (`false`) can still be ordered.
    in_stock: Option<bool>,
    /// Only items that cost at least this, in minor units of `currency`, which must be given too.
    #[param(inline)]
    min_price: Option<Amount>,
    /// Only items that cost at most this, in minor units of `currency`, which must be given too.
    #[param(inline)]
    max_price: Option<Amount>,
}

impl ItemQuery {
    /// The filter, if it makes sense.
    fn filter(self) -> Result<ItemFilter, Problem> {
        if self.currency.is_none() && (self.min_price.is_some() || self.max_price.is_some()) {
            let detail = "A price means nothing without its currency.";
            return Err(problem::INVALID_PARAMETER
                .detail(detail)
                .parameter("currency", "is required with min_price and max_price"));
        }
        Ok(ItemFilter {
            search: self.search,
            currency: self.currency,
            in_stock: self.in_stock,
            min_price: self.min_price,
            max_price: self.max_price,
        })
    }
}

/// List items
///
/// In the order in which they were made, a page at a time.
#[utoipa::path(get, path = "/items", tag = "items", params(ItemQuery), responses(
    (status = 200, description = "A page of items.", body = Page<Item>),
))]
pub(super) async fn list_items(
    State(app): State<App>,
    caller: Caller,
    query: Result<Query<ItemQuery>, Problem>,
) -> Result<Json<Page<Item>>, Failure> {
    app.authorize(&caller, "list-items")?;
    let Query(mut query) = query?;
    let after = query.cursor.take().map(|Cursor(AfterItem { item })| item);
    let limit = query.limit;
    let items = store::list_items(&*app.database.get().await?, &query.filter()?, after, limit.rows()).await?;
    page(Page::of(items, limit, |item| AfterItem { item: item.id }))
}

/// Create an item
#[utoipa::path(post, path = "/items", tag = "items", request_body = NewItem, responses(
    (status = 201, description = "The new item.", body = Item, headers(("etag" = String), ("location" = String))),
    (status = 409, description = "Another item has the sku.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn create_item(
    State(app): State<App>,
    caller: Caller,
    new: Result<Json<NewItem>, Problem>,
) -> Result<Response, Failure> {
    app.authorize(&caller, "create-item")?;
    let Json(new) = new?;
    let (actor, now) = (&caller.subject, app.clock.now());
    let created = app.database.transaction(|tx| create(tx, &new, actor, now).scope_boxed()).await;
    let item = created.map_err(|failure| match failure {
        Failure::Database(error) if error.constraint() == Some(store::UNIQUE_SKU) => {
            let detail = format!("There is an item with the sku {} already.", new.sku.as_str());
            SKU_TAKEN.detail(detail).field("/sku", "must be unique").into()
        }
        failure => failure,
    })?;
    app.outbox.wake();
    let location = format!("/items/{}", item.id);
    Ok(([(header::LOCATION, location)], tagged(StatusCode::CREATED, item)).into_response())
}

async fn create(tx: &Transaction<'_>, new: &NewItem, actor: &str, now: Timestamp) -> Result<Item, Failure> {
    let item = store::insert_item(tx, new, now).await?;
    if item.stock_on_hand > 0 {
        let opening = Entry { kind: EntryKind::Opening, reason: None, reference: None, actor, idempotency_key: None };
        store::insert_entries(tx, opening, &[(item.id, item.stock_on_hand)], now).await?;
    }
    Fact::Created(&item).emit(tx, actor).await?;
    Ok(item)
}

/// View an item
#[utoipa::path(get, path = "/items/{id}", tag = "items", params(
    ("id" = Uuid, Path),
    ("if-none-match" = Option<String>, Header, description = "The entity tag of the item as the caller holds it."),
), responses(
    (status = 200, description = "The item.", body = Item, headers(("etag" = String))),
    (status = 304, description = "The caller holds it as it is.", headers(("etag" = String))),
    (status = 404, description = "There is no such item.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn view_item(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    held: IfNoneMatch,
) -> Result<Response, Failure> {
    app.authorize_view(&caller, "view-item", id)?;
    let item = store::find_item(&*app.database.get().await?, id).await?.ok_or_else(no_such_item)?;
    let etag = Etag::from_version(item.version);
    Ok(if held.holds(&etag) {
        (StatusCode::NOT_MODIFIED, etag, ()).into_response()
    } else {
        tagged(StatusCode::OK, item)
    })
}

/// Change an item
///
/// By a JSON merge patch (RFC 7396) of name, description and price.
#[utoipa::path(patch, path = "/items/{id}", tag = "items",
    params(
        ("id" = Uuid, Path),
        ("if-match" = String, Header, description = "The entity tag of the item as the caller knows it, or `*`."),
    ),
    request_body(content = ItemPatch, content_type = "application/merge-patch+json"),
    responses(
        (status = 200, description = "The changed item.", body = Item, headers(("etag" = String))),
        (status = 404, description = "There is no such item.", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The item has changed.", body = Problem, content_type = "application/problem+json"),
        (status = 428, description = "If-Match is missing.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn update_item(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    precondition: Result<IfMatch, Problem>,
    patch: Result<Json<ItemPatch>, Problem>,
) -> Result<Response, Failure> {
    app.authorize_change(&caller, "update-item", id)?;
    let (precondition, Json(patch)) = (precondition?, patch?);
    let (actor, now) = (&caller.subject, app.clock.now());
    let item = app.database.transaction(|tx| update(tx, id, &precondition, &patch, actor, now).scope_boxed()).await?;
    app.outbox.wake();
    Ok(tagged(StatusCode::OK, item))
}

/// A patch that changes nothing leaves no trace.
async fn update(
    tx: &Transaction<'_>,
    id: Uuid,
    precondition: &IfMatch,
    patch: &ItemPatch,
    actor: &str,
    now: Timestamp,
) -> Result<Item, Failure> {
    let item = lock_matching(tx, id, precondition).await?;
    let fields = patch.applied(&item);
    if fields == (item.name.clone(), item.description.clone(), item.price.clone()) {
        return Ok(item);
    }
    let item = store::update_item(tx, id, &fields, now).await?;
    Fact::Updated(&item).emit(tx, actor).await?;
    Ok(item)
}

/// Delete an item
///
/// Refused while orders hold stock of it.
#[utoipa::path(delete, path = "/items/{id}", tag = "items",
    params(
        ("id" = Uuid, Path),
        ("if-match" = String, Header, description = "The entity tag of the item as the caller knows it, or `*`."),
    ),
    responses(
        (status = 204, description = "It is deleted."),
        (status = 404, description = "There is no such item.", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Orders hold stock of it; `reservations` says how many.", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The item has changed.", body = Problem, content_type = "application/problem+json"),
        (status = 428, description = "If-Match is missing.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn delete_item(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    precondition: Result<IfMatch, Problem>,
) -> Result<StatusCode, Failure> {
    app.authorize_change(&caller, "delete-item", id)?;
    let precondition = precondition?;
    let (actor, now) = (&caller.subject, app.clock.now());
    app.database.transaction(|tx| delete(tx, id, &precondition, actor, now).scope_boxed()).await?;
    app.outbox.wake();
    Ok(StatusCode::NO_CONTENT)
}

async fn delete(
    tx: &Transaction<'_>,
    id: Uuid,
    precondition: &IfMatch,
    actor: &str,
    now: Timestamp,
) -> Result<(), Failure> {
    let item = lock_matching(tx, id, precondition).await?;
    let held = store::count_held(tx, id).await?;
    if held > 0 {
        let detail = format!("Orders hold stock of the item: {held} reservations must be taken or released first.");
        return Err(ITEM_RESERVED.detail(detail).with("reservations", held).into());
    }
    store::delete_item(tx, id, now).await?;
    Fact::Deleted(&item).emit(tx, actor).await?;
    Ok(())
}

/// The item as it is, locked, if it is the one that the caller means.
async fn lock_matching(tx: &Transaction<'_>, id: Uuid, precondition: &IfMatch) -> Result<Item, Failure> {
    let item = store::lock_item(tx, id).await?.ok_or_else(no_such_item)?;
    precondition.require(item.version)?;
    Ok(item)
}

/// An item with its entity tag.
fn tagged(status: StatusCode, item: Item) -> Response {
    (status, Etag::from_version(item.version), Json(item)).into_response()
}
