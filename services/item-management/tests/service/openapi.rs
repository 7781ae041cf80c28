//! The OpenAPI and the AsyncAPI document: committed, and complete in themselves.

use berth_http::openapi;
use item_management::{api, messages};
use serde_json::Value;

#[test]
fn the_committed_document_is_the_one_served() {
    openapi::assert_committed(&api::document(), "openapi/item-management.json");
}

#[test]
fn the_committed_events_are_the_emitted_ones() {
    openapi::assert_committed(&messages::described().document(), "asyncapi/item-management.json");
}

#[test]
fn every_reference_leads_somewhere() {
    leads_somewhere(&serde_json::to_value(api::document()).unwrap());
    leads_somewhere(&messages::described().document());
}

fn leads_somewhere(document: &Value) {
    let (mut references, mut rest) = (Vec::new(), vec![document]);
    while let Some(value) = rest.pop() {
        match value {
            Value::Object(members) => {
                references.extend(members.get("$ref").and_then(Value::as_str));
                rest.extend(members.values());
            }
            Value::Array(values) => rest.extend(values),
            _ => {}
        }
    }
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}
