//! Nobody is trusted for where they stand: through the gateway, past it, and from inside the mesh.
#![allow(clippy::unwrap_used, reason = "in a test")]

use e2e::{Answer, Mesh, Shop, Unit};
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn only_who_may_gets_through() {
    let mesh = Mesh::up().await;
    let shop = Shop::open(&mesh);
    without_a_valid_token_nothing_is_reached(&mesh, &shop).await;
    claims_in_headers_are_not_believed(&shop).await;
    internal_paths_are_not_routed(&shop).await;
    a_service_is_not_reached_past_the_gateway(&mesh, &shop).await;
    how_each_instance_fares_can_be_asked_inside(&mesh).await;
}

async fn without_a_valid_token_nothing_is_reached(mesh: &Mesh, shop: &Shop) {
    let nobody = mesh.anonymous();
    let good = shop.alice.token().unwrap();
    let (head, signature) = good.rsplit_once('.').unwrap();
    let broken = format!("{head}.{}", signature.chars().rev().collect::<String>());
    let long = "x".repeat(9_000);
    for token in [None, Some("nonsense"), Some(broken.as_str()), Some("a.b.c"), Some(long.as_str())] {
        let caller = token.map_or(nobody.clone(), |token| nobody.with_token(token));
        for (method, path) in [(Method::GET, "/items"), (Method::POST, "/documents"), (Method::GET, "/documents")] {
            let answer = Answer::of(caller.request(method, path)).await;
            assert_eq!(answer.status, 401, "{path} {:?}: {:#}", token.map(str::len), answer.body);
            assert!(answer.header("www-authenticate").starts_with("Bearer"), "{:?}", answer.headers);
        }
    }
    shop.mallory.get("/items").await.expect(403);
    let item = json!({ "sku": "X", "name": "x", "price": { "amount": 1, "currency": "EUR" } });
    shop.alice.post("/items", &item).await.expect(403);
}

async fn claims_in_headers_are_not_believed(shop: &Shop) {
    let item = json!({ "sku": "FORGED", "name": "x", "price": { "amount": 1, "currency": "EUR" } });
    let forged = shop
        .mallory
        .request(Method::POST, "/items")
        .header("txn-token", shop.carol.token().unwrap())
        .header("x-user-id", "carol")
        .header("x-roles", "clerk,admin")
        .header("connection", "txn-token")
        .json(&item);
    Answer::of(forged).await.expect(403);
}

async fn internal_paths_are_not_routed(shop: &Shop) {
    for path in
        ["/internal/quotes", "//internal/quotes", "/items/%2F..%2Finternal/quotes", "/livez", "/readyz", "/metrics"]
    {
        for answer in [shop.carol.post(path, &json!({ "lines": [] })).await, shop.carol.get(path).await] {
            assert!([400, 404].contains(&answer.status.as_u16()), "{path}: {} {:#}", answer.status, answer.body);
        }
    }
}

async fn a_service_is_not_reached_past_the_gateway(mesh: &Mesh, shop: &Shop) {
    let address = mesh.unit("item-management-1").address;
    let url = format!("https://{address}/items");
    let stranger = mesh.inside(None).get(&url).bearer_auth(shop.carol.token().unwrap()).send().await;
    assert!(stranger.is_err(), "a client without a certificate got an answer: {stranger:?}");

    // A member of the mesh is let in, and still has to say on whose behalf it comes.
    let member = mesh.inside(Some("identity"));
    assert_eq!(member.get(&url).send().await.unwrap().status(), 401);
    let borrowed =
        member.get(&url).header("txn-token", shop.carol.token().unwrap()).bearer_auth(shop.carol.token().unwrap());
    assert_eq!(borrowed.send().await.unwrap().status(), 401);
    let quotes = member.post(format!("https://{address}/internal/quotes")).json(&json!({ "lines": [] }));
    assert_eq!(quotes.send().await.unwrap().status(), 401);
}

/// By members of the mesh alone, and of every instance, the gateway's included.
async fn how_each_instance_fares_can_be_asked_inside(mesh: &Mesh) {
    let (member, stranger) = (mesh.inside(Some("audit")), mesh.inside(None));
    let services = ["gateway", "identity", "item-management", "eshop-documents", "audit", "notifier"];
    let instances = mesh.units().into_iter().filter(|unit| {
        services.iter().any(|service| unit.name.strip_prefix(service).is_some_and(|rest| rest != "-db"))
    });
    let instances: Vec<_> = instances.collect();
    assert_eq!(instances.len(), 8, "{instances:?}");
    for Unit { name, address, .. } in instances {
        let url = |path: &str| format!("https://{address}{path}");
        for (path, told) in [("/livez", r#""alive":true"#), ("/readyz", r#""ready":true"#), ("/metrics", "# EOF")] {
            let answer = member.get(url(path)).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{name}{path}");
            let answer = answer.text().await.unwrap();
            assert!(answer.contains(told), "{name}{path}: {answer}");
            assert!(stranger.get(url(path)).send().await.is_err(), "{name}{path} answers a stranger");
        }
    }
}
