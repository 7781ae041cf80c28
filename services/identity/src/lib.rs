//! The mesh's own OpenID provider, for a system that has no other: users sign in here, programs prove themselves here, and
//! both get the access tokens that the gateway verifies.
//!
//! It speaks OpenID Connect Core (code flow with PKCE alone), OAuth 2.0 under the security best practice of RFC 9700, and
//! nothing of its own: any certified provider takes its place by configuration. Requests come in [`api`]; the rules are
//! in [`domain`], who may do what in `policy.cedar` ([`policy`]), all SQL in [`store`]. Not here: registration of users, password recovery, consent, federation.

pub mod api;
pub mod bootstrap;
pub mod domain;
pub mod grants;
pub mod keyring;
pub mod logins;
mod metrics;
pub mod passwords;
pub mod policy;
pub mod secrets;
pub mod store;
pub mod tokens;
