//! Every operation of the OpenAPI document: without a token, by those who may not, by those who may.

use std::collections::BTreeSet;

use auth::{
    Principal,
    testing::{shopper, signed_in_only},
};
use berth_http::openapi::operations;
use http::Method;
use notifier::api;
use serde_json::{Value, json};

use crate::world::{World, admin, alice, bob, carol, order_event};

struct Case {
    operation: &'static str,
    body: Value,
    refused: Vec<(Principal, u16)>,
    permitted: Vec<(Principal, u16)>,
}

/// Whose subscription it is, and admins; to all others it does not exist.
fn of_alice(operation: &'static str, body: Value, status: u16) -> Case {
    let refused = [bob(), carol(), shopper("alice", &[]), shopper("alice", &["auditor"]), signed_in_only(alice())];
    Case {
        operation,
        body,
        refused: refused.map(|who| (who, 404)).into(),
        permitted: vec![(alice(), status), (admin(), status)],
    }
}

fn of_everybody(operation: &'static str, body: Value, status: u16) -> Case {
    let refused = [shopper("mallory", &[]), shopper("dave", &["auditor"]), signed_in_only(alice())];
    Case {
        operation,
        body,
        refused: refused.map(|who| (who, 403)).into(),
        permitted: [alice(), carol(), admin()].map(|who| (who, status)).into(),
    }
}

#[tokio::test]
async fn every_operation_is_closed_to_those_who_may_not_and_open_to_those_who_may() {
    let world = World::new().await;
    let url = "https://shop.example/hooks";
    let cases = [
        of_everybody("list_subscriptions", Value::Null, 200),
        of_everybody("create_subscription", json!({ "url": url, "event_types": [">"] }), 201),
        of_alice("view_subscription", Value::Null, 200),
        of_alice("change_subscription", json!({ "state": "paused" }), 200),
        of_alice("delete_subscription", Value::Null, 204),
        of_alice("test_subscription", Value::Null, 202),
        of_alice("list_deliveries", Value::Null, 200),
        of_alice("replay_deliveries", json!({ "from": "2026-01-01T00:00:00Z" }), 202),
        of_alice("replay_delivery", Value::Null, 202),
    ];
    let operations = operations(&api::document());
    let known: BTreeSet<_> = operations.iter().map(|operation| operation.id.as_str()).collect();
    assert_eq!(
        known,
        cases.iter().map(|case| case.operation).collect(),
        "an operation has no case, or a case no operation"
    );
    for Case { operation: id, body, refused, permitted } in cases {
        let operation = operations.iter().find(|operation| operation.id == id).unwrap();
        let try_it = async |who: Option<&Principal>| {
            let (subscription, _) = world.subscribe(&alice(), url, &[">"]).await;
            world.happens(&order_event("documents.order.placed", Some("alice"))).await;
            let delivery = world.deliveries(&alice(), subscription).await[0]["id"].as_str().unwrap().to_owned();
            let path = operation.path.replace("{id}", &subscription.to_string()).replace("{delivery}", &delivery);
            let before = (world.emitted().await, world.count("subscriptions").await);
            let body = (!body.is_null()).then_some(&body);
            let answer = world.call(who, operation.method.clone(), &path, &[("if-match", "*")], body).await;
            if answer.status.is_client_error() {
                assert_eq!(
                    (world.emitted().await, world.count("subscriptions").await),
                    before,
                    "{id}: something changed"
                );
            }
            let sql = "DELETE FROM subscriptions";
            world.database.get().await.unwrap().batch_execute(sql).await.unwrap();
            answer
        };
        try_it(None).await.problem(401, "unauthenticated");
        for (who, status) in refused.into_iter().chain(permitted) {
            let answer = try_it(Some(&who)).await;
            assert_eq!(answer.status.as_u16(), status, "{id} by {who:?}: {:#}", answer.body);
        }
    }
}

#[tokio::test]
async fn a_list_has_ones_own_and_an_admins_everybodys() {
    let world = World::new().await;
    let mut made = Vec::new();
    for who in [alice(), bob(), alice(), carol()] {
        made.push(world.subscribe(&who, "https://shop.example/hooks", &[">"]).await.0);
    }
    let list = async |who: Principal, query: &str| {
        let page = world.get(&who, &format!("/subscriptions{query}")).await.expect(200).body;
        let ids: Vec<_> = page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["id"].as_str().unwrap().parse().unwrap())
            .collect();
        (ids, page["next"].as_str().map(str::to_owned))
    };
    assert_eq!(list(alice(), "").await, (vec![made[0], made[2]], None));
    assert_eq!(list(bob(), "").await, (vec![made[1]], None));
    assert_eq!(list(admin(), "").await, (made.clone(), None));
    let (first, next) = list(admin(), "?limit=3").await;
    assert_eq!(first, made[..3]);
    assert_eq!(list(admin(), &format!("?limit=3&cursor={}", next.unwrap())).await, (made[3..].to_vec(), None));
    world
        .call(Some(&bob()), Method::DELETE, &format!("/subscriptions/{}", made[0]), &[("if-match", "*")], None)
        .await
        .expect(404);
}
