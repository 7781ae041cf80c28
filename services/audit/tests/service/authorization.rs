//! Every operation of the OpenAPI document: without a token, with each wrong role, with each right one.

use std::collections::BTreeSet;

use audit::api;
use auth::{
    Principal,
    testing::{shopper, signed_in_only, spiffe},
};
use berth_http::openapi::operations;
use serde_json::{Value, json};

use crate::world::{World, dave};

#[tokio::test]
async fn every_operation_is_for_auditors_or_for_services_alone() {
    let world = World::with_entries(2).await;
    let users = [
        ("customer", shopper("alice", &["customer"])),
        ("clerk", shopper("carol", &["clerk"])),
        ("admin", shopper("root", &["admin"])),
        ("nothing", shopper("mallory", &[])),
        ("auditor who is signed in only", signed_in_only(dave())),
    ];
    let gateway = Principal::service(&spiffe("gateway"));
    let cases: [(&str, Value, &Principal, u16); 5] = [
        ("list_entries", Value::Null, &dave(), 200),
        ("view_entry", Value::Null, &dave(), 200),
        ("verify_chain", Value::Null, &dave(), 200),
        ("view_checkpoint", Value::Null, &dave(), 200),
        ("report_refusals", json!([]), &gateway, 204),
    ];
    let operations = operations(&api::document());
    let known: BTreeSet<_> = operations.iter().map(|operation| operation.id.as_str()).collect();
    assert_eq!(
        known,
        cases.iter().map(|case| case.0).collect(),
        "an operation has no case here, or a case no operation"
    );
    let rows = (world.count("entries").await, world.count("intake").await);
    for (id, body, permitted, status) in cases {
        let operation = operations.iter().find(|operation| operation.id == id).unwrap();
        let path = operation.path.replace("{seq}", "1");
        let body = (!body.is_null()).then_some(&body);
        let call = async |from: &str, who| world.call(from, who, operation.method.clone(), &path, body).await;
        call("gateway", None).await.problem(401, "unauthenticated");
        let other = [("the other kind", if id == "report_refusals" { dave() } else { gateway.clone() })];
        for (what, who) in users.iter().chain(&other) {
            let answer = call("gateway", Some(who)).await;
            assert_eq!(answer.status, 403, "{id} by {what}: {:#}", answer.body);
        }
        call("gateway", Some(permitted)).await.expect(status);
    }
    assert_eq!((world.count("entries").await, world.count("intake").await), rows, "nothing was written");
}
