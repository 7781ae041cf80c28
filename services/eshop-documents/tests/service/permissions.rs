//! Every operation of the OpenAPI document is called without a token, by somebody who may not, and by somebody who may.

use std::collections::BTreeSet;

use auth::{
    Principal,
    testing::{shopper, signed_in_only},
};
use berth_http::openapi::operations;
use eshop_documents::api;
use http::{Method, Request, header};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{Service, alice, bob, carol, euros, mallory, order_of};

/// How one operation is called: by whom in vain, and with which answer; by whom with success.
struct Case {
    operation: &'static str,
    path: String,
    body: Value,
    refused: Vec<(Principal, u16)>,
    permitted: Vec<(Principal, u16)>,
}

fn auditor() -> Principal {
    shopper("otto", &["auditor"])
}

fn admin() -> Principal {
    shopper("admin", &["admin"])
}

/// One case for each operation. The targets are alice's.
async fn cases(service: &Service) -> Vec<Case> {
    let item = service.items.item(euros(100));
    let lines = [(item, 2)];
    let world = &service.world;
    let credit = json!({ "lines": [{ "item_id": item, "quantity": 1 }] });
    let document = |id: Uuid, rest: &str| format!("/documents/{id}{rest}");
    vec![
        Case {
            operation: "list_documents",
            path: "/documents".into(),
            body: Value::Null,
            refused: vec![(mallory(), 403), (signed_in_only(alice()), 403)],
            permitted: vec![(alice(), 200), (carol(), 200), (auditor(), 200), (admin(), 200)],
        },
        Case {
            operation: "create_document",
            path: "/documents".into(),
            body: order_of(item, 1),
            refused: vec![(mallory(), 403), (auditor(), 403), (signed_in_only(alice()), 403)],
            permitted: vec![(alice(), 202), (carol(), 202), (admin(), 202)],
        },
        Case {
            operation: "view_document",
            path: document(world.order(&lines).await.head.id, ""),
            body: Value::Null,
            refused: vec![(mallory(), 404), (bob(), 404), (signed_in_only(alice()), 404), (shopper("alice", &[]), 404)],
            permitted: vec![(alice(), 200), (carol(), 200), (auditor(), 200), (admin(), 200)],
        },
        Case {
            operation: "cancel_order",
            path: document(world.order(&lines).await.head.id, "/cancel"),
            body: Value::Null,
            refused: vec![(mallory(), 404), (bob(), 404), (auditor(), 403), (signed_in_only(alice()), 404)],
            permitted: vec![(alice(), 200), (carol(), 409), (admin(), 409)],
        },
        Case {
            operation: "issue_invoice",
            path: document(world.confirmed(&lines).await, "/invoice"),
            body: Value::Null,
            refused: vec![
                (mallory(), 404),
                (bob(), 404),
                (alice(), 403),
                (auditor(), 403),
                (signed_in_only(carol()), 404),
            ],
            permitted: vec![(carol(), 201), (admin(), 409)],
        },
        Case {
            operation: "issue_credit_note",
            path: document(world.invoice(&lines).await.head.id, "/credit-notes"),
            body: credit,
            refused: vec![
                (mallory(), 404),
                (bob(), 404),
                (alice(), 403),
                (auditor(), 403),
                (signed_in_only(carol()), 404),
            ],
            permitted: vec![(carol(), 201), (admin(), 201)],
        },
    ]
}

#[tokio::test]
async fn every_operation_is_closed_to_those_who_may_not_and_open_to_those_who_may() {
    let service = Service::start().await;
    let operations = operations(&api::openapi());
    let cases = cases(&service).await;
    let known: BTreeSet<_> = operations.iter().map(|operation| operation.id.as_str()).collect();
    let called: BTreeSet<_> = cases.iter().map(|case| case.operation).collect();
    assert_eq!(known, called, "an operation has no case here, or a case no operation");
    for Case { operation, path, body, refused, permitted } in cases {
        let method = &operations.iter().find(|known| known.id == operation).unwrap().method;
        assert!(!refused.is_empty() && !permitted.is_empty(), "{operation}");
        let call = async |caller: Option<&Principal>| service.send(caller, request(method, &path, &body)).await;
        let before = (service.world.count("documents").await, service.world.count("outbox").await);
        let nobody = call(None).await;
        assert_eq!(nobody.status, 401, "{operation} without a token: {:#}", nobody.body);
        for (caller, status) in refused {
            let answer = call(Some(&caller)).await;
            assert_eq!(answer.status.as_u16(), status, "{operation} by {caller:?}: {:#}", answer.body);
        }
        let after = (service.world.count("documents").await, service.world.count("outbox").await);
        assert_eq!(before, after, "{operation}: a refused call has changed something");
        for (caller, status) in permitted {
            let answer = call(Some(&caller)).await;
            assert_eq!(answer.status.as_u16(), status, "{operation} by {caller:?}: {:#}", answer.body);
        }
    }
}

fn request(method: &Method, path: &str, body: &Value) -> Request<String> {
    let request = Request::builder().method(method).uri(path).header("idempotency-key", Uuid::new_v4().to_string());
    match body {
        Value::Null => request.body(String::new()),
        body => request.header(header::CONTENT_TYPE, "application/json").body(body.to_string()),
    }
    .unwrap()
}
