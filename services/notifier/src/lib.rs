//! Webhooks: subscribers outside the mesh are told of events, signed, until they have heard.
//!
//! The service consumes events, finds who subscribed to them and may see them, and posts each to where the subscriber wants it, as
//! [Standard Webhooks](https://www.standardwebhooks.com) say, again and again at growing intervals. It goes only where it may:
//! to public addresses over TLS, unless the mesh says otherwise. `docs/notifier.md` is for subscribers and operators.
//!
//! [`domain`] holds the rules, [`reach`] which addresses may be reached, [`signature`] how a message is signed, [`store`] every SQL
//! statement, [`api`] HTTP in, [`sender`] HTTP out, [`deliveries`] when what is sent, [`messages`] what is consumed and emitted.

pub mod api;
pub mod deliveries;
pub mod domain;
pub mod messages;
pub mod reach;
pub mod sender;
pub mod signature;
pub mod store;
