//! Every operation of the OpenAPI document: without a token, with each wrong role, with each right one. An operation that this
//! table does not know fails the test.

use std::collections::BTreeSet;

use berth_http::openapi;
use http::Method;
use item_management::api;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{ADMIN, AUDITOR, Answer, CLERK, CUSTOMER, Who, World, an_item};

const DOCUMENTS_FOR_CUSTOMER: Who = Who::DocumentsFor("customer");
const DOCUMENTS_FOR_AUDITOR: Who = Who::DocumentsFor("auditor");
/// Everybody who shows a token that this service accepts.
const CALLERS: [Who; 9] = [
    CUSTOMER,
    CLERK,
    AUDITOR,
    ADMIN,
    Who::Mallory,
    Who::SignedInOnly,
    DOCUMENTS_FOR_CUSTOMER,
    DOCUMENTS_FOR_AUDITOR,
    Who::Documents,
];

/// What an operation answers to whom.
struct Rule {
    operation: &'static str,
    body: fn() -> Value,
    /// Its answer to those who may.
    success: u16,
    /// Those who may; what the others get follows.
    permitted: &'static [Who],
    /// Those who are told that they may not. To all others the thing does not exist.
    forbidden: &'static [Who],
}

fn nothing() -> Value {
    Value::Null
}

/// eshop-documents on behalf of a user may do what the user may, except that only it gets quotes.
const RULES: &[Rule] = &[
    Rule {
        operation: "list_items",
        body: nothing,
        success: 200,
        permitted: &[CUSTOMER, CLERK, AUDITOR, ADMIN, DOCUMENTS_FOR_CUSTOMER, DOCUMENTS_FOR_AUDITOR],
        forbidden: &[Who::Mallory, Who::SignedInOnly, Who::Documents],
    },
    Rule {
        operation: "create_item",
        body: || an_item(&Uuid::now_v7().to_string(), 1),
        success: 201,
        permitted: &[CLERK, ADMIN],
        forbidden: &[
            CUSTOMER,
            AUDITOR,
            Who::Mallory,
            Who::SignedInOnly,
            DOCUMENTS_FOR_CUSTOMER,
            DOCUMENTS_FOR_AUDITOR,
            Who::Documents,
        ],
    },
    Rule {
        operation: "view_item",
        body: nothing,
        success: 200,
        permitted: &[CUSTOMER, CLERK, AUDITOR, ADMIN, DOCUMENTS_FOR_CUSTOMER, DOCUMENTS_FOR_AUDITOR],
        forbidden: &[],
    },
    Rule {
        operation: "update_item",
        body: || json!({"name": "New"}),
        success: 200,
        permitted: &[CLERK, ADMIN],
        forbidden: &[CUSTOMER, AUDITOR, DOCUMENTS_FOR_CUSTOMER, DOCUMENTS_FOR_AUDITOR],
    },
    Rule {
        operation: "delete_item",
        body: nothing,
        success: 204,
        permitted: &[CLERK, ADMIN],
        forbidden: &[CUSTOMER, AUDITOR, DOCUMENTS_FOR_CUSTOMER, DOCUMENTS_FOR_AUDITOR],
    },
    Rule {
        operation: "list_stock_adjustments",
        body: nothing,
        success: 200,
        permitted: &[CLERK, AUDITOR, ADMIN, DOCUMENTS_FOR_AUDITOR],
        forbidden: &[],
    },
    Rule {
        operation: "adjust_stock",
        body: || json!({"change": 1, "reason": "found"}),
        success: 201,
        permitted: &[CLERK, ADMIN],
        forbidden: &[CUSTOMER, AUDITOR, DOCUMENTS_FOR_CUSTOMER, DOCUMENTS_FOR_AUDITOR],
    },
    Rule {
        operation: "list_reservations",
        body: nothing,
        success: 200,
        permitted: &[CLERK, AUDITOR, ADMIN, DOCUMENTS_FOR_AUDITOR],
        forbidden: &[],
    },
    Rule {
        operation: "quote",
        body: || json!({"lines": [{"item_id": Uuid::nil(), "quantity": 1}]}),
        success: 200,
        permitted: &[DOCUMENTS_FOR_CUSTOMER, Who::Documents],
        forbidden: &[],
    },
];

impl Rule {
    fn answer_to(&self, who: Who) -> u16 {
        if self.permitted.contains(&who) {
            self.success
        } else if self.forbidden.contains(&who) {
            403
        } else {
            404
        }
    }

    async fn try_it(&self, world: &World, who: Who, method: &Method, path: &str) -> Answer {
        let item = world.item(&Uuid::now_v7().to_string(), 5).await;
        let path = path.replace("{id}", &item.id.to_string());
        let call = world.call(who, method.clone(), path).if_match("*");
        match (self.body)() {
            Value::Null => call.send().await,
            body => call.json(&body).send().await,
        }
    }
}

#[tokio::test]
async fn every_operation_is_authorized() {
    let world = World::new().await;
    let mut unused: BTreeSet<&str> = RULES.iter().map(|rule| rule.operation).collect();
    for operation in openapi::operations(&api::document()) {
        let rule = RULES.iter().find(|rule| rule.operation == operation.id);
        let rule = rule.unwrap_or_else(|| panic!("{operation:?} has no rule: say who may do it"));
        unused.remove(rule.operation);
        let answer = rule.try_it(&world, Who::Nobody, &operation.method, &operation.path).await;
        answer.problem(401, "unauthenticated");
        for who in CALLERS {
            let answer = rule.try_it(&world, who, &operation.method, &operation.path).await;
            assert_eq!(answer.status.as_u16(), rule.answer_to(who), "{} by {who:?}: {:#}", rule.operation, answer.body);
        }
    }
    assert!(unused.is_empty(), "rules for operations that do not exist: {unused:?}");
}

/// What is refused leaves nothing behind, and says nothing about what exists.
#[tokio::test]
async fn a_refusal_writes_nothing_and_reveals_nothing() {
    let world = World::new().await;
    let item = world.item("A", 5).await;
    let rows = world.rows().await;
    for path in [format!("/items/{}", item.id), format!("/items/{}/reservations", item.id)] {
        let there = world.get(Who::Mallory, &path).send().await.problem(404, "not-found");
        let not_there =
            world.get(Who::Mallory, path.replace(&item.id.to_string(), &Uuid::nil().to_string())).send().await;
        assert_eq!(there.body["detail"], not_there.problem(404, "not-found").body["detail"]);
    }
    // Who may not, is told so before anything else about the request.
    world.call(CUSTOMER, Method::POST, "/items").body("{").send().await.problem(403, "forbidden");
    world.call(CUSTOMER, Method::DELETE, format!("/items/{}", item.id)).send().await.problem(403, "forbidden");
    assert_eq!((world.rows().await, world.stock(item.id).await), (rows, (5, 0)));
}
