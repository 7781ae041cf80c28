use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use runtime::credentials::Credentials;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::{Ticketer, default_provider},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use crate::{TlsError, install_provider, pem};

const CERTIFICATE: &str = "public-cert.pem";
const KEY: &str = "public-key.pem";

/// The certificate that clients outside the mesh see: `public-cert.pem` (leaf first, with intermediates) and
/// `public-key.pem`.
pub struct PublicCertificate {
    credentials: Credentials,
    current: Arc<Current>,
}

#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl PublicCertificate {
    /// Reads both files.
    ///
    /// # Errors
    /// When one is missing or malformed, or the key is not the certificate's.
    pub fn load(credentials: &Credentials) -> Result<Arc<Self>, TlsError> {
        install_provider();
        let current = Arc::new(Current(ArcSwap::new(read(credentials)?)));
        Ok(Arc::new(Self { credentials: credentials.clone(), current }))
    }

    /// Reads both files again: handshakes from now on present the new certificate.
    ///
    /// # Errors
    /// As [`load`](Self::load); the old certificate stays in use then.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.0.store(read(&self.credentials)?);
        Ok(())
    }

    /// For a public listener: TLS 1.3 and 1.2, no client certificates, sessions resumed by tickets whose key is rotated
    /// and never leaves the process; no early data, because that can be replayed. `alpn` are protocol names, most wanted
    /// first.
    ///
    /// # Errors
    /// When the system gives no randomness for the tickets' key.
    pub fn server_config(&self, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Current>::clone(&self.current);
        let mut config = ServerConfig::builder_with_protocol_versions(&[&TLS13, &TLS12])
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.ticketer = Ticketer::new().map_err(TlsError::Tickets)?;
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

impl fmt::Debug for PublicCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicCertificate").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn read(credentials: &Credentials) -> Result<Arc<CertifiedKey>, TlsError> {
    let (certificate, key) = (credentials.read(CERTIFICATE)?, credentials.read(KEY)?);
    pem::certified_key(&default_provider(), (CERTIFICATE, certificate.expose()), (KEY, key.expose()))
}
