//! What the operations do when all is well, and when the state stands in the way.

use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{CLERK, CUSTOMER, START, Who, World, an_item};

#[tokio::test]
async fn an_item_from_its_creation_to_its_deletion() {
    let world = World::new().await;
    let created = world.post(CLERK, "/items", &an_item("MUG", 7)).send().await.expect(201);
    let id = created.body["id"].as_str().unwrap().to_owned();
    let path = created.header("location").to_owned();
    assert_eq!(path, format!("/items/{id}"));
    assert_eq!(
        created.body,
        json!({
            "id": id, "sku": "MUG", "name": "Item MUG", "description": null,
            "price": {"amount": 500, "currency": "EUR"},
            "stock_on_hand": 7, "stock_reserved": 0, "stock_available": 7,
            "version": 1, "created_at": START, "updated_at": START,
        })
    );
    let viewed = world.get(CUSTOMER, &path).send().await.expect(200);
    assert_eq!((viewed.etag(), &viewed.body), (created.etag(), &created.body));
    let held = world.get(CUSTOMER, &path).header("if-none-match", &viewed.etag()).send().await;
    assert_eq!((held.status.as_u16(), held.etag(), &held.body), (304, viewed.etag(), &Value::Null));
    let twin = world.post(CLERK, "/items", &an_item("MUG", 7)).send().await;
    twin.problem(409, "sku-taken").names("pointer", "/sku");

    let patch = json!({"description": "Holds tea.", "price": {"amount": 450}});
    let call = world.call(CLERK, Method::PATCH, &path).if_match(&created.etag());
    let merge = call.header("content-type", "application/merge-patch+json").body(patch.to_string());
    let updated = merge.send().await.expect(200);
    assert_eq!(updated.body["price"], json!({"amount": 450, "currency": "EUR"}));
    assert_eq!((&updated.body["description"], &updated.body["version"]), (&json!("Holds tea."), &json!(2)));
    assert_ne!(updated.etag(), created.etag());

    world.get(CUSTOMER, &path).header("if-none-match", &created.etag()).send().await.expect(200);

    // The tag of before is stale now; what changes nothing leaves the tag alone.
    let stale = world.call(CLERK, Method::PATCH, &path).if_match(&created.etag()).json(&patch).send().await;
    stale.problem(412, "precondition-failed");
    let same = world.call(CLERK, Method::PATCH, &path).if_match(&updated.etag()).json(&patch).send().await.expect(200);
    assert_eq!(same.etag(), updated.etag());

    let delete = |etag: &str| world.call(CLERK, Method::DELETE, &path).if_match(etag);
    delete(&created.etag()).send().await.problem(412, "precondition-failed");
    delete(&updated.etag()).send().await.expect(204);
    delete("*").send().await.problem(404, "not-found");
    world.get(CLERK, &path).send().await.problem(404, "not-found");
    world.get(CLERK, format!("{path}/reservations")).send().await.problem(404, "not-found");
    world.get(CLERK, format!("{path}/stock-adjustments")).send().await.problem(404, "not-found");
    world.post(CLERK, "/items", &an_item("MUG", 7)).send().await.expect(201);

    let emitted = world.emitted().await;
    let subjects: Vec<&str> = emitted.iter().map(|(subject, _)| subject.as_str()).collect();
    assert_eq!(subjects, ["items.item.created", "items.item.updated", "items.item.deleted", "items.item.created"]);
    assert_eq!((&emitted[0].1, &emitted[1].1), (&created.body, &updated.body));
    assert_eq!(emitted[2].1["id"], id);
}

/// Tags come from versions, so of many writers who read the same version one wins.
#[tokio::test]
async fn of_concurrent_changes_one_wins() {
    let world = World::new().await;
    let item = world.item("A", 1).await;
    let change = async |number: i64| {
        let call = world.call(CLERK, Method::PATCH, format!("/items/{}", item.id)).if_match("\"1\"");
        call.json(&json!({"price": {"amount": number}})).send().await.status.as_u16()
    };
    let statuses = tokio::join!(change(1), change(2), change(3), change(4), change(5));
    let mut statuses: [u16; 5] = statuses.into();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412, 412, 412, 412]);
}

#[tokio::test]
async fn items_are_read_page_by_page() {
    let world = World::new().await;
    for number in 0..7 {
        world.item(&format!("A-{number}"), number % 2).await;
    }
    let pages = async |filter: &str| {
        let (mut pages, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = world.get(CUSTOMER, format!("/items?limit=3{filter}{cursor}")).send().await.expect(200).body;
            let skus: Vec<_> =
                page["items"].as_array().unwrap().iter().map(|item| item["sku"].as_str().unwrap().to_owned()).collect();
            pages.push(skus.join(" "));
            match page.get("next") {
                Some(next) => cursor = format!("&cursor={}", next.as_str().unwrap()),
                None => return pages,
            }
        }
    };
    assert_eq!(pages("").await, ["A-0 A-1 A-2", "A-3 A-4 A-5", "A-6"]);
    assert_eq!(pages("&in_stock=true").await, ["A-1 A-3 A-5"]);
    assert_eq!(pages("&in_stock=false").await, ["A-0 A-2 A-4", "A-6"]);
    assert_eq!(pages("&search=a+4").await, ["A-4"]);
    assert_eq!(pages("&currency=EUR&min_price=500&max_price=500").await.len(), 3);
    assert_eq!(pages("&currency=EUR&min_price=501").await, [""]);
    assert_eq!(pages("&currency=JPY").await, [""]);
}

#[tokio::test]
async fn stock_is_adjusted_and_the_ledger_adds_up() {
    let world = World::new().await;
    let created = world.post(CLERK, "/items", &an_item("A", 10)).send().await.expect(201);
    let id: Uuid = created.body["id"].as_str().unwrap().parse().unwrap();
    let path = format!("/items/{id}/stock-adjustments");
    let adjust = |change: i64, reason: &str| world.post(CLERK, &path, &json!({"change": change, "reason": reason}));

    let entry = adjust(5, "delivery").send().await.expect(201).body;
    assert_eq!(
        (&entry["kind"], &entry["change"], &entry["stock_on_hand"], &entry["actor"], &entry["reason"]),
        (&json!("adjustment"), &json!(5), &json!(15), &json!("the-clerk"), &json!("delivery"))
    );
    adjust(-3, "broken").send().await.expect(201);
    world.reserve(Uuid::from_u128(1), &[(id, 8)]).await.unwrap();
    let refused = adjust(-5, "lost").send().await.problem(409, "stock-reserved").names("pointer", "/change");
    assert_eq!((&refused.body["stock_on_hand"], &refused.body["stock_reserved"]), (&json!(12), &json!(8)));
    adjust(-4, "lost").send().await.expect(201);
    adjust(1_000_000_000, "typo").send().await.problem(422, "invalid-field").names("pointer", "/change");
    assert_eq!(world.stock(id).await, (8, 8));

    let ledger = world.get(Who::Role("auditor"), &path).send().await.expect(200).body;
    let changes: Vec<i64> =
        ledger["items"].as_array().unwrap().iter().map(|entry| entry["change"].as_i64().unwrap()).collect();
    assert_eq!(changes, [10, 5, -3, -4]);
    assert_eq!(changes.iter().sum::<i64>(), 8);
    let first = world.get(CLERK, format!("{path}?limit=3")).send().await.expect(200).body;
    let rest = format!("{path}?cursor={}", first["next"].as_str().unwrap());
    let rest = world.get(CLERK, rest).send().await.expect(200).body;
    assert_eq!((&rest["items"][0]["change"], rest.get("next")), (&json!(-4), None));

    let nowhere = format!("/items/{}/stock-adjustments", Uuid::nil());
    world.post(CLERK, nowhere, &json!({"change": 1, "reason": "x"})).send().await.problem(404, "not-found");
    let adjusted = world.emitted().await.into_iter().filter(|(subject, _)| subject == "items.item.stock-adjusted");
    assert_eq!(
        adjusted.map(|(_, entry)| entry["change"].clone()).collect::<Vec<_>>(),
        [json!(5), json!(-3), json!(-4)]
    );
}

#[tokio::test]
async fn a_repeated_adjustment_has_one_effect() {
    let world = World::new().await;
    let (a, b) = (world.item("A", 0).await, world.item("B", 0).await);
    let adjust = async |who, item: Uuid, key: &str, change: i64| {
        let body = json!({"change": change, "reason": "delivery"});
        world.post(who, format!("/items/{item}/stock-adjustments"), &body).header("idempotency-key", key).send().await
    };
    let together =
        tokio::join!(adjust(CLERK, a.id, "k-1", 5), adjust(CLERK, a.id, "k-1", 5), adjust(CLERK, a.id, "k-1", 5));
    let first = together.0.expect(201).body;
    assert_eq!((&together.1.expect(201).body, &together.2.expect(201).body), (&first, &first));
    adjust(CLERK, a.id, "other", 1).await.expect(201);
    let later = adjust(CLERK, a.id, "k-1", 5).await.expect(201).body;
    assert_eq!(later, first, "the first answer, whatever happened since");
    // The key is the caller's own, for this item.
    adjust(CLERK, a.id, "k-1", 6).await.problem(422, "idempotency-key-reused").names("header", "idempotency-key");
    adjust(Who::Role("admin"), a.id, "k-1", 7).await.expect(201);
    adjust(CLERK, b.id, "k-1", 5).await.expect(201);
    assert_eq!((world.stock(a.id).await, world.stock(b.id).await), ((13, 0), (5, 0)));
}

#[tokio::test]
async fn reservations_are_shown_and_keep_an_item_from_being_deleted() {
    let world = World::new().await;
    let (a, b) = (world.item("A", 10).await, world.item("B", 10).await);
    for order in 1..=3 {
        world.reserve(Uuid::from_u128(order), &[(a.id, 2), (b.id, 1)]).await.unwrap();
    }
    world.settle("take", Uuid::from_u128(2)).await.unwrap();
    let list = async |query: &str| {
        let page = world.get(CLERK, format!("/items/{}/reservations{query}", a.id)).send().await.expect(200).body;
        let orders: Vec<Value> =
            page["items"].as_array().unwrap().iter().map(|line| line["order_id"].clone()).collect();
        (orders, page.get("next").map(|next| next.as_str().unwrap().to_owned()))
    };
    let order = |number: u128| json!(Uuid::from_u128(number));
    assert_eq!(list("").await, (vec![order(1), order(2), order(3)], None));
    assert_eq!(list("?state=held").await, (vec![order(1), order(3)], None));
    assert_eq!(list("?state=taken").await, (vec![order(2)], None));
    let (first, next) = list("?limit=2").await;
    assert_eq!(first, [order(1), order(2)]);
    assert_eq!(list(&format!("?limit=2&cursor={}", next.unwrap())).await, (vec![order(3)], None));

    let delete = || world.call(CLERK, Method::DELETE, format!("/items/{}", a.id)).if_match("*");
    assert_eq!(delete().send().await.problem(409, "item-reserved").body["reservations"], 2);
    world.settle("release", Uuid::from_u128(1)).await.unwrap();
    assert_eq!(delete().send().await.problem(409, "item-reserved").body["reservations"], 1);
    world.settle("take", Uuid::from_u128(3)).await.unwrap();
    delete().send().await.expect(204);
}

#[tokio::test]
async fn a_quote_tells_what_is_there_and_what_is_not() {
    let world = World::new().await;
    let (a, gone) = (world.item("A", 5).await, world.item("GONE", 5).await);
    world.call(CLERK, Method::DELETE, format!("/items/{}", gone.id)).if_match("*").send().await.expect(204);
    world.reserve(Uuid::from_u128(1), &[(a.id, 3)]).await.unwrap();
    let lines = json!({"lines": [
        {"item_id": gone.id, "quantity": 1},
        {"item_id": a.id, "quantity": 4},
        {"item_id": Uuid::nil(), "quantity": 1},
    ]});
    let quote = world.post(Who::DocumentsFor("customer"), "/internal/quotes", &lines).send().await.expect(200);
    assert_eq!(
        quote.body,
        json!({
            "quoted_at": START,
            "lines": [{
                "item_id": a.id, "sku": "A", "name": "Item A", "price": {"amount": 500, "currency": "EUR"},
                "quantity": 4, "stock_available": 2,
            }],
            "unknown": [gone.id, Uuid::nil()],
        })
    );
}
