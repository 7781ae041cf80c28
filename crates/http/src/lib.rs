//! The mesh's HTTP conventions, once for all services: RFC 9457 [problems](problem), [extractors](extract) whose
//! rejections name the field, [entity tags](etag) and [pages](page), [health], the mutual-TLS [server] with its limits, the
//! [upstream] that balances over a service's instances and the [client] that calls through it, and the helpers that keep [OpenAPI documents](openapi) true.
//!
//! No service's own types or rules live here, and no authorization: that is `auth`.

pub mod client;
pub mod etag;
pub mod extract;
pub mod health;
pub mod openapi;
pub mod page;
pub mod problem;
pub mod server;
#[cfg(feature = "testing")]
pub mod testing;
pub mod upstream;
