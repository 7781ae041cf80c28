use std::{fmt, str::FromStr, sync::Arc};

use rustls_pki_types::{CertificateDer, ServerName};

use crate::TlsError;

/// The name of a workload: `spiffe://<trust domain>/<name>`, with exactly one path segment.
///
/// Follows the [SPIFFE ID specification](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md), §2:
/// lower-case trust domain, no port, no user, no query, no percent-encoding. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId(Arc<str>);

/// Why a text is no SPIFFE ID of a mesh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpiffeId {
    /// It does not start with `spiffe://`.
    #[error("{0:?} does not start with spiffe://")]
    Scheme(String),
    /// The trust domain is empty, too long or has a character it must not have.
    #[error("trust domain {0:?}: 1 to 255 of a-z 0-9 . - _ are allowed")]
    Domain(String),
    /// The name is empty, too long, `.` or `..`, has a character it must not have, or is a path of several segments.
    #[error("name {0:?}: one segment of 1 to 255 of A-Z a-z 0-9 . - _ is allowed")]
    Name(String),
    /// A certificate must name exactly one workload (SPIFFE X.509-SVID, §2).
    #[error("a certificate needs exactly one URI name, this one has {0}")]
    Count(usize),
}

const SCHEME: &str = "spiffe://";

impl SpiffeId {
    /// The workload `name` of the mesh `domain`.
    ///
    /// # Errors
    /// When either holds a character that the specification does not allow.
    pub fn new(domain: &str, name: &str) -> Result<Self, InvalidSpiffeId> {
        let domain_ok = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        if domain.is_empty() || domain.len() > 255 || !domain.bytes().all(domain_ok) {
            return Err(InvalidSpiffeId::Domain(domain.to_owned()));
        }
        let name_ok = |byte: u8| domain_ok(byte) || byte.is_ascii_uppercase();
        if name.is_empty() || name.len() > 255 || matches!(name, "." | "..") || !name.bytes().all(name_ok) {
            return Err(InvalidSpiffeId::Name(name.to_owned()));
        }
        Ok(Self(format!("{SCHEME}{domain}/{name}").into()))
    }

    /// The whole URI.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain, such as `eshop.internal`.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.parts().0
    }

    /// The workload's name, such as `item-management`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.parts().1
    }

    fn parts(&self) -> (&str, &str) {
        self.0.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/')).unwrap_or_default()
    }

    /// What a client of this workload says in the TLS handshake (SNI): `<name>.<domain>`. It only helps whoever reads
    /// a packet trace; nothing is verified by it.
    #[must_use]
    pub fn server_name(&self) -> ServerName<'static> {
        let (domain, name) = self.parts();
        ServerName::try_from(format!("{name}.{domain}"))
            // A SPIFFE name may be what a DNS name must not: too long, or with a `_` at the wrong place.
            .unwrap_or_else(|_| ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()))
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| InvalidSpiffeId::Scheme(text.to_owned()))?;
        let (domain, name) = rest.split_once('/').ok_or_else(|| InvalidSpiffeId::Name(String::new()))?;
        Self::new(domain, name)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who a peer is, from the certificates it presented, leaf first. Only names: the chain has been verified by the
/// handshake.
///
/// # Errors
/// When there is no certificate, or its leaf does not carry exactly one SPIFFE ID.
pub fn peer_id(chain: &[CertificateDer<'_>]) -> Result<SpiffeId, TlsError> {
    let leaf = chain.first().ok_or_else(|| TlsError::Certificate("no certificate was presented".to_owned()))?;
    let leaf = webpki::EndEntityCert::try_from(leaf).map_err(|error| TlsError::Certificate(error.to_string()))?;
    let mut names = leaf.valid_uri_names();
    match (names.next(), names.count()) {
        (Some(only), 0) => Ok(only.parse()?),
        (first, more) => Err(InvalidSpiffeId::Count(usize::from(first.is_some()) + more).into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_spiffe_id_takes_what_the_specification_allows_and_nothing_else() {
        let id: SpiffeId = "spiffe://eshop.internal/item-management".parse().unwrap();
        assert_eq!((id.domain(), id.name()), ("eshop.internal", "item-management"));
        assert_eq!(id.to_string(), "spiffe://eshop.internal/item-management");

        for wrong in [
            "",
            "eshop.internal/gateway",
            "https://eshop.internal/gateway",
            "SPIFFE://eshop.internal/gateway",
            "spiffe://",
            "spiffe:///gateway",
            "spiffe://eshop.internal",
            "spiffe://eshop.internal/",
            "spiffe://eshop.internal/gateway/",
            "spiffe://eshop.internal//gateway",
            "spiffe://eshop.internal/ns/gateway",
            "spiffe://eshop.internal/.",
            "spiffe://eshop.internal/..",
            "spiffe://Eshop.internal/gateway",
            "spiffe://eshop.internal:443/gateway",
            "spiffe://user@eshop.internal/gateway",
            "spiffe://eshop.internal/gate%77ay",
            "spiffe://eshop.internal/gateway?x=1",
            "spiffe://eshop.internal/gateway#x",
            "spiffe://eshop.internal/gätéway",
        ] {
            assert!(wrong.parse::<SpiffeId>().is_err(), "{wrong:?} was taken");
        }
    }

    proptest! {
        #[test]
        fn what_parses_is_written_back_unchanged(text in "(spiffe://)?[a-zA-Z0-9./_%-]{0,40}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.as_str(), text.as_str());
                prop_assert_eq!(SpiffeId::new(id.domain(), id.name()).unwrap(), id);
            }
        }
    }
}
