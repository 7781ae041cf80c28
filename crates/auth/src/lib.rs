//! Who is calling, and what they may do.
//!
//! Here live the [`Principal`], the two verifiers that make one from a token ([`access`] for what comes from outside,
//! [`internal`] for what one service hands another), the minting of internal tokens, and the [`cedar`] authorizer every
//! handler asks. What was [refused](refusals) is gathered for the audit, secrets that a service keeps are [sealed](seal). The compact JWS form, its algorithms and key sets stand once in [`jws`].
//!
//! What does not live here: issuing access tokens to people (the identity service), fetching an issuer's documents (the
//! gateway hands in a [`access::JwksSource`]), sessions, passwords.

pub mod access;
mod cache;
pub mod cedar;
mod claims;
mod error;
pub mod internal;
pub mod jws;
mod principal;
pub mod refusals;
pub mod seal;
#[cfg(feature = "testing")]
pub mod testing;
pub mod web;

pub use error::TokenError;
pub use principal::{Kind, Principal};

/// The longest token that is looked at, in bytes. Anything longer is refused before a single byte of it is parsed.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;
