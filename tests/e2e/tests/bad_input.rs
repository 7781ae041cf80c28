//! Whatever comes in, the answer is a 4xx problem that names the field; nothing is written, nothing falls over.
#![allow(clippy::indexing_slicing, reason = "in a test")]

use std::time::Duration;

use e2e::{Answer, Mesh, Shop};
use futures_util::stream;
use reqwest::{Body, Method, RequestBuilder};
use serde_json::{Value, json};

/// Method, path, body, the status, and what the problem has to name.
type Row = (Method, &'static str, String, u16, &'static str);

#[tokio::test]
async fn bad_input_is_answered_with_a_problem_and_changes_nothing() {
    let mesh = Mesh::up().await;
    let shop = Shop::open(&mesh);
    let item = shop.item(5).await;
    let before = (count(&shop, "/items").await, count(&shop, "/documents").await);
    for (method, path, body, status, named) in rows(&item) {
        let request = shop.carol.request(method.clone(), &path.replace("ITEM", &item)).body(body.clone());
        let request = request
            .header("content-type", "application/json")
            .header("idempotency-key", "bad-input")
            .header("if-match", "\"1\"");
        let answer = Answer::of(request).await;
        let shown = format!(
            "{method} {path} {}: {} {:#}",
            body.chars().take(80).collect::<String>(),
            answer.status,
            answer.body
        );
        assert_eq!(answer.status.as_u16(), status, "{shown}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{shown}");
        assert!(answer.text("/type").starts_with("urn:berth:problem:"), "{shown}");
        assert!(answer.body.to_string().contains(named), "{named:?} is not named: {shown}");
    }
    a_huge_body_is_refused(&shop).await;
    a_body_that_never_ends_is_cut_off(&shop).await;
    assert_eq!((count(&shop, "/items").await, count(&shop, "/documents").await), before);
    assert_eq!(shop.stock(&item).await, (5, 0));
    for unit in mesh.units() {
        assert_eq!(unit.restarts, 0, "{unit:?}");
    }
}

fn rows(item: &str) -> Vec<Row> {
    let new = |field: &str, value: Value| {
        let mut body =
            json!({ "sku": "S-1", "name": "A chair", "price": { "amount": 1, "currency": "EUR" }, "stock_on_hand": 1 });
        body[field] = value;
        body.to_string()
    };
    let order =
        |quantity: Value| json!({ "kind": "order", "lines": [{ "item_id": item, "quantity": quantity }] }).to_string();
    let items = |body: String, status, named| (Method::POST, "/items", body, status, named);
    let documents = |body: String, status, named| (Method::POST, "/documents", body, status, named);
    vec![
        items("{".into(), 400, "line 1"),
        items(String::new(), 400, ""),
        items("[]".into(), 422, ""),
        items("{}".into(), 422, "sku"),
        items(new("colour", json!("red")), 422, "colour"),
        items(new("name", json!(7)), 422, "/name"),
        items(new("name", json!("x".repeat(100_000))), 422, "/name"),
        items(new("name", json!("nul\u{0}")), 422, "/name"),
        items(new("sku", json!("")), 422, "/sku"),
        items(new("stock_on_hand", json!(-1)), 422, "/stock_on_hand"),
        items(new("stock_on_hand", json!(1e300)), 422, "/stock_on_hand"),
        items(new("stock_on_hand", json!(u64::MAX)), 422, "/stock_on_hand"),
        items(new("price", json!({ "amount": 1.5, "currency": "EUR" })), 422, "/price/amount"),
        items(new("price", json!({ "amount": -1, "currency": "EUR" })), 422, "/price/amount"),
        items(new("price", json!({ "amount": 1, "currency": "euro" })), 422, "/price/currency"),
        items("[".repeat(10_000), 400, ""),
        (Method::GET, "/items?limit=0", String::new(), 400, "limit"),
        (Method::GET, "/items?limit=many", String::new(), 400, "limit"),
        (Method::GET, "/items?cursor=!!", String::new(), 400, "cursor"),
        (Method::GET, "/items?colour=red", String::new(), 400, "colour"),
        (Method::GET, "/items/not-a-uuid", String::new(), 400, "UUID"),
        (Method::GET, "/items/00000000-0000-7000-8000-000000000000", String::new(), 404, ""),
        (Method::PUT, "/items/ITEM", "{}".into(), 405, ""),
        (Method::PATCH, "/items/ITEM", json!({ "price": null }).to_string(), 422, "price"),
        (Method::GET, "/nowhere", String::new(), 404, ""),
        (Method::GET, "/items/ITEM/nowhere", String::new(), 404, ""),
        documents(order(json!(0)), 422, "/lines/0/quantity"),
        documents(order(json!(-3)), 422, "/lines/0/quantity"),
        documents(order(json!("3")), 422, "/lines/0/quantity"),
        documents(order(json!(i64::MAX)), 422, "/lines/0"),
        documents(json!({ "kind": "order", "lines": [] }).to_string(), 422, "/lines"),
        documents(json!({ "kind": "invoice", "lines": [] }).to_string(), 422, "/kind"),
        documents(order(json!(1)).replace(item, "00000000-0000-7000-8000-000000000000"), 422, "/lines/0/item_id"),
        (Method::GET, "/documents?kind=poem", String::new(), 400, "kind"),
        (Method::POST, "/documents/00000000-0000-7000-8000-000000000000/cancel", "{}".into(), 404, ""),
    ]
}

/// Its length alone condemns it: nothing of it is sent, so that nothing hinders the answer.
async fn a_huge_body_is_refused(shop: &Shop) {
    let held_back = stream::pending::<std::io::Result<&str>>();
    let request = item_from(shop, Body::wrap_stream(held_back)).header("content-length", 3 << 20);
    expect_problem(Answer::of(request).await, 413, "payload-too-large");
}

/// However steadily it comes; and it is the client who is told off, not the service.
async fn a_body_that_never_ends_is_cut_off(shop: &Shop) {
    let drip = stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Some((Ok::<_, std::io::Error>(" "), ()))
    });
    let answer = Answer::of(item_from(shop, Body::wrap_stream(drip))).await;
    expect_problem(answer, 408, "request-timeout");
}

fn item_from(shop: &Shop, body: Body) -> RequestBuilder {
    shop.carol.request(Method::POST, "/items").header("content-type", "application/json").body(body)
}

fn expect_problem(answer: Answer, status: u16, slug: &str) {
    let answer = answer.expect(status);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.text("/type"), format!("urn:berth:problem:{slug}"));
}

async fn count(shop: &Shop, path: &str) -> usize {
    let list = shop.carol.get(&format!("{path}?limit=100")).await.expect(200);
    list.body.pointer("/items").and_then(Value::as_array).map_or(0, Vec::len)
}
