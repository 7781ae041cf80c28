//! Whatever comes in, the answer is a problem that names what is wrong; nothing is written.

use http::{Method, Request, header};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{Service, alice, carol, euros};

struct Row {
    method: Method,
    path: String,
    body: String,
    status: u16,
    /// What the problem has to name.
    named: &'static str,
}

fn post(path: &str, body: impl ToString, status: u16, named: &'static str) -> Row {
    Row { method: Method::POST, path: path.into(), body: body.to_string(), status, named }
}

fn get(path: &str, status: u16, named: &'static str) -> Row {
    Row { method: Method::GET, path: path.into(), body: String::new(), status, named }
}

#[tokio::test]
async fn bad_input_is_named_and_changes_nothing() {
    let service = Service::start().await;
    let item = service.items.item(euros(100));
    let dear = service.items.item(euros(9_007_199_254_740_991));
    let yen = service.items.item(eshop_documents::domain::Money { amount: 1, currency: "JPY".parse().unwrap() });
    let invoice = service.world.invoice(&[(item, 2)]).await.head.id;
    let before = (
        service.world.count("documents").await,
        service.world.count("outbox").await,
        service.world.count("idempotency_keys").await,
    );

    for row in rows(item, dear, yen, invoice) {
        let request = Request::builder().method(&row.method).uri(&row.path);
        let request = request.header(header::CONTENT_TYPE, "application/json").header("idempotency-key", "bad-input");
        let answer = service.send(Some(&carol()), request.body(row.body.clone()).unwrap()).await;
        let shown = format!("{} {} {:.80}: {} {:#}", row.method, row.path, row.body, answer.status, answer.body);
        assert_eq!(answer.status.as_u16(), row.status, "{shown}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{shown}");
        assert!(answer.body["type"].as_str().unwrap().starts_with("urn:berth:problem:"), "{shown}");
        assert!(answer.body.to_string().contains(row.named), "{:?} is not named: {shown}", row.named);
    }
    let after = (
        service.world.count("documents").await,
        service.world.count("outbox").await,
        service.world.count("idempotency_keys").await,
    );
    assert_eq!(before, after);
}

fn rows(item: Uuid, dear: Uuid, yen: Uuid, invoice: Uuid) -> Vec<Row> {
    let order = |lines: Value| post("/documents", json!({ "kind": "order", "lines": lines }), 422, "");
    let named = |row: Row, named| Row { named, ..row };
    let line = |item: Uuid, quantity: Value| json!({ "item_id": item, "quantity": quantity });
    let one = |quantity: Value| order(json!([line(item, quantity)]));
    let credit =
        |lines: Value, name| post(&format!("/documents/{invoice}/credit-notes"), json!({ "lines": lines }), 422, name);
    let many: Vec<_> = (0..101).map(|_| line(Uuid::now_v7(), json!(1))).collect();
    let nowhere = Uuid::from_u128(404);
    vec![
        post("/documents", "", 400, ""),
        post("/documents", "{", 400, "line"),
        post("/documents", "[".repeat(10_000), 400, ""),
        post("/documents", format!("{{\"lines\":{}", "[".repeat(10_000)), 400, ""),
        post("/documents", "[]", 422, "pointer"),
        post("/documents", "{}", 422, "kind"),
        post("/documents", json!({ "kind": "order" }), 422, "lines"),
        post("/documents", json!({ "kind": "poem", "lines": [] }), 422, "/kind"),
        post("/documents", json!({ "kind": "invoice", "lines": [line(item, json!(1))] }), 422, "/kind"),
        post("/documents", json!({ "kind": "order", "lines": [line(item, json!(1))], "total": 1 }), 422, "total"),
        named(order(json!([])), "/lines"),
        named(order(json!({})), "/lines"),
        named(order(json!(many)), "/lines"),
        named(order(json!([{ "item_id": item, "quantity": 1, "price": 1 }])), "/lines/0/price"),
        named(order(json!([{ "item_id": item }])), "/lines/0/quantity"),
        named(order(json!([{ "item_id": "chair", "quantity": 1 }])), "/lines/0/item_id"),
        named(order(json!([{ "item_id": "\u{0}", "quantity": 1 }])), "/lines/0/item_id"),
        named(order(json!([line(item, json!(1)), line(item, json!(1))])), "/lines/1/item_id"),
        named(order(json!([line(item, json!(1)), line(nowhere, json!(1))])), "/lines/1/item_id"),
        named(order(json!([line(item, json!(1)), line(yen, json!(1))])), "/lines/1/item_id"),
        named(order(json!([line(dear, json!(2))])), "/lines/0/quantity"),
        named(order(json!([line(dear, json!(1)), line(item, json!(1))])), "/lines/1/quantity"),
        named(one(json!(0)), "/lines/0/quantity"),
        named(one(json!(-3)), "/lines/0/quantity"),
        named(one(json!(1.5)), "/lines/0/quantity"),
        named(one(json!("3")), "/lines/0/quantity"),
        named(one(json!(1e300)), "/lines/0/quantity"),
        named(one(json!(i64::MAX)), "/lines/0/quantity"),
        named(one(json!(u64::MAX)), "/lines/0/quantity"),
        named(one(Value::Null), "/lines/0/quantity"),
        credit(json!([]), "/lines"),
        credit(json!([line(item, json!(3))]), "/lines/0/quantity"),
        credit(json!([line(item, json!(0))]), "/lines/0/quantity"),
        credit(json!([line(yen, json!(1))]), "/lines/0/item_id"),
        get("/documents?limit=0", 400, "limit"),
        get("/documents?limit=many", 400, "limit"),
        get("/documents?limit=101", 400, "limit"),
        get("/documents?cursor=!!", 400, "cursor"),
        get("/documents?cursor=AAAA", 400, "cursor"),
        get("/documents?kind=poem", 400, "kind"),
        get("/documents?state=confirmed", 400, "state"),
        get("/documents?colour=red", 400, "colour"),
        get("/documents/not-a-uuid", 400, "id"),
        get(&format!("/documents/{nowhere}"), 404, ""),
        post("/documents/not-a-uuid/cancel", "{}", 400, "id"),
        post(&format!("/documents/{nowhere}/cancel"), "{}", 404, ""),
        post(&format!("/documents/{nowhere}/invoice"), "{}", 404, ""),
        post(&format!("/documents/{nowhere}/credit-notes"), json!({ "lines": [] }), 404, ""),
        post(&format!("/documents/{invoice}/cancel"), "{}", 409, "\"allowed\":[\"credit-notes\"]"),
        post(&format!("/documents/{invoice}/invoice"), "{}", 409, "\"state\":\"ISSUED\""),
    ]
}

#[tokio::test]
async fn a_key_is_required_and_must_be_one() {
    let service = Service::start().await;
    let order = json!({ "kind": "order", "lines": [{ "item_id": service.items.item(euros(1)), "quantity": 1 }] });
    let long = "k".repeat(129);
    for keys in [&[][..], &["a", "b"], &[""], &["zwölf"], &["a b"], &[&long]] {
        let headers: Vec<_> = keys.iter().map(|key| ("idempotency-key", *key)).collect();
        let answer = service.post(&alice(), "/documents", &headers, &order).await.expect(400);
        assert!(answer.body.to_string().contains("idempotency-key"), "{keys:?}: {:#}", answer.body);
    }
    assert_eq!(service.world.count("documents").await, 0);
}

#[tokio::test]
async fn another_media_type_is_refused() {
    let service = Service::start().await;
    let request = Request::post("/documents").header("idempotency-key", "k").header(header::CONTENT_TYPE, "text/plain");
    service.send(Some(&alice()), request.body("{}".into()).unwrap()).await.expect(415);
}
