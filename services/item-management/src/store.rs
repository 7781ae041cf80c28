//! Every SQL statement of the service: typed in, typed out, no rules. Each function is one statement; what belongs together in
//! a transaction is put together by those who call.
//!
//! Whoever changes the stock of several items locks them all with one [`lock_shelf`], which locks in the order of item ids, and
//! locks a [`reservation`](lock_reservation) before its items: so nobody waits for each other in a circle.

use database::{Database, Error, MigrateError, Row, Statements, Transaction};
use jiff::Timestamp;
use postgres_types::Json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::domain::{
    Description, EntryKind, Item, ItemFilter, ItemReservation, Money, Name, NewItem, OrderLines, QuoteLine,
    QuoteRequestLine, Refusal, ReservationState, Search, Shelf, Stock, StockEntry,
};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Brings the service's own tables up to date, see [`Database::migrate`].
pub async fn migrate(database: &Database, stop: &CancellationToken) -> Result<(), MigrateError> {
    database.migrate(embedded::migrations::runner(), "item_management_migrations", stop).await
}

/// The unique index that keeps two items from having one sku.
pub const UNIQUE_SKU: &str = "items_sku";

/// What [`item`] reads. Never `*`: a statement that was prepared with it breaks when a newer instance adds a column.
macro_rules! item_columns {
    () => {
        "id, sku, name, description, price_amount, price_currency, stock_on_hand, stock_reserved, version, created_at, updated_at"
    };
}

fn item(row: &Row) -> Item {
    let (on_hand, reserved): (i64, i64) = (row.get("stock_on_hand"), row.get("stock_reserved"));
    Item {
        id: row.get("id"),
        sku: row.get("sku"),
        name: row.get("name"),
        description: row.get("description"),
        price: money(row),
        stock_on_hand: on_hand,
        stock_reserved: reserved,
        stock_available: on_hand - reserved,
        version: row.get("version"),
        created_at: row.get("created_at"),
        updated_at: row.get("updated_at"),
    }
}

fn money(row: &Row) -> Money {
    Money { amount: row.get("price_amount"), currency: row.get("price_currency") }
}

/// Makes an item. Fails with a conflict over [`UNIQUE_SKU`] when another one has the sku.
pub async fn insert_item(tx: &Transaction<'_>, new: &NewItem, now: Timestamp) -> Result<Item, Error> {
    let row = tx
        .one(
            concat!(
                "INSERT INTO items
                     (id, sku, name, description, price_amount, price_currency, stock_on_hand, created_at, updated_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)
                 RETURNING ",
                item_columns!()
            ),
            &[
                &Uuid::now_v7(),
                &new.sku,
                &new.name,
                &new.description,
                &new.price.amount,
                &new.price.currency,
                &new.stock_on_hand.map_or(0, |stock| stock.get()),
                &now,
            ],
        )
        .await?;
    Ok(item(&row))
}

/// An item that is not deleted.
pub async fn find_item(db: &impl Statements, id: Uuid) -> Result<Option<Item>, Error> {
    let sql = concat!("SELECT ", item_columns!(), " FROM items WHERE id = $1 AND deleted_at IS NULL");
    let row = db.optional(sql, &[&id]).await?;
    Ok(row.as_ref().map(item))
}

/// Like [`find_item`], and nobody else changes it until the transaction ends.
pub async fn lock_item(tx: &Transaction<'_>, id: Uuid) -> Result<Option<Item>, Error> {
    let sql = concat!("SELECT ", item_columns!(), " FROM items WHERE id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE");
    let row = tx.optional(sql, &[&id]).await?;
    Ok(row.as_ref().map(item))
}

/// At most `limit` items with ids above `after`, in the order of ids, which is the order in which they were made.
pub async fn list_items(
    db: &impl Statements,
    filter: &ItemFilter,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Item>, Error> {
    let rows = db
        .all(
            concat!(
                "SELECT ",
                item_columns!(),
                " FROM items
                 WHERE deleted_at IS NULL
                   AND ($1::uuid IS NULL OR id > $1)
                   AND ($2::text IS NULL OR search @@ to_tsquery('simple', $2))
                   AND ($3::text IS NULL OR price_currency = $3)
                   AND ($4::boolean IS NULL OR (stock_on_hand > stock_reserved) = $4)
                   AND ($5::bigint IS NULL OR price_amount >= $5)
                   AND ($6::bigint IS NULL OR price_amount <= $6)
                 ORDER BY id
                 LIMIT $7"
            ),
            &[
                &after,
                &filter.search.as_ref().map(prefixes),
                &filter.currency,
                &filter.in_stock,
                &filter.min_price,
                &filter.max_price,
                &limit,
            ],
        )
        .await?;
    Ok(rows.iter().map(item).collect())
}

/// A text search query for words that begin so. The words hold no quotes and no backslashes: those part words.
fn prefixes(search: &Search) -> String {
    search.words().map(|word| format!("'{word}':*")).collect::<Vec<_>>().join(" & ")
}

/// Gives a locked item new fields.
pub async fn update_item(
    tx: &Transaction<'_>,
    id: Uuid,
    (name, description, price): &(Name, Option<Description>, Money),
    now: Timestamp,
) -> Result<Item, Error> {
    let row = tx
        .one(
            concat!(
                "UPDATE items
                 SET name = $2, description = $3, price_amount = $4, price_currency = $5, version = version + 1, updated_at = $6
                 WHERE id = $1
                 RETURNING ",
                item_columns!()
            ),
            &[&id, name, description, &price.amount, &price.currency, &now],
        )
        .await?;
    Ok(item(&row))
}

/// Deletes a locked item that has nothing reserved. Its row stays for what refers to it, and for stock that comes back.
pub async fn delete_item(tx: &Transaction<'_>, id: Uuid, now: Timestamp) -> Result<(), Error> {
    tx.run("UPDATE items SET deleted_at = $2, version = version + 1, updated_at = $2 WHERE id = $1", &[&id, &now])
        .await?;
    Ok(())
}

/// How many orders hold stock of the item.
pub async fn count_held(db: &impl Statements, item_id: Uuid) -> Result<i64, Error> {
    let row = db
        .one(
            "SELECT count(*) FROM reservation_lines JOIN reservations USING (order_id) WHERE item_id = $1 AND state = 'held'",
            &[&item_id],
        )
        .await?;
    Ok(row.get(0))
}

/// Which items a statement is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Those that can be sold.
    Existing,
    /// Those too that were deleted.
    Deleted,
}

/// Locks the items, in the order of their ids, and gives their stock. Those that are not there are left out.
pub async fn lock_shelf(tx: &Transaction<'_>, items: &[Uuid], reach: Reach) -> Result<Shelf, Error> {
    let rows = tx
        .all(
            "SELECT id, stock_on_hand, stock_reserved FROM items
             WHERE id = ANY($1) AND (deleted_at IS NULL OR $2)
             ORDER BY id
             FOR NO KEY UPDATE",
            &[&items, &(reach == Reach::Deleted)],
        )
        .await?;
    // The schema's checks are those of `Stock::new`: no row is lost here.
    let stock = |row: &Row| Stock::new(row.get("stock_on_hand"), row.get("stock_reserved"));
    Ok(rows.iter().filter_map(|row| Some((row.get("id"), stock(row)?))).collect())
}

/// Writes the stock of locked items.
pub async fn write_shelf(tx: &Transaction<'_>, shelf: &Shelf, now: Timestamp) -> Result<(), Error> {
    let ids: Vec<Uuid> = shelf.keys().copied().collect();
    let on_hand: Vec<i64> = shelf.values().map(|stock| stock.on_hand()).collect();
    let reserved: Vec<i64> = shelf.values().map(|stock| stock.reserved()).collect();
    tx.run(
        "UPDATE items
         SET stock_on_hand = new.on_hand, stock_reserved = new.reserved, version = version + 1, updated_at = $4
         FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS new (id, on_hand, reserved)
         WHERE items.id = new.id",
        &[&ids, &on_hand, &reserved, &now],
    )
    .await?;
    Ok(())
}

/// What [`stock_entry`] reads.
macro_rules! entry_columns {
    () => {
        "id, item_id, kind, change, stock_on_hand, stock_reserved, reason, reference, actor, created_at"
    };
}

/// What lines of the ledger that are written together have in common.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// What kind of change it was.
    pub kind: EntryKind,
    /// What the person gave as the reason; of an adjustment only.
    pub reason: Option<&'a str>,
    /// The order or the credit note; of what those cause only.
    pub reference: Option<Uuid>,
    /// Who caused it.
    pub actor: &'a str,
    /// The key by which the caller will know it again.
    pub idempotency_key: Option<&'a str>,
}

/// Writes one line of the ledger for each item and change of its stock on hand, with the item's stock as it is now.
pub async fn insert_entries(
    tx: &Transaction<'_>,
    entry: Entry<'_>,
    changes: &[(Uuid, i64)],
    now: Timestamp,
) -> Result<Vec<StockEntry>, Error> {
    let ids: Vec<Uuid> = changes.iter().map(|_| Uuid::now_v7()).collect();
    let (items, changes): (Vec<Uuid>, Vec<i64>) = changes.iter().copied().unzip();
    let rows = tx
        .all(
            concat!(
                "INSERT INTO stock_entries
                     (id, item_id, kind, change, stock_on_hand, stock_reserved, reason, reference, actor, idempotency_key, created_at)
                 SELECT new.id, new.item_id, $4, new.change, items.stock_on_hand, items.stock_reserved, $5, $6, $7, $8, $9
                 FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS new (id, item_id, change)
                 JOIN items ON items.id = new.item_id
                 RETURNING ",
                entry_columns!()
            ),
            &[
                &ids,
                &items,
                &changes,
                &entry.kind,
                &entry.reason,
                &entry.reference,
                &entry.actor,
                &entry.idempotency_key,
                &now,
            ],
        )
        .await?;
    Ok(rows.iter().map(stock_entry).collect())
}

fn stock_entry(row: &Row) -> StockEntry {
    StockEntry {
        id: row.get("id"),
        item_id: row.get("item_id"),
        kind: row.get("kind"),
        change: row.get("change"),
        stock_on_hand: row.get("stock_on_hand"),
        stock_reserved: row.get("stock_reserved"),
        reason: row.get("reason"),
        reference: row.get("reference"),
        actor: row.get("actor"),
        created_at: row.get("created_at"),
    }
}

/// The line of the ledger that this caller wrote with this key.
pub async fn find_entry(
    db: &impl Statements,
    item_id: Uuid,
    actor: &str,
    idempotency_key: &str,
) -> Result<Option<StockEntry>, Error> {
    let row = db
        .optional(
            concat!(
                "SELECT ",
                entry_columns!(),
                " FROM stock_entries WHERE item_id = $1 AND actor = $2 AND idempotency_key = $3"
            ),
            &[&item_id, &actor, &idempotency_key],
        )
        .await?;
    Ok(row.as_ref().map(stock_entry))
}

/// At most `limit` lines of an item's ledger with ids above `after`, oldest first.
pub async fn list_entries(
    db: &impl Statements,
    item_id: Uuid,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<StockEntry>, Error> {
    let rows = db
        .all(
            concat!(
                "SELECT ",
                entry_columns!(),
                " FROM stock_entries WHERE item_id = $1 AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3"
            ),
            &[&item_id, &after, &limit],
        )
        .await?;
    Ok(rows.iter().map(stock_entry).collect())
}

/// At most `limit` reservations of an item with order ids above `after`, in the order of order ids.
pub async fn list_reservations(
    db: &impl Statements,
    item_id: Uuid,
    state: Option<ReservationState>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<ItemReservation>, Error> {
    let rows = db
        .all(
            "SELECT order_id, state, quantity, returned, deadline, created_at, updated_at
             FROM reservation_lines JOIN reservations USING (order_id)
             WHERE item_id = $1
               AND ($2::reservation_state IS NULL OR state = $2)
               AND ($3::uuid IS NULL OR order_id > $3)
             ORDER BY order_id
             LIMIT $4",
            &[&item_id, &state, &after, &limit],
        )
        .await?;
    let reservation = |row: &Row| ItemReservation {
        order_id: row.get("order_id"),
        state: row.get("state"),
        quantity: row.get("quantity"),
        returned: row.get("returned"),
        deadline: row.get("deadline"),
        created_at: row.get("created_at"),
        updated_at: row.get("updated_at"),
    };
    Ok(rows.iter().map(reservation).collect())
}

/// Prices and availability of all lines in one statement, and so at one moment; lines whose item does not exist are left out.
pub async fn quote(db: &impl Statements, lines: &[QuoteRequestLine]) -> Result<Vec<QuoteLine>, Error> {
    let ids: Vec<Uuid> = lines.iter().map(|line| line.item_id).collect();
    let quantities: Vec<i64> = lines.iter().map(|line| line.quantity.get()).collect();
    let rows = db
        .all(
            "SELECT id, sku, name, price_amount, price_currency, asked.quantity, stock_on_hand - stock_reserved AS available
             FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY AS asked (item_id, quantity, position)
             JOIN items ON id = asked.item_id AND deleted_at IS NULL
             ORDER BY position",
            &[&ids, &quantities],
        )
        .await?;
    let line = |row: &Row| QuoteLine {
        item_id: row.get("id"),
        sku: row.get("sku"),
        name: row.get("name"),
        price: money(row),
        quantity: row.get("quantity"),
        stock_available: row.get("available"),
    };
    Ok(rows.iter().map(line).collect())
}

/// What became of an order's wish for stock, as far as it decides what comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// What became of it.
    pub state: ReservationState,
    /// The answer, if it was refused.
    pub refusal: Option<Refusal>,
}

/// The reservation of an order, which nobody else changes until the transaction ends.
pub async fn lock_reservation(tx: &Transaction<'_>, order_id: Uuid) -> Result<Option<Reservation>, Error> {
    let row = tx
        .optional("SELECT state, refusal FROM reservations WHERE order_id = $1 FOR NO KEY UPDATE", &[&order_id])
        .await?;
    Ok(row.map(|row| Reservation {
        state: row.get("state"),
        refusal: row.get::<_, Option<Json<Refusal>>>("refusal").map(|Json(refusal)| refusal),
    }))
}

/// Writes the first thing known of an order. Fails with a conflict when another transaction did so at the same moment.
pub async fn insert_reservation(
    tx: &Transaction<'_>,
    order_id: Uuid,
    reservation: &Reservation,
    deadline: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), Error> {
    tx.run(
        "INSERT INTO reservations (order_id, state, deadline, refusal, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $5)",
        &[&order_id, &reservation.state, &deadline, &reservation.refusal.as_ref().map(Json), &now],
    )
    .await?;
    Ok(())
}

/// Gives a locked reservation a new state.
pub async fn update_reservation(
    tx: &Transaction<'_>,
    order_id: Uuid,
    state: ReservationState,
    now: Timestamp,
) -> Result<(), Error> {
    tx.run("UPDATE reservations SET state = $2, updated_at = $3 WHERE order_id = $1", &[&order_id, &state, &now])
        .await?;
    Ok(())
}

/// Writes what an order holds.
pub async fn insert_lines(tx: &Transaction<'_>, order_id: Uuid, lines: &OrderLines) -> Result<(), Error> {
    tx.run(
        "INSERT INTO reservation_lines (order_id, item_id, quantity)
         SELECT $1, item_id, quantity FROM unnest($2::uuid[], $3::bigint[]) AS line (item_id, quantity)",
        &[&order_id, &lines.items(), &lines.quantities()],
    )
    .await?;
    Ok(())
}

/// What an order holds, or held.
pub async fn list_lines(db: &impl Statements, order_id: Uuid) -> Result<OrderLines, Error> {
    let rows = db.all("SELECT item_id, quantity FROM reservation_lines WHERE order_id = $1", &[&order_id]).await?;
    Ok(OrderLines::stored(rows.iter().map(|row| (row.get("item_id"), row.get("quantity")))))
}

/// What an order took and credit notes have not returned.
pub async fn list_kept_lines(db: &impl Statements, order_id: Uuid) -> Result<OrderLines, Error> {
    let sql = "SELECT item_id, quantity - returned AS kept FROM reservation_lines WHERE order_id = $1 AND returned < quantity";
    let rows = db.all(sql, &[&order_id]).await?;
    Ok(OrderLines::stored(rows.iter().map(|row| (row.get("item_id"), row.get("kept")))))
}

/// Whether a credit note's goods came back before.
pub async fn is_returned(db: &impl Statements, credit_note_id: Uuid) -> Result<bool, Error> {
    Ok(db.optional("SELECT FROM stock_returns WHERE credit_note_id = $1", &[&credit_note_id]).await?.is_some())
}

/// Remembers that a credit note's goods came back.
pub async fn insert_return(
    tx: &Transaction<'_>,
    credit_note_id: Uuid,
    order_id: Uuid,
    now: Timestamp,
) -> Result<(), Error> {
    let sql = "INSERT INTO stock_returns (credit_note_id, order_id, created_at) VALUES ($1, $2, $3)";
    tx.run(sql, &[&credit_note_id, &order_id, &now]).await?;
    Ok(())
}

/// Counts units of an order as returned.
pub async fn add_returned(tx: &Transaction<'_>, order_id: Uuid, lines: &OrderLines) -> Result<(), Error> {
    tx.run(
        "UPDATE reservation_lines SET returned = returned + back.quantity
         FROM unnest($2::uuid[], $3::bigint[]) AS back (item_id, quantity)
         WHERE order_id = $1 AND reservation_lines.item_id = back.item_id",
        &[&order_id, &lines.items(), &lines.quantities()],
    )
    .await?;
    Ok(())
}
