//! Every statement of the store against a real PostgreSQL, one at a time and many at once.

use std::{collections::BTreeSet, time::Duration};

use database::Statements as _;
use eshop_documents::{
    domain::{
        Cancellation, Kind, MAX_LINES, NotAllowed, Operation, OrderState, Refusal, RefusalReason, Shortage, Standing,
        State,
    },
    saga,
    store::{Cause, Earlier, Error, Filter, RequestKey},
};
use futures_util::future::join_all;
use http::StatusCode;
use outbox::operator::{Operator, Sagas};
use runtime::trace::TraceContext;
use serde_json::json;
use uuid::Uuid;

use crate::world::{World, new_key, new_order, selection};

fn item(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

const NONE: [Uuid; 0] = [];

fn refusal() -> Refusal {
    let shortage = Shortage { item_id: item(1), requested: 5, available: 2 };
    Refusal { reason: RefusalReason::InsufficientStock, shortages: vec![shortage] }
}

#[tokio::test]
async fn an_order_is_placed_with_all_that_it_owes() {
    let world = World::start().await;
    let trace = TraceContext::new();
    let cause = Cause { initiator: Some("alice".into()), trace: Some(trace) };
    let lines: Vec<_> = (0..MAX_LINES as u128).rev().map(|n| (item(n), 1 + n as i64)).collect();
    let placed = world.store.place(&new_order("alice", &lines), &new_key("alice"), &cause).await.unwrap().unwrap();
    assert_eq!(world.store.document(placed.head.id).await.unwrap(), placed, "what was stored is not what was answered");
    assert!(placed.lines.iter().map(|line| (line.item_id, line.quantity)).eq(lines));
    assert_eq!((placed.head.version, placed.head.total.amount), (1, 100 * (1..=MAX_LINES as i64).sum::<i64>()));

    let Standing::Order { state: OrderState::Pending, deadline } = placed.head.standing else { panic!("{placed:?}") };
    assert_eq!(deadline.duration_since(placed.head.created_at).as_secs(), 30);
    assert_eq!(world.owed(placed.head.id).await, ["documents.order.placed", "documents.stock.reserve"]);
    let reserve = world.told(placed.head.id, "documents.stock.reserve").await;
    assert_eq!(reserve["order_id"], json!(placed.head.id));
    assert_eq!(reserve["deadline"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap(), deadline);
    assert_eq!(reserve["lines"][0], json!({ "item_id": item(MAX_LINES as u128 - 1), "quantity": MAX_LINES }));
    assert_eq!(world.told(placed.head.id, "documents.order.placed").await["lines"][0]["unit_price"], 100);

    // What time does later still belongs to whoever ordered, and to the same trace.
    world.let_time_pass(placed.head.id).await;
    world.store.sweep(10).await.unwrap();
    let sql = "SELECT DISTINCT initiator, traceparent, aggregate_id FROM outbox WHERE saga = $1";
    let row = world.database.get().await.unwrap().one(sql, &[&placed.head.id]).await.unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2)), ("alice", trace.to_string(), placed.head.id));
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let world = World::start().await;
    let (nobody, cause) = (item(404), Cause::default());
    assert!(matches!(world.store.document(nobody).await, Err(Error::NotFound)));
    assert!(matches!(world.store.cancel(nobody, &cause).await, Err(Error::NotFound)));
    assert!(matches!(world.store.invoice(nobody, &cause).await, Err(Error::NotFound)));
    let credit = world.store.credit(nobody, &selection(&[(item(1), 1)]), &new_key("carol"), &cause).await;
    assert!(matches!(credit, Err(Error::NotFound)));
    assert!(matches!(world.answer(nobody, saga::Event::Taken).await, Err(Error::NotFound)));
    assert_eq!(world.store.earlier(&new_key("alice")).await.unwrap(), None);
    assert_eq!(world.count("idempotency_keys").await, 0, "a request that failed has used its key up");
}

#[tokio::test]
async fn documents_are_listed_by_owner_kind_and_state() {
    let world = World::start().await;
    let pending = world.order(&[(item(1), 1)]).await.head.id;
    let invoice = world.invoice(&[(item(1), 1)]).await;
    let Standing::Invoice { order: invoiced } = invoice.head.standing else { panic!("{invoice:?}") };
    let bobs = world.store.place(&new_order("bob", &[(item(1), 1)]), &new_key("bob"), &Cause::default()).await;
    let bobs = bobs.unwrap().unwrap().head;
    let list = async |customer: Option<&str>, kind, state, after, limit| {
        let filter = Filter { customer: customer.map(Into::into), kind, state };
        let heads = world.store.list(&filter, after, limit).await.unwrap();
        heads.into_iter().map(|head| head.id).collect::<Vec<_>>()
    };
    assert_eq!(list(None, None, None, None, 10).await, [bobs.id, invoice.head.id, invoiced, pending]);
    assert_eq!(list(Some("alice"), None, None, None, 10).await, [invoice.head.id, invoiced, pending]);
    assert_eq!(list(Some("bob"), None, None, None, 10).await, [bobs.id]);
    assert_eq!(list(Some("mallory"), None, None, None, 10).await, NONE);
    for customer in [None, Some("alice")] {
        assert_eq!(list(customer, Some(Kind::Invoice), None, None, 10).await, [invoice.head.id]);
        assert_eq!(list(customer, Some(Kind::Order), Some(State::Invoiced), None, 10).await, [invoiced]);
        assert_eq!(list(customer, None, Some(State::Rejected), None, 10).await, NONE);
        assert_eq!(list(customer, None, None, Some(invoice.head.id), 1).await, [invoiced]);
    }
    let heads = world.store.list(&Filter { customer: Some("bob".into()), ..Filter::default() }, None, 1).await.unwrap();
    assert_eq!(heads, [bobs]);
}

#[tokio::test]
async fn one_key_makes_one_order_however_often_it_comes_at_once() {
    let world = World::start().await;
    let request = new_key("alice");
    let order = new_order("alice", &[(item(1), 1)]);
    let attempts =
        join_all((0..12).map(|_| async { world.store.place(&order, &request, &Cause::default()).await.unwrap() }))
            .await;
    let placed: Vec<_> = attempts.into_iter().flatten().collect();
    assert_eq!(placed.len(), 1);
    assert_eq!(world.count("documents").await, 1);
    assert_eq!(world.count("outbox").await, 2);
    assert_eq!(world.store.earlier(&request).await.unwrap(), Some(Earlier::Same(Box::new(placed[0].clone()))));

    let other = RequestKey { fingerprint: [8; 32], ..request.clone() };
    assert_eq!(world.store.earlier(&other).await.unwrap(), Some(Earlier::Different));
    let bobs = RequestKey { principal: "bob".into(), ..request };
    assert_eq!(world.store.earlier(&bobs).await.unwrap(), None, "keys are each caller's own");
}

#[tokio::test]
async fn keys_are_forgotten_after_their_time_in_batches() {
    let world = World::start().await;
    for _ in 0..5 {
        world.order(&[(item(1), 1)]).await;
    }
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(world.store.purge_keys(day, 10).await.unwrap(), 0);
    let age = "UPDATE idempotency_keys SET created_at = now() - interval '25 hours'";
    world.database.get().await.unwrap().run(age, &[]).await.unwrap();
    world.order(&[(item(1), 1)]).await;
    let purged = [(); 3].map(|()| world.store.purge_keys(day, 3));
    let [first, second, third] = purged;
    assert_eq!((first.await.unwrap(), second.await.unwrap(), third.await.unwrap()), (3, 2, 0));
    assert_eq!(world.count("idempotency_keys").await, 1);
    assert_eq!(world.count("documents").await, 6);
}

#[tokio::test]
async fn an_order_that_is_reserved_is_confirmed_and_its_stock_taken() {
    let world = World::start().await;
    let id = world.order(&[(item(1), 2)]).await.head.id;
    assert_eq!(world.store.decided(&[id]).await.unwrap(), NONE);
    world.answer(id, saga::Event::Reserved).await.unwrap();
    assert_eq!(world.store.decided(&[id, item(404)]).await.unwrap(), [id]);
    let head = world.store.document(id).await.unwrap().head;
    assert_eq!((head.standing.state(), head.version), (State::Confirmed, 2));
    assert_eq!(world.owed(id).await[2..], ["documents.order.confirmed", "documents.stock.take"]);

    // Not answered, the take is asked for again, later each time; answered, no more.
    for repeats in 1..=2 {
        world.let_time_pass(id).await;
        assert_eq!(world.store.sweep(10).await.unwrap(), 1);
        assert_eq!(world.owed(id).await.len(), 4 + repeats);
        assert_eq!(world.store.sweep(10).await.unwrap(), 0);
    }
    let sql = "SELECT extract(epoch FROM due_at - updated_at)::float8 FROM sagas WHERE id = $1";
    let wait: f64 = world.database.get().await.unwrap().one(sql, &[&id]).await.unwrap().get(0);
    assert!((wait - 120.0).abs() < 0.001, "{wait}");
    world.answer(id, saga::Event::Taken).await.unwrap();
    world.answer(id, saga::Event::Taken).await.unwrap();
    assert_eq!(world.owed(id).await.len(), 6);
    assert!(matches!(world.answer(id, saga::Event::Returned).await, Err(Error::Illegal(_))));
    assert_eq!(world.store.document(id).await.unwrap().head, head, "what comes late changes nothing");
}

#[tokio::test]
async fn an_order_that_is_refused_says_why() {
    let world = World::start().await;
    let id = world.order(&[(item(1), 5)]).await.head.id;
    world.answer(id, saga::Event::Refused(refusal())).await.unwrap();
    let standing = world.store.document(id).await.unwrap().head.standing;
    assert!(
        matches!(&standing, Standing::Order { state: OrderState::Rejected(reason), .. } if *reason == refusal()),
        "{standing:?}"
    );
    assert_eq!(world.owed(id).await[2..], ["documents.order.rejected"]);
    let told = world.told(id, "documents.order.rejected").await;
    assert_eq!((&told["reason"], &told["shortages"][0]["available"]), (&json!("insufficient-stock"), &json!(2)));

    // Should item management hold the stock after all, it is told to let go.
    world.answer(id, saga::Event::Reserved).await.unwrap();
    assert_eq!(world.told(id, "documents.stock.release").await["reason"], "rejected");
    assert_eq!(world.store.document(id).await.unwrap().head.standing, standing);
}

#[tokio::test]
async fn an_order_without_an_answer_is_cancelled_at_its_deadline_once() {
    let world = World::start().await;
    let mut orders = Vec::new();
    for _ in 0..20 {
        let id = world.order(&[(item(1), 1)]).await.head.id;
        world.let_time_pass(id).await;
        orders.push(id);
    }
    let early = world.order(&[(item(1), 1)]).await.head.id;
    let swept = join_all((0..4).map(|_| async {
        let mut total = 0;
        loop {
            match world.store.sweep(3).await.unwrap() {
                0 => return total,
                swept => total += swept,
            }
        }
    }))
    .await;
    assert_eq!(swept.iter().sum::<usize>(), orders.len());
    for id in orders {
        let standing = world.store.document(id).await.unwrap().head.standing;
        assert!(
            matches!(standing, Standing::Order { state: OrderState::Cancelled(Cancellation::Deadline), .. }),
            "{standing:?}"
        );
        assert_eq!(world.owed(id).await[2..], ["documents.order.cancelled", "documents.stock.release"]);
        assert_eq!(world.told(id, "documents.stock.release").await, json!({ "order_id": id, "reason": "deadline" }));
        world.answer(id, saga::Event::Reserved).await.unwrap();
        world.answer(id, saga::Event::Released).await.unwrap();
        assert_eq!(world.owed(id).await.len(), 4, "the release that is under way covers a late reservation");
    }
    assert_eq!(world.store.document(early).await.unwrap().head.standing.state(), State::Pending);
}

#[tokio::test]
async fn of_a_cancellation_and_a_reservation_at_once_one_wins() {
    let world = World::start().await;
    let mut cancelled = 0;
    for _ in 0..30 {
        let id = world.order(&[(item(1), 1)]).await.head.id;
        let cause = Cause::default();
        let (cancel, reserved) = tokio::join!(world.store.cancel(id, &cause), world.answer(id, saga::Event::Reserved));
        reserved.unwrap();
        let owed = &world.owed(id).await[2..];
        match cancel {
            Ok(document) => {
                cancelled += 1;
                assert_eq!(document, world.store.document(id).await.unwrap());
                assert_eq!(document.head.standing.state(), State::Cancelled);
                assert_eq!(owed, ["documents.order.cancelled", "documents.stock.release"]);
            }
            Err(Error::NotAllowed(NotAllowed { state: State::Confirmed, allowed, .. })) => {
                assert_eq!(allowed, [Operation::Invoice]);
                assert_eq!(owed, ["documents.order.confirmed", "documents.stock.take"]);
            }
            Err(error) => panic!("{error}"),
        }
    }
    println!("{cancelled} of 30 were cancelled");
}

#[tokio::test]
async fn an_order_has_one_invoice_and_the_numbers_have_no_gaps() {
    let world = World::start().await;
    let order = world.confirmed(&[(item(1), 2), (item(2), 3)]).await;
    let cause = Cause::default();
    let attempts = join_all((0..6).map(|_| world.store.invoice(order, &cause))).await;
    let (issued, refused): (Vec<_>, Vec<_>) = attempts.into_iter().partition(Result::is_ok);
    assert_eq!(issued.len(), 1);
    assert!(
        refused
            .iter()
            .all(|refused| matches!(refused, Err(Error::NotAllowed(NotAllowed { state: State::Invoiced, .. }))))
    );
    let invoice = issued.into_iter().next().unwrap().unwrap();
    assert_eq!(invoice, world.store.document(invoice.head.id).await.unwrap());
    assert_eq!(invoice.lines, world.store.document(order).await.unwrap().lines);
    assert_eq!(invoice.head.standing, Standing::Invoice { order });
    assert_eq!(world.told(order, "documents.invoice.issued").await["number"], json!(invoice.head.number));
    assert_eq!(world.told(order, "documents.order.invoiced").await["invoice_id"], json!(invoice.head.id));

    let mut orders = Vec::new();
    for _ in 0..12 {
        orders.push(world.confirmed(&[(item(1), 1)]).await);
    }
    let pending = world.order(&[(item(1), 1)]).await.head.id;
    let all = join_all(orders.iter().chain([&pending]).map(|order| world.store.invoice(*order, &cause))).await;
    assert_eq!(all.iter().filter(|result| result.is_err()).count(), 1);
    let heads = world.store.list(&Filter { kind: Some(Kind::Invoice), ..Filter::default() }, None, 50).await.unwrap();
    let by_number: Vec<_> = {
        let mut heads = heads;
        heads.sort_by(|a, b| a.number.cmp(&b.number));
        heads
    };
    let year = by_number[0].created_at.to_zoned(jiff::tz::TimeZone::UTC).year();
    let expected: Vec<_> = (1..=13).map(|count| format!("INV-{year}-{count:06}")).collect();
    assert_eq!(by_number.iter().map(|head| head.number.clone()).collect::<Vec<_>>(), expected);
    assert!(by_number.is_sorted_by_key(|head| head.created_at), "dates run backwards along the numbers");
}

#[tokio::test]
async fn numbers_begin_anew_with_each_year_and_grow_as_long_as_they_must() {
    let world = World::start().await;
    let client = world.database.get().await.unwrap();
    let last = "INSERT INTO document_numbers VALUES ('invoice', 1999, 41, now() - interval '20 years')";
    client.run(last, &[]).await.unwrap();
    assert!(world.invoice(&[(item(1), 1)]).await.head.number.ends_with("-000001"));
    let sql = "SELECT document_number('credit-note', 2031, 9999999), document_number('order', 2031, 7)";
    let row = client.one(sql, &[]).await.unwrap();
    assert_eq!((row.get(0), row.get(1)), ("CRN-2031-9999999", "ORD-2031-000007"));
}

#[tokio::test]
async fn order_numbers_are_unique_and_rise() {
    let world = World::start().await;
    let order = new_order("alice", &[(item(1), 1)]);
    let placed =
        join_all((0..10).map(|_| async { world.store.place(&order, &new_key("alice"), &Cause::default()).await }))
            .await;
    let numbers: BTreeSet<_> = placed.into_iter().map(|placed| placed.unwrap().unwrap().head.number).collect();
    assert_eq!(numbers.len(), 10);
    assert!(world.order(&[(item(1), 1)]).await.head.number > *numbers.last().unwrap());
}

#[tokio::test]
async fn credit_notes_at_once_never_take_back_more_than_was_invoiced() {
    let world = World::start().await;
    let invoice = world.invoice(&[(item(1), 10), (item(2), 1)]).await.head.id;
    let cause = Cause::default();
    let three = selection(&[(item(1), 3)]);
    let attempts =
        join_all((0..6).map(|_| async { world.store.credit(invoice, &three, &new_key("carol"), &cause).await })).await;
    let (issued, refused): (Vec<_>, Vec<_>) = attempts.into_iter().partition(Result::is_ok);
    assert_eq!((issued.len(), refused.len()), (3, 3));
    for refused in refused {
        let Err(Error::Invalid(invalid)) = refused else { panic!("{refused:?}") };
        assert_eq!(invalid[0].pointer, "/lines/0/quantity");
        assert!(invalid[0].message.starts_with("at most 1 "), "{invalid:?}");
    }
    let invoiced = world.store.document(invoice).await.unwrap();
    assert_eq!(invoiced.lines.iter().map(|line| line.credited).collect::<Vec<_>>(), [9, 0]);
    assert_eq!(invoiced.head.version, 4);

    let rest = selection(&[(item(2), 1), (item(1), 1)]);
    let request = new_key("carol");
    let note = world.store.credit(invoice, &rest, &request, &cause).await.unwrap().unwrap();
    assert_eq!(note, world.store.document(note.head.id).await.unwrap());
    assert_eq!((note.head.total.amount, note.head.customer.as_str()), (200, "alice"));
    assert!(note.head.number.starts_with("CRN-") && note.head.number.ends_with("-000004"), "{}", note.head.number);
    assert_eq!(world.store.credit(invoice, &rest, &request, &cause).await.unwrap(), None);
}

#[tokio::test]
async fn credited_goods_are_returned() {
    let world = World::start().await;
    let invoice = world.invoice(&[(item(1), 10), (item(2), 4)]).await;
    let Standing::Invoice { order } = invoice.head.standing else { panic!("{invoice:?}") };
    let some = selection(&[(item(2), 3), (item(1), 1)]);
    let note = world.store.credit(invoice.head.id, &some, &new_key("carol"), &Cause::default()).await.unwrap().unwrap();
    let id = note.head.id;
    assert_eq!(note.head.standing, Standing::CreditNote { invoice: invoice.head.id, returned: false });
    assert_eq!(world.owed(id).await, ["documents.credit-note.issued", "documents.stock.return"]);
    let goods = json!({
        "credit_note_id": id, "order_id": order,
        "lines": [{ "item_id": item(2), "quantity": 3 }, { "item_id": item(1), "quantity": 1 }],
    });
    assert_eq!(world.told(id, "documents.stock.return").await, goods);
    assert_eq!(world.told(id, "documents.credit-note.issued").await["order_id"], json!(order));

    world.let_time_pass(id).await;
    assert_eq!(world.store.sweep(10).await.unwrap(), 1);
    assert_eq!(world.owed(id).await.len(), 3);
    assert_eq!(world.told(id, "documents.stock.return").await, goods);
    world.answer(id, saga::Event::Returned).await.unwrap();
    world.answer(id, saga::Event::Returned).await.unwrap();
    let head = world.store.document(id).await.unwrap().head;
    assert_eq!((head.standing.state(), head.version), (State::Returned, 2));
    assert!(matches!(world.answer(id, saga::Event::Reserved).await, Err(Error::Illegal(_))));
}

#[tokio::test]
async fn a_state_that_does_not_allow_it_changes_nothing() {
    let world = World::start().await;
    let (pending, cause) = (world.order(&[(item(1), 1)]).await.head.id, Cause::default());
    let invoice = world.invoice(&[(item(1), 1)]).await.head.id;
    let one = selection(&[(item(1), 1)]);
    let before = (world.count("outbox").await, world.count("documents").await);
    let refused = |error: Error| match error {
        Error::NotAllowed(refused) => (refused.kind, refused.state),
        other => panic!("{other}"),
    };
    assert_eq!(refused(world.store.invoice(pending, &cause).await.unwrap_err()), (Kind::Order, State::Pending));
    assert_eq!(refused(world.store.cancel(invoice, &cause).await.unwrap_err()), (Kind::Invoice, State::Issued));
    let credit = world.store.credit(pending, &one, &new_key("carol"), &cause).await;
    assert_eq!(refused(credit.unwrap_err()), (Kind::Order, State::Pending));
    assert_eq!((world.count("outbox").await, world.count("documents").await), before);
    world.store.cancel(pending, &cause).await.unwrap();
    assert_eq!(refused(world.store.cancel(pending, &cause).await.unwrap_err()), (Kind::Order, State::Cancelled));
}

#[tokio::test]
async fn stock_of_an_order_nobody_knows_is_released_whether_held_or_taken() {
    let world = World::start().await;
    let lost = Uuid::now_v7();
    world.answer(lost, saga::Event::Reserved).await.unwrap();
    assert_eq!(world.owed(lost).await, ["documents.stock.release"]);
    assert_eq!(world.told(lost, "documents.stock.release").await["reason"], "unknown");
    for later in [saga::Event::Taken, saga::Event::Released] {
        world.answer(lost, later).await.unwrap();
    }
    assert_eq!(world.owed(lost).await.len(), 1);

    let never_asked_for = Uuid::now_v7();
    for impossible in [saga::Event::Taken, saga::Event::Returned] {
        assert!(matches!(world.answer(never_asked_for, impossible).await, Err(Error::NotFound)));
    }
    assert!(world.owed(never_asked_for).await.is_empty());
}

#[tokio::test]
async fn an_operator_sees_sagas_and_moves_those_that_may_be_moved() {
    let (world, ann) = (World::start().await, Operator::named("ann"));
    let pending = world.order(&[(item(1), 1)]).await.head.id;
    let confirmed = world.confirmed(&[(item(1), 1)]).await;
    let open = Sagas::list(&world.store, true, 10).await.unwrap();
    let states: Vec<_> = open.iter().map(|saga| (saga.id, saga.state.as_str(), saga.ended)).collect();
    assert_eq!(states.len(), 2);
    assert!(states.contains(&(pending, "reserving", false)) && states.contains(&(confirmed, "taking", false)));

    // Being overdue would call the pending one off: it is not asked again.
    assert_eq!(Sagas::retry(&world.store, pending, &ann).await.unwrap_err().status(), StatusCode::CONFLICT);
    Sagas::retry(&world.store, confirmed, &ann).await.unwrap();
    assert_eq!(world.store.sweep(10).await.unwrap(), 1);
    assert_eq!(world.owed(confirmed).await.iter().filter(|subject| *subject == "documents.stock.take").count(), 2);

    assert_eq!(Sagas::cancel(&world.store, confirmed, &ann).await.unwrap_err().status(), StatusCode::CONFLICT);
    let abandoned = Sagas::abandon(&world.store, confirmed, &ann, "why not").await;
    assert_eq!(abandoned.unwrap_err().status(), StatusCode::CONFLICT);
    Sagas::cancel(&world.store, pending, &ann).await.unwrap();
    let saga = Sagas::find(&world.store, pending).await.unwrap().unwrap();
    assert_eq!((saga.state.as_str(), saga.about.ends_with("CANCELLED")), ("releasing", true));
    let sql = "SELECT DISTINCT initiator FROM outbox WHERE saga = $1 AND subject = 'documents.stock.release'";
    let row = world.database.get().await.unwrap().one(sql, &[&pending]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "ann");

    world.answer(pending, saga::Event::Released).await.unwrap();
    assert!(Sagas::find(&world.store, pending).await.unwrap().unwrap().ended);
    assert_eq!(Sagas::list(&world.store, true, 10).await.unwrap().len(), 1);
    assert_eq!(Sagas::list(&world.store, false, 10).await.unwrap().len(), 2);
    assert_eq!(Sagas::retry(&world.store, Uuid::now_v7(), &ann).await.unwrap_err().status(), StatusCode::NOT_FOUND);
    let done = world.interventions().await;
    assert_eq!(done, [("retry".into(), confirmed, None), ("cancel".into(), pending, None)]);
}

impl World {
    /// What operators did to which saga, and why.
    async fn interventions(&self) -> Vec<(String, Uuid, Option<String>)> {
        let sql = "SELECT action, subject, reason FROM interventions WHERE operator = 'ann' ORDER BY id";
        let rows = self.database.get().await.unwrap().all(sql, &[]).await.unwrap();
        let saga = |subject: &str| subject.strip_prefix("saga ").unwrap().parse().unwrap();
        rows.iter().map(|row| (row.get(0), saga(row.get(1)), row.get(2))).collect()
    }
}

#[tokio::test]
async fn an_order_there_is_nothing_for_is_not_invoiced() {
    let world = World::start().await;
    let id = world.confirmed(&[(item(1), 2)]).await;
    world.answer(id, saga::Event::Released).await.unwrap();
    let refused = world.store.invoice(id, &Cause::default()).await.unwrap_err();
    assert!(matches!(refused, Error::Unfulfilled), "{refused:?}");
    // Item management has found it after all.
    world.answer(id, saga::Event::Taken).await.unwrap();
    world.store.invoice(id, &Cause::default()).await.unwrap();
}

/// Item management has nothing for an order that is confirmed: one of the databases was put back to an older state.
#[tokio::test]
async fn an_order_there_is_nothing_for_waits_for_an_operator_who_gives_it_up() {
    let (world, ann) = (World::start().await, Operator::named("ann"));
    let id = world.confirmed(&[(item(1), 2)]).await;
    world.answer(id, saga::Event::Taken).await.unwrap();
    let invoice = world.store.invoice(id, &Cause::default()).await.unwrap().head;
    world.answer(id, saga::Event::Released).await.unwrap();
    let open = Sagas::list(&world.store, true, 10).await.unwrap();
    assert_eq!((open[0].id, open[0].state.as_str(), open[0].due_at), (id, "unfulfilled", None));
    assert_eq!(world.store.sweep(10).await.unwrap(), 0, "nothing is asked any more");

    // It may be asked once more.
    Sagas::retry(&world.store, id, &ann).await.unwrap();
    assert_eq!(world.store.sweep(10).await.unwrap(), 1);
    assert_eq!(world.owed(id).await.last().unwrap(), "documents.stock.take");
    world.answer(id, saga::Event::Refused(refusal())).await.unwrap();

    // Nobody may be left owing money for it.
    let outstanding = Sagas::abandon(&world.store, id, &ann, "restored").await.unwrap_err();
    assert_eq!(outstanding.status(), StatusCode::CONFLICT);
    assert!(format!("{outstanding:?}").contains(&invoice.number), "{outstanding:?}");
    let (all, key) = (selection(&[(item(1), 2)]), new_key("carol"));
    let note = world.store.credit(invoice.id, &all, &key, &Cause::default()).await.unwrap().unwrap().head.id;

    let owed = world.owed(id).await.len();
    for _ in 0..2 {
        Sagas::abandon(&world.store, id, &ann, "restored").await.unwrap();
    }
    let standing = world.store.document(id).await.unwrap().head.standing;
    assert!(
        matches!(standing, Standing::Order { state: OrderState::Cancelled(Cancellation::Unfulfilled), .. }),
        "{standing:?}"
    );
    assert_eq!(world.owed(id).await[owed..], ["documents.order.cancelled"], "told once; nothing is held");
    assert_eq!(world.told(id, "documents.order.cancelled").await["reason"], "unfulfilled");
    let done = world.interventions().await;
    assert_eq!(done, [("retry".into(), id, None), ("abandon".into(), id, Some("restored".into()))]);

    // Whatever item management finds for it after all is undone.
    world.answer(id, saga::Event::Reserved).await.unwrap();
    assert_eq!(world.told(id, "documents.stock.release").await["reason"], "unfulfilled");
    world.answer(id, saga::Event::Taken).await.unwrap();
    assert_eq!(world.told(id, "documents.stock.release").await["reason"], "forgotten");
    world.answer(id, saga::Event::Released).await.unwrap();

    // Its credit note brings nothing back.
    world.answer(note, saga::Event::ReturnRefused).await.unwrap();
    let open = Sagas::list(&world.store, true, 10).await.unwrap();
    assert_eq!((open.len(), open[0].id, open[0].state.as_str()), (1, note, "unreturned"));
    for _ in 0..2 {
        Sagas::abandon(&world.store, note, &ann, "it never left the house").await.unwrap();
    }
    let state = async || world.store.document(note).await.unwrap().head.standing.state();
    assert_eq!(state().await, State::Issued);
    assert!(Sagas::list(&world.store, true, 10).await.unwrap().is_empty());
    assert_eq!(world.interventions().await.len(), 3);
    world.answer(note, saga::Event::Returned).await.unwrap();
    assert_eq!(state().await, State::Returned, "what is the case counts");
    world.answer(note, saga::Event::ReturnRefused).await.unwrap();
    assert_eq!(state().await, State::Issued);
}

/// This database was put back to before the order was confirmed, called it off, and hears that its stock was taken.
#[tokio::test]
async fn what_was_taken_for_an_order_that_was_called_off_is_undone() {
    let world = World::start().await;
    let id = world.order(&[(item(1), 1)]).await.head.id;
    world.store.cancel(id, &Cause::default()).await.unwrap();
    world.answer(id, saga::Event::Reserved).await.unwrap();
    assert_eq!(world.told(id, "documents.stock.release").await["reason"], "customer");
    world.answer(id, saga::Event::Taken).await.unwrap();
    assert_eq!(world.told(id, "documents.stock.release").await["reason"], "forgotten");
    world.answer(id, saga::Event::Released).await.unwrap();
    let saga = Sagas::find(&world.store, id).await.unwrap().unwrap();
    assert_eq!((saga.state.as_str(), saga.ended), ("released", true));
}
