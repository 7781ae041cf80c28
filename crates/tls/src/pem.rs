//! Reading PEM credentials, with errors that name the file.

use std::sync::Arc;

use rustls::{crypto::CryptoProvider, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _};

use crate::TlsError;

/// All certificates of `text`, in their order; at least one.
pub(crate) fn certificates(file: &'static str, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |reason| TlsError::Pem { file, expected: "certificate", reason };
    let all = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    if all.is_empty() { Err(wrong(pem::Error::NoItemsFound)) } else { Ok(all) }
}

/// A chain (leaf first) with its private key, which must belong to the leaf.
pub(crate) fn certified_key(
    provider: &CryptoProvider,
    (certificate_file, certificate): (&'static str, &[u8]),
    (key_file, key): (&'static str, &[u8]),
) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificates(certificate_file, certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|reason| TlsError::Pem {
        file: key_file,
        expected: "private key",
        reason,
    })?;
    CertifiedKey::from_der(chain, key, provider).map(Arc::new).map_err(|reason| TlsError::KeyMismatch {
        certificate_file,
        key_file,
        reason,
    })
}
