//! The database goes away under the service, and comes back.

use serde_json::json;
use testkit::eventually;

use crate::world::{CLERK, Who, World, an_item};

#[tokio::test]
async fn without_its_database_the_service_says_so_and_recovers_by_itself() {
    let mut world = World::new().await;
    let item = world.item("A", 5).await;
    world.get(CLERK, "/items").send().await.expect(200);

    world.postgres.kill();
    let path = format!("/items/{}", item.id);
    let quote = json!({"lines": [{"item_id": item.id, "quantity": 1}]});
    let calls = [
        world.get(CLERK, "/items"),
        world.get(CLERK, &path),
        world.get(CLERK, format!("{path}/reservations")),
        world.get(CLERK, format!("{path}/stock-adjustments")),
        world.post(CLERK, "/items", &an_item("B", 1)),
        world.post(CLERK, format!("{path}/stock-adjustments"), &json!({"change": 1, "reason": "found"})),
        world.call(CLERK, http::Method::PATCH, &path).if_match("*").json(&json!({"name": "New"})),
        world.call(CLERK, http::Method::DELETE, &path).if_match("*"),
        world.post(Who::Documents, "/internal/quotes", &quote),
    ];
    for call in calls {
        let answer = call.send().await.problem(503, "unavailable");
        assert_eq!(answer.header("retry-after"), "1");
    }
    // What needs no database is still answered.
    world.get(Who::Nobody, &path).send().await.problem(401, "unauthenticated");
    world.get(Who::Mallory, "/items").send().await.problem(403, "forbidden");
    world.get(CLERK, "/items?limit=0").send().await.problem(400, "invalid-parameter");

    world.postgres.restart().await;
    let found = eventually("the service to recover", async || {
        let answer = world.get(CLERK, &path).send().await;
        (answer.status == 200).then_some(answer)
    });
    assert_eq!(found.await.body["version"], 1, "what failed left nothing behind");
}
