//! Who a process of the mesh is, and how it proves it: X.509 identities by SPIFFE ID, mutual TLS between
//! services, and the certificate of the public listener.
//!
//! Here live: [`SpiffeId`], a process's own [`Identity`] with the rustls configurations made from it, the
//! [`PublicCertificate`] that the outside world sees, and (feature `authority`) the [`authority`] that issues
//! all of these. Here lives no I/O but reading credential files: whoever listens or connects does so elsewhere,
//! with the configurations from here.
//!
//! Peers are verified by their chain to the mesh's CA and by their SPIFFE ID, never by a host name: certificates
//! therefore do not depend on addresses, and an instance may move or be added without a new one.
//!
//! Everything that can be rotated is read again by `reload`, behind the same `Arc`: configurations handed out
//! earlier use the new files from the next handshake on, and a broken file leaves the old ones in use.

#[cfg(feature = "authority")]
pub mod authority;
mod error;
mod identity;
mod pem;
mod public;
mod spiffe;

pub use error::TlsError;
pub use identity::Identity;
pub use public::PublicCertificate;
pub use spiffe::{InvalidSpiffeId, SpiffeId, peer_id};

/// Makes aws-lc-rs the process's cryptographic provider. Every constructor of this crate calls it; call it first
/// thing in a `main` whose other libraries build rustls configurations. Doing it again does nothing.
pub fn install_provider() {
    // An error says that a provider is installed already, and aws-lc-rs is the only one that is compiled in.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
