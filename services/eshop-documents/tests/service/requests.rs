//! The operations as their callers see them.

use eshop_documents::{
    domain::{Refusal, RefusalReason, Shortage},
    saga,
};
use futures_util::future::join_all;
use http::Request;
use serde_json::{Value, json};
use testkit::eventually;
use uuid::Uuid;

use crate::world::{Answer, Service, alice, bob, carol, euros, order_of};

/// Waits until an order is placed, then answers for item management.
async fn settle(service: &Service, event: saga::Event) -> Uuid {
    let id = eventually("an order to be placed", async || {
        let list = service.get(&alice(), "/documents?state=PENDING").await;
        list.body["items"].as_array()?.first().map(|order| serde_json::from_value::<Uuid>(order["id"].clone()).unwrap())
    })
    .await;
    service.answer(id, event).await;
    id
}

#[tokio::test]
async fn an_order_is_placed_and_found_where_the_answer_says() {
    let service = Service::start().await;
    let (chair, table) = (service.items.item(euros(1999)), service.items.item(euros(10_000)));
    let lines = json!([{ "item_id": table, "quantity": 1 }, { "item_id": chair, "quantity": 4 }]);
    let body = json!({ "kind": "order", "lines": lines });
    let placed = service.post(&alice(), "/documents", &[("idempotency-key", "k")], &body).await.expect(202);
    assert_eq!(placed.header("location"), format!("/documents/{}", placed.id()));
    assert_eq!(placed.header("etag"), "\"1\"");
    assert_eq!(placed.body["state"], "PENDING");
    assert_eq!(placed.body["customer"], "alice");
    assert_eq!(placed.body["allowed"], json!(["cancel"]));
    assert_eq!(placed.body["total"], json!({ "amount": 10_000 + 4 * 1999, "currency": "EUR" }));
    assert_eq!(placed.body["lines"][1]["total"], json!({ "amount": 4 * 1999, "currency": "EUR" }));

    let path = placed.header("location").to_owned();
    assert_eq!(service.get(&alice(), &path).await.expect(200).body, placed.body);
    let held = Request::get(&path).header("if-none-match", "\"1\"").body(String::new()).unwrap();
    assert_eq!(service.send(Some(&alice()), held).await.expect(304).header("etag"), "\"1\"");
    service.answer(placed.id(), saga::Event::Reserved).await;
    let held = Request::get(&path).header("if-none-match", "\"1\"").body(String::new()).unwrap();
    let changed = service.send(Some(&alice()), held).await.expect(200);
    assert_eq!((changed.header("etag"), &changed.body["state"]), ("\"2\"", &json!("CONFIRMED")));
}

#[tokio::test]
async fn who_waits_is_told_that_the_order_is_confirmed() {
    let service = Service::start().await;
    let item = service.items.item(euros(100));
    let (answer, id) =
        tokio::join!(service.order("k", Some("wait=20"), item, 1), settle(&service, saga::Event::Reserved));
    let answer = answer.expect(201);
    assert_eq!((answer.id(), &answer.body["state"]), (id, &json!("CONFIRMED")));
    assert_eq!(answer.header("location"), format!("/documents/{id}"));
    assert_eq!(answer.header("preference-applied"), "wait=20");

    let repeated = service.order("k", Some("wait=20"), item, 1).await.expect(201);
    assert_eq!(repeated.body, answer.body);
    service.world.store.invoice(id, &Default::default()).await.unwrap();
    assert_eq!(service.order("k", Some("wait=20"), item, 1).await.expect(201).body["state"], "INVOICED");
}

#[tokio::test]
async fn who_waits_is_told_why_there_is_no_order() {
    let service = Service::start().await;
    let item = service.items.item(euros(100));
    let shortage = Shortage { item_id: item, requested: 7, available: 2 };
    let refused = saga::Event::Refused(Refusal { reason: RefusalReason::InsufficientStock, shortages: vec![shortage] });
    let (answer, id) = tokio::join!(service.order("k", Some("wait=20"), item, 7), settle(&service, refused));
    let answer = answer.expect(409);
    assert_eq!(answer.body["type"], "urn:berth:problem:order-rejected");
    assert_eq!((&answer.body["state"], &answer.body["reason"]), (&json!("REJECTED"), &json!("insufficient-stock")));
    assert_eq!(answer.body["document"], json!(id));
    assert_eq!(answer.body["errors"], json!([{ "pointer": "/lines/0/quantity", "message": "7 ordered, 2 available" }]));
    assert_eq!(answer.header("location"), format!("/documents/{id}"));
    let shown = service.get(&alice(), &format!("/documents/{id}")).await.expect(200);
    assert_eq!(
        (&shown.body["reason"], &shown.body["shortages"][0]["available"]),
        (&json!("insufficient-stock"), &json!(2))
    );

    let (answer, _) = tokio::join!(service.order("l", Some("wait=20"), item, 1), async {
        let id = settle_by_cancelling(&service).await;
        assert_eq!(service.get(&alice(), &format!("/documents/{id}")).await.body["reason"], "customer");
    });
    let answer = answer.expect(409);
    assert_eq!(
        (&answer.body["type"], &answer.body["reason"]),
        (&json!("urn:berth:problem:order-cancelled"), &json!("customer"))
    );
}

async fn settle_by_cancelling(service: &Service) -> Uuid {
    let id = eventually("an order to be placed", async || {
        let list = service.get(&alice(), "/documents?state=PENDING").await;
        list.body["items"].as_array()?.first().map(|order| serde_json::from_value::<Uuid>(order["id"].clone()).unwrap())
    })
    .await;
    service.post(&alice(), &format!("/documents/{id}/cancel"), &[], &Value::Null).await.expect(200);
    id
}

#[tokio::test]
async fn who_has_waited_long_enough_is_told_where_to_look() {
    let service = Service::start().await;
    let item = service.items.item(euros(100));
    for prefer in ["wait=0", "wait=1"] {
        let answer = service.order(prefer, Some(prefer), item, 1).await.expect(202);
        assert_eq!((&answer.body["state"], answer.header("preference-applied")), (&json!("PENDING"), prefer));
    }
}

#[tokio::test]
async fn a_drain_sends_who_waits_home() {
    let service = Service::start().await;
    let item = service.items.item(euros(100));
    let limit = std::time::Duration::from_secs(15);
    let waiting = tokio::time::timeout(limit, service.order("k", Some("wait=20"), item, 1));
    let (waited, ()) = tokio::join!(waiting, async {
        eventually("the order to be placed", async || (service.world.count("documents").await == 1).then_some(()))
            .await;
        service.drain();
    });
    waited.expect("it went on waiting").expect(202);
    let late = tokio::time::timeout(limit, service.order("l", Some("wait=20"), item, 1)).await;
    late.expect("it began to wait").expect(202);
}

#[tokio::test]
async fn a_repeated_request_gets_its_first_answer_even_while_item_management_is_away() {
    let service = Service::start().await;
    let item = service.items.item(euros(100));
    let first = service.order("k", None, item, 1).await.expect(202);
    service.answer(first.id(), saga::Event::Reserved).await;
    service.items.stop().await;
    let again = service.order("k", None, item, 1).await.expect(202);
    assert_eq!((&again.body, again.header("etag")), (&first.body, first.header("etag")));
    let spaced = json!({ "lines": [{ "quantity": 1, "item_id": item }], "kind": "order" });
    assert_eq!(
        service.post(&alice(), "/documents", &[("idempotency-key", "\"k\"")], &spaced).await.expect(202).body,
        first.body
    );

    let other = service.order("k", None, item, 2).await.expect(422);
    assert_eq!(other.body["type"], "urn:berth:problem:idempotency-key-reused");
    assert!(other.body.to_string().contains("idempotency-key"));
    let bobs = service.post(&bob(), "/documents", &[("idempotency-key", "k")], &order_of(item, 1)).await;
    bobs.expect(503);
    assert_eq!(service.world.count("documents").await, 1);
}

#[tokio::test]
async fn a_key_that_comes_many_times_at_once_makes_one_order() {
    let service = Service::start().await;
    let item = service.items.item(euros(100));
    let answers = join_all((0..8).map(|_| service.order("k", None, item, 1))).await;
    let bodies: Vec<Value> = answers.into_iter().map(|answer| answer.expect(202).body).collect();
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:#?}");
    assert_eq!(service.world.count("documents").await, 1);
}

#[tokio::test]
async fn without_item_management_nothing_is_ordered() {
    let service = Service::start().await;
    let item = service.items.item(euros(100));
    service.items.stop().await;
    let answer = service.order("k", None, item, 1).await.expect(503);
    assert_eq!(answer.body["type"], "urn:berth:problem:unavailable");
    assert!(!answer.header("retry-after").is_empty());
    assert_eq!((service.world.count("documents").await, service.world.count("idempotency_keys").await), (0, 0));
}

#[tokio::test]
async fn nonsense_from_item_management_is_no_order() {
    let service = Service::start().await;
    service.order("k", None, service.items.nonsense(), 1).await.expect(502);
    assert_eq!(service.world.count("documents").await, 0);
}

#[tokio::test]
async fn without_the_database_the_answer_is_to_come_back_and_then_all_is_well() {
    let mut service = Service::start().await;
    let item = service.items.item(euros(100));
    let order = service.order("k", None, item, 1).await.expect(202).id();
    let path = format!("/documents/{order}");
    service.world.postgres.kill();
    for answer in [
        service.get(&alice(), &path).await,
        service.get(&alice(), "/documents").await,
        service.order("l", Some("wait=1"), item, 1).await,
        service.post(&alice(), &format!("{path}/cancel"), &[], &Value::Null).await,
    ] {
        assert!(!answer.expect(503).header("retry-after").is_empty());
    }
    service.world.postgres.restart().await;
    eventually("the document to be readable again", async || {
        (service.get(&alice(), &path).await.status == 200).then_some(())
    })
    .await;
    service.order("l", None, item, 1).await.expect(202);
}

#[tokio::test]
async fn lists_hold_what_the_caller_may_see_page_by_page() {
    let service = Service::start().await;
    let item = service.items.item(euros(100));
    let mut expected = Vec::new();
    for n in 0..5 {
        expected.push(service.order(&format!("k{n}"), None, item, 1).await.expect(202).id());
    }
    let bobs =
        service.post(&bob(), "/documents", &[("idempotency-key", "k")], &order_of(item, 1)).await.expect(202).id();
    expected.reverse();
    assert_eq!(pages(&service, &alice()).await, expected);
    assert_eq!(pages(&service, &bob()).await, [bobs]);
    expected.insert(0, bobs);
    assert_eq!(pages(&service, &carol()).await, expected);
    let list = service.get(&carol(), "/documents?kind=order&state=PENDING&limit=1").await.expect(200);
    assert_eq!(list.body["items"][0].get("lines"), None);
    assert_eq!(list.body["items"][0]["id"], json!(bobs));
}

#[tokio::test]
async fn what_one_may_not_see_looks_like_what_does_not_exist() {
    let service = Service::start().await;
    let order = service.world.order(&[(Uuid::from_u128(1), 1)]).await.head.id;
    let hidden = service.get(&bob(), &format!("/documents/{order}")).await.expect(404);
    let absent = service.get(&bob(), &format!("/documents/{}", Uuid::from_u128(404))).await.expect(404);
    assert_eq!((hidden.body, hidden.headers), (absent.body, absent.headers));
}

/// All ids of a list, read two at a time.
async fn pages(service: &Service, caller: &auth::Principal) -> Vec<Uuid> {
    let (mut ids, mut path) = (Vec::new(), "/documents?limit=2".to_owned());
    loop {
        let Answer { body, .. } = service.get(caller, &path).await.expect(200);
        let items = body["items"].as_array().unwrap();
        ids.extend(items.iter().map(|item| serde_json::from_value::<Uuid>(item["id"].clone()).unwrap()));
        match body.get("next") {
            Some(next) => path = format!("/documents?limit=2&cursor={}", next.as_str().unwrap()),
            None => return ids,
        }
    }
}

#[tokio::test]
async fn an_order_becomes_an_invoice_and_that_credit_notes() {
    let service = Service::start().await;
    let item = service.items.item(euros(100));
    let order = service.order("k", None, item, 4).await.expect(202).id();
    let path = format!("/documents/{order}");
    let early = service.post(&carol(), &format!("{path}/invoice"), &[], &Value::Null).await.expect(409);
    assert_eq!(early.body["type"], "urn:berth:problem:not-allowed-in-state");
    assert_eq!((&early.body["state"], &early.body["allowed"]), (&json!("PENDING"), &json!(["cancel"])));
    service.answer(order, saga::Event::Reserved).await;
    let late = service.post(&alice(), &format!("{path}/cancel"), &[], &Value::Null).await.expect(409);
    assert_eq!((&late.body["state"], &late.body["allowed"]), (&json!("CONFIRMED"), &json!(["invoice"])));

    let invoice = service.post(&carol(), &format!("{path}/invoice"), &[], &Value::Null).await.expect(201);
    assert_eq!(invoice.header("location"), format!("/documents/{}", invoice.id()));
    assert_eq!((&invoice.body["kind"], &invoice.body["state"]), (&json!("invoice"), &json!("ISSUED")));
    assert_eq!((&invoice.body["based_on"], &invoice.body["customer"]), (&json!(order), &json!("alice")));
    service.post(&carol(), &format!("{path}/invoice"), &[], &Value::Null).await.expect(409);

    let credit = async |key: Option<&str>, quantity: i64| {
        let headers: Vec<_> = key.into_iter().map(|key| ("idempotency-key", key)).collect();
        let body = json!({ "lines": [{ "item_id": item, "quantity": quantity }] });
        service.post(&carol(), &format!("/documents/{}/credit-notes", invoice.id()), &headers, &body).await
    };
    let note = credit(Some("c"), 3).await.expect(201);
    assert_eq!((&note.body["kind"], &note.body["based_on"]), (&json!("credit-note"), &json!(invoice.id())));
    service.answer(note.id(), saga::Event::Returned).await;
    let again = credit(Some("c"), 3).await.expect(201);
    assert_eq!((&again.body, again.header("etag")), (&note.body, note.header("etag")));
    credit(Some("c"), 1).await.expect(422);
    credit(None, 2).await.expect(422);
    credit(None, 1).await.expect(201);
    let shown = service.get(&alice(), &format!("/documents/{}", invoice.id())).await.expect(200);
    assert_eq!((&shown.body["lines"][0]["credited"], shown.header("etag")), (&json!(4), "\"3\""));
    let shown = service.get(&alice(), &format!("/documents/{}", note.id())).await.expect(200);
    assert_eq!(shown.body["state"], "RETURNED");
}
