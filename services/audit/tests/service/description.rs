//! The committed documents are what the service does.

use audit::{api, messages};

#[test]
fn the_committed_description_is_the_served_one() {
    berth_http::openapi::assert_committed(&api::document(), "openapi/audit.json");
}

#[test]
fn the_committed_events_are_the_emitted_ones() {
    berth_http::openapi::assert_committed(&messages::described().document(), "asyncapi/audit.json");
}
