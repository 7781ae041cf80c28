//! The stock half of the order transaction: commands in, stock and answers out, in one transaction each.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};
use item_management::messages::StockKeeper;
use outbox::{Aggregate, Event, Handler, HandlerError};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{World, in_transaction};

fn command(name: &str, about: Uuid, data: Value) -> Event {
    Event {
        id: Uuid::now_v7(),
        subject: format!("documents.stock.{name}"),
        source: "spiffe://test/eshop-documents".into(),
        aggregate: Aggregate { kind: "stock".into(), id: about },
        version: 1,
        data_version: 1,
        saga: Some(about),
        initiator: Some("alice".into()),
        trace: None,
        time: "2026-11-23T11:59:59Z".parse().unwrap(),
        data,
    }
}

fn lines(quantities: &[(Uuid, i64)]) -> Value {
    quantities.iter().map(|(item, quantity)| json!({"item_id": item, "quantity": quantity})).collect()
}

pub(crate) fn reserve_command(order: Uuid, quantities: &[(Uuid, i64)]) -> Event {
    let data = json!({"order_id": order, "deadline": "2026-11-23T12:00:30Z", "lines": lines(quantities)});
    command("reserve", order, data)
}

/// `take` or `release`.
pub(crate) fn settle_command(name: &str, order: Uuid) -> Event {
    command(name, order, json!({"order_id": order, "reason": "deadline"}))
}

/// A release of an order that is not known, or was called off without knowing that its stock was taken.
pub(crate) fn disown_command(order: Uuid, reason: &str) -> Event {
    command("release", order, json!({"order_id": order, "reason": reason}))
}

pub(crate) fn put_back_command(note: Uuid, order: Uuid, quantities: &[(Uuid, i64)]) -> Event {
    let data = json!({"credit_note_id": note, "order_id": order, "lines": lines(quantities)});
    command("return", note, data)
}

impl World {
    /// Handles a command as the consumer does, without its inbox: so what is idempotent is so by state.
    pub(crate) async fn handle(&self, event: &Event) -> Result<(), HandlerError> {
        let keeper = StockKeeper { clock: self.clock.clone() };
        in_transaction!(self, |tx| keeper.handle(tx, event))
    }

    /// Handles a command and gives the answer: the event's name and its data.
    async fn answer(&self, event: &Event) -> Result<(String, Value), HandlerError> {
        self.handle(event).await?;
        let sql = "SELECT subject, data, saga, initiator FROM outbox WHERE subject LIKE 'items.reservation.%' AND aggregate_id = $1
            ORDER BY position DESC LIMIT 1";
        let row = self.reader.query_one(sql, &[&event.aggregate.id]).await.unwrap();
        assert_eq!((row.get("saga"), row.get("initiator")), (event.saga, event.initiator.clone()));
        let subject: String = row.get("subject");
        Ok((subject.strip_prefix("items.reservation.").unwrap().to_owned(), row.get("data")))
    }

    pub(crate) async fn reserve(
        &self,
        order: Uuid,
        quantities: &[(Uuid, i64)],
    ) -> Result<(String, Value), HandlerError> {
        self.answer(&reserve_command(order, quantities)).await
    }

    /// `take` or `release`.
    pub(crate) async fn settle(&self, name: &str, order: Uuid) -> Result<(String, Value), HandlerError> {
        self.answer(&settle_command(name, order)).await
    }

    async fn put_back(
        &self,
        note: Uuid,
        order: Uuid,
        quantities: &[(Uuid, i64)],
    ) -> Result<(String, Value), HandlerError> {
        self.answer(&put_back_command(note, order, quantities)).await
    }
}

#[track_caller]
fn is(answer: Result<(String, Value), HandlerError>, name: &str, data: Value) {
    assert_eq!(answer.unwrap(), (name.to_owned(), data));
}

#[track_caller]
fn permanent<T: std::fmt::Debug>(outcome: Result<T, HandlerError>, reason: &str) {
    match outcome {
        Err(HandlerError::Permanent(text)) => assert!(text.contains(reason), "{text}"),
        other => panic!("expected to fail for good with {reason:?}: {other:?}"),
    }
}

const ORDER: Uuid = Uuid::from_u128(1);
const NOTE: Uuid = Uuid::from_u128(2);

#[tokio::test]
async fn stock_is_reserved_taken_and_returned() {
    let world = World::new().await;
    let (a, b) = (world.item("A", 5).await, world.item("B", 9).await);
    let order = || json!({"order_id": ORDER});
    let stock = async || (world.stock(a.id).await, world.stock(b.id).await);

    // Lines of one item are added up; asked again, nothing more happens and the answer is the same.
    for _ in 0..2 {
        is(world.reserve(ORDER, &[(a.id, 2), (b.id, 4), (a.id, 1)]).await, "reserved", order());
        assert_eq!(stock().await, ((5, 3), (9, 4)));
    }
    for _ in 0..2 {
        is(world.settle("take", ORDER).await, "taken", order());
        assert_eq!(stock().await, ((2, 0), (5, 0)));
    }
    is(world.reserve(ORDER, &[(a.id, 2)]).await, "reserved", order());
    for _ in 0..2 {
        is(world.put_back(NOTE, ORDER, &[(a.id, 1), (b.id, 4)]).await, "returned", json!({"credit_note_id": NOTE}));
        assert_eq!(stock().await, ((3, 0), (9, 0)));
    }
    let rest = Uuid::from_u128(3);
    is(world.put_back(rest, ORDER, &[(a.id, 1), (a.id, 1)]).await, "returned", json!({"credit_note_id": rest}));
    assert_eq!(stock().await, ((5, 0), (9, 0)));

    let rows = world
        .reader
        .query(
            "SELECT change, kind::text, reference, actor FROM stock_entries WHERE item_id = $1 ORDER BY id",
            &[&a.id],
        )
        .await
        .unwrap();
    let ledger: Vec<(i64, String, Uuid, String)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect();
    let entry = |change, kind: &str, reference| (change, kind.to_owned(), reference, "alice".to_owned());
    assert_eq!(ledger, [entry(-3, "taken", ORDER), entry(1, "returned", NOTE), entry(2, "returned", rest)]);
}

#[tokio::test]
async fn all_lines_are_reserved_or_none() {
    let world = World::new().await;
    let (a, b) = (world.item("A", 5).await, world.item("B", 1).await);
    let refusal = json!({"order_id": ORDER, "reason": "insufficient-stock", "lines": [
        {"item_id": b.id, "requested": 2, "available": 1}
    ]});
    is(world.reserve(ORDER, &[(a.id, 2), (b.id, 2)]).await, "refused", refusal.clone());
    assert_eq!((world.stock(a.id).await, world.stock(b.id).await), ((5, 0), (1, 0)));

    // The answer stands, whatever comes into stock later.
    is(world.reserve(ORDER, &[(a.id, 1)]).await, "refused", refusal.clone());
    is(world.settle("take", ORDER).await, "refused", refusal.clone());
    is(world.settle("release", ORDER).await, "released", json!({"order_id": ORDER}));
    is(world.reserve(ORDER, &[(a.id, 1)]).await, "refused", refusal);

    let unknown = Uuid::from_u128(7);
    is(
        world.reserve(Uuid::from_u128(8), &[(b.id, 2), (unknown, 1)]).await,
        "refused",
        json!({"order_id": Uuid::from_u128(8), "reason": "unknown-item", "lines": [
            {"item_id": unknown, "requested": 1, "available": 0},
            {"item_id": b.id, "requested": 2, "available": 1},
        ]}),
    );
    assert_eq!((world.stock(a.id).await, world.stock(b.id).await), ((5, 0), (1, 0)));
}

#[tokio::test]
async fn a_release_frees_what_is_held_and_refuses_what_comes_late() {
    let world = World::new().await;
    let a = world.item("A", 5).await;
    world.reserve(ORDER, &[(a.id, 5)]).await.unwrap();
    for _ in 0..2 {
        is(world.settle("release", ORDER).await, "released", json!({"order_id": ORDER}));
        assert_eq!(world.stock(a.id).await, (5, 0));
    }
    let late = Uuid::from_u128(9);
    for _ in 0..2 {
        is(world.settle("release", late).await, "released", json!({"order_id": late}));
    }
    for order in [ORDER, late] {
        let refused = json!({"order_id": order, "reason": "released", "lines": []});
        is(world.reserve(order, &[(a.id, 1)]).await, "refused", refused);
        // So are those who believe that it is held: a database was put back to an older state.
        is(world.settle("take", order).await, "released", json!({"order_id": order}));
    }
    let forgotten = Uuid::from_u128(10);
    is(world.settle("take", forgotten).await, "released", json!({"order_id": forgotten}));
    let (name, refused) = world.reserve(forgotten, &[(a.id, 1)]).await.unwrap();
    assert_eq!((name.as_str(), &refused["reason"]), ("refused", &json!("released")));
    assert_eq!(world.stock(a.id).await, (5, 0));
}

/// The documents' database was put back to a state from before the order, or from before it was confirmed, and the order had taken its
/// stock in the meantime.
#[tokio::test]
async fn what_was_taken_for_an_order_that_does_not_stand_comes_back() {
    for reason in ["unknown", "forgotten"] {
        what_was_taken_comes_back(reason).await;
    }
}

async fn what_was_taken_comes_back(reason: &str) {
    let world = World::new().await;
    let (a, b) = (world.item("A", 5).await, world.item("B", 9).await);
    world.reserve(ORDER, &[(a.id, 3), (b.id, 4)]).await.unwrap();
    world.settle("take", ORDER).await.unwrap();
    world.put_back(NOTE, ORDER, &[(a.id, 1), (b.id, 4)]).await.unwrap();
    let now = world.now();
    in_transaction!(world, |tx| item_management::store::delete_item(tx, b.id, now)).unwrap();

    // For any other reason an order keeps what it took, and who asks is told so.
    is(world.settle("release", ORDER).await, "taken", json!({"order_id": ORDER}));
    assert_eq!((world.stock(a.id).await, world.stock(b.id).await), ((3, 0), (9, 0)));
    for _ in 0..2 {
        is(world.answer(&disown_command(ORDER, reason)).await, "released", json!({"order_id": ORDER}));
        assert_eq!((world.stock(a.id).await, world.stock(b.id).await), ((5, 0), (9, 0)));
    }
    let sql = "SELECT item_id, change, kind::text, actor FROM stock_entries WHERE reference = $1 ORDER BY id";
    let entry =
        |row: &tokio_postgres::Row| -> (Uuid, i64, String, String) { (row.get(0), row.get(1), row.get(2), row.get(3)) };
    let ledger: Vec<_> = world.reader.query(sql, &[&ORDER]).await.unwrap().iter().map(entry).collect();
    assert!(ledger.contains(&(a.id, -3, "taken".into(), "alice".into())), "{ledger:?}");
    assert!(ledger.contains(&(a.id, 2, "returned".into(), "eshop-documents".into())), "no person did: {ledger:?}");
    assert_eq!(ledger.len(), 3, "nothing is written of what had come back: {ledger:?}");

    // It is over: nothing can be done for it any more, and what was done stays done.
    is(world.settle("take", ORDER).await, "released", json!({"order_id": ORDER}));
    let refused = |note: Uuid| json!({"credit_note_id": note, "reason": "order-not-taken"});
    let late = Uuid::from_u128(3);
    is(world.put_back(late, ORDER, &[(a.id, 1)]).await, "return-refused", refused(late));
    is(world.put_back(NOTE, ORDER, &[(a.id, 1)]).await, "returned", json!({"credit_note_id": NOTE}));
    assert_eq!((world.stock(a.id).await, world.stock(b.id).await), ((5, 0), (9, 0)));
}

#[tokio::test]
async fn goods_that_the_order_did_not_take_are_refused() {
    let world = World::new().await;
    let (a, b) = (world.item("A", 50).await, world.item("B", 50).await);
    world.reserve(ORDER, &[(a.id, 3)]).await.unwrap();
    world.settle("take", ORDER).await.unwrap();
    for (note, back) in (20..).zip([vec![(a.id, 4)], vec![(a.id, 2), (a.id, 2)], vec![(a.id, 1), (b.id, 1)]]) {
        let note = Uuid::from_u128(note);
        let refused = json!({"credit_note_id": note, "reason": "more-than-taken"});
        is(world.put_back(note, ORDER, &back).await, "return-refused", refused);
        assert_eq!((world.stock(a.id).await, world.stock(b.id).await), ((47, 0), (50, 0)), "{back:?}");
    }
    // A credit note that was refused may come in later, for less or after all.
    is(world.put_back(NOTE, ORDER, &[(a.id, 3)]).await, "returned", json!({"credit_note_id": NOTE}));
    assert_eq!(world.stock(a.id).await, (50, 0));
}

#[tokio::test]
async fn a_deleted_item_takes_its_goods_back_but_gives_none() {
    let world = World::new().await;
    let a = world.item("A", 5).await;
    world.reserve(ORDER, &[(a.id, 3)]).await.unwrap();
    world.settle("take", ORDER).await.unwrap();
    let now = world.now();
    in_transaction!(world, |tx| item_management::store::delete_item(tx, a.id, now)).unwrap();
    world.put_back(NOTE, ORDER, &[(a.id, 2)]).await.unwrap();
    assert_eq!(world.stock(a.id).await, (4, 0));
    let (name, refused) = world.reserve(Uuid::from_u128(9), &[(a.id, 1)]).await.unwrap();
    assert_eq!((name.as_str(), &refused["reason"]), ("refused", &json!("unknown-item")));
}

/// A credit note's goods may overtake the order's take, and all of the order when everything is delivered again to a database that was
/// put back: that is no error, it is too early.
#[tokio::test]
async fn goods_that_come_back_before_they_were_taken_wait() {
    let world = World::new().await;
    let a = world.item("A", 5).await;
    let early = async || {
        let early = world.put_back(NOTE, ORDER, &[(a.id, 1)]).await;
        assert!(matches!(early, Err(HandlerError::Retry(_))), "{early:?}");
    };
    early().await;
    world.reserve(ORDER, &[(a.id, 3)]).await.unwrap();
    early().await;
    world.settle("take", ORDER).await.unwrap();
    world.put_back(NOTE, ORDER, &[(a.id, 1)]).await.unwrap();
    assert_eq!(world.stock(a.id).await, (3, 0));
}

#[tokio::test]
async fn what_can_never_be_done_fails_for_good_and_writes_nothing() {
    let world = World::new().await;
    let (a, b) = (world.item("A", 50).await, world.item("B", 50).await);
    let (taken, held) = (Uuid::from_u128(11), Uuid::from_u128(12));
    world.reserve(taken, &[(a.id, 3)]).await.unwrap();
    world.settle("take", taken).await.unwrap();
    world.reserve(held, &[(a.id, 3)]).await.unwrap();
    let (rows, stock) = (world.rows().await, world.stock(a.id).await);

    let reserve = |lines: Value| command("reserve", ORDER, json!({"order_id": ORDER, "lines": lines}));
    let line =
        |quantity: Value| reserve(json!([{"item_id": b.id, "quantity": 1}, {"item_id": a.id, "quantity": quantity}]));
    let give_back = |order: Uuid, quantities: &[(Uuid, i64)]| {
        command("return", NOTE, json!({"credit_note_id": NOTE, "order_id": order, "lines": lines(quantities)}))
    };
    for (event, reason) in [
        (reserve(json!([])), "lines: must be 1 to 100"),
        (reserve(lines(&[(a.id, 1); 101])), "lines: must be 1 to 100"),
        (line(json!(0)), "lines[1].quantity"),
        (line(json!(-1)), "lines[1].quantity"),
        (line(json!(i64::MAX)), "lines[1].quantity"),
        (line(json!(1.5)), "floating point"),
        (line(json!("1")), "string"),
        (reserve(json!([{"item_id": "x", "quantity": 1}])), "UUID"),
        (command("reserve", ORDER, json!({})), "missing field"),
        (command("reserve", ORDER, Value::Null), "null"),
        (
            command("reserve", NOTE, json!({"order_id": ORDER, "lines": lines(&[(a.id, 1)])})),
            "stands in the history of stock",
        ),
        (command("destroy", ORDER, json!({"order_id": ORDER})), "no such command: documents.stock.destroy"),
        (give_back(taken, &[(a.id, 0)]), "lines[0].quantity"),
        (give_back(taken, &[]), "lines: must be 1 to 100"),
    ] {
        permanent(world.handle(&event).await, reason);
        assert_eq!((world.rows().await, world.stock(a.id).await), (rows, stock), "{reason}");
    }
}

/// Many orders for few items at once, with all that can become of them: never more is promised than there is, nothing is lost, and
/// nobody waits for each other in a circle.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_orders_never_oversell_and_conserve_stock() {
    const ITEMS: usize = 5;
    const OPENING: i64 = 40;
    const ORDERS: u128 = 120;
    let seed = rand::random();
    println!("seed {seed}");
    let world = World::new().await;
    let mut items = Vec::new();
    for number in 0..ITEMS {
        items.push(world.item(&format!("A-{number}"), OPENING).await.id);
    }
    let orders = stream::iter(1..=ORDERS).map(|number| an_order(&world, &items, seed, number));
    orders.buffer_unordered(12).collect::<()>().await;

    let books = "SELECT id, stock_on_hand, stock_reserved,
            (SELECT coalesce(sum(quantity), 0)::bigint FROM reservation_lines JOIN reservations USING (order_id)
             WHERE item_id = id AND state = 'held'),
            (SELECT coalesce(sum(quantity - returned), 0)::bigint FROM reservation_lines JOIN reservations USING (order_id)
             WHERE item_id = id AND state = 'taken'),
            (SELECT coalesce(sum(change), 0)::bigint FROM stock_entries WHERE item_id = items.id)
        FROM items";
    let mut promised = 0;
    for row in world.reader.query(books, &[]).await.unwrap() {
        let [on_hand, reserved, held, gone, ledger] = [1, 2, 3, 4, 5].map(|column| row.get::<_, i64>(column));
        assert_eq!(reserved, held, "what is reserved is what orders hold");
        assert_eq!(on_hand, OPENING - gone, "what is not here went to somebody");
        assert_eq!(on_hand, OPENING + ledger, "the ledger adds up");
        assert!(held + gone <= OPENING, "nothing is promised twice");
        promised += held + gone;
    }
    let states = world.reader.query("SELECT state::text, count(*) FROM reservations GROUP BY 1", &[]).await.unwrap();
    let states: BTreeMap<String, i64> = states.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert!(
        states.contains_key("refused") && states.contains_key("held") && promised > 0,
        "the test tried too little: {states:?}"
    );
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(world.reader.query_one(deadlocks, &[]).await.unwrap().get::<_, i64>(0), 0);
}

/// What may become of an order: it is refused, stays held, is released, taken, or taken and partly returned.
async fn an_order(world: &World, items: &[Uuid], seed: u64, number: u128) {
    let mut random = StdRng::seed_from_u64(seed ^ u64::try_from(number).unwrap());
    let order = Uuid::from_u128(number);
    let count = random.random_range(1..=4);
    let wish: Vec<(Uuid, i64)> =
        (0..count).map(|_| (items[random.random_range(0..items.len())], random.random_range(1..=4))).collect();
    // The same command may come twice, and at the same moment.
    let reserve = || world.patiently(async || world.reserve(order, &wish).await);
    let (once, twice) = tokio::join!(reserve(), reserve());
    assert_eq!(once, twice);
    if once.0 == "refused" {
        return;
    }
    let end = random.random_range(0..4);
    if end == 1 {
        world.patiently(async || world.settle("release", order).await).await;
    } else if end > 1 {
        world.patiently(async || world.settle("take", order).await).await;
    }
    if end == 3 {
        let (note, back) = (Uuid::from_u128(number + 1000), [(wish[0].0, 1)]);
        world.patiently(async || world.put_back(note, order, &back).await).await;
    }
}

impl World {
    /// Tries again while it is told to, as the consumer does.
    async fn patiently(&self, work: impl AsyncFn() -> Result<(String, Value), HandlerError>) -> (String, Value) {
        loop {
            match work().await {
                Err(HandlerError::Retry(_)) => tokio::task::yield_now().await,
                done => return done.unwrap(),
            }
        }
    }
}
