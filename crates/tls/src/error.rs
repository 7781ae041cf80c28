use runtime::credentials::CredentialError;

use crate::{InvalidSpiffeId, SpiffeId};

/// Why an identity or a certificate could not be used. The text names the file and the mend.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A credential file is missing or unreadable.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// A file that should hold PEM does not hold what is expected of it.
    #[error("{file}: no usable {expected}: {reason}")]
    Pem {
        /// Name of the credential.
        file: &'static str,
        /// What should stand in it.
        expected: &'static str,
        /// What the parser met.
        reason: rustls_pki_types::pem::Error,
    },
    /// The private key is of an unknown kind or belongs to another certificate.
    #[error("{key_file} does not fit {certificate_file}: {reason}; issue both anew")]
    KeyMismatch {
        /// Name of the certificate's credential.
        certificate_file: &'static str,
        /// Name of the key's credential.
        key_file: &'static str,
        /// What rustls says.
        reason: rustls::Error,
    },
    /// A certificate authority's certificate cannot be a trust anchor.
    #[error("mesh-ca.pem: not a certificate authority that can be trusted: {0}")]
    TrustAnchor(rustls::Error),
    /// Our own certificate is one that our peers would refuse.
    #[error("tls-cert.pem would be refused by every peer: {0}; issue it anew")]
    Refused(rustls::Error),
    /// A certificate that is no certificate.
    #[error("unreadable certificate: {0}")]
    Certificate(String),
    /// A certificate without exactly one well-formed SPIFFE ID.
    #[error("the certificate carries no usable SPIFFE ID: {0}")]
    Spiffe(#[from] InvalidSpiffeId),
    /// A certificate for another mesh.
    #[error("tls-cert.pem belongs to {found}, but this mesh is {domain}")]
    Domain {
        /// The identity in the certificate.
        found: SpiffeId,
        /// The trust domain that was asked for.
        domain: String,
    },
    /// A reload that would turn the process into somebody else.
    #[error("tls-cert.pem now belongs to {found} and no longer to {own}: put the right file back")]
    Changed {
        /// Who the process is.
        own: SpiffeId,
        /// Whom the new certificate names.
        found: SpiffeId,
    },
    /// No key for session tickets.
    #[error("no randomness for the key of session tickets: {0}")]
    Tickets(rustls::Error),
    /// Issuing failed.
    #[cfg(feature = "authority")]
    #[error("the certificate could not be issued: {0}")]
    Issue(#[from] rcgen::Error),
}
