//! The OpenAPI document: committed, and complete in itself.

use berth_http::openapi;
use item_management::api;
use serde_json::Value;

#[test]
fn the_committed_document_is_the_one_served() {
    openapi::assert_committed(&api::document(), "openapi/item-management.json");
}

#[test]
fn every_reference_leads_somewhere() {
    let document = serde_json::to_value(api::document()).unwrap();
    let (mut references, mut rest) = (Vec::new(), vec![&document]);
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
