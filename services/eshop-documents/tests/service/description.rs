//! The committed documents are what the service serves and emits.

use eshop_documents::{api, messages};

#[test]
fn the_committed_description_is_the_served_one() {
    berth_http::openapi::assert_committed(&api::openapi(), "openapi/eshop-documents.json");
}

#[test]
fn the_committed_events_are_the_emitted_ones() {
    berth_http::openapi::assert_committed(&messages::described().document(), "asyncapi/eshop-documents.json");
}
