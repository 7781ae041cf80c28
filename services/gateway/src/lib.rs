//! The one way into the mesh: terminates TLS, knows who is asking, and passes the request to an instance that is up.
//!
//! A request goes through [`listener`] (connection, protocol, bounds), `proxy` (the request itself: host, [path], route,
//! token, headers, body) and [`berth_http::upstream`] (instances). What the plan says stands in `state`, which a reload
//! replaces as a whole; the rooms beside these hold one concern each.
//!
//! It decides who somebody is, never what they may do: that is for each service. It keeps nothing but caches.

mod access_log;
mod body;
mod clients;
mod framing;
mod headers;
mod jwks;
pub mod listener;
mod metrics;
pub mod path;
mod proxy;
mod reload;
mod state;
mod tokens;

pub use access_log::AccessLog;
pub use metrics::GatewayMetrics;
pub use proxy::Gateway;
pub use reload::{ReadError, Reloadable, read as read_plan};
pub use state::{Means, PlanError};
