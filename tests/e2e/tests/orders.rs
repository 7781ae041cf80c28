//! The order transaction and the documents that follow it, through the gateway, as users see them.
#![allow(clippy::unwrap_used, reason = "in a test")]

use e2e::{Answer, Mesh, Shop};
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn orders_move_stock_and_documents_together() {
    let mesh = Mesh::up().await;
    let shop = Shop::open(&mesh);
    an_order_is_confirmed_and_its_stock_taken(&shop).await;
    an_order_for_more_than_there_is_changes_nothing(&shop).await;
    the_same_key_orders_once(&shop).await;
    invoice_and_credit_note_give_stock_back(&shop).await;
    a_customer_sees_only_her_own(&shop).await;
    one_trace_goes_through_all_of_it(&mesh, &shop).await;
    the_walkthrough_works_or_says_that_it_did_not(&mesh);
}

async fn an_order_is_confirmed_and_its_stock_taken(shop: &Shop) {
    let item = shop.item(10).await;
    let placed = shop.order(&item, 3, 0).await.expect(202);
    let location = placed.header("location").to_owned();
    assert!(location.starts_with("/documents/"), "{location}");
    let id = location.trim_start_matches("/documents/");
    shop.reaches(id, "CONFIRMED").await;
    shop.stock_becomes(&item, (7, 0)).await;

    let waited = shop.order(&item, 2, 20).await.expect(201);
    assert_eq!(waited.text("/state"), "CONFIRMED");
    assert_eq!(waited.number("/total/amount"), 2 * 1999);
    shop.stock_becomes(&item, (5, 0)).await;
}

async fn an_order_for_more_than_there_is_changes_nothing(shop: &Shop) {
    let (plenty, scarce) = (shop.item(100).await, shop.item(1).await);
    let order = json!({ "kind": "order", "lines": [
        { "item_id": plenty, "quantity": 5 }, { "item_id": scarce, "quantity": 2 },
    ]});
    let request = shop.alice.request(Method::POST, "/documents").json(&order);
    let refused = Answer::of(request.header("idempotency-key", "more-than-there-is").header("prefer", "wait=20")).await;
    refused.expect(409);
    assert_eq!(shop.stock(&plenty).await, (100, 0));
    assert_eq!(shop.stock(&scarce).await, (1, 0));
}

async fn the_same_key_orders_once(shop: &Shop) {
    let item = shop.item(10).await;
    let order = Shop::order_of(&item, 1);
    let first = shop.alice.post_once("/documents", "one-key", &order).await.expect(202);
    let second = shop.alice.post_once("/documents", "one-key", &order).await;
    assert_eq!(first.header("location"), second.header("location"));
    let other = shop.alice.post_once("/documents", "one-key", &Shop::order_of(&item, 2)).await;
    assert_eq!(other.status, 422, "{:#}", other.body);
    shop.stock_becomes(&item, (9, 0)).await;
}

async fn invoice_and_credit_note_give_stock_back(shop: &Shop) {
    let item = shop.item(10).await;
    let order = shop.order(&item, 4, 20).await.expect(201).text("/id").to_owned();
    let invoice = shop.carol.post(&format!("/documents/{order}/invoice"), &json!({})).await.expect(201);
    let invoice = invoice.text("/id").to_owned();
    shop.carol.post(&format!("/documents/{order}/invoice"), &json!({})).await.expect(409);
    shop.stock_becomes(&item, (6, 0)).await;

    let credit = |quantity: i64| json!({ "lines": [{ "item_id": item, "quantity": quantity }] });
    let path = format!("/documents/{invoice}/credit-notes");
    shop.carol.post_once(&path, "credit-1", &credit(3)).await.expect(201);
    shop.stock_becomes(&item, (9, 0)).await;
    let too_much = shop.carol.post_once(&path, "credit-2", &credit(2)).await;
    assert!(too_much.status.is_client_error(), "{:#}", too_much.body);
    assert_eq!(shop.stock(&item).await, (9, 0));
}

async fn a_customer_sees_only_her_own(shop: &Shop) {
    let item = shop.item(10).await;
    let order = shop.order(&item, 1, 20).await.expect(201).text("/id").to_owned();
    let path = format!("/documents/{order}");
    shop.alice.get(&path).await.expect(200);
    shop.carol.get(&path).await.expect(200);
    shop.bob.get(&path).await.expect(404);
    assert_eq!(shop.mallory.get(&path).await.status.as_u16() / 100, 4);
    let list = shop.bob.get("/documents").await.expect(200);
    assert_eq!(list.body.pointer("/items"), Some(&json!([])));
}

/// The client's own trace: from the gateway through the call for prices, and through the messages there and back.
async fn one_trace_goes_through_all_of_it(mesh: &Mesh, shop: &Shop) {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let item = shop.item(10).await;
    let request = shop.alice.request(Method::POST, "/documents").json(&Shop::order_of(&item, 1));
    let request = request.header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"));
    let placed = Answer::of(request.header("idempotency-key", "traced")).await.expect(202);
    shop.reaches(placed.header("location").trim_start_matches("/documents/"), "CONFIRMED").await;
    for (service, field, value) in [
        ("gateway", "path", "/documents"),
        ("eshop-documents", "path", "/documents"),
        ("item-management", "path", "/internal/quotes"),
        ("item-management", "subject", "documents.stock.reserve"),
        ("eshop-documents", "subject", "items.reservation.reserved"),
    ] {
        // Lines are written soon, and not before the answer is sent.
        testkit::eventually(&format!("a line of {service} with {value}"), async || {
            mesh.trace(service, TRACE).iter().find(|line| line.get(field).is_some_and(|is| is == value)).map(drop)
        })
        .await;
    }
}

fn the_walkthrough_works_or_says_that_it_did_not(mesh: &Mesh) {
    let told = mesh.expect(&["demo"]);
    assert!(told.contains("CONFIRMED"), "{told}");
    // alice cannot log in, so nothing is ordered.
    let users = mesh.folder().join(".berth/users");
    let list = std::fs::read_to_string(&users).unwrap();
    std::fs::write(&users, list.replace("\nalice ", "\nalice not-")).unwrap();
    let failed = mesh.berth(&["demo"]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert!(String::from_utf8_lossy(&failed.stderr).contains("the order was not confirmed"), "{failed:?}");
}
