use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use runtime::credentials::Credentials;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs::default_provider, verify_tls12_signature,
        verify_tls13_signature,
    },
    server::{
        ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{SpiffeId, TlsError, install_provider, peer_id, pem};

const CERTIFICATE: &str = "tls-cert.pem";
const KEY: &str = "tls-key.pem";
const AUTHORITIES: &str = "mesh-ca.pem";

/// A process's own identity in the mesh: its certificate, its key, and the authorities it trusts.
///
/// The configurations it hands out look into it at each handshake, so that they need not be made anew after
/// [`reload`](Self::reload). Sessions are never resumed: a resumed one would be verified by what was valid when it
/// began, and connections inside the mesh live long enough for a full handshake to cost nothing.
pub struct Identity {
    id: SpiffeId,
    credentials: Credentials,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    current: ArcSwap<Material>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// What the credential files held when they were last read.
#[derive(Debug)]
struct Material {
    own: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl Identity {
    /// Reads `tls-cert.pem` (leaf first), `tls-key.pem` (PKCS#8) and `mesh-ca.pem` (one authority, or several while one
    /// is replaced) and checks them against each other, so that a mistake shows at the start and not at the first
    /// request.
    ///
    /// # Errors
    /// When a file is missing or malformed, the key is not the certificate's, the certificate is expired or not issued
    /// by one of the authorities, or its SPIFFE ID does not belong to `domain`.
    pub fn load(credentials: &Credentials, domain: &str) -> Result<Arc<Self>, TlsError> {
        install_provider();
        let provider = default_provider();
        let (id, material) = read(credentials, &provider)?;
        if id.domain() != domain {
            return Err(TlsError::Domain { found: id, domain: domain.to_owned() });
        }
        let algorithms = provider.signature_verification_algorithms;
        let shared = Arc::new(Shared { current: ArcSwap::from_pointee(material), algorithms });
        Ok(Arc::new(Self { id, credentials: credentials.clone(), shared }))
    }

    /// Reads the files again: handshakes from now on use them.
    ///
    /// # Errors
    /// As [`load`](Self::load), and when the new certificate names another workload. The old files stay in use then.
    pub fn reload(&self) -> Result<(), TlsError> {
        let (found, material) = read(&self.credentials, &default_provider())?;
        if found != self.id {
            return Err(TlsError::Changed { own: self.id.clone(), found });
        }
        self.shared.current.store(Arc::new(material));
        Ok(())
    }

    /// Who this process is.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// For a listener inside the mesh: TLS 1.3, and the client must present a certificate of this mesh. Who exactly may
    /// do what is for the service to decide, by [`peer_id`]. `alpn` are protocol names, most wanted first.
    #[must_use]
    pub fn server_config(&self, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        let verifier = VerifyClient { shared: Arc::clone(&self.shared), domain: self.id.clone() };
        let mut config = ServerConfig::builder_with_protocol_versions(&[&TLS13])
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(PresentOwn(Arc::clone(&self.shared))));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = owned(alpn);
        Arc::new(config)
    }

    /// For connections to the workload `expect` and nobody else, presenting our own certificate. The server name that
    /// rustls asks for has no meaning here; [`SpiffeId::server_name`] gives one.
    #[must_use]
    pub fn client_config(&self, expect: SpiffeId, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let verifier = VerifyServer { shared: Arc::clone(&self.shared), expect };
        let mut config = ClientConfig::builder_with_protocol_versions(&[&TLS13])
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(PresentOwn(Arc::clone(&self.shared))));
        config.resumption = Resumption::disabled();
        config.alpn_protocols = owned(alpn);
        Arc::new(config)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("id", &self.id).finish_non_exhaustive()
    }
}

fn owned(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}

fn read(credentials: &Credentials, provider: &CryptoProvider) -> Result<(SpiffeId, Material), TlsError> {
    let (certificate, key) = (credentials.read(CERTIFICATE)?, credentials.read(KEY)?);
    let own = pem::certified_key(provider, (CERTIFICATE, certificate.expose()), (KEY, key.expose()))?;

    let mut roots = RootCertStore::empty();
    for authority in pem::certificates(AUTHORITIES, credentials.read(AUTHORITIES)?.expose())? {
        roots.add(authority).map_err(TlsError::TrustAnchor)?;
    }
    let roots = Arc::new(roots);

    let id = peer_id(&own.cert)?;
    chain(&own.cert, &roots, UnixTime::now(), provider.signature_verification_algorithms).map_err(TlsError::Refused)?;
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::new(provider.clone()))
        .build()
        .map_err(|error| TlsError::TrustAnchor(Error::General(error.to_string())))?;
    Ok((id, Material { own, roots, clients }))
}

/// Verifies a server's chain, leaf first, without looking at names.
fn chain(
    certificates: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: UnixTime,
    algorithms: WebPkiSupportedAlgorithms,
) -> Result<(), Error> {
    let (leaf, intermediates) = certificates.split_first().ok_or(Error::NoCertificatesPresented)?;
    let leaf = ParsedCertificate::try_from(leaf)?;
    verify_server_cert_signed_by_trust_anchor(&leaf, roots, intermediates, now, algorithms.all)
}

/// Presents our certificate, on whichever side of the connection we are.
#[derive(Debug)]
struct PresentOwn(Arc<Shared>);

impl ResolvesServerCert for PresentOwn {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.current.load().own))
    }
}

impl ResolvesClientCert for PresentOwn {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.current.load().own))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Takes a server that is the expected workload of the mesh.
#[derive(Debug)]
struct VerifyServer {
    shared: Arc<Shared>,
    expect: SpiffeId,
}

impl ServerCertVerifier for VerifyServer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let roots = Arc::clone(&self.shared.current.load().roots);
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, intermediates, now, self.shared.algorithms.all)?;
        let found = spiffe_of(leaf)?;
        if found == self.expect {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::General(format!("the server is {found}, not {}", self.expect)))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.shared.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.shared.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.shared.algorithms.supported_schemes()
    }
}

/// Takes any workload of the mesh as a client.
#[derive(Debug)]
struct VerifyClient {
    shared: Arc<Shared>,
    /// Our own ID: a client's must be of the same trust domain.
    domain: SpiffeId,
}

impl ClientCertVerifier for VerifyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let clients = Arc::clone(&self.shared.current.load().clients);
        let verified = clients.verify_client_cert(leaf, intermediates, now)?;
        let found = spiffe_of(leaf)?;
        if found.domain() == self.domain.domain() {
            Ok(verified)
        } else {
            Err(Error::General(format!("the client {found} is not of this mesh, {}", self.domain.domain())))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.shared.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.shared.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.shared.algorithms.supported_schemes()
    }
}

fn spiffe_of(leaf: &CertificateDer<'_>) -> Result<SpiffeId, Error> {
    peer_id(std::slice::from_ref(leaf))
        .map_err(|_| Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
}
