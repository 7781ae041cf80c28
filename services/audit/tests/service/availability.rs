//! The database goes away under the service, and comes back.

use auth::{Principal, testing::spiffe};
use http::Method;
use serde_json::json;
use testkit::eventually;
use uuid::Uuid;

use crate::world::{World, dave};

#[tokio::test]
async fn without_its_database_the_service_says_so_and_recovers_by_itself() {
    let mut world = World::with_entries(2).await;
    let paths = ["/audit", "/audit/1", "/audit/verify", "/audit/checkpoint"];
    world.postgres.kill();
    for path in paths {
        let answer = world.get(&dave(), path).await.problem(503, "unavailable");
        assert_eq!(answer.header("retry-after"), "1", "{path}");
    }
    let gateway = Principal::service(&spiffe("gateway"));
    let now = "2026-11-23T12:00:00Z";
    let report = json!([{ "id": Uuid::now_v7(), "count": 1, "first_at": now, "last_at": now }]);
    let post = async |world: &World| {
        world.call("gateway", Some(&gateway), Method::POST, "/internal/refusals", Some(&report)).await
    };
    let answer = post(&world).await.problem(503, "unavailable");
    assert_eq!(answer.header("retry-after"), "1");
    // What needs no database is still answered.
    world.call("gateway", None, Method::GET, "/audit", None).await.problem(401, "unauthenticated");
    world.get(&gateway, "/audit").await.problem(403, "forbidden");
    world.get(&dave(), "/audit?limit=0").await.problem(400, "invalid-parameter");

    world.postgres.restart().await;
    eventually("the service to recover", async || {
        let answer = world.get(&dave(), "/audit").await;
        (answer.status == 200).then_some(())
    })
    .await;
    for path in paths {
        world.get(&dave(), path).await.expect(200);
    }
    post(&world).await.expect(204);
}
