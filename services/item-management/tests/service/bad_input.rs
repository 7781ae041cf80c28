//! Input that is wrong: each gets a problem that names the field, and none leaves anything behind.

use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{CLERK, Who, World, an_item};

/// Merges `patch` into a good body.
fn with(mut body: Value, patch: Value) -> String {
    let (members, patch) = (body.as_object_mut().unwrap(), patch.as_object().unwrap());
    members.extend(patch.clone());
    body.to_string()
}

#[tokio::test]
async fn wrong_bodies_name_the_member() {
    let world = World::new().await;
    let item = world.item("A", 5).await;
    let rows = world.rows().await;
    let item_path = format!("/items/{}", item.id);
    let adjustments = format!("{item_path}/stock-adjustments");
    let new = |patch| ("POST", "/items", with(an_item("NEW", 1), patch));
    let price = |amount: Value, currency: Value| new(json!({"price": {"amount": amount, "currency": currency}}));
    let patch = |patch: Value| ("PATCH", item_path.as_str(), patch.to_string());
    let adjust = |patch| ("POST", adjustments.as_str(), with(json!({"change": 1, "reason": "found"}), patch));
    let quote = |body: Value| ("QUOTE", "/internal/quotes", body.to_string());
    let line = |line: Value| quote(json!({"lines": [{"item_id": item.id, "quantity": 1}, line]}));
    let table = [
        (("POST", "/items", "{}".into()), "/sku"),
        (("POST", "/items", "[]".into()), ""),
        (("POST", "/items", "7".into()), ""),
        (new(json!({"colour": "red"})), "/colour"),
        (new(json!({"id": Uuid::nil()})), "/id"),
        (new(json!({"stock_reserved": 1})), "/stock_reserved"),
        (new(json!({"sku": ""})), "/sku"),
        (new(json!({"sku": "a b"})), "/sku"),
        (new(json!({"sku": 7})), "/sku"),
        (new(json!({"name": ""})), "/name"),
        (new(json!({"name": "x".repeat(201)})), "/name"),
        (new(json!({"name": "a\nb"})), "/name"),
        (new(json!({"name": "nul\u{0}"})), "/name"),
        (new(json!({"name": null})), "/name"),
        (new(json!({"description": "x".repeat(4001)})), "/description"),
        (new(json!({"description": ["x"]})), "/description"),
        (new(json!({"stock_on_hand": -1})), "/stock_on_hand"),
        (new(json!({"stock_on_hand": 1.5})), "/stock_on_hand"),
        (new(json!({"stock_on_hand": "1"})), "/stock_on_hand"),
        (new(json!({"stock_on_hand": 1_000_000_001})), "/stock_on_hand"),
        (new(json!({"stock_on_hand": u64::MAX})), "/stock_on_hand"),
        (new(json!({"stock_on_hand": 1e300})), "/stock_on_hand"),
        (new(json!({"price": 5})), "/price"),
        (new(json!({"price": {"amount": 5}})), "/price/currency"),
        (new(json!({"price": {"amount": 5, "currency": "EUR", "scale": 2}})), "/price/scale"),
        (new(json!({"price": [5, "EUR"]})), "/price"),
        (price(json!(-1), json!("EUR")), "/price/amount"),
        (price(json!(12.99), json!("EUR")), "/price/amount"),
        (price(json!("12"), json!("EUR")), "/price/amount"),
        (price(json!(9_007_199_254_740_992_i64), json!("EUR")), "/price/amount"),
        (price(json!(i64::MIN), json!("EUR")), "/price/amount"),
        (price(json!(1), json!("euro")), "/price/currency"),
        (price(json!(1), json!("QQQ")), "/price/currency"),
        (patch(json!([])), ""),
        (patch(json!({"name": null})), "/name"),
        (patch(json!({"price": null})), "/price"),
        (patch(json!({"price": {"amount": null}})), "/price/amount"),
        (patch(json!({"price": {"amount": 0.5}})), "/price/amount"),
        (patch(json!({"sku": "OTHER"})), "/sku"),
        (patch(json!({"stock_on_hand": 9})), "/stock_on_hand"),
        (adjust(json!({"change": 0})), "/change"),
        (adjust(json!({"change": 0.5})), "/change"),
        (adjust(json!({"change": i64::MAX})), "/change"),
        (adjust(json!({"change": -1_000_000_001})), "/change"),
        (adjust(json!({"change": 1_000_000_000})), "/change"),
        (adjust(json!({"reason": " "})), "/reason"),
        (adjust(json!({"reason": "x".repeat(501)})), "/reason"),
        (adjust(json!({"actor": "somebody else"})), "/actor"),
        (quote(json!({"lines": []})), "/lines"),
        (quote(json!({"lines": vec![json!({"item_id": item.id, "quantity": 1}); 101]})), "/lines"),
        (line(json!({"item_id": "x", "quantity": 1})), "/lines/1/item_id"),
        (line(json!({"item_id": item.id, "quantity": 0})), "/lines/1/quantity"),
        (line(json!({"item_id": item.id, "quantity": -1})), "/lines/1/quantity"),
        (line(json!({"item_id": item.id, "quantity": i64::MAX})), "/lines/1/quantity"),
        (line(json!({"item_id": item.id, "quantity": 1, "price": 1})), "/lines/1/price"),
    ];
    for ((method, path, body), pointer) in table {
        let (who, method) = if method == "QUOTE" { (Who::Documents, "POST") } else { (CLERK, method) };
        let call = world.call(who, method.parse().unwrap(), path).if_match("*");
        let answer = call.header("content-type", "application/json").body(body.clone()).send().await;
        assert_eq!(answer.status.as_u16(), 422, "{path} {body}: {:#}", answer.body);
        answer.problem(422, "invalid-field").names("pointer", pointer);
    }
    assert_eq!((world.rows().await, world.stock(item.id).await), (rows, (5, 0)));
}

#[tokio::test]
async fn wrong_parameters_and_headers_are_named() {
    let world = World::new().await;
    let item = world.item("A", 5).await;
    let rows = world.rows().await;
    for (path, name) in [
        ("/items?limit=0".to_owned(), "limit"),
        ("/items?limit=101".to_owned(), "limit"),
        ("/items?limit=many".to_owned(), "limit"),
        ("/items?limit=1&limit=2".to_owned(), "limit"),
        ("/items?cursor=".to_owned(), "cursor"),
        ("/items?cursor=!!".to_owned(), "cursor"),
        ("/items?cursor=eyJpdGVtIjoxfQ".to_owned(), "cursor"),
        ("/items?colour=red".to_owned(), "colour"),
        ("/items?search=".to_owned(), "search"),
        ("/items?search=%00".to_owned(), "search"),
        ("/items?search=%ff".to_owned(), "search"),
        ("/items?search=--".to_owned(), "search"),
        (format!("/items?search={}", "x".repeat(201)), "search"),
        ("/items?in_stock=maybe".to_owned(), "in_stock"),
        ("/items?currency=eur".to_owned(), "currency"),
        ("/items?min_price=1".to_owned(), "currency"),
        ("/items?max_price=1".to_owned(), "currency"),
        ("/items?currency=EUR&min_price=-1".to_owned(), "min_price"),
        ("/items?currency=EUR&max_price=1.5".to_owned(), "max_price"),
        ("/items/not-a-uuid".to_owned(), "id"),
        ("/items/not-a-uuid/reservations".to_owned(), "id"),
        (format!("/items/{}/reservations?state=lost", item.id), "state"),
        (format!("/items/{}/stock-adjustments?limit=x", item.id), "limit"),
    ] {
        let answer = world.get(CLERK, &path).send().await;
        assert_eq!(answer.status.as_u16(), 400, "{path}: {:#}", answer.body);
        answer.problem(400, "invalid-parameter").names("parameter", name);
    }
    // A cursor of one list does not fit another.
    world.item("B", 1).await;
    let next = world.get(CLERK, "/items?limit=1").send().await.expect(200).body["next"].as_str().unwrap().to_owned();
    let elsewhere = format!("/items/{}/reservations?cursor={next}", item.id);
    world.get(CLERK, elsewhere).send().await.problem(400, "invalid-parameter").names("parameter", "cursor");

    let path = format!("/items/{}", item.id);
    for (method, body) in [(Method::PATCH, json!({"name": "New"})), (Method::DELETE, Value::Null)] {
        let call = || world.call(CLERK, method.clone(), &path).json(&body);
        call().send().await.problem(428, "precondition-required").names("header", "if-match");
        call().if_match("7").send().await.problem(400, "invalid-parameter").names("header", "if-match");
        call().if_match("\"7\"").send().await.problem(412, "precondition-failed").names("header", "if-match");
        call().if_match("W/\"1\"").send().await.problem(412, "precondition-failed");
    }
    let adjust = || world.post(CLERK, format!("{path}/stock-adjustments"), &json!({"change": 1, "reason": "found"}));
    for key in ["", "a b", &"x".repeat(129)] {
        adjust()
            .header("idempotency-key", key)
            .send()
            .await
            .problem(400, "invalid-parameter")
            .names("header", "idempotency-key");
    }
    adjust()
        .header("idempotency-key", "a")
        .header("idempotency-key", "b")
        .send()
        .await
        .problem(400, "invalid-parameter");
    assert_eq!((world.rows().await, world.stock(item.id).await), (rows + 1, (5, 0)));
}

#[tokio::test]
async fn what_cannot_be_read_is_refused() {
    let world = World::new().await;
    let rows = world.rows().await;
    let post =
        |body: String| world.call(CLERK, Method::POST, "/items").header("content-type", "application/json").body(body);
    let twice = format!("{item} {item}", item = an_item("NEW", 1));
    for body in ["", "{", "nonsense", "{\"price\": {\"amount\": 1e999}}", "\u{feff}{}", &twice] {
        post(body.to_owned()).send().await.problem(400, "malformed-request");
    }
    post("[".repeat(100_000)).send().await.problem(400, "malformed-request");
    let item = an_item("NEW", 1).to_string();
    world.call(CLERK, Method::POST, "/items").body(item.clone()).send().await.problem(415, "unsupported-media-type");
    let text = world.call(CLERK, Method::POST, "/items").header("content-type", "text/plain").body(item);
    text.send().await.problem(415, "unsupported-media-type");
    assert_eq!(world.rows().await, rows);
}
