//! The committed OpenAPI document is what the service serves.

use eshop_documents::api;

#[test]
fn the_committed_description_is_the_served_one() {
    berth_http::openapi::assert_committed(&api::openapi(), "openapi/eshop-documents.json");
}
