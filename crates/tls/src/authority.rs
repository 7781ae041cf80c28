//! The mesh's certificate authority: makes the certificates that the rest of this crate loads.
//!
//! Used by whoever creates credentials, and by tests. Keys are ECDSA P-256 in PKCS#8, held in memory that is wiped
//! when it is dropped.

use std::{
    fmt,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use zeroize::Zeroizing;

use crate::{InvalidSpiffeId, SpiffeId, TlsError};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const AUTHORITY_VALIDITY: Duration = DAY.saturating_mul(3650);
/// What browsers take at most for a certificate of a public name.
const LEAF_VALIDITY: Duration = DAY.saturating_mul(397);
/// Clocks differ: a certificate's validity begins a little before it is made.
const BACKDATED: Duration = Duration::from_secs(60 * 60);

/// A certificate with its private key.
pub struct Leaf {
    /// The certificate, PEM.
    pub cert_pem: String,
    /// The private key, PKCS#8 in PEM.
    pub key_pem: Zeroizing<String>,
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// The authority of one mesh, which is one SPIFFE trust domain.
pub struct Authority {
    domain: String,
    cert_pem: String,
    key_pem: Zeroizing<String>,
    issuer: Issuer<'static, KeyPair>,
    leaf_validity: Duration,
}

impl Authority {
    /// A new authority, with a new key, valid for ten years.
    ///
    /// # Errors
    /// When `domain` is no SPIFFE trust domain, or the system gives no randomness.
    pub fn create(domain: &str) -> Result<Self, TlsError> {
        // The authority's own certificate names the trust domain alone (SPIFFE X.509-SVID, §3.2).
        SpiffeId::new(domain, "authority")?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = valid_for(AUTHORITY_VALIDITY);
        params.distinguished_name = common_name(&format!("{domain} mesh authority"));
        params.subject_alt_names = vec![uri(&format!("spiffe://{domain}"))?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert_pem = params.self_signed(&key)?.pem();
        let key_pem = Zeroizing::new(key.serialize_pem());
        let issuer = Issuer::new(params, key);
        Ok(Self { domain: domain.to_owned(), cert_pem, key_pem, issuer, leaf_validity: LEAF_VALIDITY })
    }

    /// The authority made earlier by [`create`](Self::create).
    ///
    /// # Errors
    /// When either text is malformed, the key is not the certificate's, or the certificate names no trust domain.
    pub fn load(cert_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        crate::pem::certified_key(
            &rustls::crypto::aws_lc_rs::default_provider(),
            ("mesh-ca.pem", cert_pem.as_bytes()),
            ("mesh-ca-key.pem", key_pem.as_bytes()),
        )?;
        let issuer = Issuer::from_ca_cert_pem(cert_pem, KeyPair::from_pem(key_pem)?)?;
        Ok(Self {
            domain: trust_domain(cert_pem)?,
            cert_pem: cert_pem.to_owned(),
            key_pem: Zeroizing::new(key_pem.to_owned()),
            issuer,
            leaf_validity: LEAF_VALIDITY,
        })
    }

    /// Makes certificates issued from now on valid for this long instead of 397 days, counted from an hour ago.
    #[must_use]
    pub fn with_leaf_validity(mut self, validity: Duration) -> Self {
        self.leaf_validity = validity;
        self
    }

    /// A certificate for the workload `name`: one SPIFFE ID, the name as common name (for PostgreSQL's certificate
    /// mapping), good for both sides of a connection.
    ///
    /// # Errors
    /// When `name` cannot stand in a SPIFFE ID, or the system gives no randomness.
    pub fn issue(&self, name: &str) -> Result<Leaf, TlsError> {
        let id = SpiffeId::new(&self.domain, name)?;
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(name, vec![uri(id.as_str())?], usages)
    }

    /// A certificate for the public listener, by host names and addresses. It carries no SPIFFE ID: nobody can enter the
    /// mesh with it.
    ///
    /// # Errors
    /// When neither a name nor an address is given, a name is no DNS name, or the system gives no randomness.
    pub fn issue_public(&self, dns_names: &[&str], addresses: &[IpAddr]) -> Result<Leaf, TlsError> {
        let mut names = Vec::with_capacity(dns_names.len() + addresses.len());
        for name in dns_names {
            names.push(SanType::DnsName((*name).try_into()?));
        }
        names.extend(addresses.iter().copied().map(SanType::IpAddress));
        let first = dns_names.first().map(ToString::to_string).or_else(|| addresses.first().map(ToString::to_string));
        let first = first.ok_or_else(|| TlsError::Certificate("a public certificate needs a name".to_owned()))?;
        self.sign(&first, names, vec![ExtendedKeyUsagePurpose::ServerAuth])
    }

    /// Whether a certificate made by [`issue`](Self::issue) or [`issue_public`](Self::issue_public) is this authority's, and still valid
    /// at `time`.
    #[must_use]
    pub fn vouches_for(&self, cert_pem: &str, time: SystemTime) -> bool {
        let Ok(since_epoch) = time.duration_since(SystemTime::UNIX_EPOCH) else { return false };
        let read = |pem: &str| crate::pem::certificates("certificate", pem.as_bytes());
        let (Ok(ours), Ok(theirs)) = (read(&self.cert_pem), read(cert_pem)) else { return false };
        let (Some(ours), Some(theirs)) = (ours.first(), theirs.first()) else { return false };
        let (Ok(anchor), Ok(leaf)) = (webpki::anchor_from_trusted_cert(ours), webpki::EndEntityCert::try_from(theirs))
        else {
            return false;
        };
        let at = rustls_pki_types::UnixTime::since_unix_epoch(since_epoch);
        let usage = webpki::KeyUsage::server_auth();
        leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &[anchor], &[], at, usage, None, None).is_ok()
    }

    /// The authority's certificate, PEM: what goes into `mesh-ca.pem`.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The authority's private key, PKCS#8 in PEM. Keep it where no service can read it.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The trust domain.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    fn sign(&self, name: &str, san: Vec<SanType>, usages: Vec<ExtendedKeyUsagePurpose>) -> Result<Leaf, TlsError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = valid_for(self.leaf_validity);
        params.distinguished_name = common_name(name);
        params.subject_alt_names = san;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        // Tells two authorities of the same name apart while one replaces the other.
        params.use_authority_key_identifier_extension = true;
        let cert_pem = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Leaf { cert_pem, key_pem: Zeroizing::new(key.serialize_pem()) })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("domain", &self.domain).finish_non_exhaustive()
    }
}

fn valid_for(validity: Duration) -> CertificateParams {
    let from = SystemTime::now() - BACKDATED;
    let mut params = CertificateParams::default();
    params.not_before = from.into();
    params.not_after = (from + validity).into();
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    // The upper bound of a common name (RFC 5280, appendix A.1).
    distinguished.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    distinguished
}

fn uri(text: &str) -> Result<SanType, TlsError> {
    Ok(SanType::URI(text.try_into()?))
}

fn trust_domain(cert_pem: &str) -> Result<String, TlsError> {
    let certificates = crate::pem::certificates("mesh-ca.pem", cert_pem.as_bytes())?;
    let certificate = certificates.first().ok_or(TlsError::Certificate("empty".to_owned()))?;
    let certificate =
        webpki::EndEntityCert::try_from(certificate).map_err(|error| TlsError::Certificate(error.to_string()))?;
    let mut names = certificate.valid_uri_names();
    let domain = names.next().and_then(|name| name.strip_prefix("spiffe://"));
    domain.map(str::to_owned).ok_or_else(|| InvalidSpiffeId::Count(0).into())
}
