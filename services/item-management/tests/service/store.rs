//! Every SQL statement of the store, and the rules that the schema keeps by itself.

use std::collections::BTreeMap;

use item_management::{
    domain::{
        EntryKind, ItemFilter, Line, NewItem, OrderLines, QuoteRequestLine, Refusal, ReservationState, Shelf, Stock,
    },
    store::{self, Entry, Reach, Reservation},
};
use jiff::Timestamp;
use serde_json::{Value, from_value, json};
use uuid::Uuid;

use crate::world::{World, an_item, in_transaction};

fn new_item(body: Value) -> NewItem {
    from_value(body).unwrap()
}

impl World {
    async fn insert(&self, body: Value) -> Result<item_management::domain::Item, database::Error> {
        let (new, now) = (new_item(body), self.now());
        in_transaction!(self, |tx| store::insert_item(tx, &new, now))
    }
}

#[tokio::test]
async fn items_are_written_and_found() {
    let world = World::new().await;
    let now = world.now();
    let item = world
        .insert(json!({
            "sku": "MUG", "name": "Mug", "description": "Holds tea.",
            "price": {"amount": 500, "currency": "EUR"}, "stock_on_hand": 7,
        }))
        .await
        .unwrap();
    assert_eq!((item.stock_on_hand, item.stock_reserved, item.stock_available, item.version), (7, 0, 7, 1));
    assert_eq!((item.created_at, item.updated_at), (now, now));
    let db = world.database.get().await.unwrap();
    assert_eq!(store::find_item(&*db, item.id).await.unwrap().as_ref(), Some(&item));
    assert_eq!(store::find_item(&*db, Uuid::nil()).await.unwrap(), None);

    let taken = world.insert(an_item("MUG", 0)).await.unwrap_err();
    assert_eq!(taken.constraint(), Some(store::UNIQUE_SKU));

    world.clock.advance(std::time::Duration::from_secs(60));
    let later = world.now();
    let fields =
        (from_value(json!("Cup")).unwrap(), None, from_value(json!({"amount": 9, "currency": "JPY"})).unwrap());
    let updated = in_transaction!(world, |tx| async {
        let locked = store::lock_item(tx, item.id).await?;
        assert_eq!(locked.as_ref(), Some(&item));
        store::update_item(tx, item.id, &fields, later).await
    })
    .unwrap();
    assert_eq!((updated.name, updated.description, updated.price), fields);
    assert_eq!((updated.version, updated.created_at, updated.updated_at), (2, now, later));

    in_transaction!(world, |tx| store::delete_item(tx, item.id, later)).unwrap();
    assert_eq!(store::find_item(&*db, item.id).await.unwrap(), None);
    let locked = in_transaction!(world, |tx| store::lock_item(tx, item.id)).unwrap();
    assert_eq!(locked, None);
    world.insert(an_item("MUG", 0)).await.expect("the sku of a deleted item is free");
}

#[tokio::test]
async fn items_are_listed_by_filter_and_page() {
    let world = World::new().await;
    for (sku, name, description, amount, currency, on_hand) in [
        ("MUG-RED-01", "Red mug", "Holds a third of a litre.", 500, "EUR", 3),
        ("MUG-BLUE-01", "Blue mug", "It's blue & (very) nice!", 700, "EUR", 0),
        ("TEA", "Größe Ⅱ Tee", "loose leaves", 1200, "CHF", 9),
    ] {
        let price = json!({"amount": amount, "currency": currency});
        let body =
            json!({"sku": sku, "name": name, "description": description, "price": price, "stock_on_hand": on_hand});
        world.insert(body).await.unwrap();
    }
    let gone = world.insert(an_item("MUG-GONE", 1)).await.unwrap();
    let now = world.now();
    in_transaction!(world, |tx| store::delete_item(tx, gone.id, now)).unwrap();

    let db = world.database.get().await.unwrap();
    let skus = async |filter: &ItemFilter, after, limit| {
        let items = store::list_items(&*db, filter, after, limit).await.unwrap();
        items.into_iter().map(|item| item.sku.as_str().to_owned()).collect::<Vec<_>>()
    };
    let search = |text: &str| ItemFilter { search: Some(from_value(json!(text)).unwrap()), ..Default::default() };
    let amount = |amount: i64| Some(from_value(json!(amount)).unwrap());
    let all: &[&str] = &["MUG-RED-01", "MUG-BLUE-01", "TEA"];
    for (filter, expected) in [
        (ItemFilter::default(), all),
        (search("mug"), &["MUG-RED-01", "MUG-BLUE-01"]),
        (search("MU"), &["MUG-RED-01", "MUG-BLUE-01"]),
        (search("red-01"), &["MUG-RED-01"]),
        (search("mug third"), &["MUG-RED-01"]),
        (search("mug tea"), &[]),
        (search("größ"), &["TEA"]),
        (search("it's (very)"), &["MUG-BLUE-01"]),
        (search("'a' | !b & c:* \\ <-> *"), &[]),
        (search("gone"), &[]),
        (ItemFilter { currency: Some(from_value(json!("CHF")).unwrap()), ..Default::default() }, &["TEA"]),
        (ItemFilter { in_stock: Some(true), ..Default::default() }, &["MUG-RED-01", "TEA"]),
        (ItemFilter { in_stock: Some(false), ..Default::default() }, &["MUG-BLUE-01"]),
        (ItemFilter { min_price: amount(700), ..Default::default() }, &["MUG-BLUE-01", "TEA"]),
        (ItemFilter { max_price: amount(700), ..Default::default() }, &["MUG-RED-01", "MUG-BLUE-01"]),
        (ItemFilter { min_price: amount(501), max_price: amount(700), ..Default::default() }, &["MUG-BLUE-01"]),
    ] {
        assert_eq!(skus(&filter, None, 10).await, expected, "{filter:?}");
    }

    let first = store::list_items(&*db, &ItemFilter::default(), None, 2).await.unwrap();
    assert_eq!(first.len(), 2);
    assert_eq!(skus(&ItemFilter::default(), first.last().map(|item| item.id), 2).await, ["TEA"]);
}

#[tokio::test]
async fn stock_is_locked_in_order_and_written() {
    let world = World::new().await;
    let (a, b, gone) = (world.item("A", 5).await, world.item("B", 6).await, world.item("C", 7).await);
    let now = world.now();
    let shelf = in_transaction!(world, |tx| async {
        store::delete_item(tx, gone.id, now).await?;
        let ids = [b.id, gone.id, Uuid::nil(), a.id];
        let all = store::lock_shelf(tx, &ids, Reach::Deleted).await?;
        assert_eq!(all.len(), 3);
        store::lock_shelf(tx, &ids, Reach::Existing).await
    })
    .unwrap();
    assert_eq!(shelf, Shelf::from([(a.id, Stock::new(5, 0).unwrap()), (b.id, Stock::new(6, 0).unwrap())]));

    let after = Shelf::from([(a.id, Stock::new(4, 3).unwrap()), (b.id, Stock::new(9, 0).unwrap())]);
    in_transaction!(world, |tx| store::write_shelf(tx, &after, now)).unwrap();
    assert_eq!((world.stock(a.id).await, world.stock(b.id).await), ((4, 3), (9, 0)));
    let db = world.database.get().await.unwrap();
    assert_eq!(store::find_item(&*db, a.id).await.unwrap().unwrap().version, 2);
}

/// Whatever a statement tries, the books stay sound.
#[tokio::test]
async fn the_schema_refuses_impossible_books() {
    let world = World::new().await;
    let item = world.item("A", 5).await;
    let order = "'00000000-0000-7000-8000-000000000001'";
    world
        .reader
        .batch_execute(&format!(
            "INSERT INTO reservations (order_id, state, created_at, updated_at) VALUES ({order}, 'taken', now(), now());
             INSERT INTO reservation_lines (order_id, item_id, quantity) VALUES ({order}, '{}', 2);",
            item.id
        ))
        .await
        .unwrap();
    for (statement, constraint) in [
        ("UPDATE items SET stock_reserved = -1", "items_stock_reserved_not_negative"),
        ("UPDATE items SET stock_reserved = 6", "items_stock_reserved_on_hand"),
        ("UPDATE items SET stock_on_hand = -1", "items_stock_reserved_on_hand"),
        ("UPDATE items SET stock_reserved = 1, deleted_at = now()", "items_deleted_reserves_nothing"),
        ("UPDATE items SET price_amount = -1", "items_price_amount_check"),
        ("UPDATE items SET price_currency = 'eur'", "items_price_currency_check"),
        ("UPDATE reservation_lines SET returned = 3", "reservation_lines_returned_within_taken"),
        ("UPDATE reservation_lines SET quantity = 0", "reservation_lines_quantity_check"),
        ("UPDATE reservations SET state = 'refused'", "reservations_refused_has_answer"),
        ("DELETE FROM items", "reservation_lines_item_id_fkey"),
    ] {
        let error: database::Error = world.reader.batch_execute(statement).await.unwrap_err().into();
        assert_eq!(error.constraint(), Some(constraint), "{statement}: {error}");
    }
}

#[tokio::test]
async fn the_ledger_is_written_and_read() {
    let world = World::new().await;
    let (a, b) = (world.item("A", 5).await, world.item("B", 6).await);
    let now = world.now();
    let order = Uuid::now_v7();
    let adjustment = Entry {
        kind: EntryKind::Adjustment,
        reason: Some("counted"),
        reference: None,
        actor: "carol",
        idempotency_key: Some("k-1"),
    };
    let taken =
        Entry { kind: EntryKind::Taken, reason: None, reference: Some(order), actor: "alice", idempotency_key: None };
    let (one, two) = in_transaction!(world, |tx| async {
        let one = store::insert_entries(tx, adjustment, &[(a.id, 5)], now).await?;
        let two = store::insert_entries(tx, taken, &[(a.id, -1), (b.id, -2)], now).await?;
        Ok::<_, database::Error>((one, two))
    })
    .unwrap();
    assert_eq!((one.len(), two.len()), (1, 2));
    let one = &one[0];
    assert_eq!((one.item_id, one.change, one.stock_on_hand, one.stock_reserved), (a.id, 5, 5, 0));
    assert_eq!(
        (one.kind, one.reason.as_deref(), one.actor.as_str(), one.created_at),
        (EntryKind::Adjustment, Some("counted"), "carol", now)
    );

    let db = world.database.get().await.unwrap();
    assert_eq!(store::find_entry(&*db, a.id, "carol", "k-1").await.unwrap().as_ref(), Some(one));
    for (item, actor, key) in [(b.id, "carol", "k-1"), (a.id, "alice", "k-1"), (a.id, "carol", "k-2")] {
        assert_eq!(store::find_entry(&*db, item, actor, key).await.unwrap(), None);
    }
    let listed = store::list_entries(&*db, a.id, None, 10).await.unwrap();
    assert_eq!(listed.iter().map(|entry| entry.change).collect::<Vec<_>>(), [5, -1]);
    let rest = store::list_entries(&*db, a.id, Some(one.id), 10).await.unwrap();
    assert_eq!(rest.iter().map(|entry| (entry.change, entry.reference)).collect::<Vec<_>>(), [(-1, Some(order))]);

    let again = in_transaction!(world, |tx| store::insert_entries(tx, adjustment, &[(a.id, 5)], now)).unwrap_err();
    assert_eq!(again.constraint(), Some("stock_entries_idempotency"));
}

#[tokio::test]
async fn reservations_are_written_and_read() {
    let world = World::new().await;
    let (a, b) = (world.item("A", 5).await, world.item("B", 6).await);
    let now = world.now();
    let deadline: Timestamp = "2026-11-23T12:00:30Z".parse().unwrap();
    let (first, second, refused) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
    let held = Reservation { state: ReservationState::Held, refusal: None };
    let refusal: Refusal = from_value(json!({"reason": "insufficient-stock", "lines": [
        {"item_id": a.id, "requested": 9, "available": 5}
    ]}))
    .unwrap();
    let refusal = Reservation { state: ReservationState::Refused, refusal: Some(refusal) };
    let lines = |quantities: &[(Uuid, i64)]| {
        let line = |&(item_id, quantity): &(Uuid, i64)| Line { item_id, quantity };
        OrderLines::try_from(quantities.iter().map(line).collect::<Vec<_>>()).unwrap()
    };
    let both = lines(&[(a.id, 2), (b.id, 3)]);
    let only_a = lines(&[(a.id, 1)]);
    in_transaction!(world, |tx| async {
        store::insert_reservation(tx, first, &held, Some(deadline), now).await?;
        store::insert_lines(tx, first, &both).await?;
        store::insert_reservation(tx, second, &held, None, now).await?;
        store::insert_lines(tx, second, &only_a).await?;
        store::insert_reservation(tx, refused, &refusal, None, now).await
    })
    .unwrap();
    let twice = in_transaction!(world, |tx| store::insert_reservation(tx, first, &held, None, now));
    assert_eq!(twice.unwrap_err().constraint(), Some("reservations_pkey"));

    let locked = async |order| in_transaction!(world, |tx| store::lock_reservation(tx, order)).unwrap();
    assert_eq!(locked(first).await.as_ref(), Some(&held));
    assert_eq!(locked(refused).await.as_ref(), Some(&refusal));
    assert_eq!(locked(Uuid::nil()).await, None);

    let db = world.database.get().await.unwrap();
    assert_eq!(store::list_lines(&*db, first).await.unwrap(), both);
    assert_eq!((store::count_held(&*db, a.id).await.unwrap(), store::count_held(&*db, b.id).await.unwrap()), (2, 1));

    in_transaction!(world, |tx| store::update_reservation(tx, first, ReservationState::Taken, now)).unwrap();
    assert_eq!((store::count_held(&*db, a.id).await.unwrap(), store::count_held(&*db, b.id).await.unwrap()), (1, 0));

    let listed = async |state, after| {
        let reservations = store::list_reservations(&*db, a.id, state, after, 10).await.unwrap();
        reservations.into_iter().map(|reservation| reservation.order_id).collect::<Vec<_>>()
    };
    assert_eq!(listed(None, None).await, [first, second]);
    assert_eq!(listed(None, Some(first)).await, [second]);
    assert_eq!(listed(Some(ReservationState::Taken), None).await, [first]);
    assert_eq!(listed(Some(ReservationState::Released), None).await, Vec::<Uuid>::new());
    let reservation = &store::list_reservations(&*db, a.id, None, None, 1).await.unwrap()[0];
    assert_eq!((reservation.quantity, reservation.returned, reservation.deadline), (2, 0, Some(deadline)));

    let note = Uuid::from_u128(9);
    let is_returned = async || store::is_returned(&*db, note).await.unwrap();
    assert!(!is_returned().await);
    in_transaction!(world, |tx| store::insert_return(tx, note, first, now)).unwrap();
    assert!(is_returned().await);
    let give_back = async |lines: &OrderLines| in_transaction!(world, |tx| store::add_returned(tx, first, lines));
    give_back(&lines(&[(a.id, 1), (b.id, 3)])).await.unwrap();
    assert_eq!(store::list_kept_lines(&*db, first).await.unwrap(), lines(&[(a.id, 1)]));
    // Whoever asks has looked; the schema holds all the same.
    give_back(&only_a).await.unwrap();
    let more = give_back(&only_a).await.unwrap_err();
    assert_eq!(more.constraint(), Some("reservation_lines_returned_within_taken"));
}

#[tokio::test]
async fn quotes_keep_the_order_of_the_lines_and_leave_out_what_is_not_there() {
    let world = World::new().await;
    let (a, b, gone) = (world.item("A", 5).await, world.item("B", 6).await, world.item("C", 7).await);
    let now = world.now();
    let after: BTreeMap<_, _> = [(a.id, Stock::new(5, 2).unwrap())].into();
    in_transaction!(world, |tx| async {
        store::delete_item(tx, gone.id, now).await?;
        store::write_shelf(tx, &after, now).await
    })
    .unwrap();
    let asked = [(b.id, 9), (gone.id, 1), (a.id, 1), (Uuid::nil(), 1), (b.id, 2)];
    let asked: Vec<QuoteRequestLine> = asked
        .iter()
        .map(|(id, quantity)| {
            from_value(json!({"item_id": id, "quantity": quantity})).unwrap_or_else(|_| unreachable!())
        })
        .collect();
    let quoted = store::quote(&*world.database.get().await.unwrap(), &asked).await.unwrap();
    let quoted: Vec<_> = quoted.iter().map(|line| (line.item_id, line.quantity.get(), line.stock_available)).collect();
    assert_eq!(quoted, [(b.id, 9, 6), (a.id, 1, 3), (b.id, 2, 6)]);
}
