//! The operator's routes for sagas, as `berth sagas` calls them.

use auth::testing::{TestIssuer, TestService};
use eshop_documents::saga;
use http::Method;
use outbox::operator;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{Answer, World};

/// Somebody with the operator's certificate.
struct Desk(TestService);

impl Desk {
    fn of(world: &World) -> Self {
        let routes = operator::saga_router(world.database.clone(), world.store.clone());
        Self(TestService::new(routes, TestIssuer::new("eshop-documents")))
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let path = format!("/internal/messaging/sagas{path}");
        self.0.call(operator::NAME, None, method, &path, &[(operator::WHO, "ann")], body).await
    }

    async fn abandon(&self, saga: Uuid, body: &Value) -> Answer {
        self.call(Method::POST, &format!("/{saga}/abandon"), Some(body)).await
    }
}

#[tokio::test]
async fn what_has_no_way_forward_is_seen_and_given_up_for_a_reason() {
    let world = World::start().await;
    let desk = Desk::of(&world);
    let order = world.confirmed(&[(Uuid::now_v7(), 1)]).await;
    let reason = json!({ "reason": "restored from the backup of Friday" });
    let slow = desk.abandon(order, &reason).await.expect(409);
    assert_eq!(slow.body["detail"], "The saga is taking, which allows: retry.");
    desk.abandon(Uuid::now_v7(), &reason).await.expect(404);

    world.answer(order, saga::Event::Released).await.unwrap();
    let open = desk.call(Method::GET, "", None).await.expect(200).body;
    assert_eq!((&open[0]["id"], &open[0]["state"]), (&json!(order), &json!("unfulfilled")));
    assert_eq!((&open[0]["ended"], &open[0]["due_at"]), (&json!(false), &Value::Null));
    for nothing in ["", " \n", &"x".repeat(501)] {
        let refused = desk.abandon(order, &json!({ "reason": nothing })).await.expect(422);
        assert_eq!(refused.body["errors"][0]["pointer"], "/reason");
    }
    for _ in 0..2 {
        desk.abandon(order, &reason).await.expect(200);
    }
    assert_eq!(desk.call(Method::GET, "", None).await.expect(200).body, json!([]));
    let shown = desk.call(Method::GET, &format!("/{order}"), None).await.expect(200).body;
    assert_eq!((&shown["state"], &shown["ended"]), (&json!("released"), &json!(true)));
    assert!(shown["about"].as_str().unwrap().ends_with("CANCELLED"), "{shown}");
    assert_eq!(shown["events"].as_array().unwrap().last().unwrap()["subject"], "documents.order.cancelled");
    assert_eq!(world.count("interventions WHERE reason = 'restored from the backup of Friday'").await, 1);

    let path = format!("/internal/messaging/sagas/{order}/abandon");
    desk.0.call("gateway", None, Method::POST, &path, &[], Some(&reason)).await.expect(403);
}
