//! The database goes away under the service, and comes back.

use http::Method;
use serde_json::{Value, json};
use testkit::{Receiver, eventually};

use crate::world::{World, alice, order_event};

#[tokio::test]
async fn without_its_database_the_service_says_so_and_recovers_by_itself() {
    let mut world = World::new().await;
    let receiver = Receiver::start().await;
    let (id, _) = world.subscribe_at(&alice(), &receiver).await;
    let event = order_event("documents.order.placed", Some("alice"));
    let delivering = world.deliver();
    world.postgres.kill();
    let (one, wish) =
        (format!("/subscriptions/{id}"), json!({ "url": "https://shop.example/hooks", "event_types": [">"] }));
    for (method, path, body) in [
        (Method::GET, "/subscriptions".to_owned(), Value::Null),
        (Method::POST, "/subscriptions".to_owned(), wish),
        (Method::GET, one.clone(), Value::Null),
        (Method::PATCH, one.clone(), json!({ "state": "paused" })),
        (Method::DELETE, one.clone(), Value::Null),
        (Method::POST, format!("{one}/test"), Value::Null),
        (Method::GET, format!("{one}/deliveries"), Value::Null),
        (Method::POST, format!("{one}/deliveries/replay"), json!({ "from": "2026-01-01T00:00:00Z" })),
        (Method::POST, format!("{one}/deliveries/{id}/replay"), Value::Null),
    ] {
        let shown = format!("{method} {path}");
        let body = (!body.is_null()).then_some(&body);
        let answer = world.call(Some(&alice()), method, &path, &[("if-match", "*")], body).await;
        assert_eq!(answer.problem(503, "unavailable").header("retry-after"), "1", "{shown}");
    }
    // What needs no database is still answered.
    world.call(None, Method::GET, "/subscriptions", &[], None).await.problem(401, "unauthenticated");
    world.get(&alice(), "/subscriptions?limit=0").await.problem(400, "invalid-parameter");

    world.postgres.restart().await;
    let found = eventually("the service to recover", async || {
        let answer = world.get(&alice(), &one).await;
        (answer.status == 200).then_some(answer)
    });
    assert_eq!(found.await.body["state"], "active", "what failed left nothing behind");
    // The deliverer, too, goes on by itself.
    world.happens(&event).await;
    receiver.wait_for(1).await;
    delivering.stop().await;
}
